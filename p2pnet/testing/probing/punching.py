"""A hole punch with plain sockets, by way of a rendezvous server.

::

    alice                     rendezvous                     bob
      | -- meet bob ------------> | <------------ meet alice -- |   from the port to be punched
      | <-- go, to bob's outside -|- go, to alice's outside --> |   both at the same moment
      | <============= hello, both ways, by the shortest way ==> |

Only outside endpoints are tried: what theory says of two NATs is about those.
"""

from __future__ import annotations

from dataclasses import dataclass

import trio

from p2pnet.core.addresses import Endpoint
from p2pnet.core.env import DatagramSocket, Network, StreamListener
from p2pnet.testing.packet import TransportName
from p2pnet.testing.probing.lines import LOST, Lines, receive_datagram, send_datagram
from p2pnet.testing.probing.meeting import Appointment, Jitter, TcpMeeting, UdpMeeting
from p2pnet.testing.probing.messages import Bye, Go, Meet, Where

ASK_INTERVAL = 0.1
CLOSE_SECONDS = 1.0

Meeting = TcpMeeting | UdpMeeting


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Who meets whom, and how long to try. Names are to be new for each attempt."""

    name: str
    peer: str
    local: Endpoint | None = None
    """The endpoint to punch from; any port of all addresses by default."""
    patience: float = 5.0
    """Seconds to try from the agreed moment on."""
    wait: float = 30.0
    """Seconds for the rendezvous to answer, and for the peer to come there."""
    skew: float = 0.0
    """Seconds to come too late: for trying out what that does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PunchResult:
    """How a hole punch ended."""

    direct: bool
    reason: str
    """dialled, accepted or answered; else: no rendezvous, nobody came, silence, refused, ..."""
    seconds: float = 0.0
    """From the agreed moment until the path worked both ways, or until it was given up."""
    remote: Endpoint | None = None
    """Where the peer was met: not always where the rendezvous saw it."""
    outside: Endpoint | None = None
    """Where the rendezvous saw this host."""


async def punch(
    network: Network,
    transport: TransportName,
    rendezvous: Endpoint,
    *,
    plan: Plan,
    jitter: Jitter,
) -> PunchResult:
    """Meet a peer by way of a rendezvous; the peer has to do the same, names exchanged.

    Raises:
        OSError: if the local endpoint cannot be had.
    """
    local = plan.local or Endpoint("::" if rendezvous.is_ipv6 else "0.0.0.0", 0)
    if transport == "udp":
        socket = await network.bind_udp(local)
        try:
            return await punch_udp(socket, rendezvous, plan)
        finally:
            await aclose(socket)
    listener = await network.listen_tcp(local)
    try:
        return await punch_tcp(network, listener, rendezvous, plan, jitter)
    finally:
        await aclose(listener)


async def aclose(opened: DatagramSocket | StreamListener) -> None:
    with trio.CancelScope(shield=True):
        await opened.aclose()


async def punch_udp(socket: DatagramSocket, rendezvous: Endpoint, plan: Plan) -> PunchResult:
    go = await go_by_datagram(socket, rendezvous, plan)
    if go is None:
        # Nothing acknowledges a datagram, so it stays open which of both it was.
        return PunchResult(direct=False, reason="no rendezvous or nobody came")
    return await hold(UdpMeeting(socket, appointment(go, plan)), go, plan)


async def go_by_datagram(socket: DatagramSocket, rendezvous: Endpoint, plan: Plan) -> Go | None:
    """Ask until the rendezvous says go; None if it never does."""

    async def ask() -> None:
        while True:
            await send_datagram(socket, Meet(plan.name, plan.peer, 0.0), rendezvous)
            await trio.sleep(ASK_INTERVAL)

    with trio.move_on_after(plan.wait):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            while True:
                message, source = await receive_datagram(socket)
                if isinstance(message, Go) and source == rendezvous:
                    nursery.cancel_scope.cancel()
                    return message
    return None


async def punch_tcp(
    network: Network, listener: StreamListener, rendezvous: Endpoint, plan: Plan, jitter: Jitter
) -> PunchResult:
    reason = "no rendezvous"
    with trio.move_on_after(plan.wait) as waiting:
        began = trio.current_time()
        try:
            stream = await network.dial_tcp(rendezvous, local=listener.local)
        except OSError:
            return PunchResult(direct=False, reason=reason)
        dialled = trio.current_time()
        async with stream:
            lines = Lines(stream)
            try:
                await lines.send(Where(plan.name))
                await lines.receive()
                # Twice, as a packet that was lost and sent again is no measure.
                round_trip = min(dialled - began, trio.current_time() - dialled)
                await lines.send(Meet(plan.name, plan.peer, round_trip))
                reason = "nobody came"
                go = await lines.receive()
            except LOST:
                return PunchResult(direct=False, reason=reason)
            if not isinstance(go, Go):
                return PunchResult(direct=False, reason=reason)
            waiting.deadline = float("inf")
            meeting = TcpMeeting(network, listener, appointment(go, plan), jitter)
            result = await hold(meeting, go, plan)
            await say_goodbye(lines)
            return result
    return PunchResult(direct=False, reason=reason)


def appointment(go: Go, plan: Plan) -> Appointment:
    return Appointment(go.meeting, plan.name, plan.peer, go.remote, go.round_trip)


async def say_goodbye(lines: Lines) -> None:
    """Let the other side close first, so that the port is not taken for a minute here."""
    try:
        await lines.send(Bye())
    except LOST:
        return
    await lines.drain(CLOSE_SECONDS)


async def hold(meeting: Meeting, go: Go, plan: Plan) -> PunchResult:
    """Run a meeting that was agreed upon just now."""
    agreed = trio.current_time()
    await trio.sleep(plan.skew)
    with trio.move_on_after(plan.patience):
        await meeting.run()
    met = meeting.met
    if met is None:
        seconds = trio.current_time() - agreed
        return PunchResult(direct=False, reason=meeting.reason, seconds=seconds, outside=go.own)
    return PunchResult(
        direct=True,
        reason=met.how,
        seconds=met.at - agreed,
        remote=met.remote,
        outside=go.own,
    )
