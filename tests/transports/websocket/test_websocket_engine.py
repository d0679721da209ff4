"""Rules W4, W5, W6, W7, W8, W9, W10, W11 and W12 without I/O, and whatever else may come."""

from __future__ import annotations

import base64
import hashlib
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wsproto import WSConnection

from p2pnet.errors import ConnectionLost, ProtocolError
from p2pnet.transports.websocket.engine import (
    FRAME_BYTES,
    MAX_HOLLOW_FRAMES,
    BadFrame,
    FrameLimits,
    Frames,
    answer,
    answered,
    ask,
)
from p2pnet.transports.websocket.heads import Refused, UpgradeRefused, split_head

LIMITS = FrameLimits(1000, 1500)
ROOMY = FrameLimits(1 << 24, 1 << 24)
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
HEADERS = {
    "Host": "a.example",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": KEY,
    "Sec-WebSocket-Version": "13",
}
ZERO_MASK = bytes(4)


def request(*, line: str = "GET / HTTP/1.1", **changed: str | None) -> bytes:
    """Make a request; ``Sec_WebSocket_Key="x"`` changes a header, and None takes it out."""
    headers: dict[str, str | None] = dict(HEADERS)
    headers.update({name.replace("_", "-"): value for name, value in changed.items()})
    lines = [line, *(f"{name}: {value}" for name, value in headers.items() if value is not None)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def pair(limits: FrameLimits = ROOMY) -> tuple[Frames, Frames]:
    """Return the frames of a client and of a server that have shaken hands."""
    wire, asked = ask("a.example")
    server, response = answer(asked, limits)
    return answered(wire, response, limits), server


def masked(opcode: int, payload: bytes, *, fin: bool = True, claimed: int | None = None) -> bytes:
    """Make a client's frame by hand; it may claim another length than it has."""
    size = len(payload) if claimed is None else claimed
    if size < 126:
        length = bytes([0x80 | size])
    elif size < 65_536:
        length = bytes([0x80 | 126]) + size.to_bytes(2)
    else:
        length = bytes([0x80 | 127]) + size.to_bytes(8)
    return bytes([(0x80 if fin else 0) | opcode]) + length + ZERO_MASK + payload


# ---- the handshake -----------------------------------------------------------------------


def test_w6_a_client_asks_for_the_root_and_offers_nothing() -> None:
    _, asked = ask("a.example:4001")
    lines = asked.decode().lower().split("\r\n")
    assert lines[0] == "get / http/1.1"
    assert "host: a.example:4001" in lines
    names = {line.partition(":")[0] for line in lines[1:] if line}
    assert names == {name.lower() for name in HEADERS}


def test_w6_a_server_agrees_to_nothing_that_is_offered() -> None:
    offers = {"Sec_WebSocket_Protocol": "a, b", "Sec_WebSocket_Extensions": "permessage-deflate"}
    _, response = answer(request(Origin="https://evil.example", **offers), ROOMY)
    lines = response.decode().lower().split("\r\n")
    assert lines[0] == "http/1.1 101 switching protocols"
    accept = base64.b64encode(hashlib.sha1(KEY.encode() + GUID).digest()).decode()
    assert f"sec-websocket-accept: {accept.lower()}" in lines
    assert len([line for line in lines if line]) == 4


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"\r\n\r\n", 400),
        (b"\x16\x03\x01 nonsense\r\n\r\n", 400),
        (b"GET / FTP/1.1\r\n\r\n", 400),
        (request(line="get / HTTP/1.1"), 400),
        (request(line="GET /a b HTTP/1.1"), 400),
        (request(line="POST / HTTP/1.1"), 405),
        (request(line="PRI * HTTP/2.0"), 505),
        (request(line="GET / HTTP/1.0"), 505),
        (request(Upgrade=None), 426),
        (request(Upgrade="h2c"), 426),
        (request(Sec_WebSocket_Version="8"), 426),
        (request(Sec_WebSocket_Version=None), 400),
        (request(Host=None), 400),
        (request(Host="\xe9"), 400),
        (request(Connection=None), 400),
        (request(Connection="close"), 400),
        (request(Connection="\xff"), 400),
        (request(Sec_WebSocket_Key=None), 400),
        (request(Sec_WebSocket_Key=""), 400),
        (request(Sec_WebSocket_Key="dG9vIHNob3J0"), 400),
        (request(Sec_WebSocket_Extensions="\xff"), 400),
        (request(line="GET /\xff HTTP/1.1"), 400),
        (request().replace(b"Host", b"Bad Name"), 400),
        (request().replace(b"\r\n\r\n", b"\r\nHost: another\r\n\r\n"), 400),
        (request().replace(b"\r\n\r\n", f"\r\nSec-WebSocket-Key: {KEY}\r\n\r\n".encode()), 400),
    ],
)
def test_w5_a_bad_request_is_refused_with_the_status_that_says_why(
    head: bytes, status: int
) -> None:
    with pytest.raises(Refused) as caught:
        answer(head, ROOMY)
    assert caught.value.status == status
    said = caught.value.response
    top, _, body = said.partition(b"\r\n\r\n")
    assert said.startswith(f"HTTP/1.1 {status} ".encode())
    assert f"Content-Length: {len(body)}".encode() in top
    assert b"Connection: close" in top


