"""SystemNetwork on loopback. Rules S1 S2 S3 S4 of specs/connections.md."""

from __future__ import annotations

import ctypes
import errno
import socket
import struct
import sys
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from ipaddress import ip_address

import pytest
import trio
from trio.testing import assert_checkpoints, wait_all_tasks_blocked

from p2pnet.core.addresses import Endpoint
from p2pnet.core.env import (
    OPERATIONS_PER_CHECKPOINT,
    SILENT_RETRANSMISSIONS,
    ByteStream,
    DatagramSocket,
    Env,
    Network,
    SocketListener,
    SocketStream,
    StreamListener,
    SystemNetwork,
)
from p2pnet.core.options import retransmissions

pytestmark = pytest.mark.sockets

ANYWHERE = Endpoint("127.0.0.1", 0)
SO_ATTACH_FILTER = 26


@asynccontextmanager
async def listening(local: Endpoint = ANYWHERE) -> AsyncGenerator[StreamListener, None]:
    listener = await SystemNetwork().listen_tcp(local)
    try:
        yield listener
    finally:
        await listener.aclose()


@asynccontextmanager
async def connected(
    local: Endpoint = ANYWHERE,
) -> AsyncGenerator[tuple[ByteStream, ByteStream], None]:
    """Yield the two ends of a connection: the dialling and the accepting one."""
    async with listening(local) as listener:
        dialled = await SystemNetwork().dial_tcp(listener.local)
        accepted = await listener.accept()
        async with dialled, accepted:
            yield dialled, accepted


async def receive_exactly(stream: trio.abc.ReceiveStream, count: int) -> bytes:
    data = b""
    while len(data) < count:
        got = await stream.receive_some(count - len(data))
        assert got, f"the stream ended after {data!r}"
        data += got
    return data


def reset_on_close(stream: ByteStream) -> None:
    assert isinstance(stream, SocketStream)
    stream._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def go_deaf(stream: ByteStream) -> None:
    """Let nothing in any more, as if the way there was cut: a filter that drops all packets."""
    assert isinstance(stream, SocketStream)
    instruction = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))
    program = struct.pack("HP", 1, ctypes.addressof(instruction))
    stream._sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)


# ---- dialling and listening --------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_both_ends_know_both_endpoints(host: str) -> None:
    async with connected(Endpoint(host, 0)) as (dialled, accepted):
        assert dialled.local == accepted.remote
        assert dialled.remote == accepted.local
        assert dialled.remote.host == host
        await dialled.send_all(b"hello")
        assert await receive_exactly(accepted, 5) == b"hello"


async def test_s1_a_dial_leaves_from_the_port_that_is_listened_on() -> None:
    async with listening() as one, listening() as other:
        dialled = await SystemNetwork().dial_tcp(other.local, local=one.local)
        accepted = await other.accept()
        async with dialled, accepted:
            assert accepted.remote == one.local
            # And the port still listens.
            back = await SystemNetwork().dial_tcp(one.local)
            async with back, await one.accept() as inbound:
                assert inbound.remote == back.local


async def test_s1_two_ports_can_be_dialled_from_one() -> None:
    async with listening() as home, listening() as one, listening() as other:
        first = await SystemNetwork().dial_tcp(one.local, local=home.local)
        second = await SystemNetwork().dial_tcp(other.local, local=home.local)
        async with first, second, await one.accept() as to_one, await other.accept() as to_other:
            assert to_one.remote == to_other.remote == home.local


async def test_s3_the_same_two_ports_are_connected_only_once() -> None:
    async with listening() as home, listening() as other:
        async with await SystemNetwork().dial_tcp(other.local, local=home.local):
            with pytest.raises(OSError, match=r"in use|assign") as caught:
                await SystemNetwork().dial_tcp(other.local, local=home.local)
            assert caught.value.errno in (errno.EADDRNOTAVAIL, errno.EADDRINUSE)


