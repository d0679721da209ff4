"""As much HTTP as UPnP needs: one request a connection, in any pieces, within its limits."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pnet.testing.portmap.http import HttpExchange, HttpRequest, HttpResponse
from p2pnet.testing.portmap.settings import PortMapConfig
from tests.testing.portmap_client import read_http

CONFIG = PortMapConfig(max_head_bytes=200, max_headers=3, max_body_bytes=20)
GET = b"GET /a?b HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST /a HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello"


class Echo:
    """Answers with what it got, and counts."""

    def __init__(self) -> None:
        self.seen: list[tuple[HttpRequest, float]] = []

    def __call__(self, request: HttpRequest, now: float) -> HttpResponse:
        self.seen.append((request, now))
        return HttpResponse(200, request.body or b"nothing", {"X-Path": request.path})


def status_of(data: bytes) -> int:
    echo = Echo()
    connection = HttpExchange(echo, CONFIG)
    answer = connection.receive(data, 0.0)
    assert connection.is_over
    status = read_http(answer).status
    assert bool(echo.seen) == (status == 200)
    return status


def test_a_request_without_a_body_is_answered_at_the_end_of_its_head() -> None:
    echo = Echo()
    connection = HttpExchange(echo, CONFIG)
    assert connection.receive(GET[:-1], 1.0) == b""
    assert not connection.is_over
    answer = read_http(connection.receive(GET[-1:], 2.0))
    assert connection.is_over
    assert (answer.status, answer.body) == (200, "nothing")
    assert "Content-Length: 7\r\n" in answer.head
    assert "Connection: close\r\n" in answer.head
    (request, now) = echo.seen[0]
    assert (request.method, request.path, dict(request.headers)) == ("GET", "/a", {"host": "x"})
    assert now == 2.0


def test_a_body_is_waited_for_and_what_follows_is_ignored() -> None:
    connection = HttpExchange(Echo(), CONFIG)
    assert connection.receive(POST[:-1], 0.0) == b""
    assert read_http(connection.receive(b"o" + GET, 0.0)).body == "hello"
    assert connection.receive(GET, 0.0) == b""


def test_the_answer_to_head_has_no_body() -> None:
    connection = HttpExchange(Echo(), CONFIG)
    answer = read_http(connection.receive(b"HEAD / HTTP/1.1\r\n\r\n", 0.0))
    assert "Content-Length: 7\r\n" in answer.head
    assert answer.body == ""


def test_a_client_that_waits_is_told_to_continue() -> None:
    head = b"POST / HTTP/1.1\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"
    connection = HttpExchange(Echo(), CONFIG)
    assert connection.receive(head, 0.0) == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert read_http(connection.receive(b"ok", 0.0)).body == "ok"
    at_once = HttpExchange(Echo(), CONFIG)
    assert read_http(at_once.receive(head + b"ok", 0.0)).status == 200


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (GET, 200),
        (b"GET / HTTP/1.0\r\n\r\n", 200),
        (b"POST /a HTTP/1.1\r\nContent-Length: 1\r\ncontent-length: 1\r\n\r\nx", 200),
        (b"\r\n\r\n", 400),
        (b"GET /\r\n\r\n", 400),
        (b"GET  / HTTP/1.1\r\n\r\n", 400),
        (b"G@T / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n: no name\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nspace : x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\na: b\r\n folded\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: \xb2\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 1e1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 411),
        (b"POST / HTTP/1.1\r\nContent-Length: 20\r\n\r\n" + b"x" * 20, 200),
        (b"POST / HTTP/1.1\r\nContent-Length: 21\r\n\r\n", 413),
        (b"POST / HTTP/1.1\r\nContent-Length: " + b"9" * 99 + b"\r\n\r\n", 413),
        (b"GET / HTTP/1.1\r\na: 1\r\nb: 2\r\nc: 3\r\n\r\n", 200),
        (b"GET / HTTP/1.1\r\na: 1\r\nb: 2\r\nc: 3\r\nd: 4\r\n\r\n", 431),
        (b"x" * 200, 431),
        (b"GET /" + b"a" * 190 + b" HTTP/1.1\r\n\r\n", 431),
        (b"GET / HTTP/2.0\r\n\r\n", 505),
    ],
)
def test_each_request_gets_its_status(data: bytes, status: int) -> None:
    assert status_of(data) == status


def test_an_endless_head_is_cut_off_at_the_limit() -> None:
    connection = HttpExchange(Echo(), CONFIG)
    for _ in range(199):
        assert connection.receive(b"x", 0.0) == b""
    assert read_http(connection.receive(b"x", 0.0)).status == 431
    assert connection.is_over


@given(st.sampled_from([GET, POST, b"", b"GET", POST[:40]]), st.binary(max_size=300), st.data())
def test_any_pieces_give_the_same_answer_and_garbage_gets_one_or_none(
    start: bytes, rest: bytes, data: st.DataObject
) -> None:
    whole = start + rest
    at_once = HttpExchange(Echo(), CONFIG)
    expected = at_once.receive(whole, 0.0)
    piecewise = HttpExchange(Echo(), CONFIG)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=8)))
    got = b""
    for begin, end in zip([0, *cuts], [*cuts, len(whole)], strict=True):
        got += piecewise.receive(whole[begin:end], 0.0)
    assert got == expected
    assert piecewise.is_over == at_once.is_over
    assert bool(expected) == at_once.is_over
