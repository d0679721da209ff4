"""DER is taken apart as it was put together, and only if it is in its one form."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pnet.security.tls import der


@given(st.integers(0, 255), st.binary(max_size=70_000))
def test_a_value_comes_back(tag: int, content: bytes) -> None:
    encoded = der.encode(tag, content)
    assert der.only(encoded, tag) == der.Value(tag, content, encoded)


@pytest.mark.parametrize(
    "data",
    ["", "04", "0401", "0402ff", "0480", "04810100", "04817f", "0482", "048200ff", "0484ffffffff"],
)
def test_what_is_cut_off_or_not_in_its_shortest_form_is_refused(data: str) -> None:
    """T9."""
    with pytest.raises(der.DerError):
        der.only(bytes.fromhex(data), der.OCTET_STRING)


def test_another_tag_and_what_is_left_over_are_refused() -> None:
    with pytest.raises(der.DerError, match="tag 0x30"):
        der.only(b"\x04\x00", der.SEQUENCE)
    with pytest.raises(der.DerError, match="1 bytes behind"):
        der.only(b"\x04\x00\x00", der.OCTET_STRING)


@given(st.binary(max_size=300))
def test_garbage_is_refused_and_nothing_else_happens(data: bytes) -> None:
    reader = der.Reader(data)
    with suppress(der.DerError):
        while (tag := reader.next_tag) is not None:
            assert reader.take(tag).tag == tag