def test_w5_a_reason_is_as_long_as_it_is_said_to_be_in_bytes() -> None:
    head, body = Refused(400, "a header «ü»").response.split(b"\r\n\r\n")
    assert f"Content-Length: {len(body)}".encode() in head.split(b"\r\n")


def test_w5_who_comes_with_the_wrong_method_is_told_the_right_one() -> None:
    with pytest.raises(Refused) as caught:
        answer(request(line="PUT / HTTP/1.1"), ROOMY)
    assert b"\r\nAllow: GET\r\n" in caught.value.response


@pytest.mark.parametrize("changed", [{"Upgrade": None}, {"Sec_WebSocket_Version": "12"}])
def test_w5_who_comes_without_the_right_version_is_told_it(changed: dict[str, str | None]) -> None:
    with pytest.raises(Refused) as caught:
        answer(request(line="GET / HTTP/1.1", **changed), ROOMY)
    assert b"\r\nSec-WebSocket-Version: 13\r\n" in caught.value.response


def test_w4_a_head_is_bounded() -> None:
    head = b"GET / HTTP/1.1\r\nA: " + b"a" * 1000
    assert split_head(head, 1024) is None
    assert split_head(head[:1000] + b"\r\n\r\nrest", 1024) == (head[:1000] + b"\r\n\r\n", b"rest")
    for endless in (head + b"a" * 100, head + b"a" * 1000 + b"\r\n\r\n"):
        with pytest.raises(Refused, match="431"):
            split_head(endless, 1024)


@pytest.mark.parametrize("status", [200, 301, 401, 404, 426, 500, 502])
def test_w7_another_status_is_told(status: int) -> None:
    wire, _ = ask("a.example")
    response = f"HTTP/1.1 {status} Whatever\r\nContent-Length: 5\r\n\r\n".encode()
    with pytest.raises(UpgradeRefused, match=str(status)) as caught:
        answered(wire, response, ROOMY)
    assert caught.value.status == status


