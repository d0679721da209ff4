"""Salsa20's core, and HSalsa20 on it, as in Bernstein's papers. Pure, and slow.

For setting up a key, once a connection and direction; streams are encrypted by ``cipher.py``.
"""

from __future__ import annotations

from struct import Struct

CONSTANTS = (0x61707865, 0x3320646E, 0x79622D32, 0x6B206574)
"""expand 32-byte k"""
MASK = 0xFFFF_FFFF
EIGHT_WORDS = Struct("<8I")
FOUR_WORDS = Struct("<4I")
SIXTEEN_WORDS = Struct("<16I")

QUARTERS = (
    # The columns of the matrix of sixteen words, then its rows.
    (0, 4, 8, 12),
    (5, 9, 13, 1),
    (10, 14, 2, 6),
    (15, 3, 7, 11),
    (0, 1, 2, 3),
    (5, 6, 7, 4),
    (10, 11, 8, 9),
    (15, 12, 13, 14),
)
DOUBLE_ROUNDS = 10


def salsa20_block(key: bytes, nonce: bytes, counter: int = 0) -> bytes:
    """Return one block of 64 bytes of the key stream; the nonce has 8 bytes."""
    before = fill(key, nonce + counter.to_bytes(8, "little"))
    after = stir(before)
    return SIXTEEN_WORDS.pack(*((x + y) & MASK for x, y in zip(before, after, strict=True)))


def hsalsa20(key: bytes, nonce: bytes) -> bytes:
    """Derive a key from a key and 16 bytes."""
    after = stir(fill(key, nonce))
    return EIGHT_WORDS.pack(*(after[index] for index in (0, 5, 10, 15, 6, 7, 8, 9)))


def fill(key: bytes, middle: bytes) -> list[int]:
    k, m = EIGHT_WORDS.unpack(key), FOUR_WORDS.unpack(middle)
    one, two, three, four = CONSTANTS
    return [one, *k[:4], two, *m, three, *k[4:], four]


def stir(words: list[int]) -> list[int]:
    """Do the twenty rounds on a copy."""
    x = list(words)
    for a, b, c, d in QUARTERS * DOUBLE_ROUNDS:
        x[b] ^= rotated(x[a] + x[d], 7)
        x[c] ^= rotated(x[b] + x[a], 9)
        x[d] ^= rotated(x[c] + x[b], 13)
        x[a] ^= rotated(x[d] + x[c], 18)
    return x


def rotated(word: int, bits: int) -> int:
    word &= MASK
    return (word << bits | word >> (32 - bits)) & MASK
