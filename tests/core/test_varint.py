"""Rules F1 and F2 of specs/framing.md."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pnet.core import varint
from p2pnet.errors import ProtocolError


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        (0, "00"),
        (1, "01"),
        (127, "7f"),
        (128, "8001"),
        (255, "ff01"),
        (300, "ac02"),
        (16384, "808001"),
        (2**63 - 1, "ffffffffffffffff7f"),
    ],
)
def test_known_numbers_are_written_and_read(value: int, encoded: str) -> None:
    data = bytes.fromhex(encoded)
    assert varint.encode(value) == data
    assert varint.decode_untrusted(data) == (value, len(data))


@pytest.mark.parametrize("value", [-1, 2**63])
def test_numbers_that_do_not_fit_are_refused(value: int) -> None:
    with pytest.raises(ValueError, match="does not fit"):
        varint.encode(value)


@pytest.mark.parametrize("data", ["8000", "ff00", "808000", "80808080808080808000"])
def test_a_longer_form_than_the_shortest_is_refused(data: str) -> None:
    with pytest.raises(ProtocolError):
        varint.decode_untrusted(bytes.fromhex(data))


def test_nine_bytes_that_go_on_are_refused() -> None:
    with pytest.raises(ProtocolError, match="more than 9 bytes"):
        varint.decode_untrusted(b"\x80" * 9)


def test_a_number_over_the_maximum_is_refused_before_it_is_complete() -> None:
    assert varint.decode_untrusted(b"\x80\x20", max_value=4096) == (4096, 2)
    with pytest.raises(ProtocolError, match="over 4096"):
        varint.decode_untrusted(b"\x81\xa0", max_value=4096)


def test_the_error_names_the_protocol_it_happened_in() -> None:
    with pytest.raises(ProtocolError, match=r"^/x/1\.0\.0: ") as caught:
        varint.decode_untrusted(b"\x80\x00", protocol_id="/x/1.0.0")
    assert caught.value.protocol_id == "/x/1.0.0"


@given(st.integers(0, 2**63 - 1), st.binary(max_size=4), st.binary(max_size=4))
def test_round_trip_at_any_offset(value: int, before: bytes, after: bytes) -> None:
    encoded = varint.encode(value)
    data = before + encoded + after
    assert varint.decode_untrusted(data, len(before)) == (value, len(before) + len(encoded))


@given(st.integers(0, 2**63 - 1), st.data())
def test_a_number_cut_short_is_incomplete(value: int, data: st.DataObject) -> None:
    encoded = varint.encode(value)
    cut = data.draw(st.integers(0, len(encoded) - 1))
    assert varint.decode_untrusted(encoded[:cut]) is None


@given(st.binary(max_size=12), st.integers(0, 2**63 - 1))
def test_what_is_read_from_any_bytes_is_the_shortest_form_and_within_the_maximum(
    data: bytes, maximum: int
) -> None:
    try:
        found = varint.decode_untrusted(data, max_value=maximum)
    except ProtocolError:
        return
    if found is not None:
        value, end = found
        assert value <= maximum
        assert varint.encode(value) == data[:end]
