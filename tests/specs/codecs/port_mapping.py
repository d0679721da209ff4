"""Vectors of specs/port-mapping.md."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from p2pnet.connectivity.portmap.asking import NotSpoken
from p2pnet.connectivity.portmap.epoch import EpochOf
from p2pnet.connectivity.portmap.nat_pmp import messages as nat_pmp
from p2pnet.connectivity.portmap.pcp import messages as pcp
from p2pnet.connectivity.portmap.policy import plan
from p2pnet.connectivity.portmap.schedule import nat_pmp_waits, pcp_waits
from p2pnet.connectivity.portmap.upnp import description, soap, ssdp
from p2pnet.connectivity.portmap.upnp.urls import read_url
from p2pnet.core.addresses import parse
from p2pnet.errors import ProtocolError
from tests.specs.forms import Codec, Fields

ROUTER = "192.168.1.1"


def spoken(decode: Callable[[bytes], object]) -> Callable[[bytes], object]:
    """Decode, and say it where another protocol is spoken."""

    def tell(data: bytes) -> object:
        try:
            return decode(data)
        except NotSpoken as error:
            return {"not_spoken": str(error)}

    return tell


CODECS = {
    "NatPmp": Codec(spoken(nat_pmp.decode_untrusted), None),
    "Pcp": Codec(spoken(pcp.decode_untrusted), None),
}


def question(given: Fields) -> str:
    if given["question"] == "nat-pmp":
        return nat_pmp.encode_map_request(
            given["transport"],
            given["inside"],
            outside_port=given["outside"],
            seconds=given["seconds"],
        ).hex()
    request = pcp.MapRequest(
        given["own"],
        bytes.fromhex(given["nonce"]),
        given["transport"],
        given["inside"],
        given["outside"],
        given["wanted"],
        given["seconds"],
    )
    return pcp.encode_map(request).hex()


def waits(given: Fields) -> list[float]:
    if given["waits"] == "nat-pmp":
        return list(nat_pmp_waits(given["tries"]))
    part = given["part"]
    found = pcp_waits(given["tries"], lambda least, most: least + (most - least) * (1 + part) / 2)
    return [round(wait, 6) for wait in found]


def epochs(given: Fields) -> list[bool]:
    clock = EpochOf(given["epochs"])
    return [clock.began_anew(epoch, now) for now, epoch in given["told"]]


def search(given: Fields) -> list[str]:
    lines = ssdp.encode_search(given["search"]).decode().split("\r\n")
    assert lines[-2:] == ["", ""]
    return lines[:-2]


def found(given: Fields) -> str:
    data = "\r\n".join([*given["lines"], "", ""]).encode()
    return str(ssdp.decode_untrusted(data, given["found_by"]).location)


def urls(given: Fields) -> list[str]:
    return [str(read_url(text, base=given["base"], host=ROUTER)) for text in given["url"]]


def refused_urls(given: Fields) -> int:
    refused = 0
    for text in given["refused_urls"]:
        try:
            read_url(text, base=given["base"], host=ROUTER)
        except ProtocolError:
            refused += 1
    return refused


def services(given: Fields) -> list[list[str]]:
    at = read_url(given["at"], host=ROUTER)
    found = description.decode_untrusted(given["description"].encode(), at)
    return [[service.service_type, str(service.control)] for service in found]


def answered(given: Fields) -> dict[str, Any]:
    match soap.decode_untrusted(given["body"].encode(), given["call_answered"]):
        case soap.Fault(code, words):
            return {"code": code, "description": words}
        case values:
            return dict(values)


def planned(given: Fields) -> list[list[str]]:
    addresses = [parse(text) for text in given["plan_for"]]
    found = plan(addresses, given["interfaces"], given["gateways"], max_ports=16)
    return [
        [place.gateway, *(f"{target.inside} {target.transport}" for target in targets)]
        for place, targets in found.items()
    ]


FORMS = {
    "question": question,
    "waits": waits,
    "epochs": epochs,
    "search": search,
    "found_by": found,
    "url": urls,
    "refused_urls": refused_urls,
    "description": services,
    "call_answered": answered,
    "plan_for": planned,
}
