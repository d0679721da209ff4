"""Cases for transports."""

from __future__ import annotations

import trio

from p2pnet.core.addresses import Multiaddr, components, parse
from p2pnet.core.tasks import close_at_once
from p2pnet.errors import AddressUnsupported, PeerIdMismatch, RelayRefused
from p2pnet.interfaces import PendingConnection, Role
from p2pnet.testing.conformance.identities import STRANGER
from p2pnet.testing.conformance.judging import (
    Broken,
    expect,
    expect_raises,
    named,
    outcome,
    pattern,
)
from p2pnet.testing.conformance.running import converse, stream_between
from p2pnet.testing.conformance.transport_bench import (
    FAILED,
    Meeting,
    TransportBench,
)
from p2pnet.testing.conformance.wires import read_exactly, read_to_end

ADDRESSES = tuple(
    parse(text)
    for text in (
        "/ip4/192.0.2.1/tcp/4001",
        "/ip6/2001:db8::1/tcp/4001",
        "/ip4/192.0.2.1/udp/4001/quic-v1",
        "/ip4/192.0.2.1/tcp/4001/ws",
        "/ip4/192.0.2.1/tcp/4001/tls/ws",
        "/ip4/192.0.2.1/udp/4001/webrtc-direct",
        "/dns4/example.com/tcp/4001",
        "/ip4/192.0.2.1/sctp/4001",
        "/ip4/192.0.2.1",
        "/unix/tmp/socket",
        "/memory/7",
        f"/ip4/192.0.2.1/tcp/4001/p2p/{STRANGER}/p2p-circuit",
    )
)
"""Of all kinds: no transport can use them all, and none of them leads anywhere."""
DIALS = 20
DATA = pattern("data", 300_000)


async def knows_its_addresses(bench: TransportBench) -> None:
    """The transport says that it can listen at the address, and dial where it listens."""
    async with bench.listening() as meeting:
        transport = meeting.dialer.transport
        wanted = bench.listen_address()
        expect(transport.can_listen(wanted), f"it says that it cannot listen at {wanted}")
        address = meeting.door.address
        expect(transport.can_dial(address), f"it says that it cannot dial {address}")


async def refuses_other_addresses(bench: TransportBench) -> None:
    """What it cannot dial, or listen at, raises AddressUnsupported or ValueError."""
    host = bench.dialer()
    for verb, can in (("dial", host.transport.can_dial), ("listen at", host.transport.can_listen)):
        unfit = [address for address in ADDRESSES if not can(address)]
        expect(unfit, f"it says that it can {verb} whatever there is")
        for address in unfit:
            with expect_raises(AddressUnsupported, ValueError, by=f"trying to {verb} {address}"):
                if verb == "dial":
                    await host.transport.dial(address, peer_id=STRANGER)
                else:
                    await host.transport.listen(address)
    host.expect_nothing_open("after addresses that it cannot use")


async def listens_somewhere(bench: TransportBench) -> None:
    """A listener tells its real address, which is no other listener's: port 0 takes a free one."""
    async with bench.listening() as meeting, bench.listening() as another:
        for address in (meeting.door.address, another.door.address):
            ports = [value for name, value in components(address) if name in ("tcp", "udp")]
            expect("0" not in ports, f"it listens at {address}")
        expect(meeting.door.address != another.door.address, "two listeners have the same address")


async def both_ends_know_each_other(bench: TransportBench) -> None:
    """Both ends of a connection know the other's peer id, and agree on their addresses."""
    async with bench.listening() as meeting:
        dialled, accepted = await meeting.connect()
        one, two = dialled.capable, accepted.capable
        for capable, peer_id in (
            (one, meeting.listener.peer_id),
            (two, meeting.dialer.peer_id),
        ):
            expect(capable.peer_id == peer_id, f"{capable.peer_id} is at the end, not {peer_id}")
        expect_same(one.remote_address, meeting.door.address, "the dialer reached")
        expect_same(two.local_address, one.remote_address, "the listener was reached at")
        expect_same(two.remote_address, one.local_address, "the listener sees the dialer at")
        for name in ("security", "muxer"):
            pair = (one.security, two.security) if name == "security" else (one.muxer, two.muxer)
            expect(pair[0] and pair[0] == pair[1], f"the ends call their {name} {pair}")


def expect_same(found: Multiaddr, wanted: Multiaddr, what: str) -> None:
    expect(found == wanted, f"{what} {found}, not {wanted}")


