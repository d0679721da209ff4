"""SOAP, read from hostile XML and written."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pnet.errors import ProtocolError
from p2pnet.testing.portmap.soap import (
    MAX_ARGUMENTS,
    MAX_ELEMENTS,
    Call,
    decode_untrusted,
    encode_answer,
    encode_fault,
)
from tests.testing.portmap_client import WAN_IP, plain, soap

ENVELOPE = 'xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"'


def envelope(body: str, prologue: str = "") -> bytes:
    return f"{prologue}<s:Envelope {ENVELOPE}><s:Body>{body}</s:Body></s:Envelope>".encode()


def test_a_call_is_read_with_its_arguments() -> None:
    call = decode_untrusted(soap("Add", {"NewPort": "80", "NewHost": "", "NewText": "a &lt; b"}))
    arguments = {"NewPort": "80", "NewHost": "", "NewText": "a < b"}
    assert call == Call(WAN_IP, "Add", arguments)


def test_headers_blanks_and_comments_are_passed_over() -> None:
    data = (
        f"<s:Envelope {ENVELOPE}>\n<s:Header><a><b>c</b></a></s:Header>\n<s:Body>\n"
        '<u:Do xmlns:u="urn:x">\n <A> 1 </A><!-- no -->\n</u:Do>\n</s:Body></s:Envelope>'
    )
    assert decode_untrusted(data.encode()) == Call("urn:x", "Do", {"A": " 1 "})


BOMB = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]>'


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"<",
        b"\x00",
        b"\xff\xfe<\x00",
        b"<a/>",
        b"<a><b><c/></b></a>",
        envelope("<u:Do/>"),
        envelope(""),
        envelope('<u:Do xmlns:u="urn:x"/><u:Do xmlns:u="urn:x"/>'),
        envelope('<u:Do xmlns:u="urn:x"><A>1</A><A>2</A></u:Do>'),
        envelope('<u:Do xmlns:u="urn:x"><A><B/></A></u:Do>'),
        envelope('<u:Do xmlns:u="urn:x"><A>&unknown;</A></u:Do>'),
        envelope('<u:Do xmlns:u="urn:x"><A>&b;</A></u:Do>', BOMB),
        envelope('<u:Do xmlns:u="urn:x"/>', '<!DOCTYPE x SYSTEM "file:///etc/passwd">'),
        envelope('<u:Do xmlns:u="urn:x"/>') + b"<more/>",
        envelope('<u:Do xmlns:u="urn:x"/>')[:-3],
        envelope('<u:Do xmlns:u="urn:x"/>').decode().encode("utf-16"),
        b"<a>" * 100_000,
    ],
)
def test_what_is_no_call_breaks_the_protocol(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode_untrusted(data)


def test_the_encoding_that_a_document_claims_is_not_believed() -> None:
    call = envelope(
        '<u:Do xmlns:u="urn:x"><A>\xe4</A></u:Do>', '<?xml version="1.0" encoding="nn"?>'
    )
    assert decode_untrusted(call).arguments == {"A": "\xe4"}


def test_arguments_are_bounded() -> None:
    def call(count: int) -> bytes:
        return soap("Do", {f"A{number}": "" for number in range(count)})

    assert len(decode_untrusted(call(MAX_ARGUMENTS)).arguments) == MAX_ARGUMENTS
    with pytest.raises(ProtocolError, match="too many"):
        decode_untrusted(call(MAX_ARGUMENTS + 1))


def test_elements_are_bounded() -> None:
    def call(count: int) -> bytes:
        header = "<h/>" * (count - 4)
        data = f"<s:Envelope {ENVELOPE}><s:Header>{header}</s:Header>"
        return f'{data}<s:Body><u:Do xmlns:u="x"/></s:Body></s:Envelope>'.encode()

    assert decode_untrusted(call(MAX_ELEMENTS)).action == "Do"
    with pytest.raises(ProtocolError, match="too many"):
        decode_untrusted(call(MAX_ELEMENTS + 1))


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufffe\uffff")))
def test_an_answer_is_well_formed_whatever_its_text(text: str) -> None:
    data = encode_answer(Call("urn:a&b", "Do", {}), {"NewText": text, "NewOther": "1"})
    (answer,) = ElementTree.fromstring(data)[0]
    assert answer.tag == "{urn:a&b}DoResponse"
    assert [(argument.tag, argument.text or "") for argument in answer] == [
        ("NewText", text),
        ("NewOther", "1"),
    ]


def test_xml_inside_an_answer_is_not_escaped_as_some_clients_cannot_undo_that() -> None:
    data = encode_answer(Call("urn:x", "Do", {}), {"NewPortListing": "<a>&amp;</a>"}).decode()
    assert "<NewPortListing><![CDATA[<a>&amp;</a>]]></NewPortListing>" in data
    assert plain("<![CDATA[<a>&amp;</a>]]>") == "<a>&amp;</a>"


def test_a_fault_says_its_code_and_description() -> None:
    fault = ElementTree.fromstring(encode_fault(718))[0][0]
    assert fault.findtext("faultstring") == "UPnPError"
    control = "{urn:schemas-upnp-org:control-1-0}"
    assert fault.findtext(f"detail/{control}UPnPError/{control}errorCode") == "718"
    assert (
        fault.findtext(f"detail/{control}UPnPError/{control}errorDescription")
        == "ConflictInMappingEntry"
    )


@given(
    st.binary(max_size=200)
    | st.text(max_size=80).map(lambda text: envelope(text))
    | st.builds(
        lambda whole, at, byte: whole[:at] + bytes([byte]) + whole[at + 1 :],
        st.just(soap("Do", {"A": "1", "B": "2"})),
        st.integers(0, 250),
        st.integers(0, 255),
    )
)
def test_garbage_only_ever_breaks_the_protocol(data: bytes) -> None:
    try:
        call = decode_untrusted(data)
    except ProtocolError:
        return
    assert isinstance(call.action, str)
