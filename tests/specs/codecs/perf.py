"""Scripts of perf: bytes there, the end, bytes back. TOML has no number beyond 63 bits."""

from __future__ import annotations

from typing import Any

from p2pnet.protocols.perf.dialogue import Allowance, Progress, Task, measure, serve
from p2pnet.protocols.perf.messages import MAX_WANTED, decode_untrusted, encode
from tests.specs.forms import Channel, Codec, Dialogue, Fields


def message(name: str, given: Fields) -> bytes:
    """Build bytes; ``eof``, the end, is none."""
    if name == "eof":
        return b""
    assert name == "bytes"
    return bytes(given["zeros"]) if "zeros" in given else bytes.fromhex(given["hex"])


class Bytes:
    """The script's channel, as perf's dialogue wants it."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    async def send(self, data: bytes, /) -> None:
        assert data
        await self._channel.send(data)

    async def finish(self) -> None:
        await self._channel.send(b"")

    async def receive(self, most: int | None = None) -> bytes:
        data: bytes = await self._channel.receive()
        assert most is None or len(data) <= most, "more than was wanted"
        return data


def described(wanted: int) -> dict[str, Any]:
    return {"wanted": wanted if wanted < 2**63 else str(wanted)}


def ignore(progress: Progress) -> None:
    pass


def allowance(given: Fields) -> Allowance:
    upload = given.get("allow_upload", MAX_WANTED)
    return Allowance(upload, given.get("allow_download", MAX_WANTED))


CODECS = {"Request": Codec(decode_untrusted, encode, described)}
DIALOGUES = {
    "measure": Dialogue(
        play=lambda channel, now, given: measure(
            Bytes(channel), Task(given["upload"], given["download"]), now, ignore
        ),
        message=message,
    ),
    "serve": Dialogue(
        play=lambda channel, now, given: serve(Bytes(channel), allowance(given)), message=message
    ),
}
