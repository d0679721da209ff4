"""AutoNATServer: dials peers that want to know if they can be dialled.

Rules: specs/autonat.md (AN10 to AN18). What it sends to whom it dials is less than what the
client has sent before, if that may be a third party; and it comes from a swarm apart: another
key, another port, and nothing of what this host serves.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from functools import partial

import trio

from p2pnet.core.addresses import Multiaddr, is_relayed
from p2pnet.interfaces import Connection, Kit, ServiceHost, Stream
from p2pnet.protocols.autonat.channels import request_channel
from p2pnet.protocols.autonat.dialling import Bounds, Dial, dial_back
from p2pnet.protocols.autonat.dialogue import MAX_PAYMENT, collect, receive_request
from p2pnet.protocols.autonat.messages import (
    DIAL_REQUEST,
    PADDING,
    DialDataRequest,
    DialResponse,
    DialStatus,
    Status,
)
from p2pnet.protocols.autonat.policy import (
    Budget,
    Choice,
    Limits,
    Others,
    Place,
    Toll,
    choose,
    is_foreign,
    network_of,
    place_of,
    toll,
)

logger = logging.getLogger("p2pnet.autonat")

LEAST_PAYMENT = 30_000
"""rust-libp2p takes a smaller demand for an error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AutoNATServer:
    """Serves AutoNAT v2, ``/libp2p/autonat/2/dial-request``. Most defaults are go-libp2p's."""

    max_per_minute: int = 60
    """Requests that are served; all others are rejected unread."""
    max_per_peer: int = 12
    """... of one peer, in a minute."""
    max_per_network: int = 24
    """... of one IPv4 address, or one IPv6 /56, in a minute."""
    max_foreign_per_minute: int = 12
    """Dials of an IP address that is not the client's."""
    max_per_target: int = 2
    """... and of one such IPv4 address or IPv6 /56, in a minute."""
    max_parallel: int = 32
    max_parallel_per_peer: int = 2
    request_timeout: float = 15.0
    """Seconds for a request to arrive, with the data that it costs."""
    longest_pause: float = 3.0
    """Seconds; a dial of a foreign IP address waits for a random time up to this."""
    dial_timeout: float = 8.0
    """Seconds for the dial."""
    foreign_dial_timeout: float = 5.0
    """... of a foreign IP address; if it fails, the answer waits for just as long."""
    dial_back_timeout: float = 5.0
    """Seconds to say the nonce and have it acknowledged."""
    max_others: int = 1024
    """Endpoints remembered at which somebody else than the client was found."""
    allow_private: bool = False
    """Dial private and loopback addresses too: for tests, and networks of one's own."""

    def __post_init__(self) -> None:
        for setting in fields(self):
            value: float = getattr(self, setting.name)
            if value <= 0 and setting.name not in ("allow_private", "longest_pause"):
                raise ValueError(f"{setting.name} must be positive, not {value}")
        if self.longest_pause < 0:
            raise ValueError("longest_pause must not be negative")

    def build(self, kit: Kit) -> AutoNATServerService:
        return AutoNATServerService(self, kit)


