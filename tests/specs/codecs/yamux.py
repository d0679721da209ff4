"""Yamux headers as fields, and scripts of frames against the session of one end.

A frame is written as its kind, its flags, its stream and its length, ``WindowUpdate SYN|FIN 1 0``;
Data has text instead of a length, or ``*1000`` for so many zero bytes.
"""

from __future__ import annotations

from p2pnet.muxers.yamux import Yamux
from p2pnet.muxers.yamux.machine import Opened, Session
from p2pnet.muxers.yamux.messages import (
    DATA,
    KINDS,
    Header,
    decode_untrusted,
    encode,
)
from p2pnet.muxers.yamux.stream_state import StreamState
from tests.muxers.yamux.ends import headers
from tests.specs.forms import Codec, Fields

FLAGS = ("SYN", "ACK", "FIN", "RST")


def flag_names(flags: int) -> list[str]:
    return [name for bit, name in enumerate(FLAGS) if flags & 1 << bit]


def describe(header: Header) -> dict[str, object]:
    kind, flags, stream_id, length = header
    names = flag_names(flags)
    return {"kind": KINDS[kind], "flags": names, "stream_id": stream_id, "length": length}


def frame(text: str) -> bytes:
    kind, *words = text.split()
    flags = (
        sum(1 << FLAGS.index(name) for name in words.pop(0).split("|")) if has_flags(words) else 0
    )
    stream_id, said = int(words[0]), " ".join(words[1:])
    if kind != "Data":
        return encode(KINDS.index(kind), flags, stream_id, int(said, 0))
    payload = bytes(int(said[1:])) if said.startswith("*") else said.encode()
    return encode(DATA, flags, stream_id, len(payload)) + payload


def has_flags(words: list[str]) -> bool:
    return set(words[0].split("|")) <= set(FLAGS)


def frames(steps: list[str]) -> bytes:
    return b"".join(frame(step) for step in steps)


class Play:
    """One end, and the streams that it knows by now."""

    def __init__(self, given: Fields) -> None:
        config = Yamux(**dict(given["config"])) if "config" in given else Yamux()
        is_dialer = {"dialer": True, "listener": False}[given["yamux"]]
        self.session = Session(config, is_dialer=is_dialer, now=0.0)
        self.streams: dict[int, StreamState] = {}
        self.now = 0.0

    def step(self, step: Fields) -> None:
        self.now = step.get("at", self.now)
        name = next(key for key in step if key != "at")
        getattr(self, f"do_{name}")(step)

    def do_receive(self, step: Fields) -> None:
        self.take(frames(step["receive"]))

    def do_receive_hex(self, step: Fields) -> None:
        self.take(bytes.fromhex(step["receive_hex"]))

    def take(self, data: bytes) -> None:
        for event in self.session.receive(data, self.now):
            if isinstance(event, Opened):
                self.streams[event.stream.id] = event.stream

    def do_send(self, step: Fields) -> None:
        """Everything that is ready must be these frames."""
        sent = bytes(self.session.data_to_send())
        assert sent == frames(step["send"]), [describe(header) for header in headers(sent)]

    def do_open(self, step: Fields) -> None:
        stream = self.session.open(self.now)
        assert stream.id == step["open"]
        self.streams[stream.id] = stream

    def do_write(self, step: Fields) -> None:
        data = step["data"].encode() if "data" in step else bytes(step["zeros"])
        written = self.streams[step["write"]].write(data, 0)
        assert written == (step["written"] if "written" in step else len(data))

    def do_read(self, step: Fields) -> None:
        stream, read = self.streams[step["read"]], 0
        expected = step["data"].encode() if "data" in step else bytes(step["zeros"])
        while read < len(expected) or not expected:
            data = stream.read(len(expected) - read or None)
            assert data is not None, "there is nothing to read"
            assert data == expected[read : read + len(data)]
            read += len(data)
            if stream.owes_credit:
                stream.grant_credit(self.now)
            if not expected:
                return

    def do_finish(self, step: Fields) -> None:
        self.streams[step["finish"]].finish()

    def do_close(self, step: Fields) -> None:
        self.session.close(self.streams[step["close"]])

    def do_reset(self, step: Fields) -> None:
        self.session.reset(self.streams[step["reset"]], step["code"])

    def do_go_away(self, step: Fields) -> None:
        self.session.go_away(step["go_away"], reason="the script says so")

    def do_deadline(self, step: Fields) -> None:
        assert self.session.deadline() == step["deadline"]
        self.now = step["deadline"]
        self.session.on_deadline(self.now)


def yamux(given: Fields) -> dict[str, object]:
    """Play a script; in the end, say which streams the session still holds."""
    play = Play(given)
    for step in given["script"]:
        play.step(step)
    assert not play.session.has_data_to_send, "the session would say more than the script"
    return {"streams": sorted(play.session._streams)}


CODECS = {
    "Header": Codec(decode_untrusted, lambda header: encode(*header), describe),
}
FORMS = {"yamux": yamux}
