"""Asks one server to dial one address, and hears the dial-back. Rules: specs/autonat.md."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import trio

from p2pnet.core.addresses import Multiaddr
from p2pnet.core.tasks import EXPECTED, log_stopped
from p2pnet.errors import LimitExceeded, describe
from p2pnet.interfaces import Connection, ServiceHost, Stream
from p2pnet.protocols.autonat.channels import Conversation, dial_back_channel
from p2pnet.protocols.autonat.dialogue import ask, take_dial_back
from p2pnet.protocols.autonat.messages import (
    DIAL_REQUEST,
    PADDING,
    DialRequest,
    DialResponse,
    DialStatus,
    Status,
)
from p2pnet.protocols.autonat.policy import Outcome, Purse, is_consistent, judge, port_of

logger = logging.getLogger("p2pnet.autonat")


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long the parts of a test may take, in seconds."""

    request: float
    nonce: float
    dial_back: float


@dataclass(slots=True)
class Awaited:
    """A nonce that somebody may say to us, once."""

    address: Multiaddr
    here_before: tuple[Connection, ...]
    """Connections from before the request: what comes on one of them was not dialled for it."""
    came: trio.Event = field(default_factory=trio.Event)


class Asker:
    """Holds the nonces of all tests under way."""

    def __init__(
        self,
        host: ServiceHost,
        random_bytes: Callable[[int], bytes],
        *,
        patience: Patience,
        purse: Purse,
    ) -> None:
        self._host = host
        self._random_bytes = random_bytes
        self._patience = patience
        self._purse = purse
        self._awaited: dict[int, Awaited] = {}

    # ---- asking --------------------------------------------------------------------------

    async def test(self, connection: Connection, address: Multiaddr, *, pays: bool) -> Outcome:
        """Ask the peer at the other end of a direct connection to dial an address of ours."""
        nonce = self._new_nonce()
        awaited = Awaited(address, self._host.connections())
        self._awaited[nonce] = awaited
        try:
            # AN20: what a dial over UDP costs is paid at once, as most servers want nothing else.
            port = port_of(address)
            padding = PADDING if port is not None and port[0] == "udp" else 0
            request = DialRequest((address,), nonce, padding)
            response = await self._ask(connection, request, pays=pays)
            if (response.status, response.dial_status) == (Status.OK, DialStatus.OK):
                with trio.move_on_after(self._patience.nonce):
                    await awaited.came.wait()
        except LimitExceeded as error:
            logger.debug("%s is not to dial %s: %s", connection.peer_id, address, describe(error))
            return Outcome.TOO_DEAR
        except EXPECTED as error:
            what = f"AutoNAT test of {address} by {connection.peer_id}"
            log_stopped(logger, what, error, expected=logging.DEBUG)
            return Outcome.UNDECIDED
        finally:
            del self._awaited[nonce]
        outcome = judge(response, delivered=awaited.came.is_set())
        logger.debug("%s at %s: %s", connection.peer_id, address, outcome.value)
        return outcome

    def _new_nonce(self) -> int:
        while True:  # AN20: zero is no nonce
            nonce = int.from_bytes(self._random_bytes(8), "little")
            if nonce and nonce not in self._awaited:
                return nonce

    async def _ask(
        self, connection: Connection, request: DialRequest, *, pays: bool
    ) -> DialResponse:
        with trio.fail_after(self._patience.request):
            stream = await connection.open_stream(DIAL_REQUEST)
            try:
                return await ask(Conversation(stream), request, partial(self._pay, pays=pays))
            finally:
                # There is nothing more to say, and the stream may be full of unread data.
                stream.reset()

    def _pay(self, num_bytes: int, *, pays: bool) -> None:
        """Agree to pay for a dial.

        Raises:
            LimitExceeded: if it is too much.
        """
        if not pays:
            raise LimitExceeded("data for a dial that was to be free", 0)
        if not self._purse.pay(num_bytes, trio.current_time()):
            raise LimitExceeded("max_data_bytes_per_hour", self._purse.max_bytes)

    # ---- being dialled -------------------------------------------------------------------

    async def hear_dial_back(self, stream: Stream) -> None:
        """Serve a dial-back stream, whoever opened it."""
        channel = dial_back_channel(stream, is_server=False)
        recognise = partial(self._recognise, stream.connection)
        with trio.fail_after(self._patience.dial_back):
            if not await take_dial_back(channel, recognise):
                logger.debug("a dial-back of %s that nobody waits for", stream.peer_id)
                stream.reset()

    def _recognise(self, connection: Connection, nonce: int) -> bool:
        """Tell if a nonce proves that an address was reached; it does so once (AN23, AN24)."""
        awaited = self._awaited.get(nonce)
        if awaited is None or awaited.came.is_set():
            return False
        was_dialled = connection.is_inbound and not connection.is_relayed
        if not was_dialled or any(connection is old for old in awaited.here_before):
            return False
        if not is_consistent(awaited.address, connection.local_address):
            return False
        awaited.came.set()
        return True
