"""The private names of qh3 that are used are there, and do what they did; and its traps."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import pytest
from qh3 import tls
from qh3._hazmat import QuicConnectionCore
from qh3.quic.connection import QuicConnection, QuicConnectionError
from qh3.quic.tls_bridge import QuicTlsBridge

from p2pnet.transports.quic.core import Cause, Core, Ended, Event, StreamData, StreamStopped
from p2pnet.transports.quic.qh3_connection import MOST_LEFT
from p2pnet.transports.quic.qh3_core import Qh3, Qh3Core
from tests.transports.quic.private_names import names_used
from tests.transports.quic.test_aioquic_core import SERVER, WINDOW, exchange, pair, settings

CRYPTO_OF_NO_MESSAGE = b"\x01\x00\x00\x02ab"

OF_CONNECTIONS = {
    "_applied_transport_parameters",
    "_call_core",
    "_close_event",
    "_configuration",
    "_core",
    "_create_core",
    "_create_tls",
    "_handshake_complete",
    "_is_client",
    "_original_destination_connection_id",
    "_pre_handshake_state_replayed",
    "_record_local_stream",
    "_retry_source_connection_id",
    "_set_version",
    "_stream_can_send",
    "_tls",
    "_version",
}
OF_TLS = {
    "_alps_negotiated",
    "_peer_certificate",
    "_process_certificate",
    "_receive_buffer",
    "_server_handle_finished",
    "_server_handle_hello",
}
OF_THE_CORE = [
    "is_client",
    "version",
    "local_addr",
    "remote_addr",
    "source_cid",
    "destination_cid",
    "peer_address_validated",
    "active_connection_id_limit",
    "max_datagram_size",
    "probe_datagram_size",
    "idle_timeout",
    "ack_delay_exponent",
    "max_datagram_frame_size",
    "peer_max_datagram_frame_size",
    "connection_receive_window",
    "connection_send_limit",
    "stream_receive_window",
    "stream_send_limit_bidi_local",
    "stream_send_limit_bidi_remote",
    "stream_send_limit_uni",
    "max_stream_reassembly",
    "local_max_streams_bidi",
    "local_max_streams_uni",
    "peer_max_streams_bidi",
    "peer_max_streams_uni",
    "initial_rtt",
    "max_ack_delay",
    "initial_time",
]
"""What its constructor takes, by position."""


@pytest.fixture
def connection() -> QuicConnection:
    """One of the library itself: nothing of ours is in it."""
    made = QuicConnection(configuration=Qh3(settings())._configuration(is_client=True))
    made.connect((SERVER.host, SERVER.port), 0.0)
    return made


def test_the_private_names_of_qh3_are_there(connection: QuicConnection) -> None:
    assert {name for name in OF_CONNECTIONS if not hasattr(connection, name)} == set()
    assert connection.tls is not None
    assert {name for name in OF_TLS if not hasattr(connection.tls, name)} == set()


def test_no_private_name_is_used_that_is_not_looked_for_here() -> None:
    assert names_used("qh3_connection", "qh3_core", "qh3_tls") - OF_CONNECTIONS - OF_TLS == set()


def test_the_native_core_is_made_with_what_it_takes() -> None:
    assert list(inspect.signature(QuicConnectionCore).parameters) == OF_THE_CORE


def test_what_is_overridden_is_called_with_the_same(connection: QuicConnection) -> None:
    for base, name, parameters in (
        (QuicConnection, "_create_core", ["self", "remote_addr", "initial_dcid", "now"]),
        (QuicConnection, "_create_tls", ["self", "remote_source_cid"]),
        (QuicTlsBridge, "serialize_transport_parameters", ["self"]),
        (tls.Context, "_server_handle_finished", ["self", "input_buf", "output_buf"]),
        (tls.Context, "handle_message", ["self", "input_data", "output_buf", "epoch"]),
    ):
        assert list(inspect.signature(getattr(base, name)).parameters) == parameters, name


def events_of(core: Core) -> list[Event]:
    return list(iter(core.next_event, None))


class Ends:
    """A client and a server who know each other, and what time it is."""

    def __init__(self) -> None:
        self.client, self.server = pair(Qh3(settings()), Qh3(settings()))
        self.now = 0.2
        self.pass_time()
        events_of(self.client)
        events_of(self.server)

    def pass_time(self) -> None:
        for _ in range(50):
            self.now += 0.01
            for end in (self.client, self.server):
                timer = end.timer()
                if timer is not None and timer <= self.now:
                    end.on_timer(self.now)
            exchange(self.client, self.server, self.now)

    def send(self, data: bytes) -> int:
        stream = self.client.open_stream()
        assert stream is not None
        self.client.write(stream, data)
        self.pass_time()
        return stream

    def fill(self) -> tuple[int, int]:
        """Send so much that no more is taken; return the stream, and how much of it was."""
        stream, taken = self.send(bytes(WINDOW)), 0
        while taken < WINDOW // 2:
            self.pass_time()
            events = events_of(self.server)
            taken += sum(len(each.data) for each in events if isinstance(each, StreamData))
        return stream, taken

    def say(self, offset: int, crypto: bytes) -> None:
        """Send what belongs to TLS, after the handshake."""
        assert isinstance(self.client, Qh3Core)
        native = self.client._connection._core
        assert native is not None
        native.send_crypto(3, offset, crypto)


def test_what_is_bad_ends_the_connection_even_if_it_was_left_in_the_library() -> None:
    ends = Ends()
    server = ends.server
    stream, unread = ends.fill()
    ends.say(0, CRYPTO_OF_NO_MESSAGE)
    ends.pass_time()
    assert events_of(server) == []
    assert server.consume(stream, unread, ends.now)
    *_, told = events_of(server)
    assert isinstance(told, Ended)
    assert told.cause is Cause.VIOLATION
    server.ping()


def test_not_more_than_some_thousand_events_are_left_in_the_library() -> None:
    """Q13: what is no data needs no credit, and a remote may say it as often as it likes."""
    ends = Ends()
    ends.fill()
    ticket = b"\x04" + (2 * MOST_LEFT).to_bytes(3)  # A message so long that it never ends here.
    ends.say(0, ticket)
    for offset in range(len(ticket), MOST_LEFT - 100):
        ends.say(offset, b".")
    ends.pass_time()
    server = ends.server
    assert isinstance(server, Qh3Core)
    assert server._connection.handshake_bytes == 0
    for offset in range(MOST_LEFT - 100, MOST_LEFT + 100):
        ends.say(offset, b".")
    ends.pass_time()
    assert server._connection.handshake_bytes > MOST_LEFT - 100


def test_who_writes_hears_that_it_is_in_vain_even_if_nobody_reads_another_stream() -> None:
    """Q9."""
    ends = Ends()
    stream = ends.send(b"a")
    assert StreamData(stream, b"a", is_last=False) in events_of(ends.server)
    ends.server.write(stream, b"b")
    ends.pass_time()
    ends.fill()
    ends.client.stop(stream, 7)
    ends.pass_time()
    assert events_of(ends.server) == []
    ends.server.write(stream, b"c")
    assert events_of(ends.server) == [StreamStopped(stream, 0)]


def test_nothing_is_owed_for_what_only_acknowledges() -> None:
    ends = Ends()
    ends.client.ping()
    ends.client.transmit(ends.now)
    assert ends.client.is_owed
    ends.client.ping()
    ends.pass_time()
    ends.pass_time()
    assert [end.is_owed for end in (ends.client, ends.server)] == [False, False]
    assert [end.is_settled for end in (ends.client, ends.server)] == [True, True]


@pytest.mark.parametrize(
    "ask",
    [
        lambda core, stream, now: core.transmit(now),
        lambda core, stream, now: core.unsent,
        lambda core, stream, now: core.room(stream),
        lambda core, stream, now: core.is_settled,
        lambda core, stream, now: core.write(stream, b"", is_last=True),
    ],
    ids=["transmit", "unsent", "room", "is_settled", "write"],
)
def test_a_library_that_cannot_tell_what_waits_ends_the_connection_and_nothing_else(
    ask: Callable[[Core, int, float], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = Ends()
    core = ends.client
    stream = ends.send(b"a")
    core.write(stream, bytes(3000))
    core.transmit(ends.now)
    core.write(stream, b"", is_last=True)
    assert isinstance(core, Qh3Core)
    assert core._late_ends

    def fail(stream: int | None) -> int:
        raise QuicConnectionError(1, None, "a stream that is over")

    monkeypatch.setattr(core._connection, "get_send_buffer_size", fail)
    ask(core, stream, ends.now)
    (ended,) = events_of(core)
    assert isinstance(ended, Ended)
    assert (ended.cause, ended.code) == (Cause.VIOLATION, 1)
