"""Warns before a relay cuts a circuit that ends here. Rule: specs/relay.md (R39)."""

from __future__ import annotations

import logging

import trio

from p2pnet.core.peer_id import PeerId
from p2pnet.core.tasks import start_in
from p2pnet.events import CircuitNearLimit
from p2pnet.interfaces import CircuitLimit, ServiceHost, Stream

logger = logging.getLogger("p2pnet.relay")

UNLIMITED = CircuitLimit()
NEAR = 0.8
"""The part of a limit that is used up when the warning is given."""


class Meter:
    """Watches all circuits of a host; ``nursery`` is for the clocks of those limited in time."""

    def __init__(self, host: ServiceHost, nursery: trio.Nursery) -> None:
        self._host = host
        self._nursery = nursery

    def watch(self, stream: Stream, peer_id: PeerId, limit: CircuitLimit | None) -> CircuitStream:
        """Wrap the stream of a circuit to a peer."""
        circuit = CircuitStream(stream, self, peer_id, limit or UNLIMITED)
        if limit is not None and limit.seconds is not None:
            start_in(self._nursery, self._time, circuit, limit.seconds)
        return circuit

    async def _time(self, circuit: CircuitStream, seconds: float) -> None:
        with trio.move_on_after(seconds * NEAR):
            await circuit.closed.wait()
            return
        self.warn(circuit, "seconds", seconds * NEAR, seconds)

    def warn(self, circuit: CircuitStream, limit: str, used: float, maximum: float) -> None:
        relay = circuit.relay
        logger.warning(
            "the circuit to %s over relay %s has used %.0f of its %.0f %s, and will be cut",
            circuit.peer_id,
            relay,
            used,
            maximum,
            limit,
        )
        self._host.publish(
            CircuitNearLimit(circuit.peer_id, relay, limit, used, maximum, circuit.limit)
        )


class CircuitStream(trio.abc.HalfCloseableStream):
    """The stream of a circuit: counts its bytes, and tells when it was closed."""

    def __init__(self, stream: Stream, meter: Meter, peer_id: PeerId, limit: CircuitLimit) -> None:
        self._stream = stream
        self._meter = meter
        self._sent = self._received = 0
        self._maximum = limit.data_bytes
        """None if there is none, or once it was warned of."""
        self.peer_id = peer_id
        self.limit = limit
        self.closed = trio.Event()

    @property
    def relay(self) -> PeerId:
        return self._stream.peer_id

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        self._sent += len(data)
        self._check(self._sent)
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        data = await self._stream.receive_some(max_bytes)
        self._received += len(data)
        self._check(self._received)
        return data

    def _check(self, used: int) -> None:
        maximum = self._maximum
        if maximum is not None and used >= maximum * NEAR:
            self._maximum = None
            self._meter.warn(self, "bytes", used, maximum)

    async def send_eof(self) -> None:
        await self._stream.send_eof()

    async def aclose(self) -> None:
        try:
            await self._stream.aclose()
        finally:
            self.closed.set()
