"""multistream-select as machines: M1 to M11 of specs/multistream.md."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pnet.errors import NegotiationFailed, P2PError, ProtocolError, StreamReset
from p2pnet.negotiation.machine import (
    HEADER_LINE,
    MAX_LINE_BYTES,
    Initiator,
    LazyInitiation,
    LineDecoder,
    Responder,
    encode_line,
)

NA = b"\x03na\n"
Machine = Initiator | Responder


def feed(machine: Machine | LazyInitiation, data: bytes, sizes: list[int] | None = None) -> int:
    """Give a machine what it wants of ``data``, in pieces; return how much it took."""
    at, turn = 0, 0
    while at < len(data) and (wanted := machine.wanted()):
        size = min(wanted, sizes[turn % len(sizes)]) if sizes else wanted
        piece = data[at : at + size]
        machine.receive(piece)
        at, turn = at + len(piece), turn + 1
    return at


def agree(machine: Machine, data: bytes) -> str | None:
    """Feed byte by byte what is wanted; return what was agreed on."""
    for at in range(len(data)):
        agreed = machine.receive(data[at : at + 1])
        if agreed is not None:
            return agreed
    return None


def test_m3_the_initiator_sends_header_and_first_proposal_at_once() -> None:
    initiator = Initiator(["/yamux/1.0.0", "/mplex/6.7.0"])
    assert initiator.data_to_send() == HEADER_LINE + encode_line("/yamux/1.0.0")
    assert initiator.data_to_send() == b""


def test_m3_the_responder_sends_its_header_with_the_answer_if_the_proposal_is_on_its_way() -> None:
    responder = Responder(["/noise"])
    assert responder.data_to_send() == b""
    feed(responder, HEADER_LINE + b"\x07")
    assert responder.data_to_send() == b""
    feed(responder, b"/noise\n")
    assert responder.data_to_send() == HEADER_LINE + encode_line("/noise")


def test_m3_the_responder_sends_its_header_alone_if_the_initiator_waits_for_it() -> None:
    responder = Responder(["/noise"])
    feed(responder, HEADER_LINE)
    assert responder.data_to_send() == HEADER_LINE
    assert responder.data_to_send() == b""
    feed(responder, encode_line("/noise"))
    assert responder.data_to_send() == encode_line("/noise")


def test_m4_the_first_supported_proposal_is_agreed_on() -> None:
    initiator, responder = Initiator(["/a", "/b", "/c"]), Responder(["/c", "/b"])
    agreed: list[str] = []
    while len(agreed) < 2:
        for speaker, listener in ((initiator, responder), (responder, initiator)):
            if result := agree(listener, speaker.data_to_send()):
                agreed.append(result)
    assert agreed == ["/b", "/b"]


def test_m4_an_initiator_without_another_proposal_fails_and_names_all() -> None:
    initiator = Initiator(["/a", "/b"])
    feed(initiator, HEADER_LINE + NA)
    with pytest.raises(NegotiationFailed) as caught:
        feed(initiator, NA)
    assert caught.value.proposals == ("/a", "/b")
    assert initiator.wanted() == 0


def test_m4_a_predicate_decides_which_protocols_are_supported() -> None:
    responder = Responder(lambda protocol_id: protocol_id.startswith("/chat/"))
    assert agree(responder, HEADER_LINE + encode_line("/echo/1")) is None
    assert agree(responder, encode_line("/chat/7")) == "/chat/7"


@pytest.mark.parametrize("machine", [Initiator(["/p"]), Responder(["/p"])])
def test_m5_a_finished_machine_wants_nothing_more_and_takes_nothing(machine: Machine) -> None:
    said = HEADER_LINE + encode_line("/p")
    assert feed(machine, said + b"payload") == len(said)
    assert machine.wanted() == 0
    with pytest.raises(ValueError, match="finished"):
        machine.receive(b"p")


@given(sizes=st.lists(st.integers(1, 30), min_size=1, max_size=8), refused=st.integers(0, 5))
def test_m5_any_chunking_takes_the_same_bytes_and_agrees_on_the_same(
    sizes: list[int], refused: int
) -> None:
    proposals = [f"/p/{number}" for number in range(refused + 1)]
    answers = HEADER_LINE + NA * refused + encode_line(proposals[-1])
    initiator = Initiator(proposals)
    assert feed(initiator, answers + b"\x13/mul", sizes) == len(answers)
    assert initiator.wanted() == 0

    said = HEADER_LINE + b"".join(encode_line(proposal) for proposal in proposals)
    responder = Responder(proposals[-1:])
    assert feed(responder, said + b"\x13/mul", sizes) == len(said)
    assert responder.data_to_send().endswith(encode_line(proposals[-1]))


def test_m5_reading_more_than_wanted_is_refused_as_misuse() -> None:
    responder = Responder(["/p"])
    with pytest.raises(ValueError, match="were wanted"):
        responder.receive(HEADER_LINE + b"\x03/")


@given(data=st.binary(max_size=300), greeted=st.booleans(), sizes=st.lists(st.integers(1, 30)))
def test_garbage_only_ever_raises_errors_of_ours(
    data: bytes, greeted: bool, sizes: list[int]
) -> None:
    machines: list[Machine | LazyInitiation]
    machines = [Initiator(["/a", "/b"]), Responder(["/a"]), LazyInitiation("/a")]
    for machine in machines:
        try:
            feed(machine, HEADER_LINE + data if greeted else data, sizes)
        except (ProtocolError, NegotiationFailed):
            continue


@pytest.mark.parametrize(
    "line",
    [
        b"\x00",
        b"\x02/a",
        b"\x03\xff\xfe\n",
        b"\x81\x08" + b"a" * 1024 + b"\n",
        b"\x83\x00",
        b"\xff\xff\xff",
    ],
    ids=["empty", "no newline", "not UTF-8", "too long", "length not minimal", "length too long"],
)
def test_m1_a_malformed_line_is_a_protocol_error(line: bytes) -> None:
    for machine in (Initiator(["/a"]), Responder(["/a"])):
        with pytest.raises(ProtocolError):
            feed(machine, HEADER_LINE + line)


def test_m1_the_longest_line_passes() -> None:
    longest = "/" + "p" * (MAX_LINE_BYTES - 2)
    assert agree(Responder([longest]), HEADER_LINE + encode_line(longest)) == longest
    with pytest.raises(ValueError, match="at most 1023"):
        Initiator([longest + "p"])


@pytest.mark.parametrize("protocol_id", ["", "/a\n", "na", "/multistream/1.0.0"])
def test_what_cannot_be_a_protocol_id_cannot_be_proposed(protocol_id: str) -> None:
    with pytest.raises(ValueError, match="cannot be a protocol id"):
        Initiator([protocol_id])


def test_proposing_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing to propose"):
        Initiator([])


@pytest.mark.parametrize("machine", [Initiator(["/p"]), Responder(["/p"])])
def test_m2_the_header_comes_only_once(machine: Machine) -> None:
    with pytest.raises(ProtocolError, match="twice"):
        feed(machine, HEADER_LINE + HEADER_LINE)


def test_m2_another_header_is_refused_at_the_first_byte_that_differs() -> None:
    responder = Responder(["/p"])
    feed(responder, b"\x13/multistream/")
    with pytest.raises(ProtocolError, match="no multistream header"):
        feed(responder, b"2")


@pytest.mark.parametrize(
    ("first", "named"),
    [
        (b"GET / HTTP/1.1\r\n", "HTTP"),
        (b"HTTP/1.1 400 Bad Request\r\n", "HTTP"),
        (b"\x16\x03\x01\x02\x00\x01", "TLS"),
        (b"\x15\x03\x03\x00\x02\x02", "TLS"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "SSH"),
        (b"\x00\x20" + bytes(19), "Noise"),
        (b"/multistream/1.0.0\n", "length"),
    ],
)
def test_m2_a_remote_that_speaks_something_else_is_named(first: bytes, named: str) -> None:
    for machine in (Initiator(["/noise"]), Responder(["/noise"])):
        with pytest.raises(ProtocolError, match=f"looks like.*{named}"):
            feed(machine, first)


def test_m7_a_listing_is_refused_and_the_negotiation_goes_on() -> None:
    responder = Responder(["/p"])
    feed(responder, HEADER_LINE + b"\x03ls\n")
    assert responder.data_to_send() == HEADER_LINE + NA
    assert agree(responder, encode_line("/p")) == "/p"


@pytest.mark.parametrize("theirs", ["/tls/1.0.0", "/noise/2"])
def test_m8_two_initiators_are_told_apart_from_a_wrong_answer(theirs: str) -> None:
    initiator = Initiator(["/noise"])
    with pytest.raises(ProtocolError, match="simultaneous open"):
        feed(initiator, Initiator([theirs]).data_to_send())
    with pytest.raises(ProtocolError, match="answered 'yes'"):
        feed(Initiator(["/noise"]), HEADER_LINE + encode_line("yes"))


def test_an_error_quotes_only_the_beginning_of_a_long_line() -> None:
    with pytest.raises(ProtocolError) as caught:
        feed(Initiator(["/noise"]), HEADER_LINE + encode_line("x" * 1000))
    assert len(str(caught.value)) < 200


def test_m9_a_responder_listens_to_a_limited_number_of_proposals() -> None:
    responder = Responder(["/p"], max_proposals=3)
    feed(responder, HEADER_LINE + encode_line("/a") * 3)
    assert responder.data_to_send().endswith(NA)
    with pytest.raises(ProtocolError, match="more than 3 proposals"):
        feed(responder, encode_line("/p"))


def test_m11_an_end_before_the_first_byte_is_a_reset_and_a_later_one_an_error() -> None:
    for machine in (Initiator(["/p"]), Responder(["/p"])):
        with pytest.raises(StreamReset):
            machine.receive(b"")
    for machine in (Initiator(["/p"]), Responder(["/p"])):
        feed(machine, b"\x13")
        with pytest.raises(ProtocolError, match="ended during"):
            machine.receive(b"")
    decoder = LineDecoder()
    decoder.feed(HEADER_LINE)
    with pytest.raises(ProtocolError, match="ended during"):
        decoder.feed(b"")


def test_m6_a_lazy_initiation_gives_its_prefix_once_and_is_done_after_the_answer() -> None:
    lazy = LazyInitiation("/p")
    assert lazy.prefix() == HEADER_LINE + encode_line("/p")
    assert lazy.prefix() == b""
    assert not lazy.done
    assert feed(lazy, HEADER_LINE + encode_line("/p") + b"data") == len(HEADER_LINE) + 4
    assert lazy.done
    assert lazy.wanted() == 0


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (HEADER_LINE + NA, NegotiationFailed),
        (b"\x00", ProtocolError),
        (HEADER_LINE + b"\x07/p\n", ProtocolError),
        (HEADER_LINE + b"\x07\xff\xff\xff", ProtocolError),
        (HEADER_LINE + b"\xff\x01/p", ProtocolError),
    ],
    ids=["refused", "malformed", "longer", "longer and not UTF-8", "longer still"],
)
def test_m10_the_error_of_a_lazy_initiation_is_final(
    answer: bytes, expected: type[P2PError]
) -> None:
    lazy = LazyInitiation("/p")
    with pytest.raises(expected):
        feed(lazy, answer)
    assert not lazy.done
    with pytest.raises(expected):
        lazy.wanted()


def test_m10_data_behind_a_refused_proposal_is_no_proposal() -> None:
    responder = Responder(["/p"])
    with pytest.raises(ProtocolError):
        feed(responder, HEADER_LINE + encode_line("/noise") + b"\x00\x20" + bytes(32))
