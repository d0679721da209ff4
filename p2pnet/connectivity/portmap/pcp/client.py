"""The client of PCP. Rules: specs/port-mapping.md."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TypeVar

import trio

from p2pnet.connectivity.portmap.asking import (
    NO_ADDRESS,
    SHORT_REFUSAL,
    Grant,
    Place,
    ProtocolName,
    Refused,
    Wish,
    check_worth,
)
from p2pnet.connectivity.portmap.exchange import ask
from p2pnet.connectivity.portmap.pcp.messages import (
    ANNOUNCE,
    MAP,
    NONCE_BYTES,
    PORT,
    Announced,
    Mapped,
    MapRequest,
    Refusal,
    decode_untrusted,
    encode_announce,
    encode_map,
)
from p2pnet.connectivity.portmap.schedule import Jitter, pcp_waits
from p2pnet.core.addresses import Endpoint
from p2pnet.core.env import Network

T = TypeVar("T")

TRIES = 2
"""Datagrams to a router that does not answer, over about 9 s; then it is asked again later."""


class PcpClient:
    """Speaks to the router of a place.

    ``secret`` is what the nonces are made of. A host that comes back with the same one may
    change the mappings that it left behind, and nobody else may.
    """

    protocol: ProtocolName = "pcp"

    def __init__(self, network: Network, place: Place, *, secret: bytes, jitter: Jitter) -> None:
        self._network = network
        self._own = place.own
        self._remote = Endpoint(place.gateway, PORT)
        self._secret = secret
        self._jitter = jitter
        self._turn = trio.Lock()

    async def announce(self) -> Announced | None:
        """Ask if the router is there; None if it is, and does not tell its epoch."""

        def read(data: bytes) -> Announced | Refusal | None:
            answer = decode_untrusted(data)
            if isinstance(answer, Mapped):
                return None
            return answer if isinstance(answer, Announced) or answer.opcode == ANNOUNCE else None

        answer = await self._ask_once(encode_announce(self._own), read)
        return answer if isinstance(answer, Announced) else None

    async def map(self, wish: Wish) -> Grant:
        mapped = await self._map(wish, wish.seconds)
        if mapped.outside_address is None:
            raise Refused(NO_ADDRESS, SHORT_REFUSAL)
        check_worth(mapped.outside_port, mapped.seconds)
        outside = Endpoint(mapped.outside_address, mapped.outside_port)
        return Grant(outside, mapped.seconds, mapped.epoch)

    async def check(self, wish: Wish, held: Grant) -> Grant:
        del held  # To ask again is all that there is.
        return await self.map(wish)

    async def unmap(self, wish: Wish) -> None:
        await self._map(wish, 0)

    async def _map(self, wish: Wish, seconds: int) -> Mapped:
        nonce = self._nonce(wish)
        request = MapRequest(
            self._own,
            nonce,
            wish.transport,
            wish.inside.port,
            wish.outside.port,
            wish.outside.host,
            seconds,
        )
        key = (nonce, wish.transport, wish.inside.port)

        def read(data: bytes) -> Mapped | Refusal | None:
            answer = decode_untrusted(data)
            match answer:  # PM4
                case Mapped():
                    told = (answer.nonce, answer.transport, answer.inside_port)
                    return answer if told == key else None
                case Refusal(opcode=opcode, nonce=about):
                    return answer if opcode == MAP and about in (None, nonce) else None
                case _:
                    return None

        answer: Mapped | Refusal = await self._ask_once(encode_map(request), read)
        if isinstance(answer, Refusal):
            raise Refused(answer.reason, answer.seconds)
        return answer

    async def _ask_once(self, request: bytes, read: Callable[[bytes], T | None]) -> T:
        async with self._turn:  # PM7: one question at a time
            return await ask(
                self._network,
                request,
                own=self._own,
                remote=self._remote,
                waits=pcp_waits(TRIES, self._jitter),
                read=read,
            )

    def _nonce(self, wish: Wish) -> bytes:
        what = f"{wish.transport} {wish.inside}".encode()
        return hashlib.blake2b(what, key=self._secret, digest_size=NONCE_BYTES).digest()
