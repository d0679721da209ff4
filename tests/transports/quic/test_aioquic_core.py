"""The private names of aioquic that are used are there, and do what they did."""

from __future__ import annotations

import os

import pytest
from aioquic.quic import connection as library_connection
from aioquic.quic.congestion.reno import RenoCongestionControl
from aioquic.quic.connection import QuicConnection
from aioquic.quic.packet import QuicPreferredAddress
from aioquic.quic.recovery import QuicPacketPacer
from aioquic.tls import Epoch

from p2pnet.core.addresses import Endpoint
from p2pnet.core.keys import PrivateKey
from p2pnet.transports.quic.aioquic_connection import Connection
from p2pnet.transports.quic.aioquic_core import Aioquic, AioquicCore
from p2pnet.transports.quic.aioquic_pacer import Pacer
from p2pnet.transports.quic.aioquic_probing import Reno
from p2pnet.transports.quic.core import (
    MAX_IDS,
    Cause,
    Core,
    CoreSettings,
    Ended,
    HandshakeDone,
    IdIssued,
    Library,
    StreamData,
)
from p2pnet.transports.quic.qh3_core import Qh3, Qh3Core
from tests.transports.quic.private_names import names_used
from tests.transports.quic.puppets import core_settings

CLIENT, SERVER = Endpoint("1.2.3.4", 5), Endpoint("5.6.7.8", 9)
WINDOW = 65_536


def settings() -> CoreSettings:
    return core_settings(PrivateKey.generate(), os.urandom, max_streams=7, window=WINDOW)


def exchange(client: Core, server: Core, now: float) -> None:
    """Carry datagrams until both are silent."""
    while True:
        going, coming = client.transmit(now), server.transmit(now)
        for data, _ in going:
            server.receive([data], CLIENT, now)
        for data, _ in coming:
            client.receive([data], SERVER, now)
        if not going and not coming:
            return


def pair(client: Library, server: Library) -> tuple[Core, Core]:
    dialled = client.dial(SERVER, 0.0)
    first = [data for data, _ in dialled.transmit(0.0)]
    accepted = server.answer(first[0][6:14], None)
    for data in first:
        accepted.receive([data], CLIENT, 0.0)
    for now in (0.01, 0.05, 0.1, 0.2):
        exchange(dialled, accepted, now)
    return dialled, accepted


def events_of(core: Core) -> list[object]:
    found: list[object] = []
    while (event := core.next_event()) is not None:
        found.append(event)
    return found


@pytest.mark.parametrize("client", [Aioquic, Qh3])
@pytest.mark.parametrize("server", [Aioquic, Qh3])
def test_each_end_has_so_many_connection_ids_as_the_other_keeps(
    client: type[Aioquic | Qh3], server: type[Aioquic | Qh3]
) -> None:
    """Q31: one was there from the beginning."""
    for core in pair(client(settings()), server(settings())):
        issued = [event.id for event in events_of(core) if isinstance(event, IdIssued)]
        assert len({core.id, *issued}) == MAX_IDS


@pytest.mark.parametrize("client", [Aioquic, Qh3])
@pytest.mark.parametrize("server", [Aioquic, Qh3])
def test_both_libraries_shake_hands_with_certificates_on_both_sides(
    client: type[Aioquic | Qh3], server: type[Aioquic | Qh3]
) -> None:
    """Q4: guards the request for a certificate, and how the remote's is read."""
    dialled, accepted = pair(client(settings()), server(settings()))
    for core in (dialled, accepted):
        assert HandshakeDone() in events_of(core)
        assert [len(one) > 200 for one in core.certificates] == [True]
        assert core.idle_timeout == 30.0
    assert accepted.certificates != dialled.certificates
    assert dialled.reset_tokens[0] == accepted.id * 2
    number = dialled.open_stream()
    assert number == 0
    dialled.write(number, b"hello", is_last=True)
    exchange(dialled, accepted, 0.3)
    assert StreamData(0, b"hello", is_last=True) in events_of(accepted)


