"""Rules S21 and S22 of specs/connections.md, A21 A23 A25 of specs/addresses.md: whole hosts."""

from __future__ import annotations

import errno
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from p2pnet.core.addresses import Multiaddr, parse, with_peer
from p2pnet.core.peer_id import PeerId
from p2pnet.errors import DialError, LimitedConnection
from p2pnet.events import (
    AddressesChanged,
    AddressObserved,
    Reachability,
    ReservationAccepted,
    ReservationLost,
)
from p2pnet.host.config import HostConfig
from p2pnet.host.host import Host, read_target
from p2pnet.host.opening import open_host
from p2pnet.interfaces import CircuitLimit, Kit, LimitedUse, Stream, Transport
from p2pnet.muxers.yamux import Yamux
from p2pnet.security.noise import Noise
from p2pnet.swarm.connection import LiveConnection
from tests.swarm.fakes import OTHER, PEER, THIRD, Arrival, Line, NoNetwork, Wires, env

A, B = (parse(f"/ip4/8.8.8.8/tcp/{n}") for n in (1, 2))
CIRCUIT = parse(f"/ip4/9.9.9.9/tcp/1/p2p/{THIRD}/p2p-circuit")
SEEN = parse("/ip4/5.5.5.5/tcp/4001")
LIMIT = CircuitLimit(120.0, 131072)


@dataclass(frozen=True)
class Part:
    """A recipe for a transport that is there already."""

    wires: Wires = field(default_factory=Wires)

    def build(self, kit: Kit) -> Transport:
        return self.wires


@asynccontextmanager
async def running(
    wires: Wires | None = None,
    *,
    listen: Sequence[str] = (),
    announce: Sequence[str] = (),
    network: NoNetwork | None = None,
    reachability: Reachability = Reachability.UNKNOWN,
) -> AsyncGenerator[Host, None]:
    config = HostConfig(
        listen=listen,
        announce=announce,
        transports=[Part(wires or Wires())],
        security=[Noise()],
        muxers=[Yamux()],
        env=env(network),
        reachability=reachability,
    )
    async with open_host(config) as host:
        yield host


async def arrive(host: Host, line: Line) -> LiveConnection:
    host.accept(Arrival(line))
    await wait_all_tasks_blocked()
    (connection,) = [c for c in host._swarm.connections() if c._capable is line]
    return connection


# ---- S21: limited connections ------------------------------------------------------------


async def test_s21_a_limited_connection_can_be_refused() -> None:
    async with running() as host:
        await arrive(host, Line(PEER, CIRCUIT, limit=LIMIT))
        with pytest.raises(LimitedConnection, match="limited='allow'"):
            await host.open_stream(PEER, "/x", limited="refuse")


async def test_s21_a_limited_connection_can_be_used() -> None:
    async with running() as host:
        host.peers.set_protocols(PEER, ["/x"])
        await arrive(host, Line(PEER, CIRCUIT, limit=LIMIT))
        stream = await host.open_stream(PEER, "/x", limited="allow")
        assert stream.connection.is_limited


@pytest.mark.parametrize("better", [Line(PEER, A), Line(PEER, CIRCUIT)])
async def test_s21_a_stream_can_wait_for_a_connection_without_limit(better: Line) -> None:
    opened: list[Stream] = []

    async def open_stream(host: Host) -> None:
        opened.append(await host.open_stream(PEER, "/x", limited="wait"))

    async with running() as host, trio.open_nursery() as nursery:
        host.peers.set_protocols(PEER, ["/x"])
        await arrive(host, Line(PEER, CIRCUIT, limit=LIMIT))
        nursery.start_soon(open_stream, host)
        await arrive(host, Line(OTHER, B))
        assert not opened
        connection = await arrive(host, better)
        assert [stream.connection for stream in opened] == [connection]


@pytest.mark.parametrize("limited", ["wait", "refuse", "allow"])
async def test_s21_a_connection_without_limit_is_used_at_once(limited: LimitedUse) -> None:
    async with running() as host:
        host.peers.set_protocols(PEER, ["/x"])
        await arrive(host, Line(PEER, CIRCUIT, limit=LIMIT))
        relayed = await arrive(host, Line(PEER, CIRCUIT))
        stream = await host.open_stream(PEER, "/x", limited=limited)
        assert stream.connection is relayed


async def test_s21_a_direct_connection_can_be_waited_for() -> None:
    found: list[object] = []

    async def wait(host: Host) -> None:
        found.append(await host.wait_direct(PEER))

    async with running() as host, trio.open_nursery() as nursery:
        nursery.start_soon(wait, host)
        await arrive(host, Line(PEER, CIRCUIT))
        assert not found
        direct = await arrive(host, Line(PEER, A))
        assert found == [direct]


# ---- connecting --------------------------------------------------------------------------


async def test_a_peer_is_dialled_only_if_there_is_no_connection() -> None:
    wires = Wires()
    async with running(wires) as host:
        first = await host.connect(f"/ip4/8.8.8.8/tcp/1/p2p/{PEER}")
        assert await host.connect(PEER) is first
        assert await host.connect(str(PEER)) is first
        assert await host.connect(with_peer(B, PEER)) is first
    assert wires.dialled == [A]


async def test_an_unknown_peer_is_looked_for_where_finders_say() -> None:
    wires = Wires()
    async with running(wires) as host:
        with pytest.raises(DialError, match="no address of it is known"):
            await host.connect(PEER)
        host.add_finder(lambda peer_id: [B] if peer_id == PEER else [])
        assert (await host.connect(PEER)).remote_address == B


async def test_a_host_does_not_dial_itself() -> None:
    async with running() as host:
        with pytest.raises(DialError, match="this host itself"):
            await host.connect(host.peer_id)


