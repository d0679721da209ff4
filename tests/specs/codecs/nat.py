"""NAT: packets through a box, IPv4 in IPv6, and what theory says of two homes."""

from __future__ import annotations

import re

from p2pnet.core.addresses import Endpoint
from p2pnet.testing.kinds import ALL_KINDS
from p2pnet.testing.nat import Dependence, Dropped, Hop, Nat, NatKind, PortChoice
from p2pnet.testing.nat64 import Nat64, extract, synthesize
from p2pnet.testing.packet import Datagram, Flags, Packet, Segment
from p2pnet.testing.theory import Verdict, can_punch, causes
from tests.specs.forms import Fields

STEP = re.compile(
    r"(?P<at>[\d.]+) s (?P<way>out|in) (?P<transport>udp|tcp) "
    r"(?P<source>\S+) > (?P<destination>\S+)( (?P<flags>[A-Z+]+)( seq=(?P<sequence>\d+))?)?"
)
OUTSIDE = ("11.0.0.1",)


def through_nat(given: Fields) -> list[str]:
    nat = nat_of(given["nat"])
    return walked(nat, nat, given["steps"])


def through_nat64(given: Fields) -> list[str]:
    nat = nat_of(given["nat64"])
    return walked(nat, Nat64(nat), given["steps"])


def walked(nat: Nat, box: Nat | Nat64, steps: list[str]) -> list[str]:
    """Send packets through a box and tell what becomes of each."""
    said = []
    for text in steps:
        if text == "reboot":
            nat.reset()
            continue
        step = STEP.fullmatch(text)
        assert step, text
        push = box.outbound if step["way"] == "out" else box.inbound
        said.append(told(push(packet_of(step), float(step["at"]))))
    return said


def nat_of(fields: Fields) -> Nat:
    values = {name: fields[name] for name in fields}
    for name in ("mapping", "filtering"):
        if name in values:
            values[name] = Dependence(values[name])
    if "ports" in values:
        values["ports"] = PortChoice(values["ports"])
    return Nat(NatKind(**values), outside=OUTSIDE, choose=lambda n: n // 2)


def packet_of(step: re.Match[str]) -> Packet:
    payload: Datagram | Segment = Datagram(b"")
    if step["transport"] == "tcp":
        flags = Flags.NONE
        for name in step["flags"].split("+"):
            flags |= Flags[name]
        payload = Segment(flags, int(step["sequence"] or 0))
    return Packet(endpoint(step["source"]), endpoint(step["destination"]), payload)


def endpoint(text: str) -> Endpoint:
    host, _, port = text.rpartition(":")
    return Endpoint(host.strip("[]"), int(port))


def told(verdict: Hop | Dropped) -> str:
    if isinstance(verdict, Dropped):
        return f"dropped: {verdict.reason}"
    packet = verdict.packet
    words = f"{verdict.to.value}: {packet.source} > {packet.destination}"
    if isinstance(packet.payload, Segment) and Flags.RST in packet.payload.flags:
        words += f" {packet.payload.flags} ack={packet.payload.acknowledgement}"
    return words


def embedded(given: Fields) -> list[str | None]:
    """Put an IPv4 address behind prefixes, and take it out again."""
    found = [synthesize(given["embed"], prefix) for prefix in given["prefixes"]]
    back = [extract(ipv6, prefix) for ipv6, prefix in zip(found, given["prefixes"], strict=True)]
    assert set(back) == {given["embed"]}
    return list(found)


def punched(given: Fields) -> Verdict:
    one, other = (ALL_KINDS[name] for name in given["punch"])
    predicts = "predicts_ports" in given and given["predicts_ports"]
    return can_punch(one, other, given["transport"], predicts_ports=predicts)


def named(given: Fields) -> list[str]:
    one, other = (ALL_KINDS[name] for name in given["causes"])
    return [cause.name for cause in causes(one, other, given["transport"])]


FORMS = {
    "nat": through_nat,
    "nat64": through_nat64,
    "embed": embedded,
    "punch": punched,
    "causes": named,
}
