"""Cases for securities: handshakes, and what an attacker can do to them."""

from __future__ import annotations

from functools import partial

import trio
import trio.testing

from p2pnet.core.keys import KeyType, PrivateKey
from p2pnet.core.peer_id import PeerId
from p2pnet.errors import PeerIdMismatch
from p2pnet.interfaces import Role
from p2pnet.testing.conformance.identities import KEYS, PEERS, STRANGER, other
from p2pnet.testing.conformance.judging import Broken, expect, named, outcome, pattern
from p2pnet.testing.conformance.security_bench import REFUSALS, TYPED, SecurityBench
from p2pnet.testing.conformance.wires import Wire, end, wire_pair

GARBAGE = (
    b"\xff" * 4096,
    bytes(4096),
    b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n",
    *(pattern(f"garbage {number}", 4096) for number in range(8)),
)
KEY_TYPES = (KeyType.ED25519, KeyType.SECP256K1, KeyType.ECDSA)
YAMUX, MPLEX = "/yamux/1.0.0", "/mplex/6.7.0"
MUXERS: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    ((), ()),
    ((YAMUX,), ()),
    ((), (YAMUX,)),
    ((YAMUX,), (YAMUX,)),
    ((YAMUX,), (MPLEX,)),
    ((YAMUX, MPLEX), (MPLEX, YAMUX)),
    ((YAMUX, MPLEX), (MPLEX,)),
    ((MPLEX,), (YAMUX, MPLEX)),
)


async def has_a_protocol_id(bench: SecurityBench) -> None:
    """The protocol id is one that can be negotiated: it begins with a slash, on one line."""
    protocol_id = bench.security(Role.DIALER).protocol_id
    fits = protocol_id.startswith("/") and protocol_id.isprintable()
    expect(fits, f"it is {protocol_id!r}")


async def ends_know_each_other(bench: SecurityBench) -> None:
    """Each end learns the key and the peer id of the other, whatever the type of the keys."""
    for role in Role:
        for kind in KEY_TYPES:
            key = PrivateKey.generate(kind)
            keys = {role: key, other(role): KEYS[other(role)]}
            peers = {end: PeerId.from_public_key(keys[end].public_key) for end in Role}
            expected = {role: peers[other(role)]}
            meeting = await bench.meet(keys=keys, expected=expected)
            for at, secured in zip(Role, meeting.established(), strict=True):
                expect(
                    secured.remote_key == keys[other(at)].public_key,
                    f"the {at.value} got another key ({kind.name})",
                )
                expect(
                    secured.peer_id == peers[other(at)],
                    f"the {at.value} got another peer id ({kind.name})",
                )


async def others_are_refused(bench: SecurityBench) -> None:
    """If another than the expected peer answers, PeerIdMismatch is raised, and all is closed."""
    for role in Role:
        # The listener has an expectation, too, when both dialled: after a hole punch.
        meeting = await bench.meet(expected={role: STRANGER}, cut=True)
        error = meeting.errors.get(role)
        if not isinstance(error, PeerIdMismatch):
            what = "took the stranger" if error is None else f"raised {named(error)}"
            raise Broken(f"the {role.value} {what}") from error
        expect(error.expected == STRANGER, "the error names another than the expected peer")
        expect(error.actual == PEERS[other(role)], "the error names another than who answered")
        meeting.expect_typed_errors("when a stranger was expected")


async def one_muxer_is_agreed_on(bench: SecurityBench) -> None:
    """The muxer is settled the same at both ends, among what both offered, or at neither."""
    for dialers, listeners in MUXERS:
        offers = {Role.DIALER: dialers, Role.LISTENER: listeners}
        one, two = (await bench.meet(muxers=offers)).established()
        which = f"of {dialers} and {listeners}"
        expect(one.muxer == two.muxer, f"{which} they settled on {one.muxer} and {two.muxer}")
        fits = one.muxer is None or (one.muxer in dialers and one.muxer in listeners)
        expect(fits, f"{which} they settled on {one.muxer}")


async def handshakes_without_buffers(bench: SecurityBench) -> None:
    """A handshake does not rely on room for bytes between the ends, nor on how they are cut."""
    for most in (None, 1, 7):
        wires = wire_pair(unbuffered=True)
        for wire in wires.values():
            wire.most = most
        (await bench.meet(wires)).established()


