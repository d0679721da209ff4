"""Salsa20's core against the test vectors of ECRYPT (set 6), and against pycryptodome."""

from __future__ import annotations

from Crypto.Cipher import Salsa20
from hypothesis import given
from hypothesis import strategies as st

from p2pnet.security.pnet.cipher import XSalsa20
from p2pnet.security.pnet.salsa import salsa20_block

KEYS = st.binary(min_size=32, max_size=32)


def test_the_blocks_of_ecrypt_come_out() -> None:
    """The 2048 blocks of a stream, xored, as the vector has them."""
    key = bytes.fromhex("0053A6F94C9FF24598EB3E91E4378ADD3083D6297CCF2275C81B6EC11467BA0D")
    nonce = bytes.fromhex("0D74DB42A91077DE")
    total = 0
    for counter in range(2048):
        total ^= int.from_bytes(salsa20_block(key, nonce, counter))
    assert total.to_bytes(64).hex().upper() == (
        "C349B6A51A3EC9B712EAED3F90D8BCEE69B7628645F251A996F55260C62EF31F"
        "D6C6B0AEA94E136C9D984AD2DF3578F78E457527B03A0450580DD874F63B1AB9"
    )


@given(KEYS, st.binary(min_size=8, max_size=8), st.integers(0, 20))
def test_every_block_is_that_of_pycryptodome(key: bytes, nonce: bytes, counter: int) -> None:
    stream = Salsa20.new(key=key, nonce=nonce).encrypt(bytes(64 * (counter + 1)))
    assert salsa20_block(key, nonce, counter) == stream[-64:]


@given(KEYS, st.binary(min_size=24, max_size=24), st.lists(st.binary(max_size=200)))
def test_any_chunking_gives_the_same_stream(key: bytes, nonce: bytes, chunks: list[bytes]) -> None:
    """PN8."""
    whole = XSalsa20(key, nonce).apply(b"".join(chunks))
    cipher = XSalsa20(key, nonce)
    assert b"".join(bytes(cipher.apply(chunk)) for chunk in chunks) == whole
    assert bytes(XSalsa20(key, nonce).apply(whole)) == b"".join(chunks)
