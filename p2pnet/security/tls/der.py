"""DER, as far as certificates need it: values that are taken apart, and put together. Pure."""

from __future__ import annotations

from dataclasses import dataclass

BOOLEAN, INTEGER, BIT_STRING, OCTET_STRING, OID = 0x01, 0x02, 0x03, 0x04, 0x06
UTC_TIME, GENERALIZED_TIME, SEQUENCE = 0x17, 0x18, 0x30
MAX_LENGTH_BYTES = 3
"""Of a length in the long form: no value of 16 MiB or more is looked at."""


class DerError(ValueError):
    """These bytes are not what they should be."""


@dataclass(frozen=True, slots=True)
class Value:
    """One value: its tag, what is in it, and all of its bytes as they came."""

    tag: int
    content: bytes
    whole: bytes


class Reader:
    """Takes one value after the other from some bytes."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def next_tag(self) -> int | None:
        """The tag of the next value; None at the end."""
        return self._data[self._at] if self._at < len(self._data) else None

    def take(self, tag: int) -> Value:
        """Take the next value. Raises DerError if it has another tag, or is cut off."""
        data, start = self._data, self._at
        if self.next_tag != tag or start + 2 > len(data):
            raise DerError(f"no value with tag {tag:#04x} where one has to be")
        length, at = data[start + 1], start + 2
        if length >= 0x80:
            count = length - 0x80
            length_bytes = data[at : at + count]
            at += count
            length = int.from_bytes(length_bytes)
            if not 1 <= count <= MAX_LENGTH_BYTES or length < max(0x80, 1 << 8 * (count - 1)):
                raise DerError("a length that is not in its shortest form")
        end = at + length
        if end > len(data):
            raise DerError("a value that is cut off")
        self._at = end
        return Value(tag, data[at:end], data[start:end])

    def take_if(self, tag: int) -> Value | None:
        """Take the next value if it has this tag."""
        return self.take(tag) if self.next_tag == tag else None

    def finish(self) -> None:
        """Make sure that all was taken. Raises DerError."""
        if self._at < len(self._data):
            raise DerError(f"{len(self._data) - self._at} bytes behind the end")


def only(data: bytes, tag: int) -> Value:
    """Take the one value that fills ``data``. Raises DerError."""
    reader = Reader(data)
    value = reader.take(tag)
    reader.finish()
    return value


def encode(tag: int, content: bytes) -> bytes:
    """Put a value together."""
    length = len(content)
    if length < 0x80:
        return bytes([tag, length]) + content
    size = length.to_bytes((length.bit_length() + 7) // 8)
    return bytes([tag, 0x80 | len(size)]) + size + content
