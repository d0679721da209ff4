"""Whatever a router sends: it is understood, or refused with ProtocolError, and no more."""

from __future__ import annotations

import struct
from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from p2pnet.connectivity.portmap.asking import NotSpoken, read_outside_address
from p2pnet.connectivity.portmap.hearing import read_announcement
from p2pnet.connectivity.portmap.nat_pmp import messages as nat_pmp
from p2pnet.connectivity.portmap.pcp import messages as pcp
from p2pnet.connectivity.portmap.upnp import description, soap, ssdp, xml
from p2pnet.connectivity.portmap.upnp.http import (
    MAX_BODY_BYTES,
    MAX_HEAD_BYTES,
    Answer,
    AnswerReader,
    decode_head_untrusted,
    encode_request,
)
from p2pnet.connectivity.portmap.upnp.urls import Url, read_url
from p2pnet.core.addresses import Endpoint
from p2pnet.errors import ProtocolError

ROUTER = "192.168.1.1"
LOCATION = Url(Endpoint(ROUTER, 5000), "/root.xml")


def bounded_answer(data: bytes) -> object:
    reader = AnswerReader()
    return reader.receive(data) or reader.end()


DECODERS: dict[str, Callable[[bytes], object]] = {
    "NAT-PMP": nat_pmp.decode_untrusted,
    "PCP": pcp.decode_untrusted,
    "SSDP": lambda data: ssdp.decode_untrusted(data, ROUTER),
    "HTTP": bounded_answer,
    "head": decode_head_untrusted,
    "XML": lambda data: xml.read_untrusted(data, lambda path, text: None),
    "description": lambda data: description.decode_untrusted(data, LOCATION),
    "SOAP": lambda data: soap.decode_untrusted(data, "AddPortMapping"),
}
PIECES = st.sampled_from(
    [
        b"HTTP/1.1 200 OK\r\n",
        b"\r\n\r\n",
        b"Content-Length: 5\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"5\r\nhello\r\n",
        b"0\r\n\r\n",
        b"ST: urn:schemas-upnp-org:device:InternetGatewayDevice:1\r\n",
        b"LOCATION: http://192.168.1.1/\r\n",
        b"<root>",
        b"</root>",
        b"<service><serviceType>urn:schemas-upnp-org:service:WANIPConnection:1</serviceType>",
        b"<controlURL>/x</controlURL></service>",
        b"<s:Envelope><s:Body>",
        b"<!DOCTYPE a [",
        b"<![CDATA[",
        b"&#0;",
        b"&amp;",
        b"\xff\xfe",
        bytes([0, 0x80, 0, 0]),
        bytes([2, 0x81, 0, 0]),
    ]
)
GARBAGE = st.one_of(
    st.binary(max_size=200),
    st.lists(st.one_of(PIECES, st.binary(max_size=8)), max_size=12).map(b"".join),
)


@pytest.mark.parametrize("name", DECODERS)
@given(GARBAGE)
def test_garbage_raises_nothing_but_protocol_errors(name: str, data: bytes) -> None:
    with suppress(ProtocolError, NotSpoken):
        DECODERS[name](data)


@given(GARBAGE)
def test_garbage_is_no_announcement(data: bytes) -> None:
    told = read_announcement(data)
    assert told is None or len(data) >= 12


@given(st.text(max_size=60), st.text(max_size=60))
@example("http://[", "")
@example("http://192.168.1.1:99999999999999999999/", "")
@example("//", "http://192.168.1.1/")
def test_no_text_leads_to_another_host(text: str, base: str) -> None:
    """PM14."""
    try:
        url = read_url(text, base=base, host=ROUTER)
    except ProtocolError:
        return
    assert url.endpoint.host == ROUTER
    assert url.target.isascii()
    assert not set(url.target) & set(" \r\n\t")


# ---- NAT-PMP and PCP ---------------------------------------------------------------------


