"""AutoNATv1Server: dials peers back that want to know if they can be dialled.

Rules: specs/autonat-v1.md (AO5 to AO14).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, fields
from functools import partial

import trio

from p2pnet.core.addresses import IpAddress, Multiaddr, ip_of
from p2pnet.core.channel import MessageChannel
from p2pnet.core.complaints import complain
from p2pnet.core.peer_id import PeerId
from p2pnet.core.tasks import EXPECTED
from p2pnet.errors import DialError
from p2pnet.interfaces import Apart, Kit, ServiceHost, Stream
from p2pnet.protocols.autonat_v1.dialogue import hear
from p2pnet.protocols.autonat_v1.messages import (
    MAX_MESSAGE_BYTES,
    PROTOCOL_ID,
    DialResponse,
    Message,
    Status,
    decode_untrusted,
    encode_message,
    status_name,
)
from p2pnet.protocols.autonat_v1.policy import (
    Allowance,
    DialBacks,
    network_of,
    outcome,
    targets,
)

logger = logging.getLogger("p2pnet.autonat")


@dataclass(frozen=True, slots=True, kw_only=True)
class AutoNATv1Server:
    """Serves ``/libp2p/autonat/1.0.0``; for hosts that others can dial."""

    dials_per_minute: int = 30
    """Dial-backs in all."""
    dials_per_minute_per_peer: int = 3
    dials_per_minute_per_network: int = 6
    """For one IPv4 address, or one IPv6 /56."""
    max_dials: int = 16
    """Dial-backs at the same time, each to 3 addresses of one IP at most."""
    request_timeout: float = 15.0
    """Seconds for a request to arrive, and for an answer to leave."""
    dial_timeout: float = 15.0
    """Seconds for a dial-back; if it fails, that is said when they are over."""
    stream_timeout: float = 60.0
    """Seconds for all of it."""
    allow_private: bool = False
    """Dial private and loopback addresses, and this machine: for tests, and networks of
    one's own."""

    def __post_init__(self) -> None:
        check_positive(self)

    def build(self, kit: Kit) -> AutoNATv1ServerService:
        return AutoNATv1ServerService(self)


def check_positive(part: AutoNATv1Server) -> None:
    for setting in fields(part):
        value: float = getattr(part, setting.name)
        if value <= 0 and setting.name != "allow_private":
            raise ValueError(f"{setting.name} must be positive, not {value}")


@dataclass(slots=True)
class Attempts:
    """The dials of one dial-back."""

    reached: Multiaddr | None = None
    causes: list[BaseException] = field(default_factory=list)


class AutoNATv1ServerService:
    """Made by the part ``AutoNATv1Server``. ``under_way`` tells how many dial-backs there are."""

    def __init__(self, config: AutoNATv1Server) -> None:
        self._config = config
        self._dial_backs = DialBacks(
            Allowance(
                per_minute=config.dials_per_minute,
                per_peer=config.dials_per_minute_per_peer,
                per_network=config.dials_per_minute_per_network,
                at_once=config.max_dials,
            )
        )

    @property
    def under_way(self) -> int:
        return len(self._dial_backs)

    async def run(self, host: ServiceHost, *, task_status: trio.TaskStatus[None]) -> None:
        host.handle(PROTOCOL_ID, partial(self._serve, host))
        task_status.started()
        await trio.sleep_forever()

    async def _serve(self, host: ServiceHost, stream: Stream) -> None:
        channel = channel_on(stream)
        with trio.fail_after(self._config.stream_timeout):  # AO1
            if self._dial_backs.admit(stream.peer_id):
                try:
                    response = await self._answer(host, stream, channel)
                finally:
                    self._dial_backs.dismiss(stream.peer_id)
            else:
                response = refusal("one request at a time")  # AO10
            logger.debug("%s: %s %s", stream.peer_id, status_name(response.status), response.text)
            with trio.fail_after(self._config.request_timeout):
                await channel.send(response)

    async def _answer(
        self, host: ServiceHost, stream: Stream, channel: MessageChannel[Message]
    ) -> DialResponse:
        asker, connection = stream.peer_id, stream.connection
        if connection.is_relayed:  # AO6
            return refusal("ask over a direct connection")
        with trio.fail_after(self._config.request_timeout):
            request = await hear(channel, asker)
        if isinstance(request, DialResponse):
            complain(logger, f"{asker}: {PROTOCOL_ID}: {request.text}")
            return request
        chosen = targets(
            request.addresses,
            asker=asker,
            observed=connection.remote_address,
            own=own_ips(host),
            allow_private=self._config.allow_private,
        )
        network = network_of(connection.remote_address)
        if not chosen or network is None:
            return refusal("no address to dial")
        return await self._dial_back(host, asker, chosen, network)

    async def _dial_back(
        self, host: ServiceHost, asker: PeerId, chosen: tuple[Multiaddr, ...], network: str
    ) -> DialResponse:
        began = trio.current_time()
        reason = self._dial_backs.begin(asker, network, began)
        if reason is not None:
            return refusal(reason)
        try:
            attempts = Attempts()
            with trio.move_on_after(self._config.dial_timeout):
                await dial_all(host, asker, chosen, attempts)
            response = outcome(attempts.reached, attempts.causes)
            if response.status in (Status.E_DIAL_ERROR, Status.E_INTERNAL_ERROR):
                # AO12: how long it took would tell what is behind a port.
                await trio.sleep_until(began + self._config.dial_timeout)
            return response
        finally:
            self._dial_backs.end()


async def dial_all(
    host: ServiceHost, asker: PeerId, chosen: tuple[Multiaddr, ...], attempts: Attempts
) -> None:
    """Dial all addresses at the same moment, as a stranger, until one works (AO9).

    All at once, since the answer that nobody was reached is about every one of them.
    """
    async with host.apart(stranger=True) as apart, trio.open_nursery() as nursery:
        for address in chosen:
            nursery.start_soon(dial_one, apart, asker, address, attempts, nursery)


async def dial_one(
    apart: Apart, asker: PeerId, address: Multiaddr, attempts: Attempts, nursery: trio.Nursery
) -> None:
    try:
        await apart.dial(asker, address)
    except DialError as error:
        attempts.causes += [attempt.cause for attempt in error.attempts] or [error]
    except EXPECTED as error:
        attempts.causes.append(error)
    else:
        attempts.reached = attempts.reached or address
        nursery.cancel_scope.cancel()


def own_ips(host: ServiceHost) -> frozenset[IpAddress]:
    """Return where this host is, as far as it knows: what is there is no stranger to it (AO7)."""
    known = (*host.addresses.value, *host.punch_addresses())
    return frozenset(ip for address in known if (ip := ip_of(address)) is not None)


def refusal(reason: str) -> DialResponse:
    return DialResponse(Status.E_DIAL_REFUSED, reason)


def channel_on(stream: Stream) -> MessageChannel[Message]:
    return MessageChannel(
        stream,
        PROTOCOL_ID,
        encode=encode_message,
        decode=decode_untrusted,
        max_bytes=MAX_MESSAGE_BYTES,
    )