async def reads_not_too_far(bench: SecurityBench) -> None:
    """What the remote sends right behind its handshake is there to be read."""
    for role in Role:
        wires = wire_pair()
        reader = other(role)
        wires[reader].is_slow = True
        async with trio.open_nursery() as nursery:
            nursery.start_soon(greet, bench, wires[role], role)
            secured = await bench.secure(wires[reader], reader)
            got = bytes(await secured.stream.receive_some())
            expect(got == b"welcome", f"{got!r} came first, not the welcome")


async def greet(bench: SecurityBench, wire: Wire, role: Role) -> None:
    secured = await bench.secure(wire, role)
    await secured.stream.send_all(b"welcome")


async def cut_handshakes_fail(bench: SecurityBench) -> None:
    """A handshake that is cut off after any byte raises a typed error, and closes the stream."""
    for role, needed in (await bytes_needed(bench)).items():
        for count in range(needed):
            wires = wire_pair()
            wires[role].cut = count
            meeting = await bench.meet(wires)
            when = f"when its input ended after {count} of {needed} bytes"
            expect(role in meeting.errors, f"the {role.value} was content {when}")
            meeting.expect_typed_errors(when)


async def bytes_needed(bench: SecurityBench) -> dict[Role, int]:
    """Return how many bytes each end has to read for its handshake, and not one more."""
    wires = wire_pair()
    for wire in wires.values():
        wire.most = 1
    (await bench.meet(wires)).established()
    return {role: wire.received for role, wire in wires.items()}


async def changed_handshakes_fail(bench: SecurityBench) -> None:
    """A handshake of which any bit was changed does not succeed at both ends."""
    for role, needed in (await bytes_needed(bench)).items():
        for place in range(needed):
            wires = wire_pair()
            wires[role].flips = flip_one(place)
            meeting = await bench.meet(wires, cut=True)
            when = f"when byte {place} of what the {role.value} reads was changed"
            expect(meeting.errors, f"both ends were content {when}")
            meeting.expect_typed_errors(when)


def flip_one(place: int) -> partial[int]:
    return partial(bit_at, place)


def bit_at(place: int, at: int) -> int:
    return 1 << place % 8 if at == place else 0


async def garbage_is_refused(bench: SecurityBench) -> None:
    """On garbage the handshake raises SecurityError or ProtocolError, and closes the stream."""
    for garbage in (*GARBAGE, b""):
        for role in Role:
            wires = wire_pair()
            await wires[other(role)].inject(garbage)
            await end(wires[other(role)])
            error = await outcome(partial(bench.secure, wires[role], role))
            when = f"after {garbage[:16]!r}"
            if not isinstance(error, REFUSALS if garbage else TYPED):
                what = "was content" if error is None else f"raised {named(error)}"
                raise Broken(f"the {role.value} {what} {when}") from error
            expect(wires[role].is_closed, f"the {role.value} left its stream open {when}")


async def a_cancelled_handshake_closes(bench: SecurityBench) -> None:
    """A handshake that is cancelled, while it sends or while it waits, closes the stream."""
    for role in Role:
        for unbuffered in (False, True):
            wire = wire_pair(unbuffered=unbuffered)[role]
            async with trio.open_nursery() as nursery:
                nursery.start_soon(bench.secure, wire, role)
                await trio.testing.wait_all_tasks_blocked()
                expect(not wire.is_closed, f"the {role.value} gave up by itself")
                nursery.cancel_scope.cancel()
            expect(wire.is_closed, f"the {role.value} left its stream open")


async def a_recorded_peer_is_refused(bench: SecurityBench) -> None:
    """Whoever only plays back what a peer once sent is not taken for that peer."""
    for role in Role:
        genuine = await bench.meet()
        genuine.established()
        wires = wire_pair()
        await wires[other(role)].inject(bytes(genuine.wires[other(role)].sent))
        await end(wires[other(role)])
        error = await outcome(partial(bench.secure, wires[role], role))
        if not isinstance(error, TYPED):
            what = "believed it" if error is None else f"raised {named(error)}"
            raise Broken(f"the {role.value} {what}") from error
