"""Unsigned varints of multiformats, read as strictly as the spec asks. Rules: specs/framing.md."""

from __future__ import annotations

from p2pnet.errors import ProtocolError

NAME = "varint"
MAX_BYTES = 9
MAX_VALUE = 2**63 - 1


def encode(value: int) -> bytes:
    """Write a number in its one shortest form.

    Raises:
        ValueError: if it is negative or needs more than 63 bits.
    """
    if not 0 <= value <= MAX_VALUE:
        raise ValueError(f"{value} does not fit into an unsigned varint of 63 bits")
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def decode_untrusted(
    data: bytes | bytearray | memoryview,
    offset: int = 0,
    *,
    max_value: int = MAX_VALUE,
    protocol_id: str = NAME,
) -> tuple[int, int] | None:
    """Read a number at ``offset``; return it and the offset behind it, or None if cut short.

    A number over ``max_value`` is refused at the first byte that proves it, complete or not.

    Raises:
        ProtocolError: if it is over ``max_value``, longer than 9 bytes, or not the shortest form.
    """
    value = 0
    for count, byte in enumerate(data[offset : offset + MAX_BYTES]):
        value |= (byte & 0x7F) << (7 * count)
        if value > max_value:  # F2
            raise ProtocolError(protocol_id, f"a varint over {max_value}")
        if byte < 0x80:
            if byte == 0 and count > 0:  # F1
                raise ProtocolError(protocol_id, "a varint that is not in its shortest form")
            return value, offset + count + 1
    if len(data) - offset >= MAX_BYTES:  # F1
        raise ProtocolError(protocol_id, f"a varint of more than {MAX_BYTES} bytes")
    return None