@pytest.mark.parametrize("receiver", [Aioquic, Qh3])
@pytest.mark.parametrize("sender", [Aioquic, Qh3])
def test_datagrams_in_a_row_are_worth_as_much_as_one_by_one(
    sender: type[Aioquic | Qh3], receiver: type[Aioquic | Qh3]
) -> None:
    dialled, accepted = pair(sender(settings()), receiver(settings()))
    events_of(accepted)
    number = dialled.open_stream()
    assert number is not None
    data = bytes(range(250)) * 12
    dialled.write(number, data, is_last=True)
    going = [datagram for datagram, _ in dialled.transmit(0.3)]
    assert len(going) == 3
    row = [going[0], b"\x40 no packet", *reversed(going[1:]), going[0]]
    accepted.receive(row, CLIENT, 0.3)
    arrived = [event for event in events_of(accepted) if isinstance(event, StreamData)]
    assert b"".join(event.data for event in arrived) == data
    assert [event.is_last for event in arrived].index(True) == len(arrived) - 1


@pytest.mark.parametrize("server", [Aioquic, Qh3])
def test_seven_streams_are_allowed_and_none_in_one_direction(
    server: type[Aioquic | Qh3],
) -> None:
    """Q12: guards the limits of streams."""
    dialled, _ = pair(Aioquic(settings()), server(settings()))
    numbers = [dialled.open_stream() for _ in range(8)]
    assert numbers == [0, 4, 8, 12, 16, 20, 24, None]
    assert isinstance(dialled, AioquicCore)
    assert dialled._connection._remote_max_streams_uni == 0


