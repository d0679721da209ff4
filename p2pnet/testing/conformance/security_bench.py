"""Two ends that secure a raw stream in memory, undisturbed or not."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import trio

from p2pnet.core.env import Env
from p2pnet.core.keys import PrivateKey
from p2pnet.core.peer_id import PeerId
from p2pnet.errors import ConnectionLost, P2PError, ProtocolError, SecurityError
from p2pnet.interfaces import Part, Role, Secured, Security
from p2pnet.testing.conformance.identities import KEYS, kit_with
from p2pnet.testing.conformance.judging import Broken, expect, expect_raises, named, outcome
from p2pnet.testing.conformance.wires import Wire, cut_when_stuck, wire_pair

TYPED = (P2PError, trio.BrokenResourceError)
"""How a handshake may fail: by what the remote did, or because the raw stream broke."""
REFUSALS = (SecurityError, ProtocolError)
"""How what came is said not to be what the remote sent."""
LOSSES = (*REFUSALS, ConnectionLost)
"""How a message of which a part is missing may be refused."""


@dataclass
class Meeting:
    """A handshake: its raw streams, and what came of it at each end."""

    wires: Mapping[Role, Wire]
    secured: dict[Role, Secured] = field(default_factory=dict)
    errors: dict[Role, Exception] = field(default_factory=dict)

    def established(self) -> tuple[Secured, Secured]:
        """Return what both ends got; a failure here is against the rule that is tried."""
        for role, error in self.errors.items():
            raise Broken(f"the {role.value} raised {named(error)}") from error
        return self.secured[Role.DIALER], self.secured[Role.LISTENER]

    def expect_typed_errors(self, when: str) -> None:
        """Make sure that whoever failed said why, and closed its raw stream."""
        for role, error in self.errors.items():
            if not isinstance(error, TYPED):
                raise Broken(f"the {role.value} raised {named(error)} {when}") from error
            expect(self.wires[role].is_closed, f"the {role.value} left its stream open {when}")


@dataclass(frozen=True)
class SecurityBench:
    """Lets two peers meet by the security that is judged."""

    part: Part[Security]
    env: Env = field(default_factory=Env.system)

    def security(self, role: Role, key: PrivateKey | None = None) -> Security:
        return self.part.build(kit_with(key or KEYS[role], self.env))

    async def secure(self, wire: Wire, role: Role) -> Secured:
        """Do one end's part of a handshake, whoever the other is."""
        return await self.security(role).secure(wire, role, expected=None, muxers=())

    async def meet(
        self,
        wires: Mapping[Role, Wire] | None = None,
        *,
        expected: Mapping[Role, PeerId] | None = None,
        muxers: Mapping[Role, Sequence[str]] | None = None,
        keys: Mapping[Role, PrivateKey] = KEYS,
        cut: bool = False,
    ) -> Meeting:
        """Do a handshake; with ``cut`` both streams end once nobody moves any more."""
        meeting = Meeting(wires or wire_pair())
        async with trio.open_nursery() as nursery:
            for role in Role:
                secure = partial(
                    self.security(role, keys[role]).secure,
                    meeting.wires[role],
                    role,
                    expected=(expected or {}).get(role),
                    muxers=(muxers or {}).get(role, ()),
                )
                nursery.start_soon(attend, meeting, role, secure)
            if cut:
                await cut_when_stuck(meeting.wires)
        return meeting

    async def channel(self, *, most: int | None = None) -> Channel:
        """Return a secured stream, from the dialer to the listener, with the wire between."""
        wires = wire_pair()
        for wire in wires.values():
            wire.most = most
        meeting = await self.meet(wires)
        one, other = meeting.established()
        return Channel(one.stream, wires[Role.DIALER], other.stream, wires[Role.LISTENER])


@dataclass(frozen=True)
class Channel:
    """A secured stream from end to end, and the wires below it."""

    sender: trio.abc.Stream
    senders: Wire
    receiver: trio.abc.Stream
    receivers: Wire

    async def hold(self, *texts: bytes) -> list[bytes]:
        """Send, but keep from the remote what goes over the wire; return that, text by text."""
        sent = []
        for text in texts:
            self.senders.held = []
            await self.sender.send_all(text)
            sent.append(b"".join(self.senders.held))
        self.senders.held = None
        return sent

    async def expect_refusal(
        self, raw: bytes, what: str, errors: tuple[type[Exception], ...] = REFUSALS
    ) -> None:
        """Deliver bytes and then the end: neither data nor a clean end may come of them."""
        await self.senders.inject(raw)
        await self.senders.send_eof()
        with expect_raises(*errors, by=f"receiving {what}"):
            data = bytes(await self.receiver.receive_some())
            expect(not data, f"{what} gave {len(data)} bytes as if nothing had happened")
            raise Broken(f"{what} was taken for a clean end")


async def attend(meeting: Meeting, role: Role, secure: Callable[[], Awaitable[Secured]]) -> None:
    async def note() -> None:
        meeting.secured[role] = await secure()

    if error := await outcome(note):
        meeting.errors[role] = error