@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from(["tcp", "udp"]),
    st.tuples(st.integers(0, 65_535), st.integers(0, 65_535), st.integers(0, 2**32 - 1)),
)
def test_what_is_packed_as_the_rfc_says_is_read(
    epoch: int, transport: str, rest: tuple[int, int, int]
) -> None:
    opcode = 128 + {"udp": 1, "tcp": 2}[transport]
    data = struct.pack("!BBHIHHI", 0, opcode, 0, epoch, *rest)
    found = nat_pmp.decode_untrusted(data)
    assert isinstance(found, nat_pmp.MapAnswer)
    assert (found.epoch, found.transport) == (epoch, transport)
    assert (found.inside_port, found.outside_port, found.seconds) == rest


@pytest.mark.parametrize(
    ("code", "lasting"), [(2, True), (3, False), (4, False), (5, True), (77, True)]
)
def test_a_refusal_of_nat_pmp_lasts_or_passes(code: int, lasting: bool) -> None:
    """PM11."""
    answer = nat_pmp.decode_untrusted(struct.pack("!BBHI", 0, 130, code, 1))
    assert isinstance(answer, nat_pmp.Refusal)
    assert answer.seconds == (1800 if lasting else 60)
    assert str(code) in answer.reason or nat_pmp.Result(code).name in answer.reason


@pytest.mark.parametrize(
    ("decode", "data", "error"),
    [
        (nat_pmp.decode_untrusted, struct.pack("!BBHI", 0, 130, 1, 9), NotSpoken),
        (nat_pmp.decode_untrusted, struct.pack("!BBH", 0, 130, 0), ProtocolError),
        (nat_pmp.decode_untrusted, struct.pack("!BBHI", 0, 128, 0, 9), ProtocolError),
        (nat_pmp.decode_untrusted, struct.pack("!BBHIII", 0, 131, 0, 9, 0, 0), ProtocolError),
        (nat_pmp.decode_untrusted, b"\0\x80" + bytes(1099), ProtocolError),
        (pcp.decode_untrusted, struct.pack("!BBBBII12x", 2, 129, 0, 1, 9, 9), NotSpoken),
        (pcp.decode_untrusted, struct.pack("!BBBBII12x", 2, 129, 0, 0, 9, 9), ProtocolError),
        (pcp.decode_untrusted, struct.pack("!BBBBII12x", 2, 130, 0, 0, 9, 9), ProtocolError),
        (pcp.decode_untrusted, struct.pack("!BBBBII48x", 2, 129, 0, 0, 9, 9), ProtocolError),
        (pcp.decode_untrusted, b"\2\1" + bytes(22), ProtocolError),
        (pcp.decode_untrusted, b"\2\x80" + bytes(1102), ProtocolError),
    ],
)
def test_answers_that_are_none_are_told_from_other_protocols(
    decode: Callable[[bytes], object], data: bytes, error: type[Exception]
) -> None:
    """PM1, PM2."""
    with pytest.raises(error):
        decode(data)


@pytest.mark.parametrize(("told", "believed"), [(0, 30), (100, 100), (2**32 - 1, 3600)])
def test_a_refusal_of_pcp_is_believed_within_bounds(told: int, believed: int) -> None:
    """PM11."""
    data = struct.pack("!BBBBII12x", 2, 129, 0, 2, told, 1)
    answer = pcp.decode_untrusted(data)
    assert isinstance(answer, pcp.Refusal)
    assert answer.seconds == believed
    assert "NOT_AUTHORIZED" in answer.reason


def test_the_nonce_of_a_mapping_is_not_shown() -> None:
    """PM4: whoever knows it may delete the mapping."""
    nonce = bytes(range(200, 212))
    head = struct.pack("!BBBBII12x", 2, 129, 0, 0, 60, 1)
    body = struct.pack("!12sB3xHH16s", nonce, 6, 1, 2, bytes(16))
    answer = pcp.decode_untrusted(head + body)
    assert isinstance(answer, pcp.Mapped)
    assert answer.nonce == nonce
    assert answer.outside_address is None
    assert "nonce" not in repr(answer)


@pytest.mark.parametrize("text", ["0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255", "", "x"])
def test_an_address_at_which_nobody_can_be_is_none(text: str) -> None:
    """PM6."""
    assert read_outside_address(text) is None