class AutoNATServerService:
    """Made by the part ``AutoNATServer``; works on its own."""

    def __init__(self, config: AutoNATServer, kit: Kit) -> None:
        self._config = config
        self._env = kit.env
        self._others = Others(config.max_others)
        self._budget = Budget(
            Limits(
                per_minute=config.max_per_minute,
                per_peer=config.max_per_peer,
                per_network=config.max_per_network,
                foreign_per_minute=config.max_foreign_per_minute,
                per_target=config.max_per_target,
                max_parallel=config.max_parallel,
                max_parallel_per_peer=config.max_parallel_per_peer,
            )
        )

    @property
    def running(self) -> int:
        """How many requests are being served."""
        return self._budget.running

    async def run(self, host: ServiceHost, *, task_status: trio.TaskStatus[None]) -> None:
        host.handle(DIAL_REQUEST, partial(self._serve, host))
        task_status.started()
        await trio.sleep_forever()

    # ---- requests ------------------------------------------------------------------------

    async def _serve(self, host: ServiceHost, stream: Stream) -> None:
        peer_id = stream.peer_id
        refusal = self._admit(stream.connection)
        if refusal is None:
            try:
                response = await self._answer(host, stream)
            finally:
                self._budget.end(peer_id)
        else:
            logger.debug("rejected a request of %s: %s", peer_id, refusal)
            response = DialResponse(Status.E_REQUEST_REJECTED)
        with trio.fail_after(self._config.request_timeout):
            await request_channel(stream).send(response)

    def _admit(self, connection: Connection) -> str | None:
        """Count a request that was not read yet; or say why it is not to be (AN10, AN11)."""
        if connection.is_relayed or connection.is_limited:
            return "it came over a relayed connection"
        network = network_of(connection.remote_address)
        return self._budget.begin(connection.peer_id, network, trio.current_time())

    async def _answer(self, host: ServiceHost, stream: Stream) -> DialResponse:
        channel = request_channel(stream)
        with trio.fail_after(self._config.request_timeout):
            request = await receive_request(channel)
            try:
                choice = choose(request.addresses, stream.peer_id, self._place(host))
            except OSError as error:
                logger.info("cannot tell what this host may dial: %s", error)
                return DialResponse(Status.E_INTERNAL_ERROR)
            if choice is None:
                return DialResponse(Status.E_DIAL_REFUSED)
            dial = Dial(stream.peer_id, choice, request.nonce)
            if not self._is_others(choice.address, stream.connection):
                price = toll(
                    choice.address,
                    padding=request.padding,
                    connected_from=places(host.connections(stream.peer_id)),
                )
                make = self._dial_sparingly if price is Toll.PADDED else self._dial
            elif limit := self._charge(choice):
                logger.debug("rejected a request of %s: %s", stream.peer_id, limit)
                return DialResponse(Status.E_REQUEST_REJECTED)
            else:
                price, make = Toll.DATA, self._dial_foreign
            if price is Toll.DATA:
                num_bytes = round(self._env.jitter(LEAST_PAYMENT, MAX_PAYMENT))
                await collect(channel, DialDataRequest(choice.index, num_bytes))
        return await make(host, dial)

    def _place(self, host: ServiceHost) -> Place:
        known = [
            address
            for address in (*host.addresses.value, *host.punch_addresses())
            if not is_relayed(address)
        ]
        interfaces = self._env.network.interface_addresses()
        return place_of(
            interfaces,
            known,
            allow_private=self._config.allow_private,
            dials=host.can_dial,
        )

    def _is_others(self, address: Multiaddr, connection: Connection) -> bool:
        """Tell if a third party may be at an address, or is known to be (AN13)."""
        return is_foreign(address, connection.remote_address) or self._others.includes(
            address, trio.current_time()
        )

    def _charge(self, choice: Choice) -> str | None:
        """Count a dial of somebody else; or say why it is not to be (AN11)."""
        return self._budget.begin_foreign(network_of(choice.address), trio.current_time())

    # ---- dials ---------------------------------------------------------------------------

    async def _dial(self, host: ServiceHost, dial: Dial) -> DialResponse:
        return await self._dial_within(host, dial, self._bounds)

    async def _dial_sparingly(self, host: ServiceHost, dial: Dial) -> DialResponse:
        """Dial a neighbour of the client, perhaps, with what the padding was worth (AN18)."""
        return await self._dial_within(host, dial, replace(self._bounds, unanswered_bytes=PADDING))

    @property
    def _bounds(self) -> Bounds:
        return Bounds(self._config.dial_timeout, self._config.dial_back_timeout)

    async def _dial_foreign(self, host: ServiceHost, dial: Dial) -> DialResponse:
        """Dial an IP address that may be a third party's.

        Many clients who paid slowly cannot make many dials begin at one moment; and from how
        long a failure takes, nobody learns whether a port is closed or silent (AN14).
        """
        await trio.sleep(self._env.jitter(0.0, self._config.longest_pause))
        seconds = self._config.foreign_dial_timeout
        ends_at = trio.current_time() + seconds
        response = await self._dial_within(host, dial, replace(self._bounds, dial=seconds))
        if response.dial_status != DialStatus.OK:
            await trio.sleep_until(ends_at)
        return response

    async def _dial_within(self, host: ServiceHost, dial: Dial, bounds: Bounds) -> DialResponse:
        dialled = await dial_back(host, dial, bounds)
        if dialled.found_another:
            self._others.note(dial.choice.address, trio.current_time())
        elif dialled.response.dial_status == DialStatus.OK:
            self._others.forget(dial.choice.address)
        return dialled.response


def places(connections: Iterable[Connection]) -> list[Multiaddr]:
    """Return where a client is, as its own packets say: whom it speaks to, it does not harm."""
    return [c.remote_address for c in connections if not c.is_relayed and not c.is_closed]