def good_response(wire: WSConnection, asked: bytes) -> bytes:
    return answer(asked, ROOMY)[1]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"HTTP/1.1 101", b"HTTP/9.9 xyz"),
        (b"HTTP/1.1 101", b"\x00"),
        (b"Sec-WebSocket-Accept: ", b"Sec-WebSocket-Accept: A"),
        (b"Sec-WebSocket-Accept", b"X-Nothing"),
        (b"Upgrade: websocket", b"Upgrade: h2c"),
        (b"Connection: Upgrade", b"Connection: close"),
        (b"Connection: Upgrade", b"Connection: \xff"),
        (b"\r\n\r\n", b"\r\nSec-WebSocket-Protocol: chat\r\n\r\n"),
        (b"\r\n\r\n", b"\r\nSec-WebSocket-Protocol: \xff\r\n\r\n"),
        (b"\r\n\r\n", b"\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n"),
        (b"\r\n\r\n", b"\r\nSec-WebSocket-Extensions: \xff\r\n\r\n"),
        (b"\r\n\r\n", b"\r\nbad header\r\n\r\n"),
    ],
)
def test_w7_a_response_that_is_no_answer_is_refused(old: bytes, new: bytes) -> None:
    wire, asked = ask("a.example")
    response = good_response(wire, asked)
    assert old.lower() in response.lower()
    at = response.lower().index(old.lower())
    with pytest.raises(ProtocolError):
        answered(wire, response[:at] + new + response[at + len(old) :], ROOMY)


@settings(deadline=None)
@given(st.binary(max_size=200), st.integers(0, 200), st.integers(0, 200))
def test_w5_w7_whatever_comes_in_the_place_of_a_handshake_is_a_typed_error(
    noise: bytes, start: int, cut: int
) -> None:
    head = request()
    spoilt = (head[:start] + noise + head[start + cut :]).partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
    with suppress(Refused):
        answer(spoilt, ROOMY)
    wire, asked = ask("a.example")
    response = good_response(wire, asked)
    broken = (response[:start] + noise + response[start + cut :]).partition(b"\r\n\r\n")[0]
    with suppress(ProtocolError, UpgradeRefused):
        answered(wire, broken + b"\r\n\r\n", ROOMY)


# ---- frames ------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.lists(st.binary(max_size=300), max_size=5), st.integers(1, 400))
def test_w8_bytes_come_out_as_they_went_in_however_they_are_cut(
    messages: list[bytes], size: int
) -> None:
    for sender, receiver in (pair(), pair()[::-1]):
        wire = b"".join(map(sender.frame, messages))
        pieces = [wire[at : at + size] for at in range(0, len(wire), size)]
        assert b"".join(receiver.receive(p).data for p in pieces) == b"".join(messages)


def test_w8_a_client_masks_each_frame_with_a_fresh_key() -> None:
    client, server = pair()
    one, two = client.frame(bytes(FRAME_BYTES)), client.frame(bytes(FRAME_BYTES))
    assert one[:2] == two[:2] == bytes([0x82, 0x80 | 127])
    assert one[10:14] != two[10:14]
    assert one[14:18] == one[10:14]
    assert server.frame(b"abc") == b"\x82\x03abc"


@pytest.mark.parametrize(
    ("data", "reason", "code"),
    [
        (masked(1, b"text"), "text", 1003),
        (masked(1, b"\xff"), "utf-8", 1007),
        (b"\x82\x03abc", "unmasked", 1002),
        (masked(3, b""), "opcode", 1002),
        (masked(11, b""), "opcode", 1002),
        (b"\xc2" + masked(2, b"")[1:], "Reserved", 1002),
        (masked(0, b"abc"), "CONTINUATION", 1002),
        (masked(2, b"a", fin=False) + masked(2, b"b"), "CONTINUATION", 1002),
        (masked(9, b"a", fin=False), "fragment", 1002),
        (masked(9, bytes(126)), "125", 1002),
        (masked(8, b"\x03"), "1 byte", 1002),
        (masked(8, b"\x00\x01"), "code", 1002),
        (masked(8, b"\x03\xee"), "local-only", 1002),
        (masked(8, b"\x03\xe8\xff"), "reason", 1007),
        (bytes([0x82, 0xFE, 0, 1]), "2 bytes", 1002),
        (bytes([0x82, 0xFF]) + (5).to_bytes(8), "8 bytes", 1002),
        (bytes([0x82, 0xFF]) + (1 << 63).to_bytes(8), "MSB", 1002),
        (masked(2, bytes(1001)), "frame", 1009),
        (masked(2, bytes(900), fin=False) + masked(0, bytes(601)), "message", 1009),
    ],
)
def test_w8_w9_w11_a_bad_frame_is_told_and_ends_all(data: bytes, reason: str, code: int) -> None:
    _, server = pair(LIMITS)
    with pytest.raises(BadFrame, match=reason) as caught:
        server.receive(data)
    assert caught.value.farewell[:4] == bytes([0x88, 2]) + code.to_bytes(2)
    assert server.receive(masked(2, b"more")).data == b""
    assert server.close() == b""


