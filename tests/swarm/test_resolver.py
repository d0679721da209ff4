"""Rules A10 to A14 of specs/addresses.md, on a DNS of this test's own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from p2pnet.core.addresses import Endpoint, parse
from p2pnet.core.changes import Changes, NoChanges
from p2pnet.core.env import ByteStream, DatagramSocket, Network, RecordKind, StreamListener
from p2pnet.errors import LimitExceeded, describe
from p2pnet.swarm.resolver import MAX_DEPTH, MAX_LOOKUPS, Resolution, resolve

PEER = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA"
OTHER = "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N"

Zone = Mapping[tuple[str, RecordKind], tuple[str, ...] | OSError]


@dataclass
class Names:
    """A network on which there is nothing but name servers."""

    zone: Zone
    seconds: float = 0.0
    asked: list[tuple[str, RecordKind]] = field(default_factory=list)

    async def lookup(self, name: str, kind: RecordKind) -> tuple[str, ...]:
        self.asked.append((name, kind))
        await trio.sleep(self.seconds)
        answer = self.zone.get((name, kind), ())
        if isinstance(answer, OSError):
            raise answer
        return answer

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


async def resolved(names: Network, *texts: str, limit: int = 100) -> Resolution:
    return await resolve(tuple(parse(text) for text in texts), names, max_addresses=limit)


def texts(found: Resolution) -> list[str]:
    return [str(address) for address in found.addresses]


def causes(found: Resolution) -> dict[str, str]:
    return {str(attempt.address): describe(attempt.cause) for attempt in found.failed}


BOTH: Zone = {("a.example", "A"): ("1.2.3.4", "1.2.3.5"), ("a.example", "AAAA"): ("2600::1",)}


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("dns", ["/ip6/2600::1/tcp/1", "/ip4/1.2.3.4/tcp/1", "/ip4/1.2.3.5/tcp/1"]),
        ("dns4", ["/ip4/1.2.3.4/tcp/1", "/ip4/1.2.3.5/tcp/1"]),
        ("dns6", ["/ip6/2600::1/tcp/1"]),
    ],
)
async def test_a10_a_name_becomes_its_addresses(kind: str, expected: list[str]) -> None:
    found = await resolved(Names(BOTH), f"/{kind}/a.example/tcp/1")
    assert texts(found) == expected
    assert not found.failed
    assert set(found.addresses.values()) == {parse(f"/{kind}/a.example/tcp/1")}


async def test_a10_what_stands_behind_the_name_stays() -> None:
    found = await resolved(Names(BOTH), f"/dns6/a.example/tcp/1/p2p/{PEER}")
    assert texts(found) == [f"/ip6/2600::1/tcp/1/p2p/{PEER}"]


async def test_w3_the_name_of_a_websocket_stays_with_its_address() -> None:
    found = await resolved(Names(BOTH), f"/dns6/a.example/tcp/1/tls/ws/p2p/{PEER}")
    assert texts(found) == [f"/ip6/2600::1/tcp/1/tls/sni/a.example/ws/p2p/{PEER}"]


async def test_a10_one_family_that_answers_is_enough() -> None:
    zone: Zone = {("a.example", "AAAA"): OSError("no server"), ("a.example", "A"): ("1.2.3.4",)}
    found = await resolved(Names(zone), "/dns/a.example/tcp/1")
    assert texts(found) == ["/ip4/1.2.3.4/tcp/1"]
    assert not found.failed


async def test_a10_a_name_that_cannot_be_resolved_does_not_spoil_the_others() -> None:
    zone: Zone = {**BOTH, ("broken.example", "A"): OSError("no server")}
    found = await resolved(
        Names(zone),
        "/dns4/broken.example/tcp/1",
        "/dns4/nowhere.example/tcp/1",
        "/dns4/a.example/tcp/1",
        "/ip4/9.9.9.9/tcp/1",
    )
    assert texts(found) == ["/ip4/1.2.3.4/tcp/1", "/ip4/1.2.3.5/tcp/1", "/ip4/9.9.9.9/tcp/1"]
    assert causes(found) == {
        "/dns4/broken.example/tcp/1": "no answer about broken.example: no server",
        "/dns4/nowhere.example/tcp/1": "DNS: no such name or address: nowhere.example",
    }


async def test_a10_an_address_that_comes_twice_came_from_the_first() -> None:
    asked = ["/dns4/a.example/tcp/1", "/ip4/1.2.3.4/tcp/1"]
    found = await resolved(Names(BOTH), *asked)
    assert found.addresses[parse("/ip4/1.2.3.4/tcp/1")] == parse(asked[0])


async def test_a10_ip_and_relayed_addresses_pass_without_a_look_up() -> None:
    names = Names(BOTH)
    circuit = f"/dns/a.example/tcp/1/p2p/{PEER}/p2p-circuit"
    found = await resolved(names, "/ip4/9.9.9.9/tcp/1", circuit)
    assert texts(found) == ["/ip4/9.9.9.9/tcp/1", circuit]
    assert not names.asked


# ---- dnsaddr -----------------------------------------------------------------------------


def txt(name: str, *addresses: str) -> Zone:
    return {(f"_dnsaddr.{name}", "TXT"): tuple(f"dnsaddr={address}" for address in addresses)}


async def test_a11_dnsaddr_gives_the_entries_of_the_peer_that_was_asked_for() -> None:
    zone = txt(
        "a.example",
        f"/ip4/1.2.3.4/tcp/1/p2p/{PEER}",
        f"/ip4/1.2.3.4/tcp/2/p2p/{OTHER}",
        "/ip4/1.2.3.4/tcp/3",
    )
    found = await resolved(Names(zone), f"/dnsaddr/a.example/p2p/{PEER}")
    assert texts(found) == [f"/ip4/1.2.3.4/tcp/1/p2p/{PEER}"]


async def test_a11_all_that_stands_behind_the_name_must_match() -> None:
    zone = txt("a.example", f"/ip4/1.2.3.4/tcp/1/p2p/{PEER}", f"/ip4/1.2.3.4/tcp/2/p2p/{PEER}")
    found = await resolved(Names(zone), f"/dnsaddr/a.example/tcp/2/p2p/{PEER}")
    assert texts(found) == [f"/ip4/1.2.3.4/tcp/2/p2p/{PEER}"]


async def test_a11_a_bare_dnsaddr_gives_all() -> None:
    zone = txt("a.example", f"/ip4/1.2.3.4/tcp/1/p2p/{PEER}", f"/ip4/1.2.3.4/tcp/2/p2p/{OTHER}")
    assert len(texts(await resolved(Names(zone), "/dnsaddr/a.example"))) == 2


async def test_a11_records_of_other_kinds_and_malformed_ones_are_passed_over() -> None:
    records = (
        "v=spf1 -all",
        "dnsaddr=",
        "dnsaddr=/ip4/1.2",
        "dnsaddr=/p2p/73o7",  # a multihash, but not of a key
        "dnsaddr=/ip4/1.2.3.4/tcp/1/p2p/x",
        "dnsaddr=\ufffd",
        f"dnsaddr=/ip4/1.2.3.4/tcp/1/p2p/{PEER}",
    )
    zone: Zone = {("_dnsaddr.a.example", "TXT"): records}
    found = await resolved(Names(zone), "/dnsaddr/a.example")
    assert texts(found) == [f"/ip4/1.2.3.4/tcp/1/p2p/{PEER}"]


async def test_a11_an_entry_may_refer_to_another_name() -> None:
    zone = {
        **txt("a.example", f"/dnsaddr/b.example/p2p/{PEER}", f"/dns4/c.example/tcp/1/p2p/{PEER}"),
        **txt("b.example", f"/ip4/1.1.1.1/tcp/1/p2p/{PEER}"),
        ("c.example", "A"): ("2.2.2.2",),
    }
    asked = f"/dnsaddr/a.example/p2p/{PEER}"
    found = await resolved(Names(zone), asked)
    assert found.addresses == {
        parse(f"/ip4/1.1.1.1/tcp/1/p2p/{PEER}"): parse(asked),
        parse(f"/ip4/2.2.2.2/tcp/1/p2p/{PEER}"): parse(asked),
    }


async def test_a11_an_entry_that_leads_nowhere_does_not_spoil_the_others() -> None:
    dead = f"/dns4/dead.example/tcp/1/p2p/{PEER}"
    zone = txt("a.example", dead, f"/ip4/1.1.1.1/tcp/1/p2p/{PEER}")
    found = await resolved(Names(zone), f"/dnsaddr/a.example/p2p/{PEER}")
    assert texts(found) == [f"/ip4/1.1.1.1/tcp/1/p2p/{PEER}"]
    assert causes(found) == {dead: "DNS: no such name or address: dead.example"}


# ---- bounds ------------------------------------------------------------------------------


async def test_a12_references_are_followed_only_so_deep() -> None:
    names = Names(txt("a.example", "/dnsaddr/a.example", "/ip4/1.1.1.1/tcp/1"))
    found = await resolved(names, "/dnsaddr/a.example")
    assert len(names.asked) == MAX_DEPTH == 4
    assert texts(found) == ["/ip4/1.1.1.1/tcp/1"]
    assert causes(found) == {
        "/dnsaddr/a.example": "MAX_DEPTH = 4 reached: /dnsaddr/a.example refers on and on"
    }


async def test_a12_one_dial_makes_only_so_many_look_ups() -> None:
    names = Names({("a.example", "A"): ("1.1.1.1",)})
    asked = [f"/dns4/n{n}.example/tcp/1" for n in range(100)] + ["/ip4/9.9.9.9/tcp/1"]
    found = await resolved(names, *asked)
    assert len(names.asked) == MAX_LOOKUPS == 32
    assert texts(found) == ["/ip4/9.9.9.9/tcp/1"]
    assert len(found.failed) == 100
    assert isinstance(found.failed[-1].cause, LimitExceeded)


async def test_a12_a_tree_of_references_ends_too() -> None:
    zone: dict[tuple[str, RecordKind], tuple[str, ...] | OSError] = {}
    for name in "abcdefgh":
        zone |= txt(f"{name}.example", *(f"/dnsaddr/{other}.example" for other in "abcdefgh"))
    names = Names(zone)
    found = await resolved(names, "/dnsaddr/a.example")
    assert len(names.asked) <= MAX_LOOKUPS
    assert not found.addresses
    assert len(found.failed) <= MAX_LOOKUPS * 32


async def test_a12_slow_name_servers_hold_up_a_dial_only_so_long(
    autojump_clock: trio.testing.MockClock,
) -> None:
    names = Names(BOTH, seconds=4.0)
    started = trio.current_time()
    asked = [f"/dns4/n{n}.example/tcp/1" for n in range(10)] + ["/ip4/9.9.9.9/tcp/1"]
    found = await resolved(names, *asked)
    assert trio.current_time() - started == 15.0
    assert texts(found) == ["/ip4/9.9.9.9/tcp/1"]
    assert causes(found)["/dns4/n0.example/tcp/1"].endswith("no such name or address: n0.example")
    assert causes(found)["/dns4/n3.example/tcp/1"] == "timed out"
    assert causes(found)["/dns4/n9.example/tcp/1"] == "timed out"


@pytest.mark.parametrize("name", ["localhost", "LOCALHOST", "a.localhost"])
async def test_a13_localhost_is_never_asked_of_the_dns(name: str) -> None:
    names = Names({(name, "A"): ("6.6.6.6",)})
    found = await resolved(names, f"/dns/{name}/tcp/1")
    assert texts(found) == ["/ip6/::1/tcp/1", "/ip4/127.0.0.1/tcp/1"]
    assert not names.asked


async def test_a14_what_is_too_much_is_told() -> None:
    plain = [f"/ip4/1.2.3.4/tcp/{n}" for n in range(1, 5)]
    found = await resolved(Names({}), *plain, plain[0], limit=3)
    assert texts(found) == plain[:3]
    assert causes(found) == {plain[3]: "max_addresses_per_dial = 3 reached"}


# ---- whatever the DNS says ---------------------------------------------------------------

some_names = st.sampled_from(["a.example", "b.example"])
some_entries = st.one_of(
    st.builds("dnsaddr=/dnsaddr/{}".format, some_names),
    st.builds("dnsaddr=/dns/{}/tcp/1".format, some_names),
    st.builds("dnsaddr={}".format, st.text("/=adns.1\ufffd", max_size=8)),
    st.just("dnsaddr=/ip4/1.1.1.1/tcp/1"),
    st.text("/=adns.1\ufffd", max_size=8),
)
some_zones: st.SearchStrategy[Zone] = st.fixed_dictionaries(
    {},
    optional={
        ("_dnsaddr.a.example", "TXT"): st.lists(some_entries, max_size=5).map(tuple),
        ("_dnsaddr.b.example", "TXT"): st.lists(some_entries, max_size=5).map(tuple),
        ("a.example", "A"): st.just(("1.1.1.1",)) | st.just(OSError("no server")),
        ("b.example", "AAAA"): st.just(("::1",)),
    },
)
addresses = st.sampled_from(
    ["/dnsaddr/a.example", "/dnsaddr/b.example", "/dns/a.example/tcp/1", "/ip4/9.9.9.9/tcp/1"]
)


@given(some_zones, st.lists(addresses, max_size=5))
def test_a12_whatever_the_dns_says_all_ends_and_what_failed_is_told(
    zone: Zone, asked: list[str]
) -> None:
    names = Names(zone)

    async def run() -> Resolution:
        return await resolved(names, *asked)

    found = trio.run(run)
    assert len(names.asked) <= MAX_LOOKUPS
    assert set(map(str, found.addresses.values())) <= set(asked)
    if not found.addresses:
        assert set(asked) <= set(causes(found))
