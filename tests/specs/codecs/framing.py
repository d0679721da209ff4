"""Vectors of specs/framing.md."""

from __future__ import annotations

from p2pnet.core import varint
from p2pnet.core.framing import FrameDecoder
from tests.specs.forms import Codec, Fields


def decode_number(data: bytes) -> int:
    found = varint.decode_untrusted(data)
    assert found is not None, "incomplete"
    value, end = found
    assert end == len(data)
    return value


def frames(given: Fields) -> dict[str, object]:
    decoder = FrameDecoder(given["max_bytes"], "/test/1.0.0")
    messages = []
    for chunk in given["frames"]:
        decoder.feed(bytes.fromhex(chunk))
        while (frame := decoder.next_frame()) is not None:
            messages.append(frame)
    return {"messages": messages, "wanted": decoder.wanted()}


CODECS = {"varint": Codec(decode_number, varint.encode, lambda value: {"value": value})}
FORMS = {"frames": frames}
