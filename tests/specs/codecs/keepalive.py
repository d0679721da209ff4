"""Keepalive: how long a connection may be silent, and how that is learned."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from p2pnet.core.keepalive import silence
from p2pnet.protocols.hold.dialogue import ask, asked, hear, serve
from p2pnet.protocols.hold.policy import Ladder
from tests.specs.forms import Channel, Dialogue, Fields


def silences(given: Fields) -> list[float]:
    case = given["silence"]
    return [
        round(silence(case["longest"], case["idle_timeout"], drawn), 9) for drawn in case["drawn"]
    ]


def climb(given: Fields) -> list[float]:
    """Give what is kept before, after each trial, and see that the last one is the last."""
    ladder = Ladder()
    kept = [ladder.kept]
    for trial in given["ladder"]:
        seconds, fate = trial.split()
        assert ladder.trial == int(seconds)
        ladder.tell(lived={"lived": True, "lost": False}[fate])
        kept.append(ladder.kept)
    assert ladder.trial is None
    return kept


class Bytes:
    """The script's channel, as the dialogue wants it."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    async def send(self, data: bytes, /) -> None:
        await self._channel.send(data)

    async def receive(self, count: int, /) -> bytes:
        data: bytes = await self._channel.receive()
        assert len(data) == count
        return data


async def play_ask(channel: Channel, now: Callable[[], float], given: Fields) -> str:
    if not await ask(Bytes(channel), given["seconds"]):
        return "not now"
    await hear(Bytes(channel))
    return "lived"


async def play_serve(channel: Channel, now: Callable[[], float], given: Fields) -> int:
    async def wait() -> None:
        pass

    silent: Callable[[], Awaitable[None]] | None = None if "full" in given else wait
    if silent is None:
        assert given["full"]
    seconds = await asked(Bytes(channel))
    await serve(Bytes(channel), silent)
    return seconds


def message(name: str, given: Fields) -> bytes:
    assert name == "bytes"
    return bytes.fromhex(given["hex"])


FORMS = {"silence": silences, "ladder": climb}
DIALOGUES = {
    "ask": Dialogue(play=play_ask, message=message),
    "serve": Dialogue(play=play_serve, message=message),
}
