"""The client of NAT-PMP. Rules: specs/port-mapping.md."""

from __future__ import annotations

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
from p2pnet.connectivity.portmap.nat_pmp.messages import (
    ADDRESS,
    OPCODES,
    PORT,
    AddressAnswer,
    MapAnswer,
    Refusal,
    decode_untrusted,
    encode_address_request,
    encode_map_request,
)
from p2pnet.connectivity.portmap.schedule import nat_pmp_waits
from p2pnet.core.addresses import Endpoint
from p2pnet.core.env import Network

A = TypeVar("A", AddressAnswer, MapAnswer)

TRIES = 5
"""Datagrams to a router that does not answer, over 7.75 s; RFC 6886 allows for 9, over 2 min."""


class NatPmpClient:
    """Speaks to the router of a place."""

    protocol: ProtocolName = "nat-pmp"

    def __init__(self, network: Network, place: Place) -> None:
        self._network = network
        self._own = place.own
        self._remote = Endpoint(place.gateway, PORT)
        self._turn = trio.Lock()

    async def outside_address(self) -> AddressAnswer:
        """Ask what the outside address is. Raises as ``map``."""
        return await self._ask(encode_address_request(), AddressAnswer, ADDRESS)

    async def map(self, wish: Wish) -> Grant:
        inside_port = wish.inside.port
        request = encode_map_request(
            wish.transport, inside_port, outside_port=wish.outside.port, seconds=wish.seconds
        )
        async with self._turn:  # PM7: one question at a time
            told = await self.outside_address()
            if told.address is None:
                raise Refused(NO_ADDRESS, SHORT_REFUSAL)
            mapped = await self._ask_to_map(request, wish)
        check_worth(mapped.outside_port, mapped.seconds)
        outside = Endpoint(told.address, mapped.outside_port)
        return Grant(outside, mapped.seconds, mapped.epoch)

    async def check(self, wish: Wish, held: Grant) -> Grant:
        del held  # To ask again is all that there is.
        return await self.map(wish)

    async def unmap(self, wish: Wish) -> None:
        request = encode_map_request(wish.transport, wish.inside.port, outside_port=0, seconds=0)
        async with self._turn:
            await self._ask_to_map(request, wish)

    async def _ask_to_map(self, request: bytes, wish: Wish) -> MapAnswer:
        opcode = OPCODES[wish.transport]
        return await self._ask(request, MapAnswer, opcode, inside_port=wish.inside.port)

    async def _ask(
        self, request: bytes, kind: type[A], opcode: int, *, inside_port: int | None = None
    ) -> A:
        def read(data: bytes) -> A | Refusal | None:
            answer = decode_untrusted(data)
            if isinstance(answer, Refusal):
                return answer if answer.opcode == opcode else None
            if not isinstance(answer, kind):
                return None
            if isinstance(answer, MapAnswer):  # PM4
                is_ours = OPCODES[answer.transport] == opcode and answer.inside_port == inside_port
                return answer if is_ours else None
            return answer

        answer: A | Refusal = await ask(
            self._network,
            request,
            own=self._own,
            remote=self._remote,
            waits=nat_pmp_waits(TRIES),
            read=read,
        )
        if isinstance(answer, Refusal):
            raise Refused(answer.reason, answer.seconds)
        return answer
