"""Ends of QUIC that can be bent, on a socket of their own: what attacks the others in the tests."""

from __future__ import annotations

from collections.abc import Callable

import trio

from p2pnet.core.addresses import Endpoint
from p2pnet.core.env import DatagramSocket
from p2pnet.core.keys import PrivateKey
from p2pnet.security.tls.certificate import make_certificate
from p2pnet.transports.quic.aioquic_connection import Connection
from p2pnet.transports.quic.aioquic_core import Aioquic
from p2pnet.transports.quic.core import CoreSettings
from p2pnet.transports.quic.packets import read_header
from tests.transports.quic.quic_scene import Peer

MIB = 1_048_576
PATIENCE = 5.0
"""Seconds that an end tries to get through."""


def core_settings(
    key: PrivateKey, random_bytes: Callable[[int], bytes], *, max_streams: int, window: int
) -> CoreSettings:
    """Make the settings of an end whose windows do not grow."""
    own = make_certificate(key, random_bytes)
    return CoreSettings(
        certificate=own.certificate_pem,
        private_key=own.private_key_pem,
        reset_token=lambda id_: id_ * 2,
        idle_timeout=30.0,
        datagram_bytes=1232,
        max_datagram_bytes=1452,
        max_streams=max_streams,
        stream_window=window,
        max_stream_window=window,
        connection_window=window,
        max_connection_window=window,
    )


def settings_of(peer: Peer) -> CoreSettings:
    return core_settings(peer.key, peer.env.random_bytes, max_streams=256, window=MIB)


def as_it_is(data: bytes) -> bytes:
    return data


class BentConnection(Connection):
    """Lets what TLS wants to say be changed before it is sealed."""

    change: Callable[[bytes], bytes] = staticmethod(as_it_is)
    answers: tuple[str | None] | None = None
    """What is answered to the offered protocols, if not one of them."""
    said = b""

    def _alpn_handler(self, alpn_protocol: str) -> None:
        super()._alpn_handler(alpn_protocol)
        if self.answers is not None:
            (self.tls.alpn_negotiated,) = self.answers

    def _push_crypto_data(self) -> None:
        for epoch, buffer in self._crypto_buffers.items():
            if buffer.data:
                self.said += buffer.data
                self._crypto_streams[epoch].sender.write(self.change(buffer.data))
            buffer.seek(0)


class Puppet:
    """A client, or a server, whose handshake can be bent."""

    def __init__(
        self, socket: DatagramSocket, peer: Peer, *, remote: Endpoint | None = None
    ) -> None:
        self.socket = socket
        self.remote = remote
        self.settings = settings_of(peer)
        library = Aioquic(self.settings)
        self.configuration = library._configuration(is_client=remote is not None)
        self.change: Callable[[bytes], bytes] = as_it_is
        self.answers: tuple[str | None] | None = None
        self.connection: BentConnection | None = None

    async def talk(self) -> int | None:
        """Shake hands; return the code with which the remote closed, or None if it did not."""
        first: list[bytes] = []
        if self.remote is None:
            (arrival, *_) = await self.socket.receive_many()
            self.remote = arrival.remote
            first.append(arrival.data)
        connection = self._make(first)
        with trio.move_on_after(PATIENCE):
            while connection.close_event is None:
                await self.flush(connection)
                with trio.move_on_after(0.2):
                    for arrival in await self.socket.receive_many():
                        self._hear(connection, arrival.data)
                timer = connection.get_timer()
                if timer is not None and timer <= trio.current_time():
                    connection.handle_timer(trio.current_time())
        event = connection.close_event
        return None if event is None else event.error_code

    def _make(self, first: list[bytes]) -> BentConnection:
        original = read_header(first[0]).target if first else None
        connection = BentConnection(self.configuration, self.settings, original)
        connection.change = self.change
        connection.answers = self.answers
        self.connection = connection
        if self.configuration.is_client and self.remote is not None:
            connection.connect((self.remote.host, self.remote.port), trio.current_time())
        for data in first:
            self._hear(connection, data)
        return connection

    def _hear(self, connection: Connection, data: bytes) -> None:
        if self.remote is not None:
            sender = (self.remote.host, self.remote.port)
            connection.receive_datagram(data, sender, trio.current_time())

    async def flush(self, connection: Connection) -> None:
        if self.remote is not None:
            for data, _ in connection.datagrams_to_send(trio.current_time()):
                await self.socket.send(data, self.remote)


class Spoiled:
    """Changes what is said from a certain byte on: what goes with it, and what comes later."""

    def __init__(
        self, at: int, now: Callable[[bytes], bytes], later: Callable[[bytes], bytes]
    ) -> None:
        self._left = at
        self._now = now
        self._later = later
        self._is_done = False

    def __call__(self, data: bytes) -> bytes:
        if self._is_done:
            return self._later(data)
        kept, rest = data[: self._left], data[self._left :]
        self._left -= len(kept)
        if not rest:
            return kept
        self._is_done = True
        return kept + self._now(rest)