@pytest.mark.skipif(sys.platform != "linux", reason="nobody tells of retransmissions")
async def test_s3_a_connection_to_who_is_gone_does_not_keep_its_ports() -> None:
    async with listening() as here, listening() as there:
        network = SystemNetwork()
        dialled = await network.dial_tcp(there.local, local=here.local)
        accepted = await there.accept()
        assert isinstance(dialled, SocketStream)
        go_deaf(accepted)
        await dialled.send_all(b"are you there?")
        with trio.fail_after(10):
            # The kernel tells nobody when it repeats something.
            while retransmissions(dialled._sock) < SILENT_RETRANSMISSIONS:  # noqa: ASYNC110
                await trio.sleep(0.05)
        await dialled.aclose()
        # The deaf end does not answer; but that it is asked means that the port is free.
        with trio.move_on_after(0.1) as asked:
            await network.dial_tcp(there.local, local=here.local)
        assert asked.cancelled_caught
        await accepted.aclose()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_s2_a_port_that_somebody_listens_on_is_refused(host: str) -> None:
    async with listening(Endpoint(host, 0)) as listener:
        with pytest.raises(OSError, match="in use") as caught:
            await SystemNetwork().listen_tcp(listener.local)
        assert caught.value.errno == errno.EADDRINUSE


async def test_s2_all_addresses_of_a_port_are_refused_if_one_is_taken() -> None:
    async with listening() as listener:
        with pytest.raises(OSError, match="in use") as caught:
            await SystemNetwork().listen_tcp(Endpoint("0.0.0.0", listener.local.port))
        assert caught.value.errno == errno.EADDRINUSE


async def test_s2_a_port_whose_listener_has_just_gone_is_free() -> None:
    async with listening() as listener:
        local = listener.local
        dialled = await SystemNetwork().dial_tcp(local)
        accepted = await listener.accept()
    await accepted.aclose()  # This end closes first, so it is the one in TIME-WAIT.
    await dialled.aclose()
    async with listening(local) as again:
        assert again.local == local


@pytest.mark.parametrize("host", ["0.0.0.0", "127.0.0.1"])
async def test_a_dial_from_port_0_leaves_from_one_of_no_order(host: str) -> None:
    """dcutr.md, D16: or three may be those that left one after the other before."""
    network = SystemNetwork()
    async with listening() as listener, AsyncExitStack() as ending:
        ports = []
        for _ in range(20):
            stream = await network.dial_tcp(listener.local, local=Endpoint(host, 0))
            ending.push_async_callback(stream.aclose)
            ports.append(stream.local.port)
    assert len(set(ports)) == len(ports)
    assert ports != sorted(ports)


async def test_s2_both_families_can_share_a_port() -> None:
    async with listening(Endpoint("::", 0)) as six:
        async with listening(Endpoint("0.0.0.0", six.local.port)) as four:
            assert four.local.port == six.local.port


async def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(OSError, match="assign") as caught:
        await SystemNetwork().listen_tcp(Endpoint("192.0.2.1", 0))
    assert caught.value.errno == errno.EADDRNOTAVAIL


async def test_a_port_where_nobody_listens_refuses() -> None:
    async with listening() as listener:
        nobody = listener.local
    with pytest.raises(ConnectionRefusedError):
        await SystemNetwork().dial_tcp(nobody)


async def test_a_closed_listener_wakes_whoever_accepts() -> None:
    async with listening() as listener, trio.open_nursery() as nursery:

        async def accept() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await listener.accept()

        nursery.start_soon(accept)
        await wait_all_tasks_blocked()
        await listener.aclose()
        await listener.aclose()
    with pytest.raises(trio.ClosedResourceError):
        await listener.accept()


async def test_a_client_that_has_left_already_does_not_end_the_listening() -> None:
    async with listening() as listener:
        gone = await SystemNetwork().dial_tcp(listener.local)
        reset_on_close(gone)
        await gone.aclose()
        async with await SystemNetwork().dial_tcp(listener.local) as stays:
            with trio.fail_after(5):
                while True:
                    async with await listener.accept() as accepted:
                        if accepted.remote == stays.local:
                            return


class Shaky(socket.socket):
    """A listening socket whose first connections fail."""

    failures: list[int]

    def accept(self) -> tuple[socket.socket, object]:
        if self.failures:
            raise OSError(self.failures.pop(0), "failed")
        return super().accept()


