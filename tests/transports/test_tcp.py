"""Rules S1 S3 S5: from which port TCP dials, and what becomes of the stream."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass, field

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock, memory_stream_pair

from p2pnet.core.addresses import Endpoint, Multiaddr, parse
from p2pnet.core.changes import Changes, NoChanges
from p2pnet.core.env import ByteStream, DatagramSocket, Env, RecordKind, StreamListener
from p2pnet.core.keys import PrivateKey
from p2pnet.core.peer_id import PeerId
from p2pnet.errors import AddressUnsupported, ConnectionLost
from p2pnet.interfaces import Ends, Kit, Opening, Role
from p2pnet.transports.tcp import TCP, TcpTransport
from p2pnet.transports.tcp_ports import SharedTcpPorts, source_endpoint
from tests.core.passing_on import PassingOn
from tests.transports.failing import FailingUpgrader

KEY = PrivateKey.generate()
PEER = PeerId.from_public_key(KEY.public_key)

ANY4, ANY6 = Endpoint("0.0.0.0", 4001), Endpoint("::", 4001)
LOOP4, LOOP6 = Endpoint("127.0.0.1", 4002), Endpoint("::1", 4002)
HOME4, HOME6 = Endpoint("192.168.0.2", 4003), Endpoint("2600::2", 4003)
FAR4, FAR6 = Endpoint("8.8.8.8", 1), Endpoint("2600::8", 1)


# ---- the choice of a port ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("remote", "listening", "expected"),
    [
        (FAR4, [], None),
        (FAR4, [ANY4], ANY4),
        (FAR4, [ANY6], None),
        (FAR6, [ANY4, ANY6], ANY6),
        (FAR4, [LOOP4], None),
        (FAR4, [HOME4], HOME4),
        (FAR4, [ANY4, HOME4], HOME4),
        (FAR4, [LOOP4, ANY4], ANY4),
        (FAR6, [LOOP6, HOME6, ANY6], HOME6),
        (Endpoint("127.0.0.9", 1), [LOOP4, ANY4, HOME4], LOOP4),
        (Endpoint("127.0.0.9", 1), [ANY4, HOME4], ANY4),
        (Endpoint("127.0.0.9", 1), [HOME4], None),
        (Endpoint("::1", 1), [LOOP4, HOME6], None),
        (Endpoint("::1", 1), [LOOP6], LOOP6),
        (FAR4, [Endpoint("0.0.0.0", 7), Endpoint("0.0.0.0", 5)], Endpoint("0.0.0.0", 5)),
    ],
)
def test_s1_a_dial_leaves_from_the_listener_that_can_reach_the_remote(
    remote: Endpoint, listening: list[Endpoint], expected: Endpoint | None
) -> None:
    assert source_endpoint(remote, listening) == expected
    assert source_endpoint(remote, reversed(listening)) == expected


hosts = st.ip_addresses().map(str) | st.sampled_from(["0.0.0.0", "::", "127.0.0.1", "::1"])
endpoints = st.builds(Endpoint, hosts, st.integers(1, 65535))


@given(endpoints, st.lists(endpoints, max_size=5))
def test_s1_the_source_is_one_of_the_listeners_and_of_the_same_family(
    remote: Endpoint, listening: list[Endpoint]
) -> None:
    source = source_endpoint(remote, listening)
    assert source is None or (source in listening and source.is_ipv6 == remote.is_ipv6)


# ---- dialling and listening on a network of this test's own ------------------------------


class Wire(PassingOn, ByteStream):
    """One end of a connection in memory."""

    def __init__(
        self, stream: trio.abc.HalfCloseableStream, local: Endpoint, remote: Endpoint
    ) -> None:
        super().__init__(stream)
        self.local, self.remote = local, remote


class Door:
    """A listener at which one connection waits."""

    def __init__(self, local: Endpoint) -> None:
        self.local = local
        self.is_closed = False
        self.wire = Wire(memory_stream_pair()[0], local, FAR4)

    async def accept(self) -> ByteStream:
        await trio.lowlevel.checkpoint()
        return self.wire

    async def aclose(self) -> None:
        self.is_closed = True
        await trio.lowlevel.checkpoint()


@dataclass
class Cables:
    """A network where the first dials fail with the errors of ``refusals``."""

    refusals: list[int] = field(default_factory=list)
    seconds: float = 0.0
    dialled: list[tuple[Endpoint, Endpoint | None]] = field(default_factory=list)
    doors: list[Door] = field(default_factory=list)

    async def dial_tcp(self, remote: Endpoint, *, local: Endpoint | None = None) -> ByteStream:
        self.dialled.append((remote, local))
        await trio.sleep(self.seconds)
        if self.refusals:
            code = self.refusals.pop(0)
            raise OSError(code, os.strerror(code))
        return Wire(memory_stream_pair()[0], local or Endpoint("10.0.0.1", 50000), remote)

    async def listen_tcp(self, local: Endpoint) -> StreamListener:
        await trio.lowlevel.checkpoint()
        self.doors.append(Door(Endpoint(local.host, local.port or 40000)))
        return self.doors[-1]

    async def bind_udp(self, local: Endpoint) -> DatagramSocket:
        raise OSError("no datagrams here")

    def interface_addresses(self) -> tuple[str, ...]:
        return ()

    def gateways(self) -> tuple[str, ...]:
        return ()

    def changes(self) -> Changes:
        return NoChanges()

    async def lookup(self, name: str, kind: RecordKind) -> tuple[str, ...]:
        raise OSError("no name servers")


@dataclass
class Bench:
    """A TCP transport with all that is around it."""

    config: TCP = field(default_factory=TCP)
    cables: Cables = field(default_factory=Cables)
    upgrader: FailingUpgrader = field(default_factory=FailingUpgrader)

    def build(self) -> TcpTransport:
        env = Env(self.cables, lambda: 0.0, bytes, lambda low, high: low)
        return self.config.build(Kit(env, KEY, PEER, self.upgrader))


async def dial(
    transport: TcpTransport, remote: Endpoint, *, role: Role = Role.DIALER, any_port: bool = False
) -> None:
    address = parse(f"/ip4/{remote.host}/tcp/{remote.port}")
    await transport.dial(address, peer_id=PEER, role=role, any_port=any_port)


async def test_s1_a_dial_leaves_from_the_port_listened_on() -> None:
    bench = Bench()
    transport = bench.build()
    listener = await transport.listen(parse("/ip4/0.0.0.0/tcp/0"))
    assert listener.address == parse("/ip4/0.0.0.0/tcp/40000")
    with pytest.raises(ConnectionLost):
        await dial(transport, FAR4)
    await listener.aclose()
    with pytest.raises(ConnectionLost):
        await dial(transport, FAR4)
    assert bench.cables.dialled == [(FAR4, Endpoint("0.0.0.0", 40000)), (FAR4, None)]


@pytest.mark.parametrize(("remote", "host"), [(FAR4, "0.0.0.0"), (FAR6, "::")])
async def test_a_dial_from_any_port_may_ask_for_one_of_no_order(
    remote: Endpoint, host: str
) -> None:
    """dcutr.md, D16."""
    cables = Cables()
    ports = SharedTcpPorts(cables, scattered=True)
    stream = await ports.dial(remote, Opening.RAW, role=Role.DIALER, any_port=True)
    await stream.aclose()
    assert cables.dialled == [(remote, Endpoint(host, 0))]


async def test_s1_a_dial_can_leave_from_any_port() -> None:
    bench, shy = Bench(), Bench(TCP(reuse_port=False))
    for transport, any_port in ((bench.build(), True), (shy.build(), False)):
        await transport.listen(parse("/ip4/0.0.0.0/tcp/4001"))
        with pytest.raises(ConnectionLost):
            await dial(transport, FAR4, any_port=any_port)
    assert bench.cables.dialled == shy.cables.dialled == [(FAR4, None)]


async def test_s1_a_port_is_not_dialled_from_itself() -> None:
    bench = Bench()
    transport = bench.build()
    await transport.listen(parse("/ip4/127.0.0.1/tcp/4002"))
    with pytest.raises(ConnectionLost):
        await dial(transport, LOOP4)
    assert bench.cables.dialled == [(LOOP4, None)]


@pytest.mark.parametrize("code", [errno.EADDRINUSE, errno.EADDRNOTAVAIL])
async def test_s3_if_the_port_is_taken_any_other_will_do(code: int) -> None:
    bench = Bench(cables=Cables(refusals=[code]))
    transport = bench.build()
    await transport.listen(parse("/ip4/0.0.0.0/tcp/4001"))
    with pytest.raises(ConnectionLost):
        await dial(transport, FAR4)
    assert bench.cables.dialled == [(FAR4, ANY4), (FAR4, None)]


@pytest.mark.parametrize(
    ("code", "role"),
    [(errno.EADDRNOTAVAIL, Role.LISTENER), (errno.ECONNREFUSED, Role.DIALER)],
)
async def test_s3_but_not_in_a_hole_punch_or_after_another_error(code: int, role: Role) -> None:
    bench = Bench(cables=Cables(refusals=[code]))
    transport = bench.build()
    await transport.listen(parse("/ip4/0.0.0.0/tcp/4001"))
    with pytest.raises(OSError, match=os.strerror(code)):
        await dial(transport, FAR4, role=role)
    assert bench.cables.dialled == [(FAR4, ANY4)]


async def test_s5_a_remote_that_does_not_answer_is_given_up(autojump_clock: MockClock) -> None:
    bench = Bench(TCP(connect_timeout=3.0), Cables(seconds=60.0))
    started = trio.current_time()
    with pytest.raises(trio.TooSlowError):
        await dial(bench.build(), FAR4)
    assert trio.current_time() - started == pytest.approx(3.0)


async def test_the_upgrader_gets_the_stream_and_both_its_ends() -> None:
    bench = Bench()
    with pytest.raises(ConnectionLost):
        await dial(bench.build(), FAR4, role=Role.LISTENER)
    (asked,) = bench.upgrader.asked
    ends = Ends(parse("/ip4/10.0.0.1/tcp/50000"), parse("/ip4/8.8.8.8/tcp/1"))
    assert asked[1:] == (Role.LISTENER, ends, PEER, None)


async def test_what_arrives_is_upgraded_by_whoever_takes_it() -> None:
    bench = Bench()
    listener = await bench.build().listen(parse("/ip4/0.0.0.0/tcp/4001"))
    pending = await listener.accept()
    assert pending.remote_address == parse("/ip4/8.8.8.8/tcp/1")
    with pytest.raises(ConnectionLost):
        await pending.upgrade(patience=0.2)
    (asked,) = bench.upgrader.asked
    ends = Ends(parse("/ip4/0.0.0.0/tcp/4001"), parse("/ip4/8.8.8.8/tcp/1"))
    assert asked == (bench.cables.doors[0].wire, Role.LISTENER, ends, None, 0.2)


async def test_what_arrives_can_be_sent_away() -> None:
    bench = Bench()
    listener = await bench.build().listen(parse("/ip4/0.0.0.0/tcp/4001"))
    await (await listener.accept()).aclose()
    assert bench.cables.doors[0].wire.is_closed
    await listener.aclose()
    assert bench.cables.doors[0].is_closed


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("/ip4/1.2.3.4/tcp/1", True),
        ("/ip6/::1/tcp/1", True),
        ("/ip4/1.2.3.4/udp/1", False),
        ("/dns4/a.example/tcp/1", False),
        ("/ip4/1.2.3.4/tcp/1/ws", False),
        (f"/p2p/{PEER}/p2p-circuit", False),
    ],
)
async def test_tcp_wants_plain_tcp_addresses(text: str, fits: bool) -> None:
    transport, address = Bench().build(), parse(text)
    assert transport.can_dial(address) is fits
    assert transport.can_listen(address) is fits
    if not fits:
        await refuse(transport, address)


async def refuse(transport: TcpTransport, address: Multiaddr) -> None:
    with pytest.raises(AddressUnsupported):
        await transport.dial(address, peer_id=PEER)
    with pytest.raises(AddressUnsupported):
        await transport.listen(address)


def test_a_timeout_must_be_positive() -> None:
    with pytest.raises(ValueError, match="connect_timeout"):
        TCP(connect_timeout=0)
