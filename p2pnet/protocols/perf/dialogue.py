"""The conversation of perf, as pure coroutines. Rules: specs/perf.md.

::

    initiator                        responder
        | -- bytes wanted (u64) ------> |
        | -- any number of bytes -----> |
        | -- end of stream -----------> |
        | <-- as many as are wanted --- |     only now
        | <-- end of stream ----------- |

Neither side ever holds more than one block, however many bytes are asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from p2pnet.errors import LimitExceeded, ProtocolError
from p2pnet.protocols.perf.messages import (
    PROTOCOL_ID,
    REQUEST_BYTES,
    decode_untrusted,
    encode,
)

BLOCK = bytes(131_072)
"""What is sent, again and again; its content means nothing (PF3)."""


class Channel(Protocol):
    """Where the dialogue speaks and listens."""

    async def send(self, data: bytes, /) -> None: ...

    async def finish(self) -> None:
        """End what is sent."""
        ...

    async def receive(self, most: int | None = None) -> bytes | bytearray:
        """Return some bytes, ``most`` of them at most; none at the end of the stream."""
        ...


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is."""

    uploaded: int = 0
    """Bytes; as handed to the connection, which may hold some of them yet."""
    downloaded: int = 0
    """Bytes."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What a run has shown. Rates are bytes a second, and None if no byte went that way."""

    uploaded: int
    downloaded: int
    seconds: float
    """From the first byte sent until the end of the answer."""
    upload_seconds: float
    """Until the answer began, which is when all had arrived and the news of it was back."""

    @property
    def download_seconds(self) -> float:
        """Return the seconds of the answer; with a round trip if there was no upload."""
        return self.seconds - self.upload_seconds

    @property
    def upload_rate(self) -> float | None:
        return rate(self.uploaded, self.upload_seconds)

    @property
    def download_rate(self) -> float | None:
        return rate(self.downloaded, self.download_seconds)


def rate(count: int, seconds: float) -> float | None:
    return count / seconds if count and seconds > 0 else None


@dataclass(frozen=True, slots=True)
class Task:
    """What the initiator wants to be done, in bytes."""

    upload: int
    download: int


@dataclass(frozen=True, slots=True)
class Allowance:
    """The most a responder takes and gives in one run, in bytes."""

    upload: int
    download: int


async def measure(
    channel: Channel, task: Task, now: Callable[[], float], report: Callable[[Progress], None]
) -> Figures:
    """Send, then receive, and take the times (PF2, PF4).

    Raises:
        ProtocolError: if other than ``task.download`` bytes came back.
    """
    began = now()
    await channel.send(encode(task.download))
    sent = 0
    while sent < task.upload:
        sent += await send_block(channel, task.upload - sent)
        report(Progress(sent, 0))
    await channel.finish()
    received, answered = 0, None
    while data := await channel.receive():
        if answered is None:
            answered = now()
        received += len(data)
        if received > task.download:  # PF4
            raise ProtocolError(PROTOCOL_ID, f"more than the {task.download} bytes asked for")
        report(Progress(task.upload, received))
    ended = now()
    if received != task.download:  # PF4
        reason = f"{received} bytes came of the {task.download} asked for"
        raise ProtocolError(PROTOCOL_ID, reason)
    upload_seconds = (answered or ended) - began if task.upload else 0.0  # PF5
    return Figures(task.upload, received, ended - began, upload_seconds)


async def serve(channel: Channel, allowance: Allowance) -> Progress:
    """Take all that comes, and only then send what is wanted (PF2); return how much that was.

    Raises:
        ProtocolError: if the stream ended within the request.
        LimitExceeded: if more is wanted, or sent, than is allowed.
    """
    request = bytearray()
    while len(request) < REQUEST_BYTES:
        data = await channel.receive(REQUEST_BYTES - len(request))
        if not data:
            break
        request += data
    wanted = decode_untrusted(bytes(request))
    if wanted > allowance.download:  # PF6
        raise LimitExceeded("max_download", allowance.download)
    taken = 0
    while data := await channel.receive():
        taken += len(data)
        if taken > allowance.upload:  # PF6
            raise LimitExceeded("max_upload", allowance.upload)
    sent = 0
    while sent < wanted:
        sent += await send_block(channel, wanted - sent)
    await channel.finish()
    return Progress(taken, wanted)


async def send_block(channel: Channel, most: int) -> int:
    """Send one block, cut to ``most`` bytes; return how many it had."""
    size = min(most, len(BLOCK))
    await channel.send(BLOCK if size == len(BLOCK) else BLOCK[:size])
    return size
