"""Key files, the key stream, and what goes over the wire under a key."""

from __future__ import annotations

from typing import Any

import trio
import trio.testing

from p2pnet.security.pnet import PreSharedKey
from p2pnet.security.pnet.cipher import XSalsa20
from p2pnet.security.pnet.driver import ProtectedStream, Protector
from p2pnet.security.pnet.salsa import hsalsa20
from tests.specs.forms import Fields


def key_file(given: Fields) -> dict[str, Any]:
    """Read a key file; what is written again reads as the same."""
    raw = given["file"] if "file" in given else bytes.fromhex(given["file_hex"])
    key = PreSharedKey.parse(raw)
    assert PreSharedKey.parse(key.encode()) == key
    return {"key": key.secret.hex(), "fingerprint": key.fingerprint()}


def derived(given: Fields) -> bytes:
    return hsalsa20(bytes.fromhex(given["hsalsa20"]), bytes.fromhex(given["nonce"]))


def encrypted(given: Fields) -> bytes:
    nonce = bytes.fromhex(given["nonce"]) if "nonce" in given else given["nonce_text"].encode()
    key = given["xsalsa20"]
    data = bytes(given["zeros"]) if "zeros" in given else given["text"].encode()
    secret = bytes.fromhex(key) if len(key) == 64 else key.encode()
    return bytes(XSalsa20(secret, nonce).apply(data))


def protected(given: Fields) -> str:
    """Play an end: it must send, byte for byte, and hear what the script says."""
    return trio.run(play, given)


async def play(given: Fields) -> str:
    near, far = trio.testing.memory_stream_pair()
    key = PreSharedKey(bytes.fromhex(given["protected"]))
    nonce = bytes.fromhex(given["nonce"])
    stream = ProtectedStream(near, Protector(key, lambda count: nonce[:count]))
    with trio.fail_after(5):
        await follow(given, stream, far)
    return "done"


async def follow(given: Fields, stream: ProtectedStream, far: trio.abc.HalfCloseableStream) -> None:
    for step in given["script"]:
        if "say" in step:
            await stream.send_all(bytes.fromhex(step["say"]))
        elif "sent" in step:
            sent = await far.receive_some()
            assert bytes(sent).hex() == step["sent"].replace(" ", "")
        elif "arrives" in step:
            await far.send_all(bytes.fromhex(step["arrives"]))
        elif "hangs_up" in step:
            assert step["hangs_up"]
            await far.aclose()
        else:
            wanted = step["heard"].replace(" ", "")
            heard = await stream.receive_some()
            assert bytes(heard).hex() == wanted


FORMS = {
    "file": key_file,
    "file_hex": key_file,
    "hsalsa20": derived,
    "xsalsa20": encrypted,
    "protected": protected,
}