@pytest.mark.parametrize("text", ["11.0.1.2", "192.168.0.2", "100.64.0.7", " 10.0.0.1\n"])
def test_private_addresses_count(text: str) -> None:
    """PM6."""
    assert read_outside_address(text) == text.strip()


@pytest.mark.parametrize(
    "first", ["HTTP/1.1 404 Not Found", "NOTIFY * HTTP/1.1", "HTTP/1.1", "HTTP/1.1 2OO OK"]
)
def test_a_search_is_answered_with_success_or_not_at_all(first: str) -> None:
    """PM13."""
    rest = f"\r\nST: {ssdp.TARGETS[0]}\r\nLOCATION: http://{ROUTER}/\r\n\r\n"
    found = ssdp.decode_untrusted(("HTTP/1.1 200 OK" + rest).encode(), ROUTER)
    assert found.location == Url(Endpoint(ROUTER, 80), "/")
    for data in ((first + rest).encode(), b"HTTP/1.1 200 OK" + rest.encode() + bytes(2048)):
        with pytest.raises(ProtocolError):
            ssdp.decode_untrusted(data, ROUTER)


# ---- HTTP --------------------------------------------------------------------------------

HEAD = b"HTTP/1.1 200 OK\r\nServer: x\r\n"


def chunked(body: bytes, size: int) -> bytes:
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    framed = b"".join(f"{len(piece):X};note=1\r\n".encode() + piece + b"\r\n" for piece in pieces)
    return framed + b"0\r\n\r\n"


def framed(body: bytes, framing: str) -> bytes:
    match framing:
        case "length":
            return HEAD + f"Content-Length: {len(body)}\r\n\r\n".encode() + body
        case "chunks":
            return HEAD + b"Transfer-Encoding: Chunked\r\n\r\n" + chunked(body, 7)
        case "interim":
            return b"HTTP/1.1 100 Continue\r\n\r\n" + framed(body, "length")
        case _:
            return HEAD + b"\r\n" + body


@pytest.mark.parametrize("framing", ["length", "chunks", "interim", "end"])
@given(st.binary(max_size=60), st.lists(st.integers(1, 30), max_size=30))
def test_an_answer_is_the_same_in_whatever_pieces(
    framing: str, body: bytes, sizes: list[int]
) -> None:
    """PM15."""
    data, reader = framed(body, framing), AnswerReader()
    answer: Answer | None = None
    for size in [*sizes, len(data)]:
        piece, data = data[:size], data[size:]
        if piece and answer is None:
            answer = reader.receive(piece)
    assert (answer or reader.end()) == Answer(200, body)


@pytest.mark.parametrize(
    "data",
    [
        b"x" * (MAX_HEAD_BYTES + 1),
        HEAD + b"A: b\r\n" * 65 + b"\r\n",
        HEAD + b"Content-Length: 131073\r\n\r\n",
        HEAD + b"Content-Length: -1\r\n\r\n",
        HEAD + b"Transfer-Encoding: gzip\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n20001\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nffffffffff\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"1" * 300,
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\nab\r\n",
        HEAD + b"\r\n" + bytes(MAX_BODY_BYTES + 1),
        b"HTTP/1.1 100 Continue\r\n\r\n" * 5,
        b"ICY 200 OK\r\n\r\n",
    ],
)
def test_what_is_over_a_limit_is_refused_as_it_comes(data: bytes) -> None:
    """PM15: none of these is waited out to its end."""
    with pytest.raises(ProtocolError):
        AnswerReader().receive(data)


@pytest.mark.parametrize("data", [b"", HEAD, framed(b"hello", "length")[:-1]])
def test_an_answer_that_ends_early_is_refused(data: bytes) -> None:
    """PM15."""
    reader = AnswerReader()
    reader.receive(data)
    with pytest.raises(ProtocolError, match="ends early"):
        reader.end()


