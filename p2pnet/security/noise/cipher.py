"""Noise messages after the handshake, and the frames that carry all of them. Pure.

A frame is a length in two bytes and a message of at most 65,535 bytes. After the handshake a
message is sealed plaintext: the bytes, encrypted, and a tag of 16 bytes. Rules: specs/noise.md.
"""

from __future__ import annotations

from struct import Struct

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from p2pnet.errors import ConnectionLost, StreamTampered

TAG_BYTES = 16
LENGTH_BYTES = 2
MAX_MESSAGE_BYTES = 65_535
MAX_PLAINTEXT_BYTES = MAX_MESSAGE_BYTES - TAG_BYTES
MAX_NONCE = 2**64 - 1
"""Reserved by Noise, and never used."""
NONCE = Struct("<4xQ")
LENGTH = Struct(">H")

Readable = bytes | bytearray | memoryview


class CipherState:
    """A key and its counter: seals or opens the messages of one direction, in order."""

    __slots__ = ("_cipher", "_nonce")

    def __init__(self, key: bytes) -> None:
        self._cipher = ChaCha20Poly1305(key)
        self._nonce = 0

    def seal(self, plaintext: Readable, associated: bytes) -> bytes:
        return self._cipher.encrypt(self._next_nonce(), plaintext, associated)

    def open(self, sealed: Readable, associated: bytes) -> bytes:
        """Decrypt. Raises StreamTampered if a bit of it was changed."""
        try:
            return self._cipher.decrypt(self._next_nonce(), sealed, associated)
        except InvalidTag:
            raise StreamTampered("a Noise message was changed on its way") from None

    def seal_into(self, plaintext: Readable, sealed: memoryview) -> None:
        """Encrypt into a buffer that is exactly 16 bytes longer."""
        self._cipher.encrypt_into(self._next_nonce(), plaintext, None, sealed)

    def open_into(self, sealed: Readable, plaintext: memoryview) -> None:
        """Decrypt into a buffer that is exactly 16 bytes shorter. Raises StreamTampered."""
        try:
            self._cipher.decrypt_into(self._next_nonce(), sealed, None, plaintext)
        except InvalidTag:
            raise StreamTampered("a Noise message was changed on its way") from None

    def _next_nonce(self) -> bytes:
        nonce = self._nonce
        if nonce >= MAX_NONCE:  # N10
            raise ConnectionLost("the nonces of this connection are used up")
        self._nonce = nonce + 1
        return NONCE.pack(nonce)


class Sealer:
    """Turns plaintext into frames of sealed messages."""

    def __init__(self, cipher: CipherState) -> None:
        self._cipher = cipher

    def seal(self, plaintext: memoryview) -> bytearray:
        """Return the frames for some bytes: as few and as large as Noise allows.

        Raises:
            ConnectionLost: if the nonces are used up.
        """
        frames = bytearray(sealed_size(len(plaintext)))
        with memoryview(frames) as out:
            self.seal_into(plaintext, out)
        return frames

    def seal_into(self, plaintext: memoryview, frames: memoryview) -> int:
        """Put the frames into a buffer that has room for them; return how long they are.

        Raises:
            ConnectionLost: if the nonces are used up.
        """
        at = 0
        for start in range(0, len(plaintext), MAX_PLAINTEXT_BYTES):
            piece = plaintext[start : start + MAX_PLAINTEXT_BYTES]
            length = len(piece) + TAG_BYTES
            LENGTH.pack_into(frames, at, length)
            at += LENGTH_BYTES
            self._cipher.seal_into(piece, frames[at : at + length])
            at += length
        return at


def sealed_size(size: int) -> int:
    """Return how long the frames are for so many bytes of plaintext."""
    return size + -(-size // MAX_PLAINTEXT_BYTES) * (LENGTH_BYTES + TAG_BYTES)


class Opener:
    """Turns frames of sealed messages back into plaintext, whatever the chunking."""

    def __init__(self, cipher: CipherState) -> None:
        self._cipher = cipher
        self._partial = bytearray()

    @property
    def is_between_frames(self) -> bool:
        return not self._partial

    def open(self, data: bytes | bytearray) -> bytearray:
        """Take a byte at least; return the plaintext of all messages completed, maybe none.

        Raises:
            StreamTampered: if a message is not what the remote sent.
            ConnectionLost: if the nonces are used up.
        """
        messages = self._cut(memoryview(data))
        plaintext = bytearray(sum(map(len, messages)) - TAG_BYTES * len(messages))
        with memoryview(plaintext) as out:
            at = 0
            for message in messages:
                end = at + len(message) - TAG_BYTES
                self._cipher.open_into(message, out[at:end])
                at = end
        return plaintext

    def _cut(self, data: memoryview) -> list[memoryview]:
        """Find the whole messages; keep what is left until the rest of it comes."""
        messages = []
        at = 0
        if self._partial:
            at = self._complete(data)
            if len(self._partial) < frame_end(self._partial):
                return []
            messages.append(memoryview(self._partial)[LENGTH_BYTES:])
            self._partial = bytearray()
        while len(data) - at >= LENGTH_BYTES and (end := frame_end(data, at)) <= len(data):
            messages.append(data[at + LENGTH_BYTES : end])
            at = end
        if at < len(data):
            self._partial = bytearray(data[at:])
        return messages

    def _complete(self, data: memoryview) -> int:
        """Move bytes to the frame that has begun; return how many it took."""
        at = max(0, LENGTH_BYTES - len(self._partial))
        self._partial += data[:at]
        missing = frame_end(self._partial) - len(self._partial)
        self._partial += data[at : at + missing]
        return at + missing


def frame_end(data: Readable, at: int = 0) -> int:
    """Return where the frame at ``at`` ends. Raises StreamTampered if it can hold no message."""
    length: int = LENGTH.unpack_from(data, at)[0]
    if length < TAG_BYTES:  # N11
        raise StreamTampered(f"a Noise message of {length} bytes, too short for its tag")
    return at + LENGTH_BYTES + length


def frame(message: bytes) -> bytes:
    if len(message) > MAX_MESSAGE_BYTES:
        raise ValueError(f"a Noise message of {len(message)} bytes")
    return LENGTH.pack(len(message)) + message