def test_credit_of_aioquic_follows_the_reader() -> None:
    """Q13: guards the overrides of the limits of streams and of the connection."""
    dialled, accepted = pair(Aioquic(settings()), Aioquic(settings()))
    number = dialled.open_stream()
    assert number is not None
    dialled.write(number, bytes(WINDOW))
    now = 1.0
    arrived = 0
    while arrived < WINDOW:
        exchange(dialled, accepted, now)
        now += 0.05
        arrived += sum(len(e.data) for e in events_of(accepted) if isinstance(e, StreamData))
        for core in (dialled, accepted):
            timer = core.timer()
            if timer is not None and timer <= now:
                core.on_timer(now)
    assert dialled.room(number) == 0
    assert accepted.consume(number, WINDOW // 2, now)
    exchange(dialled, accepted, now)
    assert dialled.room(number) == WINDOW // 2
    assert isinstance(dialled, AioquicCore)
    assert dialled._connection._remote_max_data == WINDOW + WINDOW // 2


@pytest.mark.parametrize("library", [Aioquic, Qh3])
@pytest.mark.parametrize("name", ["datagrams_to_send", "handle_timer"])
def test_what_a_library_does_not_expect_ends_the_connection_and_nothing_else(
    library: type[Aioquic | Qh3], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever drives the connection would take an error of any kind to the host."""
    _, core = pair(Aioquic(settings()), library(settings()))
    assert isinstance(core, AioquicCore | Qh3Core)
    events_of(core)

    def fail(now: float) -> None:
        raise KeyError("a stream that is over")

    monkeypatch.setattr(core._connection, name, fail)
    core.on_timer(0.3)
    core.transmit(0.3)
    (ended,) = events_of(core)
    assert isinstance(ended, Ended)
    assert (ended.cause, ended.code) == (Cause.VIOLATION, 1)


@pytest.mark.parametrize("library", [Aioquic, Qh3])
def test_a_dial_is_begun_anew_when_asked(library: type[Aioquic | Qh3]) -> None:
    """Q32: guards how the libraries are brought to it, long before their own timeouts."""
    core = library(settings()).dial(SERVER, 100.0)
    first = core.transmit(100.0)
    assert core.is_owed
    assert core.transmit(100.03) == []
    core.resend(100.03)
    again = core.transmit(100.03)
    assert len(again) == len(first)
    server = Aioquic(settings()).answer(again[0][0][6:14], None)
    for data, _ in again:
        server.receive([data], CLIENT, 100.04)
    for now in (100.05, 100.1, 100.2):
        exchange(core, server, now)
    assert any(isinstance(event, HandshakeDone) for event in events_of(core))


@pytest.mark.parametrize("library", [Aioquic, Qh3])
def test_a_dial_that_is_begun_anew_does_not_end_sooner_for_it(
    library: type[Aioquic | Qh3],
) -> None:
    """Q32: not even where no timeout but the last of all, of silence, is left to be had early."""
    core = library(settings()).dial(SERVER, 100.0)
    core.transmit(100.0)
    for number in range(12):
        core.resend(100.1 + number / 10)
        core.transmit(100.1 + number / 10)
    assert events_of(core) == []


OF_CONNECTIONS = {
    "_close_event",
    "_configuration",
    "_cryptos",
    "_find_network_path",
    "_flush_builder",
    "_handshake_confirmed",
    "_host_cids",
    "_initialize",
    "_is_client",
    "_local_max_data",
    "_local_max_streams_bidi",
    "_local_max_streams_uni",
    "_local_next_stream_id_bidi",
    "_logger",
    "_loss",
    "_max_datagram_size",
    "_network_paths",
    "_packet_number",
    "_parse_transport_parameters",
    "_peer_cid",
    "_peer_cid_available",
    "_probe_preferred_address",
    "_remote_max_idle_timeout",
    "_remote_max_streams_bidi",
    "_remote_preferred_address",
    "_replenish_connection_ids",
    "_serialize_transport_parameters",
    "_spin_bit",
    "_state",
    "_streams",
    "_version",
    "_write_connection_limits",
    "_write_stream_limits",
}
OF_TLS = {
    "_ec_private_keys",
    "_peer_certificate",
    "_peer_certificate_chain",
    "_receive_buffer",
    "_request_client_certificate",
    "_supported_groups",
    "_x25519_private_key",
    "_x448_private_key",
}
OF_LOSS = {"_cc", "_pacer", "_rtt_smoothed"}
"""What stands behind ``_loss``; and ``_max_datagram_size`` behind its pacer, too: it is set."""


def test_the_private_names_of_aioquic_are_there() -> None:
    configuration = Aioquic(settings())._configuration(is_client=True)
    plain = QuicConnection(configuration=configuration)  # Nothing of ours is in it.
    plain.connect((SERVER.host, SERVER.port), 0.0)
    assert {name for name in OF_CONNECTIONS if not hasattr(plain, name)} == set()
    assert {name for name in OF_TLS if not hasattr(plain.tls, name)} == set()
    assert {name for name in OF_LOSS if not hasattr(plain._loss, name)} == set()


def test_no_private_name_is_used_that_is_not_looked_for_here() -> None:
    used = names_used("aioquic_connection", "aioquic_core", "aioquic_pacer", "aioquic_probing")
    assert used - OF_CONNECTIONS - OF_TLS - OF_LOSS == set()


def test_what_is_set_behind_the_back_of_aioquic_is_what_it_goes_by() -> None:
    library = Aioquic(settings())
    connection = Connection(library._configuration(is_client=True), settings())
    connection.connect((SERVER.host, SERVER.port), 0.0)
    assert connection.tls._request_client_certificate is False
    assert connection.tls._x25519_private_key is not None
    assert connection.tls._x448_private_key is None, "keys are made that nobody uses"
    assert len(connection.tls._ec_private_keys) == 1
    assert connection.round_trip == connection._loss._rtt_smoothed
    assert type(connection._loss._pacer) is Pacer
    assert QuicPacketPacer(max_datagram_size=1232)._max_datagram_size == 1232
    assert type(connection._loss._cc) is Reno, "probes need to hear what becomes of packets"
    assert RenoCongestionControl(max_datagram_size=1)._max_datagram_size == 1
    assert not connection.violation
    connection.close(10, 0, "as the library does")
    assert connection.violation == (10, "as the library does")


def test_a_table_of_frames_is_made_of_sets_that_are_there() -> None:
    """Guards a function of the library that was given a memory: it makes the same sets."""
    made = library_connection.EPOCHS("IH01")
    assert made == {Epoch.INITIAL, Epoch.HANDSHAKE, Epoch.ZERO_RTT, Epoch.ONE_RTT}
    assert library_connection.EPOCHS("IH01") is made
    with pytest.raises(KeyError):
        library_connection.EPOCHS("X")


def test_a_server_does_not_choose_whom_else_we_send_packets_to() -> None:
    """Q19: what aioquic would probe is forgotten."""
    dialled, accepted = pair(Aioquic(settings()), Aioquic(settings()))
    assert isinstance(dialled, AioquicCore)
    victim = QuicPreferredAddress(("9.9.9.9", 9), None, bytes(8), bytes(16))
    dialled._connection._remote_preferred_address = victim
    number = dialled.open_stream()
    assert number is not None
    dialled.write(number, b"hello", is_last=True)
    assert {to for _, to in dialled.transmit(0.4)} == {SERVER}
    assert dialled._connection._remote_preferred_address is None
    exchange(dialled, accepted, 0.5)
