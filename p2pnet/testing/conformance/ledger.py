"""A network that keeps a ledger of all that is opened on it, and of what was closed again."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from p2pnet.core.addresses import Endpoint
from p2pnet.core.changes import Changes
from p2pnet.core.env import ByteStream, DatagramSocket, Network, RecordKind, StreamListener
from p2pnet.core.udp import Arrival


class Ledger:
    """Passes everything on to a network, and knows what is open."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._opened: list[Entry] = []
        self.on_stream: Callable[[], None] | None = None
        """Called whenever there is another raw stream."""

    @property
    def open_streams(self) -> Sequence[str]:
        """What raw streams are open, in words."""
        return [str(entry) for entry in self._opened if isinstance(entry, EnteredStream)]

    @property
    def open(self) -> Sequence[str]:
        """All that is open, in words."""
        return [str(entry) for entry in self._opened]

    def enter(self, entry: Entry) -> None:
        self._opened.append(entry)
        if self.on_stream is not None and isinstance(entry, EnteredStream):
            self.on_stream()

    def strike(self, entry: Entry) -> None:
        if entry in self._opened:
            self._opened.remove(entry)

    async def dial_tcp(self, remote: Endpoint, *, local: Endpoint | None = None) -> ByteStream:
        stream = await self._network.dial_tcp(remote, local=local)
        return EnteredStream(stream, self)

    async def listen_tcp(self, local: Endpoint) -> StreamListener:
        return EnteredListener(await self._network.listen_tcp(local), self)

    async def bind_udp(self, local: Endpoint) -> DatagramSocket:
        return EnteredSocket(await self._network.bind_udp(local), self)

    def interface_addresses(self) -> tuple[str, ...]:
        return self._network.interface_addresses()

    def gateways(self) -> tuple[str, ...]:
        return self._network.gateways()

    def changes(self) -> Changes:
        return EnteredChanges(self._network.changes(), self)

    async def lookup(self, name: str, kind: RecordKind) -> tuple[str, ...]:
        return await self._network.lookup(name, kind)


class EnteredStream(ByteStream):
    """A raw stream that tells when it is closed."""

    def __init__(self, stream: ByteStream, ledger: Ledger) -> None:
        self._stream = stream
        self._ledger = ledger
        self.local, self.remote = stream.local, stream.remote
        ledger.enter(self)

    def __str__(self) -> str:
        return f"a raw stream from {self.local} to {self.remote}"

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self._stream.receive_some(max_bytes)

    async def send_eof(self) -> None:
        await self._stream.send_eof()

    async def aclose(self) -> None:
        self._ledger.strike(self)
        await self._stream.aclose()


class EnteredListener:
    """A raw listener that tells when it is closed, and what it accepts."""

    def __init__(self, listener: StreamListener, ledger: Ledger) -> None:
        self._listener = listener
        self._ledger = ledger
        self.local = listener.local
        ledger.enter(self)

    def __str__(self) -> str:
        return f"a raw listener on {self.local}"

    async def accept(self) -> ByteStream:
        return EnteredStream(await self._listener.accept(), self._ledger)

    async def aclose(self) -> None:
        self._ledger.strike(self)
        await self._listener.aclose()


class EnteredSocket:
    """A datagram socket that tells when it is closed."""

    def __init__(self, socket: DatagramSocket, ledger: Ledger) -> None:
        self._socket = socket
        self._ledger = ledger
        self.local = socket.local
        ledger.enter(self)

    def __str__(self) -> str:
        return f"a datagram socket on {self.local}"

    async def send(self, data: bytes, remote: Endpoint) -> None:
        await self._socket.send(data, remote)

    async def receive(self) -> tuple[bytes, Endpoint]:
        return await self._socket.receive()

    async def send_many(
        self, datagrams: Sequence[bytes], remote: Endpoint, *, source: str = ""
    ) -> None:
        await self._socket.send_many(datagrams, remote, source=source)

    async def receive_many(self) -> Sequence[Arrival]:
        return await self._socket.receive_many()

    def source_for(self, remote: Endpoint) -> str:
        return self._socket.source_for(remote)

    async def aclose(self) -> None:
        self._ledger.strike(self)
        await self._socket.aclose()


class EnteredChanges:
    """News of the network, of which it is told when nobody listens any more."""

    def __init__(self, changes: Changes, ledger: Ledger) -> None:
        self._changes = changes
        self._ledger = ledger
        ledger.enter(self)

    def __str__(self) -> str:
        return "a listener to changes of the network"

    async def wait(self) -> bool:
        return await self._changes.wait()

    def close(self) -> None:
        self._ledger.strike(self)
        self._changes.close()


Entry = EnteredStream | EnteredListener | EnteredSocket | EnteredChanges