async def test_a_moment_without_descriptors_does_not_end_the_listening() -> None:
    raw = Shaky()
    raw.failures = [errno.ECONNABORTED, errno.EMFILE]
    raw.setblocking(False)
    raw.bind(("127.0.0.1", 0))
    raw.listen()
    listener = SocketListener(raw)
    async with await SystemNetwork().dial_tcp(listener.local) as dialled:
        async with await listener.accept() as accepted:
            assert accepted.remote == dialled.local
    assert not raw.failures
    await listener.aclose()


async def test_a_cancelled_dial_leaves_no_socket() -> None:
    # Unclosed sockets are errors here: see filterwarnings.
    async with listening() as listener:
        with trio.CancelScope() as scope:
            scope.cancel()
            await SystemNetwork().dial_tcp(listener.local)
        assert scope.cancelled_caught


# ---- the stream --------------------------------------------------------------------------


async def test_much_data_comes_through_whole() -> None:
    whole = bytes(range(256)) * 20_000
    async with connected() as (one, other), trio.open_nursery() as nursery:
        nursery.start_soon(one.send_all, whole)
        assert await receive_exactly(other, len(whole)) == whole


async def test_at_most_so_many_bytes_are_received() -> None:
    async with connected() as (one, other):
        await one.send_all(bytearray(b"abc"))
        assert await other.receive_some(2) == b"ab"
        assert await other.receive_some() == b"c"
        with pytest.raises(ValueError, match="max_bytes"):
            await other.receive_some(0)


async def test_each_end_is_ended_for_itself() -> None:
    async with connected() as (one, other):
        await one.send_all(b"last")
        await one.send_eof()
        await one.send_eof()
        with pytest.raises(trio.ClosedResourceError):
            await one.send_all(b"more")
        assert await receive_exactly(other, 4) == b"last"
        assert await other.receive_some() == b""
        assert await other.receive_some() == b""
        await other.send_all(b"still")
        assert await receive_exactly(one, 5) == b"still"


async def test_a_reset_is_a_broken_resource() -> None:
    async with connected() as (one, other):
        reset_on_close(one)
        await one.aclose()
        with pytest.raises(trio.BrokenResourceError, match="receive failed"):
            await other.receive_some()
        with pytest.raises(trio.BrokenResourceError, match="failed"):
            await other.send_all(b"x")
        with pytest.raises(trio.BrokenResourceError, match="shutdown failed"):
            await other.send_eof()


async def test_closing_wakes_a_blocked_reader_and_a_blocked_sender() -> None:
    async with connected() as (one, _), trio.open_nursery() as nursery:

        async def read() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await one.receive_some()

        async def write() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await one.send_all(bytes(64 * 1024 * 1024))

        nursery.start_soon(read)
        nursery.start_soon(write)
        await wait_all_tasks_blocked(0.05)
        await one.aclose()


async def test_a_closed_stream_says_so() -> None:
    async with connected() as (one, _):
        await one.aclose()
        await one.aclose()
        with pytest.raises(trio.ClosedResourceError):
            await one.receive_some()
        for data in (b"x", b""):
            with pytest.raises(trio.ClosedResourceError):
                await one.send_all(data)
        with pytest.raises(trio.ClosedResourceError):
            await one.send_eof()
        with pytest.raises(trio.ClosedResourceError):
            await one.wait_send_all_might_not_block()


async def test_a_stream_is_closed_even_if_cancelled() -> None:
    async with connected() as (one, other):
        await trio.aclose_forcefully(one)
        assert await other.receive_some() == b""


async def test_two_tasks_cannot_send_or_receive_at_once() -> None:
    async with connected() as (one, _), trio.open_nursery() as nursery:
        nursery.start_soon(one.send_all, bytes(64 * 1024 * 1024))
        nursery.start_soon(one.receive_some)
        await wait_all_tasks_blocked(0.05)
        with pytest.raises(trio.BusyResourceError):
            await one.send_all(b"x")
        with pytest.raises(trio.BusyResourceError):
            await one.send_eof()
        with pytest.raises(trio.BusyResourceError):
            await one.receive_some()
        nursery.cancel_scope.cancel()