async def test_what_names_no_peer_is_no_target() -> None:
    for target in ("/ip4/8.8.8.8/tcp/1", A, "nonsense", f"{CIRCUIT}", ""):
        with pytest.raises(ValueError, match="peer"):
            read_target(target)
    assert read_target(f"/p2p/{PEER}") == (PEER, None)
    assert read_target(with_peer(A, PEER)) == (PEER, with_peer(A, PEER))


async def test_s22_leaving_ends_all_connections() -> None:
    line = Line(PEER, A)
    async with running() as host:
        connection = await arrive(host, line)
    assert line.is_closed
    assert connection.is_closed
    with pytest.raises(trio.ClosedResourceError):
        await host.connect(f"/ip4/8.8.8.8/tcp/1/p2p/{OTHER}")


async def test_an_exception_of_the_block_leaves_it_as_it_is() -> None:
    async def fail() -> None:
        async with running():
            raise ZeroDivisionError("ours")

    with pytest.raises(ZeroDivisionError, match="ours"):
        await fail()


# ---- what is advertised ------------------------------------------------------------------


def told(host: Host) -> list[str]:
    return [str(address).removesuffix(f"/p2p/{host.peer_id}") for address in host.addresses.value]


async def test_a21_listen_and_announced_addresses_are_told_from_the_beginning() -> None:
    async with running(listen=["/ip4/0.0.0.0/tcp/1"], announce=["/dns4/a.example/tcp/443"]) as host:
        assert told(host) == [
            "/dns4/a.example/tcp/443",
            "/ip4/10.0.0.1/tcp/1",
            "/ip4/127.0.0.1/tcp/1",
        ]


async def test_a20_a_new_interface_is_found(autojump_clock: MockClock) -> None:
    network = NoNetwork()
    async with running(listen=["/ip4/0.0.0.0/tcp/1"], network=network) as host:
        with host.subscribe(AddressesChanged) as changes:
            network.interfaces = ("127.0.0.1", "192.168.7.7")
            await anext(changes)
        assert told(host) == ["/ip4/192.168.7.7/tcp/1", "/ip4/127.0.0.1/tcp/1"]


class Counting(NoNetwork):
    """A network that counts how often it is looked at."""

    looks = 0

    def interface_addresses(self) -> tuple[str, ...]:
        self.looks += 1
        return self.interfaces


async def test_a20_the_interfaces_are_looked_at_by_the_clock_and_not_by_the_event(
    autojump_clock: MockClock,
) -> None:
    network = Counting()
    async with running(network=network) as host:
        for number in range(20):
            connection = await arrive(host, Line(PEER, parse(f"/ip4/8.8.8.{number}/tcp/1")))
            host.publish(AddressObserved(connection.ref, SEEN))
            await connection.aclose()
            await trio.sleep(0.1)
        assert network.looks == 1
        await trio.sleep(61)
        assert network.looks == 3


class Exhausted(NoNetwork):
    """A network that cannot be looked at any more, for want of descriptors."""

    spent = False

    def interface_addresses(self) -> tuple[str, ...]:
        if self.spent:
            raise OSError(errno.EMFILE, "Too many open files")
        return self.interfaces


async def test_a20_without_descriptors_to_look_with_the_addresses_stay(
    autojump_clock: MockClock,
) -> None:
    network = Exhausted()
    async with running(listen=["/ip4/0.0.0.0/tcp/4001"], network=network) as host:
        before = host.addresses.value
        network.spent = True
        await trio.sleep(61)
        assert host.addresses.value == before


async def test_a23_what_is_told_by_who_has_gone_counts_for_nothing() -> None:
    """It could not be withdrawn, and so many would leave no room for those who stay."""
    async with running(Wires()) as host:
        for number, peer_id in enumerate((PEER, OTHER)):
            connection = await host.connect(f"/ip4/8.8.8.{number}/tcp/1/p2p/{peer_id}")
            await connection.aclose()
            await wait_all_tasks_blocked()
            host.publish(AddressObserved(connection.ref, SEEN))
            await wait_all_tasks_blocked()
            assert (host.punch_addresses(), told(host)) == ((), [])


async def test_a23_an_observed_address_is_told_while_those_who_saw_it_are_connected() -> None:
    async with running(Wires()) as host:
        seen_by = []
        for number, peer_id in enumerate((PEER, OTHER)):
            seen_by.append(await host.connect(f"/ip4/8.8.8.{number}/tcp/1/p2p/{peer_id}"))
            host.publish(AddressObserved(seen_by[-1].ref, SEEN))
            await wait_all_tasks_blocked()
            assert host.punch_addresses() == (SEEN,)
            assert told(host) == ([str(SEEN)] if number else [])
        await seen_by[0].aclose()
        await wait_all_tasks_blocked()
        assert told(host) == []
        assert host.punch_addresses() == (SEEN,)


@pytest.mark.parametrize("reachability", Reachability)
async def test_a25_circuits_are_told_while_they_last_unless_the_host_is_public(
    reachability: Reachability,
) -> None:
    async with running(reachability=reachability) as host:
        host.publish(ReservationAccepted(THIRD, (CIRCUIT,), 3600.0, renewal=False))
        await wait_all_tasks_blocked()
        assert told(host) == ([] if reachability is Reachability.PUBLIC else [str(CIRCUIT)])
        host.publish(ReservationLost(THIRD, "gone"))
        await wait_all_tasks_blocked()
        assert told(host) == []


def test_targets_are_of_these_kinds() -> None:
    kinds: list[PeerId | Multiaddr | str] = [PEER, with_peer(A, PEER), str(PEER)]
    assert {read_target(kind)[0] for kind in kinds} == {PEER}
