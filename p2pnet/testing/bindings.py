"""What a NAT remembers: bindings, the sessions that keep them, and when each is forgotten.

A binding ties an endpoint inside to one outside. It lives as long as it has a session::

    Binding  udp 192.168.1.2:4001 = 11.0.0.1:4001
      |- Session  with 11.0.0.9:4001      until 120.0
      |- Session  with 11.0.0.8:53        until 95.5
      '- Session  FORWARD                 until it is taken back

The remote of a session is an endpoint, or ``FORWARD`` for a port that was mapped on request.
Sessions lie in a heap by the time at which they end. One that was refreshed stays where it is in
the heap until its old time has come, and is put back then: a packet costs no search.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator

from p2pnet.core.addresses import Endpoint
from p2pnet.testing.packet import Flags, TransportName
from p2pnet.testing.ports import TakenPorts

Remotes = Endpoint | str | None
"""Where the packets of a binding go: to an endpoint, to a host, or "" to any.

None is for a forward, by which packets go that have no other way."""

FORWARD = None
SLACK = 64


class Handshake:
    """Which control bits a NAT has seen of a TCP connection, of the inside and of the outside."""

    __slots__ = ("_acks", "_fins", "_is_reset", "_syns")

    def __init__(self) -> None:
        self._syns = [False, False]
        self._acks = [False, False]
        self._fins = [False, False]
        self._is_reset = False

    def see(self, flags: Flags, *, outbound: bool) -> None:
        if Flags.RST in flags:
            self._is_reset = True
            return
        side = 0 if outbound else 1
        self._syns[side] |= Flags.SYN in flags
        self._acks[side] |= Flags.ACK in flags
        self._fins[side] |= Flags.FIN in flags

    @property
    def is_open(self) -> bool:
        """Whether both sides have sent SYN, and have acknowledged something."""
        return all(self._syns) and all(self._acks)

    @property
    def is_over(self) -> bool:
        return self._is_reset or all(self._fins)

    @property
    def is_unanswered(self) -> bool:
        """Whether a SYN has gone out and none has come in."""
        return self._syns[0] and not self._syns[1]


class Session:
    """What passes between a binding and one remote."""

    __slots__ = ("binding", "expires", "handshake", "has_sent", "queued", "remote")

    def __init__(self, binding: Binding, remote: Endpoint | None) -> None:
        self.binding = binding
        self.remote = remote
        self.expires = 0.0
        self.queued: float | None = None
        """When the heap will look at it; None when it is forgotten."""
        self.has_sent = False
        """Whether the inside has sent to this remote."""
        self.handshake = Handshake()


class Binding:
    """An endpoint inside and the one it has outside, perhaps towards certain remotes only."""

    __slots__ = ("contacts", "inside", "outside", "sessions", "towards", "transport", "until")

    def __init__(
        self, transport: TransportName, inside: Endpoint, outside: Endpoint, towards: Remotes
    ) -> None:
        self.transport: TransportName = transport
        self.inside = inside
        self.outside = outside
        self.towards = towards
        self.until = 0.0
        """When it ends if nothing more comes from inside (UDP)."""
        self.sessions: dict[Endpoint | None, Session] = {}
        self.contacts: dict[str, int] = {}
        """For each remote host the sessions in which the inside has sent to it."""

    @property
    def is_forwarded(self) -> bool:
        return FORWARD in self.sessions

    @property
    def expires(self) -> float:
        return max(session.expires for session in self.sessions.values())

    def note_sent(self, session: Session) -> None:
        """Remember that the inside has sent in a session."""
        if not session.has_sent:
            session.has_sent = True
            if session.remote is not None:
                host = session.remote.host
                self.contacts[host] = self.contacts.get(host, 0) + 1

    def drop(self, session: Session) -> None:
        del self.sessions[session.remote]
        if session.has_sent and session.remote is not None:
            host = session.remote.host
            self.contacts[host] -= 1
            if not self.contacts[host]:
                del self.contacts[host]


class Bindings:
    """All bindings of a NAT, found from both sides; those that are over are forgotten."""

    def __init__(self) -> None:
        self._by_key: dict[tuple[TransportName, Endpoint, Remotes], Binding] = {}
        self._by_outside: dict[tuple[TransportName, Endpoint], Binding] = {}
        self._forwards: dict[tuple[TransportName, Endpoint], dict[Endpoint, Binding]] = {}
        self._flows: dict[tuple[TransportName, Endpoint, Endpoint], Session] = {}
        self._pairs: dict[str, tuple[str, int]] = {}
        self._taken: dict[tuple[TransportName, str], TakenPorts] = {}
        self._heap: list[tuple[float, int, Session]] = []
        self._queued = 0
        self.sessions = 0

    def __len__(self) -> int:
        return len(self._by_outside)

    def __iter__(self) -> Iterator[Binding]:
        return iter(self._by_outside.values())

    # ---- finding ---------------------------------------------------------------------

    def towards(
        self, transport: TransportName, inside: Endpoint, towards: Remotes
    ) -> Binding | None:
        return self._by_key.get((transport, inside, towards))

    def at(self, transport: TransportName, outside: Endpoint) -> Binding | None:
        return self._by_outside.get((transport, outside))

    def forward_of(self, transport: TransportName, inside: Endpoint) -> Binding | None:
        """Return the oldest forward to an endpoint inside."""
        return next(iter(self._forwards.get((transport, inside), {}).values()), None)

    def flow(self, transport: TransportName, inside: Endpoint, remote: Endpoint) -> Session | None:
        """Return the first of the sessions between two endpoints."""
        return self._flows.get((transport, inside, remote))

    def paired(self, inside_host: str) -> str | None:
        """Return the outside address of the bindings that a host has."""
        address, _ = self._pairs.get(inside_host, (None, 0))
        return address

    def free_port(self, transport: TransportName, host: str, first: int, last: int) -> int | None:
        """Return the lowest port of an outside address that no binding has, or None."""
        taken = self._taken.get((transport, host))
        if taken is not None:
            return taken.free_in(first, last)
        return first if first <= last else None

    # ---- adding ----------------------------------------------------------------------

    def add(self, binding: Binding) -> None:
        """Take a binding in. It needs a session at once, or it will never be forgotten."""
        if binding.towards is not FORWARD:
            self._by_key[binding.transport, binding.inside, binding.towards] = binding
        self._by_outside[binding.transport, binding.outside] = binding
        if binding.inside.host != binding.outside.host:
            _, count = self._pairs.get(binding.inside.host, ("", 0))
            self._pairs[binding.inside.host] = (binding.outside.host, count + 1)
            space = (binding.transport, binding.outside.host)
            self._taken.setdefault(space, TakenPorts()).add(binding.outside.port)

    def begin(self, binding: Binding, remote: Endpoint | None, until: float) -> Session:
        """Add a session to a binding."""
        session = binding.sessions[remote] = Session(binding, remote)
        self.sessions += 1
        if remote is None:
            forwards = self._forwards.setdefault((binding.transport, binding.inside), {})
            forwards[binding.outside] = binding
        else:
            self._flows.setdefault((binding.transport, binding.inside, remote), session)
        self.keep(session, until)
        return session

    # ---- forgetting ------------------------------------------------------------------

    def keep(self, session: Session, until: float) -> None:
        """Let a session end at another time."""
        session.expires = until
        if session.queued is None or until < session.queued:
            self._queue(session)

    def _queue(self, session: Session) -> None:
        session.queued = session.expires
        self._queued += 1
        heapq.heappush(self._heap, (session.expires, self._queued, session))
        if len(self._heap) > 2 * self.sessions + SLACK:
            self._heap = [item for item in self._heap if item[0] == item[2].queued]
            heapq.heapify(self._heap)

    def expire(self, now: float) -> None:
        """Forget the sessions that are over, and the bindings that have none left."""
        heap = self._heap
        while heap and heap[0][0] <= now:
            at, _, session = heapq.heappop(heap)
            if session.queued != at:
                continue  # It was ended, or its time has changed.
            if session.expires <= now:
                self.end(session)
            else:
                self._queue(session)
                heap = self._heap

    def end(self, session: Session) -> None:
        """Forget a session, and its binding if that has no other."""
        binding = session.binding
        session.queued = None
        binding.drop(session)
        self.sessions -= 1
        if session.remote is None:
            self._end_forward(binding)
        else:
            flow = (binding.transport, binding.inside, session.remote)
            if self._flows.get(flow) is session:
                del self._flows[flow]
        if not binding.sessions:
            self._remove(binding)

    def _end_forward(self, binding: Binding) -> None:
        forwards = self._forwards[binding.transport, binding.inside]
        del forwards[binding.outside]
        if not forwards:
            del self._forwards[binding.transport, binding.inside]

    def _remove(self, binding: Binding) -> None:
        del self._by_outside[binding.transport, binding.outside]
        if binding.towards is not FORWARD:
            del self._by_key[binding.transport, binding.inside, binding.towards]
        if binding.inside.host != binding.outside.host:
            address, count = self._pairs.pop(binding.inside.host)
            if count > 1:
                self._pairs[binding.inside.host] = (address, count - 1)
            space = (binding.transport, binding.outside.host)
            self._taken[space].remove(binding.outside.port)
            if not self._taken[space]:
                del self._taken[space]