async def test_waiting_for_room_ends_when_there_is_some() -> None:
    async with connected() as (one, other):
        with assert_checkpoints():
            await one.wait_send_all_might_not_block()
        with trio.move_on_after(0.05):
            await one.send_all(bytes(64 * 1024 * 1024))
        with trio.move_on_after(0.05) as full:
            await one.wait_send_all_might_not_block()
        assert full.cancelled_caught

        async def drain() -> None:
            while await other.receive_some():
                pass

        async with trio.open_nursery() as nursery:
            nursery.start_soon(drain)
            with trio.fail_after(5):
                await one.wait_send_all_might_not_block()
            nursery.cancel_scope.cancel()


async def test_s4_a_busy_stream_lets_others_run_and_can_be_cancelled() -> None:
    async with connected() as (one, other):
        with trio.CancelScope() as scope:
            scope.cancel()
            for _ in range(OPERATIONS_PER_CHECKPOINT):
                await one.send_all(b"x")
        assert scope.cancelled_caught
        await one.send_all(b"y" * OPERATIONS_PER_CHECKPOINT)
        with trio.CancelScope() as scope:
            scope.cancel()
            for _ in range(OPERATIONS_PER_CHECKPOINT):
                await other.receive_some(1)
        assert scope.cancelled_caught


async def test_s4_small_writes_go_out_at_once() -> None:
    async with connected() as ends:
        for stream in ends:
            assert isinstance(stream, SocketStream)
            assert stream._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert stream._sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


# ---- the rest of the outside world -------------------------------------------------------


def test_the_interfaces_have_the_loopback_address_and_no_zones() -> None:
    found = SystemNetwork().interface_addresses()
    assert "127.0.0.1" in found
    assert len(set(found)) == len(found)
    assert not any("%" in ip for ip in found)


def test_the_system_is_an_env() -> None:
    env = Env.system()
    network: Network = env.network
    assert isinstance(network, SystemNetwork)
    assert len(env.random_bytes(32)) == 32
    assert env.random_bytes(32) != env.random_bytes(32)
    assert 1.0 <= env.jitter(1.0, 2.0) <= 2.0
    assert env.wall_clock() > 1_700_000_000
    assert "random" not in repr(env)


async def test_datagrams_come_with_the_endpoint_they_came_from() -> None:
    network = SystemNetwork()
    for host in ("127.0.0.1", "::1"):
        one = await network.bind_udp(Endpoint(host, 0))
        other = await network.bind_udp(Endpoint(host, 0))
        await one.send(b"there", other.local)
        assert await other.receive() == (b"there", one.local)
        await other.send(b"and back", one.local)
        assert await one.receive() == (b"and back", other.local)
        await one.aclose()
        await other.aclose()


async def test_a_datagram_that_found_nobody_does_not_break_its_socket() -> None:
    network = SystemNetwork()
    gone = await network.bind_udp(ANYWHERE)
    await gone.aclose()
    sock = await network.bind_udp(ANYWHERE)
    await sock.send(b"anybody?", gone.local)
    await sock.send(b"me", sock.local)
    assert await sock.receive() == (b"me", sock.local)
    await sock.aclose()


async def test_a_closed_udp_socket_says_so_also_to_who_is_waiting() -> None:
    sock = await SystemNetwork().bind_udp(ANYWHERE)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(refuses_to_receive, sock)
        await wait_all_tasks_blocked()
        await sock.aclose()
    with pytest.raises(trio.ClosedResourceError):
        await sock.send(b"", ANYWHERE)


async def refuses_to_receive(sock: DatagramSocket) -> None:
    with pytest.raises(trio.ClosedResourceError):
        await sock.receive()


async def test_a_udp_port_is_bound_once() -> None:
    network = SystemNetwork()
    first = await network.bind_udp(ANYWHERE)
    with pytest.raises(OSError, match="in use"):
        await network.bind_udp(first.local)
    await first.aclose()


def test_the_gateways_of_this_machine_are_ip_addresses() -> None:
    found = SystemNetwork().gateways()
    assert [str(ip_address(gateway)) for gateway in found] == list(found)


async def test_two_programs_can_listen_to_one_multicast_address() -> None:
    network = SystemNetwork()
    one = await network.bind_udp(Endpoint("224.0.0.1", 5350))
    other = await network.bind_udp(Endpoint("224.0.0.1", 5350))
    for sock in (one, other):
        await sock.aclose()
