"""Addresses: bytes and text, scopes, names, and what is advertised."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

import trio

from p2pnet.connectivity.beliefs import Beliefs
from p2pnet.connectivity.known import Sources, expand, worth_punching
from p2pnet.connectivity.observations import read_observation
from p2pnet.core.addresses import (
    Circuit,
    Endpoint,
    Multiaddr,
    Scope,
    circuit_of,
    decode_many_untrusted,
    decode_untrusted,
    encode,
    parse,
    scope_of_ip,
    scope_of_name,
)
from p2pnet.core.changes import Changes, NoChanges
from p2pnet.core.env import ByteStream, DatagramSocket, RecordKind, StreamListener
from p2pnet.core.peer_id import PeerId
from p2pnet.events import Reachability
from p2pnet.host.config import HostConfig
from p2pnet.swarm.config import SwarmConfig
from p2pnet.swarm.resolver import resolve
from tests.specs.forms import Codec, Fields

CONFIRMING = HostConfig.__dataclass_fields__["confirming_observers"].default


def parsed(texts: list[str]) -> list[Multiaddr]:
    return [parse(text) for text in texts]


def read_all(given: Fields) -> tuple[Multiaddr, ...]:
    return decode_many_untrusted(bytes.fromhex(data) for data in given["read_all"])


def circuit(given: Fields) -> Circuit:
    return circuit_of(parse(given["circuit"]))


def scopes(given: Fields) -> list[Scope]:
    return [scope_of(text) for text in given["scopes"]]


def scope_of(text: str) -> Scope:
    try:
        ip = ipaddress.ip_address(text)
    except ValueError:
        return scope_of_name(text)
    return scope_of_ip(ip)


@dataclass
class Names:
    """A network with nothing on it but name servers."""

    records: Fields

    async def lookup(self, name: str, kind: RecordKind) -> tuple[str, ...]:
        await trio.lowlevel.checkpoint()
        key = f"{kind} {name}"
        return tuple(self.records[key]) if key in self.records else ()

    async def dial_tcp(self, remote: Endpoint, *, local: Endpoint | None = None) -> ByteStream:
        raise OSError("nothing to dial")

    async def listen_tcp(self, local: Endpoint) -> StreamListener:
        raise OSError("nowhere to listen")

    async def bind_udp(self, local: Endpoint) -> DatagramSocket:
        raise OSError("nowhere to bind")

    def interface_addresses(self) -> tuple[str, ...]:
        return ()

    def gateways(self) -> tuple[str, ...]:
        return ()

    def changes(self) -> Changes:
        return NoChanges()


def resolution(given: Fields) -> dict[str, list[str]]:
    names, asked = Names(given["records"]), tuple(parsed(given["resolve"]))
    for key in names.records:
        assert names.records[key]  # Some are there to be left alone.

    async def run() -> dict[str, list[str]]:
        limit = SwarmConfig().max_addresses_per_dial
        found = await resolve(asked, names, max_addresses=limit)
        return {
            "addresses": [str(address) for address in found.addresses],
            "failed": list(dict.fromkeys(str(attempt.address) for attempt in found.failed)),
        }

    return trio.run(run)


def advertise(given: Fields) -> tuple[Multiaddr, ...]:
    assert given["advertise"]
    assert isinstance(CONFIRMING, int)
    beliefs = Beliefs(
        confirming_observers=CONFIRMING,
        announced=tuple(parsed(given["announced"])),
        listening=expand(parsed(given["listen"]), given["interfaces"]),
    )
    for number, seen in enumerate(given["observed"]):
        by, address = parse(seen["by"]), parse(seen["address"])
        word = read_observation(time=0.0, local=beliefs.listening[-1], remote=by, address=address)
        assert word is not None
        beliefs.observations.record(number, word)
    for number, circuit in enumerate(parsed(given["circuits"])):
        beliefs.circuits[PeerId(bytes([0, 1, number]))] = (circuit,)
    return beliefs.conclude(Reachability.UNKNOWN, 0.0).advertised


def punch(given: Fields) -> tuple[Multiaddr, ...]:
    assert given["punch"]
    return worth_punching(
        Sources(
            listening=parsed(given["listen"]),
            announced=parsed(given["announced"]),
            observed=parsed(given["observed"]),
        )
    )


CODECS = {
    "Address": Codec(decode_untrusted, encode, describe=lambda found: {"address": str(found)})
}
FORMS = {
    "read_all": read_all,
    "circuit": circuit,
    "scopes": scopes,
    "resolve": resolution,
    "advertise": advertise,
    "punch": punch,
}
