"""Scripts of ping: a ping is 32 times the same byte, or what ``hex`` says."""

from __future__ import annotations

from p2pnet.protocols.ping.dialogue import PING_BYTES, echo, measure
from tests.specs.forms import Dialogue, Fields


def ping(name: str, given: Fields) -> bytes:
    """Build a ping; ``eof`` is the end of the stream."""
    if name == "eof":
        raise EOFError("the stream ended")
    assert name == "ping"
    if "hex" in given:
        return bytes.fromhex(given["hex"])
    return bytes([given["byte"]]) * PING_BYTES


DIALOGUES = {
    "measure": Dialogue(
        play=lambda channel, now, given: measure(channel, ping("ping", given["payload"]), now),
        message=ping,
    ),
    "echo": Dialogue(play=lambda channel, now, given: echo(channel), message=ping),
}
