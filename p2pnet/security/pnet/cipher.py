"""XSalsa20: the only door to pycryptodome, which has Salsa20. Imported when it is needed."""

from __future__ import annotations

from Crypto.Cipher import Salsa20

from p2pnet.security.pnet.salsa import hsalsa20


class XSalsa20:
    """The key stream of one direction."""

    __slots__ = ("_cipher",)

    def __init__(self, key: bytes, nonce: bytes) -> None:
        self._cipher = Salsa20.new(key=hsalsa20(key, nonce[:16]), nonce=nonce[16:])

    def apply(self, data: bytes | bytearray | memoryview) -> bytearray:
        """Encrypt or decrypt the next bytes of the stream."""
        result = bytearray(len(data))
        if data:
            self._cipher.encrypt(data, result)
        return result
