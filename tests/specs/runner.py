"""Finds the vectors of a page and runs them; README.md beside this tells what they look like."""

from __future__ import annotations

import builtins
import math
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

import p2pnet.errors
from p2pnet.errors import P2PError, ProtocolError
from tests.specs.forms import Codec, Dialogue, Fields, Form, TextCodec, Toml, plain, unread

BLOCK = re.compile(r"^```(?P<info>[^\n`]*)\n(?P<body>.*?)^```[ ]*$", re.DOTALL | re.MULTILINE)
INFO = re.compile(r'toml vector="(?P<title>[^"]+)"')
RULE_ID = re.compile(r"[A-Z]{1,2}\d+")
MEANT = re.compile(r"^[ \t>]*`{3,}[ \t]*toml\b.*vector", re.MULTILINE)


@dataclass(frozen=True)
class Vector:
    """One block of a page."""

    page: str
    title: str
    fields: Mapping[str, Toml]

    @property
    def rules(self) -> tuple[str, ...]:
        """The rule ids that the title begins with."""
        words = self.title.split()
        named = next((n for n, word in enumerate(words) if not RULE_ID.fullmatch(word)), len(words))
        return tuple(words[:named])


@dataclass(frozen=True)
class Registry:
    """What a page has registered."""

    codecs: Mapping[str, Codec[Any] | TextCodec[Any]] = field(default_factory=dict)
    dialogues: Mapping[str, Dialogue] = field(default_factory=dict)
    forms: Mapping[str, Form] = field(default_factory=dict)


def vectors_of(page: str, text: str) -> list[Vector]:
    """Read the vectors of a page.

    Raises:
        ValueError: if a block looks like a vector and is none, or two have one title.
    """
    vectors: dict[str, Vector] = {}
    for block in BLOCK.finditer(text):
        info = block["info"].strip()
        if info in ("", "toml") or not info.startswith("toml"):
            continue
        named = INFO.fullmatch(info)
        if named is None:
            raise ValueError(f'{page}: ```{info} is not ```toml vector="title"')
        vector = Vector(page, named["title"], tomllib.loads(block["body"]))
        if not vector.rules:
            raise ValueError(f"{page}: the vector {vector.title!r} begins with no rule id")
        if vector.title in vectors:
            raise ValueError(f"{page}: two vectors are called {vector.title!r}")
        vectors[vector.title] = vector
    if len(vectors) != len(MEANT.findall(text)):
        raise ValueError(f"{page}: a vector is indented, or its fence is not closed")
    return list(vectors.values())


def run(vector: Vector, registry: Registry) -> None:
    """Run a vector; AssertionError (or whatever goes wrong) if the code says otherwise."""
    given = Fields(vector.fields)
    form = next(iter(vector.fields))
    play = form_called(form, registry)
    if "error" in given:
        expected = error_called(given["error"])
        with pytest.raises(expected) as caught:
            play(given)
        assert type(caught.value) is expected, repr(caught.value)
        if "says" in given:
            assert given["says"] in str(caught.value)
    else:
        result = play(given)
        assert ("result" in given) == (form != "codec"), "a result or an error must be named"
        if "result" in given:
            assert_same(plain(given["result"]), plain(result))
    assert not given.unread(), f"nothing has read {given.unread()}"


def form_called(name: str, registry: Registry) -> Form:
    match name:
        case "codec":
            return lambda given: play_codec(registry.codecs[given["codec"]], given)
        case "dialogue":
            return lambda given: play_dialogue(registry.dialogues[given["dialogue"]], given)
        case _:
            return registry.forms[name]


def error_called(name: str) -> type[Exception]:
    found = vars(p2pnet.errors).get(name) or vars(builtins)[name]
    assert isinstance(found, type)
    assert issubclass(found, Exception)
    return found


def assert_same(expected: object, actual: object) -> None:
    """Compare what TOML says with what came out; floats may differ by their rounding."""
    same = rounded(actual) == rounded(expected)
    assert same, f"the page says {expected!r}, the code {actual!r}"


def rounded(value: object) -> object:
    match value:
        case float() if math.isfinite(value):
            return round(value, 6)
        case dict():
            return {key: rounded(item) for key, item in value.items()}
        case list():
            return [rounded(item) for item in value]
        case _:
            return value


# ---- codec -------------------------------------------------------------------------------


def play_codec(codec: Codec[Any] | TextCodec[Any], given: Fields) -> None:
    if isinstance(codec, TextCodec):
        value = codec.decode(given["text"])
        again = given.get("canonical", given["text"])
    else:
        value = codec.decode(unhex(given["hex"]))
        again = unhex(given.get("canonical", given["hex"]))
    if "error" in given:
        return  # which is a failure: an error was expected
    keys = {"codec", "text" if isinstance(codec, TextCodec) else "hex", "canonical"}
    expected = {key: given[key] for key in given if key not in keys}
    assert_same(plain(expected), codec.describe(value))
    if codec.encode is None:
        assert "canonical" not in given, "this codec does not encode"
    else:
        encoded = codec.encode(value)
        assert encoded == again, f"the page says {plain(again)}, the code {plain(encoded)}"


def unhex(text: str | list[str]) -> bytes:
    return bytes.fromhex(text if isinstance(text, str) else " ".join(text))


# ---- dialogue ----------------------------------------------------------------------------


class ScriptedChannel:
    """Plays the remote of a dialogue, and the clock: it shows the time of the last step."""

    def __init__(self, steps: list[Fields], message: Callable[[str, Fields], object]) -> None:
        self._steps = list(steps)
        self._message = message
        self._read: list[Fields] = []
        self._now = float(steps[0]["at"]) if steps and "at" in steps[0] else 0.0

    def now(self) -> float:
        return self._now

    async def send(self, message: object, /) -> None:
        step = self._next("send", message)
        assert message == self._build("send", step)

    async def receive(self) -> object:
        step = self._next("receive", None)
        if step["receive"] == "end":
            # As core.channel.MessageChannel has it.
            raise ProtocolError("script", "the stream ended without an answer")
        return self._build("receive", step)

    def _build(self, kind: str, step: Fields) -> object:
        contents = Fields({key: step[key] for key in step if key not in (kind, "at")})
        self._read.append(contents)
        return self._message(step[kind], contents)

    def _next(self, kind: str, message: object) -> Fields:
        assert self._steps, f"the script is over, but the dialogue wants to {kind} {message or ''}"
        step = self._steps.pop(0)
        assert kind in step, (
            f"the dialogue wants to {kind} {message or ''}, the script: {plain(step)}"
        )
        if "at" in step:
            self._now = float(step["at"])
        return step

    def assert_over(self) -> None:
        assert not self._steps, f"the dialogue ended before {plain(self._steps)}"
        assert not unread(self._read), f"no message has a field for {unread(self._read)}"


def play_dialogue(dialogue: Dialogue, given: Fields) -> object:
    channel = ScriptedChannel(given["script"], dialogue.message)
    coroutine = dialogue.play(channel, channel.now, given)
    try:
        coroutine.send(None)
    except StopIteration as finished:
        channel.assert_over()
        return finished.value
    except P2PError:
        channel.assert_over()
        raise
    coroutine.close()
    raise AssertionError("the dialogue awaits something else than its channel")