def test_a_request_says_how_long_it_is() -> None:
    request = encode_request("POST", "/ctl", host="192.168.1.1:5000", body=b"hello")
    head, body = request.split(b"\r\n\r\n")
    assert head.splitlines()[0] == b"POST /ctl HTTP/1.1"
    assert b"Host: 192.168.1.1:5000" in head.splitlines()
    assert b"Content-Length: 5" in head.splitlines()
    assert body == b"hello"


# ---- XML ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        b"<a>" * 33 + b"</a>" * 33,
        b"<a>" + b"<b/>" * 4096 + b"</a>",
        b"<a>" + b"x" * 4097 + b"</a>",
        b"<a>" + b"&#120;" * 4097 + b"</a>",
        b"<!DOCTYPE a SYSTEM 'http://11.0.0.1/x'><a/>",
        b"<a>&undefined;</a>",
        b"<a>",
        b"",
    ],
)
def test_xml_over_a_limit_is_refused(data: bytes) -> None:
    """PM16."""
    with pytest.raises(ProtocolError):
        xml.read_untrusted(data, lambda path, text: None)


def test_a_million_laughs_are_not_laughed() -> None:
    """PM16: refused at the document type, however it is written down."""
    bomb = "<!DOCTYPE a [<!ENTITY a 'ha'>" + "".join(
        f"<!ENTITY {chr(98 + n)} '{('&' + chr(97 + n) + ';') * 10}'>" for n in range(9)
    )
    for text in (
        bomb + "]><a>&j;</a>",
        '<?xml version="1.0" encoding="utf-16"?>' + bomb + "]><a/>",
    ):
        with pytest.raises(ProtocolError, match="a document type"):
            xml.read_untrusted(text.encode(), lambda path, text: None)


def test_what_is_not_utf_8_is_latin_1() -> None:
    """PM16."""
    seen: list[str] = []
    xml.read_untrusted("<a>Menü</a>".encode("latin-1"), lambda path, text: seen.append(text))
    assert seen == ["Menü"]


def test_a_gateway_with_too_many_services_is_refused() -> None:
    """PM17."""
    data = b"<root>" + b"<service></service>" * 65 + b"</root>"
    with pytest.raises(ProtocolError, match="too many services"):
        description.decode_untrusted(data, LOCATION)


def test_the_base_of_urls_must_be_at_the_router_too() -> None:
    """PM14."""
    service = (
        "<service><serviceType>urn:schemas-upnp-org:service:WANIPConnection:1</serviceType>"
        "<controlURL>c</controlURL></service>"
    )
    for base, good in (("http://192.168.1.1:80/a/", True), ("http://11.0.0.1/", False)):
        page = f"<root><URLBase>{base}</URLBase>{service}</root>".encode()
        if good:
            (found,) = description.decode_untrusted(page, LOCATION)
            assert str(found.control) == "http://192.168.1.1:80/a/c"
        else:
            with pytest.raises(ProtocolError, match=r"gives a URL at 11\.0\.0\.1"):
                description.decode_untrusted(page, LOCATION)


def test_what_a_call_holds_is_escaped() -> None:
    call = soap.encode_call('a"b', "Do", {"Text": "<&>"})
    assert b"<Text>&lt;&amp;&gt;</Text>" in call
    assert b'xmlns:u="a&quot;b"' in call


@pytest.mark.parametrize(
    "body",
    [
        "<Envelope><Body><Fault/></Body></Envelope>",
        "<Envelope><Body><Fault><detail><UPnPError><errorCode>x</errorCode></UPnPError></detail>"
        "</Fault></Body></Envelope>",
        "<Envelope><Body><OtherResponse/></Body></Envelope>",
        "<Body><AddPortMappingResponse/></Body>",
        "<Envelope><Body><AddPortMappingResponse>"
        + "".join(f"<a{n}/>" for n in range(33))
        + "</AddPortMappingResponse></Body></Envelope>",
    ],
)
def test_what_is_neither_an_answer_nor_a_fault_is_refused(body: str) -> None:
    """PM18."""
    with pytest.raises(ProtocolError):
        soap.decode_untrusted(body.encode(), "AddPortMapping")