def test_w8_a_client_takes_no_frame_that_is_masked() -> None:
    client, _ = pair()
    with pytest.raises(BadFrame, match="masked"):
        client.receive(masked(2, b"abc"))


def test_w9_a_frame_that_claims_to_be_long_costs_nothing_and_ends_at_the_limit() -> None:
    _, server = pair(LIMITS)
    assert server.receive(masked(2, bytes(900), claimed=1 << 40)).data == bytes(900)
    assert server.receive(bytes(100)).data == bytes(100)
    with pytest.raises(BadFrame, match="too long"):
        server.receive(b"1")


def test_w9_frames_at_the_limit_are_taken_for_as_long_as_one_likes() -> None:
    _, server = pair(LIMITS)
    for _ in range(10):
        first = masked(2, bytes(1000), fin=False)
        assert len(server.receive(first + masked(0, bytes(500))).data) == 1500


@pytest.mark.parametrize("hollow", [masked(2, b""), masked(9, b"ping"), masked(10, b"pong")])
def test_w9_frames_without_payload_are_numbered_until_some_comes(hollow: bytes) -> None:
    _, server = pair()
    for _ in range(2):
        server.receive(hollow * MAX_HOLLOW_FRAMES)
        server.receive(masked(2, b"x"))
    server.receive(hollow * MAX_HOLLOW_FRAMES)
    with pytest.raises(BadFrame, match="nothing in them") as caught:
        server.receive(hollow)
    assert caught.value.farewell == b"\x88\x02\x03\xf0"


def test_w10_of_several_pings_the_last_is_answered() -> None:
    client, server = pair()
    heard = server.receive(masked(9, b"one") + masked(2, b"data") + masked(9, b"two"))
    assert heard.reply == b"\x8a\x03two"
    assert heard.data == b"data"
    assert client.receive(heard.reply).reply == b""


@pytest.mark.parametrize("payload", [b"", b"\x03\xe8", b"\x03\xe8goodbye"])
def test_w11_a_close_in_good_order_is_the_end(payload: bytes) -> None:
    _, server = pair()
    heard = server.receive(masked(2, b"last") + masked(8, payload) + masked(2, b"unheard"))
    assert heard.data == b"last"
    assert heard.is_over
    assert heard.reply == b"\x88\x02\x03\xe8"
    assert not server.says_more
    assert server.receive(masked(2, b"more")).data == b""


@pytest.mark.parametrize("code", [1001, 1002, 1003, 1008, 1011, 3000, 4999])
def test_w11_any_other_code_is_a_loss(code: int) -> None:
    _, server = pair()
    with pytest.raises(ConnectionLost, match=str(code)):
        server.receive(masked(8, code.to_bytes(2)))


def test_w12_who_has_closed_hears_on_and_says_no_more() -> None:
    client, server = pair()
    closing = client.close()
    assert not client.says_more
    assert client.close() == b""
    late = server.frame(b"late")
    heard = server.receive(closing)
    assert heard.is_over
    assert client.receive(late).data == b"late"
    assert client.receive(heard.reply).is_over


@settings(deadline=None, max_examples=300)
@given(st.lists(st.binary(max_size=60), max_size=6), st.booleans())
def test_w8_garbage_is_a_typed_error_and_nothing_else(chunks: list[bytes], is_client: bool) -> None:
    frames = pair(LIMITS)[0 if is_client else 1]
    try:
        for chunk in chunks:
            frames.receive(chunk)
    except (BadFrame, ConnectionLost):
        assert frames.receive(b"more").is_over