async def carries_streams(bench: TransportBench) -> None:
    """Streams go both ways over a connection, with much data."""
    async with bench.listening() as meeting:
        dialled, accepted = await meeting.connect()
        for opener, acceptor in ((dialled, accepted), (accepted, dialled)):
            ours, theirs = await stream_between(opener, acceptor)
            await converse(ours, theirs)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ours.send_all, DATA)
                got = await read_exactly(theirs, len(DATA))
            expect(got == DATA, "some bytes were changed")


async def nobody_is_an_error(bench: TransportBench) -> None:
    """To dial where nobody listens raises OSError (or RelayRefused), and leaves nothing open."""
    async with bench.listening() as meeting:
        address = meeting.door.address
    host = bench.dialer()
    with expect_raises(OSError, RelayRefused, by="dialling nobody"):
        await host.transport.dial(address, peer_id=meeting.listener.peer_id)
    host.expect_no_streams("after a dial that reached nobody")


async def others_are_refused(bench: TransportBench) -> None:
    """If another peer answers, the dial raises PeerIdMismatch, and both ends close."""
    async with bench.listening() as meeting:
        meeting.nursery.start_soon(expect_failed_upgrade, meeting)
        with expect_raises(PeerIdMismatch, by="dialling a peer where another one listens"):
            await meeting.dial(peer_id=STRANGER)
        meeting.dialer.expect_no_streams("after another peer had answered")


async def expect_failed_upgrade(meeting: Meeting) -> None:
    pending = await meeting.door.accept()
    error = await outcome(pending.upgrade)
    if error is not None:
        expect_failure(error, "the upgrade")


def expect_failure(error: Exception | None, what: str) -> None:
    if error is None:
        raise Broken(f"{what} succeeded")
    if not isinstance(error, FAILED):
        raise Broken(f"{what} raised {named(error)}") from error


async def a_closed_listener_says_so(bench: TransportBench) -> None:
    """A listener that is closed raises ClosedResourceError, also to those who wait at it."""
    async with bench.listening() as meeting:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(expect_closed, meeting)
            await checkpoints(5)
            await meeting.door.aclose()
        await expect_closed(meeting)
        await meeting.door.aclose()


async def expect_closed(meeting: Meeting) -> None:
    with expect_raises(trio.ClosedResourceError, by="accepting at a closed listener"):
        await meeting.door.accept()


async def checkpoints(count: int) -> None:
    for _ in range(count):
        await trio.lowlevel.checkpoint()


async def connections_outlive_the_listener(bench: TransportBench) -> None:
    """A connection goes on when the listener that accepted it is closed."""
    async with bench.listening() as meeting:
        dialled, accepted = await meeting.connect()
        ours, theirs = await stream_between(dialled, accepted)
        await meeting.door.aclose()
        await converse(ours, theirs)
        await converse(*await stream_between(accepted, dialled))


async def serves_many_at_once(bench: TransportBench) -> None:
    """Twenty connections can be made at the same time, and are not mixed up."""
    async with bench.listening() as meeting:

        async def accept_all() -> None:
            for _ in range(DIALS):
                meeting.nursery.start_soon(serve, await meeting.door.accept())

        async def serve(pending: PendingConnection) -> None:
            stream = await meeting.run(await pending.upgrade()).next_stream()
            await stream.send_all(await read_to_end(stream))
            await stream.send_eof()

        async def ask(number: int) -> None:
            stream = await (await meeting.dial()).open()
            await stream.send_all(number.to_bytes(1))
            await stream.send_eof()
            expect(await read_to_end(stream) == number.to_bytes(1), "connections were mixed up")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(accept_all)
            for number in range(DIALS):
                nursery.start_soon(ask, number)


async def dials_from_any_port(bench: TransportBench) -> None:
    """If told so, a dial does not leave from the address that is listened on."""
    async with bench.listening(is_together=True) as meeting:
        own = await meeting.dialer.transport.listen(bench.listen_address())
        dialled, accepted = await meeting.connect(any_port=True)
        expect(dialled.capable.local_address != own.address, f"it left from {own.address}")
        await converse(*await stream_between(dialled, accepted))
        await own.aclose()


