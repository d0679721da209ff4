"""``p2pnet key new`` and ``p2pnet id``: key files, in the form other implementations use."""

from __future__ import annotations

import os
from pathlib import Path

from p2pnet.commands.output import CommandError, Output
from p2pnet.core.keys import PrivateKey
from p2pnet.core.peer_id import PeerId
from p2pnet.security.pnet import PreSharedKey

MAX_KEY_FILE_BYTES = 16_384


class KeyFileError(CommandError):
    """The key file cannot be read or written; the text says why."""


def read_key(path: str) -> PrivateKey:
    """Read a key file: the protobuf form of a private key.

    Raises:
        KeyFileError: if it cannot be read, or holds no key.
    """
    try:
        with Path(path).open("rb") as file:
            data = file.read(MAX_KEY_FILE_BYTES)
        return PrivateKey.decode(data)
    except OSError as error:
        raise KeyFileError(f"cannot read the key file {path}: {error.strerror}") from None
    except ValueError as error:
        raise KeyFileError(f"{path} holds no private key: {error}") from None


def read_psk(path: str) -> PreSharedKey:
    """Read the key file of a private network.

    Raises:
        KeyFileError: if it cannot be read, or holds no key.
    """
    try:
        return PreSharedKey.from_file(path)
    except OSError as error:
        raise KeyFileError(f"cannot read the key file {path}: {error.strerror}") from None
    except ValueError as error:
        raise KeyFileError(f"{path} holds no pre-shared key: {error}") from None


def new_key(path: str, output: Output) -> int:
    """Make a key file that only its owner can read; print the peer ID."""
    key = PrivateKey.generate()
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise KeyFileError(f"{path} exists already, and is left as it is") from None
    except OSError as error:
        raise KeyFileError(f"cannot write {path}: {error.strerror}") from None
    with os.fdopen(handle, "wb") as file:
        file.write(key.encode())
    return print_id(key, output)


def print_id(key: PrivateKey, output: Output) -> int:
    peer_id = str(PeerId.from_public_key(key.public_key))
    output.event("id", peer_id, peer_id=peer_id)
    return 0
