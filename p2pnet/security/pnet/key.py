"""The pre-shared key of a private network, and the file it is kept in. Rules: specs/pnet.md."""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from p2pnet.security.pnet.salsa import salsa20_block

KEY_BYTES: Final = 32
MAX_FILE_BYTES: Final = 1024
PATH: Final = b"/key/swarm/psk/1.0.0/"
FINGERPRINT_NONCE: Final = b"finprint"
FINGERPRINT_BYTES: Final = 16


class BadPreSharedKey(ValueError):
    """The bytes, or the file, hold no pre-shared key; the text says why, and nothing of them."""


@dataclass(frozen=True, slots=True, repr=False)
class PreSharedKey:
    """32 secret bytes that all peers of a private network have, and nobody else."""

    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.secret) != KEY_BYTES:
            raise BadPreSharedKey(f"a pre-shared key has 32 bytes, not {len(self.secret)}")

    def __repr__(self) -> str:
        return f"PreSharedKey(<fingerprint {self.fingerprint()}>)"

    @classmethod
    def from_file(cls, path: str | Path) -> PreSharedKey:
        """Read a key file, such as ``swarm.key`` of IPFS.

        Raises:
            OSError: if it cannot be read.
            BadPreSharedKey: if it holds no key.
        """
        with Path(path).open("rb") as file:
            return cls.parse(file.read(MAX_FILE_BYTES + 1))

    @classmethod
    def parse(cls, data: bytes | str) -> PreSharedKey:
        """Read what a key file holds: a line with its kind, one with the encoding, and the key.

        Raises:
            BadPreSharedKey: if that is not what it holds.
        """
        if isinstance(data, str):
            data = data.encode()
        if len(data) > MAX_FILE_BYTES:  # PN6
            raise BadPreSharedKey(f"a key file has {MAX_FILE_BYTES} bytes at most")
        kind, _, rest = data.partition(b"\n")
        encoding, _, key = rest.partition(b"\n")
        if kind.rstrip(b"\r") != PATH:  # PN6
            raise BadPreSharedKey(f"the first line of a key file is {PATH.decode()}")
        return cls(decode_key(encoding.rstrip(b"\r"), key))

    def encode(self) -> str:
        """Return what a key file holds, in the encoding that everybody reads (base16)."""
        return f"{PATH.decode()}\n/base16/\n{self.secret.hex()}\n"

    def fingerprint(self) -> str:
        """Return 16 bytes in hex by which keys can be compared without being shown (PN7)."""
        block = salsa20_block(self.secret, FINGERPRINT_NONCE)
        return hashlib.shake_128(block).hexdigest(FINGERPRINT_BYTES)


def decode_key(encoding: bytes, key: bytes) -> bytes:
    """Decode the third line (PN6)."""
    if encoding == b"/bin/":
        return key.removesuffix(b"\n") if len(key) == KEY_BYTES + 1 else key
    try:
        if encoding == b"/base16/":
            return binascii.unhexlify(key.strip())
        if encoding == b"/base64/":
            return base64.b64decode(key.strip(), validate=True)
    except ValueError:
        # What is wrong with it would be told with a piece of the key.
        raise BadPreSharedKey("the key does not read as its encoding says") from None
    raise BadPreSharedKey("the second line of a key file is /base16/, /base64/ or /bin/")