async def roles_can_be_swapped(bench: TransportBench) -> None:
    """Who dials can play the listener, if the other end plays the dialer: after a hole punch.

    A transport with handshakes of its own, which asks no upgrader, is not held to this.
    """
    async with bench.listening() as meeting:
        await meeting.connect()
        if not meeting.listener.upgrader.asked:
            return
        meeting.listener.upgrader.is_swapped = True
        dialled, accepted = await meeting.connect(role=Role.LISTENER)
        await converse(*await stream_between(dialled, accepted))
        await converse(*await stream_between(accepted, dialled))


async def a_cancelled_dial_leaves_nothing(bench: TransportBench) -> None:
    """A dial that is cancelled, at whatever moment, leaves no raw stream open."""
    async with bench.listening() as meeting:
        meeting.nursery.start_soon(send_away_all, meeting)
        for count in range(10):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(try_to_dial, meeting)
                await checkpoints(count)
                nursery.cancel_scope.cancel()
            meeting.dialer.expect_no_streams(f"after a dial cancelled {count} steps on")
        for count in range(10):
            await dial_and_cancel(meeting, count)
            meeting.dialer.expect_no_streams(
                f"after a dial cancelled {count} steps after it was answered"
            )
    async with bench.listening() as meeting, trio.open_nursery() as nursery:
        nursery.start_soon(try_to_dial, meeting)
        pending = await meeting.door.accept()
        await checkpoints(5)
        nursery.cancel_scope.cancel()
    await close_at_once(pending)
    meeting.dialer.expect_no_streams("after a dial cancelled during its handshake")


async def dial_and_cancel(meeting: Meeting, count: int) -> None:
    """Dial, and cancel so many steps after the raw stream was there."""
    async with trio.open_nursery() as nursery:

        async def cancel_later() -> None:
            await checkpoints(count)
            nursery.cancel_scope.cancel()

        def cancel() -> None:
            if count:
                nursery.start_soon(cancel_later)
            else:
                nursery.cancel_scope.cancel()

        meeting.dialer.ledger.on_stream = cancel
        await try_to_dial(meeting)
    meeting.dialer.ledger.on_stream = None


async def try_to_dial(meeting: Meeting) -> None:
    error = await outcome(meeting.dial)
    if error is not None:
        expect_failure(error, "the dial")


async def send_away_all(meeting: Meeting) -> None:
    while True:
        pending = await meeting.door.accept()
        await pending.aclose()


async def who_comes_can_be_sent_away(bench: TransportBench) -> None:
    """A pending connection that is closed unserved is gone, and its dialer is told."""
    async with bench.listening() as meeting:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(expect_failed_dial, meeting)
            pending = await meeting.door.accept()
            await pending.aclose()
        await pending.aclose()
        meeting.listener.expect_no_streams("after the pending connection was closed")
        meeting.dialer.expect_no_streams("after the remote has closed")


async def expect_failed_dial(meeting: Meeting) -> None:
    expect_failure(await outcome(meeting.dial), "the dial")


async def a_failed_upgrade_closes(bench: TransportBench) -> None:
    """An upgrade that fails, or is cancelled, raises a typed error and closes the raw stream.

    A transport with handshakes of its own, which asks no upgrader, is not held to this.
    """
    for is_cancelled in (True, False):
        async with bench.listening() as meeting:
            meeting.dialer.upgrader.is_silent = True
            async with trio.open_nursery() as upgrading, trio.open_nursery() as dialling:
                dialling.start_soon(try_to_dial, meeting)
                pending = await meeting.door.accept()
                upgrading.start_soon(try_to_upgrade, meeting, pending)
                await checkpoints(5)
                (upgrading if is_cancelled else dialling).cancel_scope.cancel()
            meeting.listener.expect_no_streams("after the upgrade had failed")


async def try_to_upgrade(meeting: Meeting, pending: PendingConnection) -> None:
    async def upgrade() -> None:
        meeting.run(await pending.upgrade())

    error = await outcome(upgrade)
    if error is not None or meeting.listener.upgrader.asked:
        expect_failure(error, "the upgrade with a remote that left")


async def closing_leaves_nothing(bench: TransportBench) -> None:
    """Closing a connection ends both ends in good order, and then nothing is left open."""
    for by_dialer in (True, False):
        async with bench.listening() as meeting:
            dialled, accepted = await meeting.connect()
            await stream_between(dialled, accepted)
            await (dialled if by_dialer else accepted).capable.aclose()
            for end in (dialled, accepted):
                await end.ended.wait()
                end.expect_good_order("one end had closed")
        for host in (meeting.dialer, meeting.listener):
            host.expect_nothing_open("after the connection and the listener were closed")
