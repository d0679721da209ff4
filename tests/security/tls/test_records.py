"""The headers of records are looked at, whatever the chunking (T13)."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pnet.errors import SecurityError
from p2pnet.security.tls.records import RecordHeaders

RECORDS = (
    b"\x16\x03\x01\x00\x03abc\x14\x03\x03\x00\x01\x01\x17\x03\x03\x00\x00\x16\x03\x03\x00\x01x"
)


@given(st.lists(st.integers(0, len(RECORDS))))
def test_good_records_pass_in_any_chunks(cuts: list[int]) -> None:
    headers = RecordHeaders()
    edges = [0, *sorted(cuts), len(RECORDS)]
    for start, stop in pairwise(edges):
        headers.check(RECORDS[start:stop])


@pytest.mark.parametrize("size", [1, 2, 7, 100])
@pytest.mark.parametrize("bad", [b"\x16\x03\x02", b"\x16\x02\x03", b"\x17\x03\x01", b"HTT"])
def test_a_version_that_nobody_writes_is_refused_in_any_chunks(bad: bytes, size: int) -> None:
    data = RECORDS + bad + b"\x00\x05"
    with pytest.raises(SecurityError, match="version"):
        check_in_pieces(data, size)


def check_in_pieces(data: bytes, size: int) -> None:
    headers = RecordHeaders()
    for start in range(0, len(data), size):
        headers.check(data[start : start + size])
