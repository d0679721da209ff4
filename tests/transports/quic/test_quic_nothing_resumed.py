"""Rule Q5: nothing is resumed, nothing is said before the handshake, and no server is named."""

from __future__ import annotations

from dataclasses import replace

import pytest
from aioquic import tls
from aioquic._buffer import Buffer
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import HandshakeCompleted, QuicEvent

from p2pnet.transports.quic.aioquic_core import Aioquic
from p2pnet.transports.quic.core import Core, HandshakeDone, Library, StreamData
from p2pnet.transports.quic.qh3_core import Qh3
from tests.transports.quic.test_aioquic_core import CLIENT, SERVER, events_of, settings

each = pytest.mark.parametrize("library", [Aioquic, Qh3])
EARLY = b"said before anybody has proved anything"


def plain_client(
    *, ticket: tls.SessionTicket | None = None
) -> tuple[QuicConnection, list[tls.SessionTicket]]:
    """Make a client of the library itself, which would like to resume, and keeps tickets."""
    configuration = Aioquic(settings())._configuration(is_client=True)
    kept: list[tls.SessionTicket] = []
    client = QuicConnection(
        configuration=replace(configuration, session_ticket=ticket),
        session_ticket_handler=kept.append,
    )
    return client, kept


def plain_server(store: dict[bytes, tls.SessionTicket], original_id: bytes) -> QuicConnection:
    configuration = Aioquic(settings())._configuration(is_client=False)
    return QuicConnection(
        configuration=configuration,
        original_destination_connection_id=original_id,
        session_ticket_fetcher=store.get,
        session_ticket_handler=lambda ticket: store.update({ticket.ticket: ticket}),
    )


def ticket_of_another() -> tls.SessionTicket:
    """Have a server that resumes give out a ticket."""
    client, kept = plain_client()
    client.connect((SERVER.host, SERVER.port), 0.0)
    first = client.datagrams_to_send(0.0)
    server = plain_server({}, first[0][0][6:14])
    for data, _ in first:
        server.receive_datagram(data, (CLIENT.host, CLIENT.port), 0.0)
    for step in range(1, 10):
        now = step / 100
        for data, _ in server.datagrams_to_send(now):
            client.receive_datagram(data, (SERVER.host, SERVER.port), now)
        for data, _ in client.datagrams_to_send(now):
            server.receive_datagram(data, (CLIENT.host, CLIENT.port), now)
    return kept[0]


def converse(client: QuicConnection, library: Library) -> tuple[Core, list[QuicEvent]]:
    """Let a client speak to a server of ours; return that one, and what the client noticed."""
    client.connect((SERVER.host, SERVER.port), 0.0)
    client.send_stream_data(0, EARLY, end_stream=True)
    first = [data for data, _ in client.datagrams_to_send(0.0)]
    server = library.answer(first[0][6:14], None)
    for data in first:
        server.receive([data], CLIENT, 0.0)
    noticed: list[QuicEvent] = []
    for step in range(1, 100):
        now = step / 50
        for data, _ in server.transmit(now):
            client.receive_datagram(data, (SERVER.host, SERVER.port), now)
        timer = client.get_timer()
        if timer is not None and timer <= now:
            client.handle_timer(now)
        for data, _ in client.datagrams_to_send(now):
            server.receive([data], CLIENT, now)
        due = server.timer()
        if due is not None and due <= now:
            server.on_timer(now)
        while (event := client.next_event()) is not None:
            noticed.append(event)
    return server, noticed


@each
def test_a_server_gives_out_no_tickets(library: type[Aioquic | Qh3]) -> None:
    client, kept = plain_client()
    server, noticed = converse(client, library(settings()))
    assert any(isinstance(event, HandshakeCompleted) for event in noticed)
    assert HandshakeDone() in events_of(server)
    assert not kept


@each
def test_a_ticket_is_not_honoured_and_what_is_said_early_is_not_heard(
    library: type[Aioquic | Qh3],
) -> None:
    """It is said again after the handshake, and heard then."""
    ticket = ticket_of_another()
    assert ticket.max_early_data_size
    client, kept = plain_client(ticket=ticket)
    server, noticed = converse(client, library(settings()))
    (done,) = [event for event in noticed if isinstance(event, HandshakeCompleted)]
    assert not done.session_resumed
    assert not done.early_data_accepted
    assert len(server.certificates) == 1
    told = events_of(server)
    assert told.index(HandshakeDone()) < told.index(StreamData(0, EARLY, is_last=True))
    assert not kept


@each
def test_a_dialer_names_no_server_and_offers_nothing_but_libp2p(
    library: type[Aioquic | Qh3], monkeypatch: pytest.MonkeyPatch
) -> None:
    hellos: list[tls.ClientHello] = []
    pull = tls.pull_client_hello

    def look(buffer: Buffer) -> tls.ClientHello:
        hellos.append(pull(buffer))
        return hellos[-1]

    monkeypatch.setattr(tls, "pull_client_hello", look)
    dialled = library(settings()).dial(SERVER, 0.0)
    first = [data for data, _ in dialled.transmit(0.0)]
    accepted = Aioquic(settings()).answer(first[0][6:14], None)
    for data in first:
        accepted.receive([data], CLIENT, 0.0)
    (hello,) = hellos
    assert hello.server_name is None
    assert hello.alpn_protocols == ["libp2p"]
    assert not hello.early_data
    assert hello.pre_shared_key is None
