"""The yamux header: specs/yamux.md."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pnet.errors import ProtocolError
from p2pnet.muxers.yamux.messages import (
    DATA,
    GO_AWAY,
    HEADER_BYTES,
    PING,
    WINDOW_UPDATE,
    Header,
    decode_untrusted,
    encode,
)

U32 = st.integers(0, 2**32 - 1)


@given(
    st.one_of(
        st.tuples(
            st.sampled_from([DATA, WINDOW_UPDATE]),
            st.integers(0, 2**16 - 1),
            st.integers(1, 2**32 - 1),
            U32,
        ),
        st.tuples(st.sampled_from([PING, GO_AWAY]), st.integers(0, 2**16 - 1), U32, U32),
    )
)
def test_y1_a_header_survives_the_wire(fields: tuple[int, int, int, int]) -> None:
    data = encode(*fields)
    assert len(data) == HEADER_BYTES
    assert decode_untrusted(data) == Header(*fields)
    assert decode_untrusted(b"before" + data + b"behind", 6) == Header(*fields)


@given(st.binary(max_size=40))
def test_garbage_is_a_header_or_a_protocol_error(data: bytes) -> None:
    try:
        header = decode_untrusted(data)
    except ProtocolError:
        return
    assert encode(*header) == data[:HEADER_BYTES]


@pytest.mark.parametrize("data", [b"", bytes(11)])
def test_a_header_cut_short_is_a_protocol_error(data: bytes) -> None:
    with pytest.raises(ProtocolError, match="cut short"):
        decode_untrusted(data)
