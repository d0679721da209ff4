"""UPnP-IGD: searched for, described, called; over a real NAT of the simulation."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pnet.core.addresses import Endpoint
from p2pnet.testing.portmap.settings import PortMapConfig
from tests.testing.portmap_client import (
    ANN,
    CONTROL,
    OUTSIDE,
    ROUTER,
    WAN_IP,
    WAN_IP_2,
    Gateway,
    mapping,
    post,
    read_http,
    search_for,
    soap,
)

GATEWAY = "urn:schemas-upnp-org:device:InternetGatewayDevice"
PPP = "urn:schemas-upnp-org:service:WANPPPConnection:1"
LINK = "urn:schemas-upnp-org:service:WANCommonInterfaceConfig:1"
FORWARDING = "urn:schemas-upnp-org:service:Layer3Forwarding:1"
SECOND = PortMapConfig(igd_version=2)


# ---- found -------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["upnp:rootdevice", f"{GATEWAY}:1", WAN_IP, LINK])
def test_a_search_finds_what_is_there(target: str) -> None:
    router = Gateway()
    (answer,) = router.server.search(search_for(target))
    lines = answer.decode().split("\r\n")
    assert lines[0] == "HTTP/1.1 200 OK"
    assert lines[-2:] == ["", ""]
    headers = dict(line.split(": ", 1) for line in lines[1:-2])
    assert headers["ST"] == target
    assert re.fullmatch(rf"uuid:[0-9a-f-]{{36}}::{target}", headers["USN"])
    assert headers["LOCATION"] == router.server.location
    assert headers["CACHE-CONTROL"] == "max-age=1800"
    assert headers["EXT"] == ""


@pytest.mark.parametrize("target", [f"{GATEWAY}:2", WAN_IP_2, PPP, "upnp:other", ""])
def test_a_search_for_what_is_not_there_gets_silence(target: str) -> None:
    assert not Gateway().found(target)


def test_a_device_of_version_2_is_found_as_version_1_too() -> None:
    router = Gateway(SECOND)
    for target in (f"{GATEWAY}:1", f"{GATEWAY}:2", WAN_IP, WAN_IP_2):
        assert router.found(target) == [target]


def test_a_router_behind_a_modem_offers_ppp_instead() -> None:
    router = Gateway(PortMapConfig(wan_ppp=True))
    assert router.found(PPP) == [PPP]
    assert not router.found(WAN_IP)


def test_a_search_for_all_finds_each_part_once() -> None:
    found = Gateway(SECOND).found("ssdp:all")
    assert len(found) == len(set(found)) == 10
    assert f"{GATEWAY}:2" in found
    assert f"{GATEWAY}:1" not in found
    assert len(Gateway().found(found[1])) == 1, "by its unique name"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"NOTIFY * HTTP/1.1\r\n\r\n",
        b"M-SEARCH * ",
        search_for("upnp:rootdevice").replace(b"HTTP/1.1", b"HTTP/1.0"),
        search_for("upnp:rootdevice", man="ssdp:discover"),
        search_for("upnp:rootdevice").replace(b"ST:", b"ST"),
        search_for("upnp:rootdevice") + bytes(2_048),
    ],
)
def test_what_is_no_search_gets_silence(data: bytes) -> None:
    assert not Gateway().server.search(data)


def test_the_notifications_tell_all_that_a_search_for_all_finds() -> None:
    router = Gateway()
    told = b"".join(router.server.notifications()).decode()
    assert re.findall(r"^NT: (.*)\r$", told, re.MULTILINE) == router.found("ssdp:all")
    assert told.count("NTS: ssdp:alive\r\n") == told.count("NOTIFY * HTTP/1.1\r\n") == 10


# ---- described ---------------------------------------------------------------------------

DEVICE = "{urn:schemas-upnp-org:device-1-0}"
SCPD = "{urn:schemas-upnp-org:service-1-0}"
CONFIGS = [PortMapConfig(), SECOND, PortMapConfig(wan_ppp=True)]


def described(config: PortMapConfig) -> dict[str, ElementTree.Element]:
    """Return the description of each service by its type, found as a client finds it."""
    router = Gateway(config)
    path = router.server.location.removeprefix(f"http://{ROUTER}:5000")
    root = ElementTree.fromstring(router.get(path).body)
    found = {}
    for service in root.iter(f"{DEVICE}service"):
        answer = router.get(service.findtext(f"{DEVICE}SCPDURL", ""))
        assert 'Content-Type: text/xml; charset="utf-8"\r\n' in answer.head
        found[service.findtext(f"{DEVICE}serviceType", "")] = ElementTree.fromstring(answer.body)
    return found


@pytest.mark.parametrize("config", CONFIGS)
def test_each_action_that_is_described_can_be_done(config: PortMapConfig) -> None:
    services = described(config)
    assert len(services) == 3
    for service, description in services.items():
        variables = [
            name.text for name in description.findall(f".//{SCPD}stateVariable/{SCPD}name")
        ]
        assert len(variables) == len(set(variables))
        router = Gateway(config)
        path = {LINK: "/control/link", FORWARDING: "/control/forwarding"}.get(service, CONTROL)
        for action in description.iter(f"{SCPD}action"):
            name = action.findtext(f"{SCPD}name", "")
            wanted: list[str] = []
            given: list[str] = []
            for argument in action.iter(f"{SCPD}argument"):
                assert argument.findtext(f"{SCPD}relatedStateVariable") in variables
                way = wanted if argument.findtext(f"{SCPD}direction") == "in" else given
                way.append(argument.findtext(f"{SCPD}name", ""))
            router.send(post("AddPortMapping", mapping(5001, 4001), service))
            arguments = {key: EXAMPLES.get(key, "1") for key in wanted}
            answer = router.send(post(name, arguments, service, path))
            assert answer.error in (0, *UNCHANGEABLE.get(name, ()))
            if not answer.error:
                assert list(answer.values) == given, name
            if wanted:
                del arguments[wanted[-1]]
                assert router.send(post(name, arguments, service, path)).error == 402


EXAMPLES = mapping(5001, 4001) | {
    "NewPortMappingIndex": "0",
    "NewStartPort": "1",
    "NewEndPort": "9999",
    "NewNumberOfPorts": "0",
    "NewManage": "0",
}
UNCHANGEABLE = {
    "SetConnectionType": (501, 731),
    "ForceTermination": (606,),
    "SetDefaultConnectionService": (606,),
}


def test_the_control_url_is_where_the_description_says() -> None:
    router = Gateway()
    root = ElementTree.fromstring(router.get("/gateway.xml").body)
    urls = [url.text for url in root.iter(f"{DEVICE}controlURL")]
    assert CONTROL in urls
    assert root.findtext(f"{DEVICE}device/{DEVICE}deviceType") == f"{GATEWAY}:1"


@pytest.mark.parametrize(
    ("request_line", "status", "allowed"),
    [
        ("GET /nothing HTTP/1.1", 404, ""),
        (f"GET {CONTROL} HTTP/1.1", 405, "POST"),
        ("POST /gateway.xml HTTP/1.1", 405, "GET, HEAD"),
        ("HEAD /gateway.xml HTTP/1.1", 200, ""),
        (f"POST {CONTROL} HTTP/1.1", 400, ""),
        ("SUBSCRIBE /events HTTP/1.1", 404, ""),
    ],
)
def test_what_cannot_be_had_gets_its_status(request_line: str, status: int, allowed: str) -> None:
    answer = Gateway().send(f"{request_line}\r\n\r\n".encode())
    assert answer.status == status
    assert (f"Allow: {allowed}" in answer.head) == bool(allowed)


# ---- called: what a call must be ---------------------------------------------------------


def test_an_unknown_action_or_service_is_invalid() -> None:
    router = Gateway()
    assert router.call("Explode").error == 401
    assert router.call("GetExternalIPAddress", service="urn:x").error == 401
    assert router.call("AddAnyPortMapping", mapping(5001, 4001)).error == 401
    assert router.call("GetExternalIPAddress", service=WAN_IP_2).error == 401


def test_a_service_of_version_2_can_be_called_as_version_1() -> None:
    answer = Gateway(SECOND).call("GetExternalIPAddress", service=WAN_IP)
    assert answer.values == {"NewExternalIPAddress": OUTSIDE}
    assert f'xmlns:u="{WAN_IP}"' in answer.body


def test_the_header_must_name_the_action_if_it_is_there() -> None:
    data = post("GetExternalIPAddress", {})
    assert Gateway().send(data.replace(b"#GetExternal", b"#GetInternal")).error == 401
    assert Gateway().send(re.sub(b"SOAPAction: .*\r\n", b"", data)).status == 200


def test_a_missing_argument_is_invalid() -> None:
    arguments = mapping(5001, 4001)
    del arguments["NewEnabled"]
    assert Gateway().call("AddPortMapping", arguments).error == 402


# ---- garbage -----------------------------------------------------------------------------


@given(st.binary(max_size=400) | st.binary(max_size=200).map(lambda data: b"M-SEARCH * " + data))
def test_garbage_is_no_search(data: bytes) -> None:
    assert not Gateway().server.search(data)


@given(st.binary(max_size=300), st.booleans())
def test_garbage_in_a_call_gets_a_status(body: bytes, as_tail: bool) -> None:
    body = soap("AddPortMapping", {}) + body if as_tail else body
    head = f"POST {CONTROL} HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    connection = Gateway().server.connect(Endpoint(ANN, 1))
    assert read_http(connection.receive(head + body, 0.0)).status in (400, 500)
