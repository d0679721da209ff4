"""W14 and W15 without I/O: bent handshakes of the web's TLS, and records that were changed."""

from __future__ import annotations

import ssl
from contextlib import suppress

import pytest

from p2pnet.errors import ConnectionLost, SecurityError
from p2pnet.transports.websocket.outer_engine import OuterEngine
from p2pnet.transports.websocket.outer_tls import client_context, server_context
from tests.transports.websocket.web_authority import Authority

AUTHORITY = Authority()
ISSUED = AUTHORITY.issue("a.example")
TRUST = client_context(AUTHORITY.pem)
SERVER = server_context(ISSUED.certificate, ISSUED.key)
GARBAGE = {
    "nothing": b"",
    "zeros": bytes(100),
    "ones": b"\xff" * 100,
    "records": b"\x16\x03\x01\x00\x05" * 40,
}


def client() -> OuterEngine:
    engine = OuterEngine(TRUST, server_name="a.example")
    assert not engine.shake_hands()
    return engine


def met() -> tuple[OuterEngine, OuterEngine]:
    """Return a client and a server that have shaken hands."""
    ours, theirs = client(), OuterEngine(SERVER)
    done = False
    while not done:
        theirs.feed(ours.data_to_send())
        done = theirs.shake_hands()
        ours.feed(theirs.data_to_send())
        ours.shake_hands()
    ours.read()
    return ours, theirs


def gets_nowhere(engine: OuterEngine, heard: bytes) -> None:
    """Have an engine hear something; no other error than ours comes out, and no secured stream."""
    with suppress(SecurityError):
        if heard:
            engine.feed(heard)
        assert not engine.shake_hands()
    engine.data_to_send()


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE)
def test_a_request_cut_anywhere_and_garbage_behind_it_is_a_typed_error(garbage: bytes) -> None:
    hello = client().data_to_send()
    for cut in range(len(hello)):
        gets_nowhere(OuterEngine(SERVER), hello[:cut] + garbage)


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE)
def test_an_answer_cut_anywhere_and_garbage_behind_it_is_a_typed_error(garbage: bytes) -> None:
    for step in range(0, 1500, 43):
        ours, theirs = client(), OuterEngine(SERVER)
        theirs.feed(ours.data_to_send())
        theirs.shake_hands()
        answer = theirs.data_to_send()
        heard = answer[: min(step, len(answer) - 1)] + garbage
        if not heard.startswith(answer):  # A last byte of zeros or ones may be the right one.
            gets_nowhere(ours, heard)


def test_an_old_version_is_refused_by_either_side() -> None:
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    stranger, server = OuterEngine(old, server_name="a.example"), OuterEngine(SERVER)
    assert not stranger.shake_hands()
    server.feed(stranger.data_to_send())
    with pytest.raises(SecurityError, match="PROTOCOL"):
        server.shake_hands()
    stranger.feed(server.data_to_send())
    with pytest.raises(SecurityError, match="ALERT"):
        stranger.shake_hands()


def test_a_record_changed_at_any_byte_ends_the_connection() -> None:
    length = len(met()[0].write(memoryview(b"words")))
    for at in range(length):
        ours, theirs = met()
        record = bytearray(ours.write(memoryview(b"words")))
        record[at] ^= 1
        heard = b""
        with suppress(ConnectionLost):
            theirs.feed(bytes(record))
            heard = theirs.read()
        assert heard == b""


def test_both_directions_carry_what_is_written_and_end() -> None:
    ours, theirs = met()
    words = bytes(range(256)) * 300
    theirs.feed(ours.write(memoryview(words)))
    assert theirs.read() == words
    assert not theirs.is_ended
    theirs.feed(ours.say_goodbye())
    assert theirs.read() == b""
    assert theirs.is_ended
