"""The runner notices when a page and the code disagree."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import trio.lowlevel

from p2pnet.errors import ProtocolError
from tests.specs.forms import Channel, Codec, Dialogue, Fields, TextCodec
from tests.specs.runner import Registry, run, vectors_of


@dataclass(frozen=True)
class Pair:
    left: int
    right: bytes
    note: str | None = None


@dataclass(frozen=True)
class Word:
    text: str


def decode(data: bytes) -> Pair:
    if len(data) < 2:
        raise ProtocolError("pair", "too short")
    return Pair(data[0], data[1:])


async def ask(channel: Channel, now: Callable[[], float], given: Fields) -> dict[str, Any]:
    begun = now()
    await channel.send(Word(given["question"]))
    answer = await channel.receive()
    if answer == Word(""):
        raise ProtocolError("ask", "no answer")
    return {"answer": answer.text, "took": now() - begun}


async def sleep(channel: Channel, now: Callable[[], float], given: Fields) -> None:
    await trio.lowlevel.checkpoint()


def word(name: str, fields: Fields) -> Word:
    assert name == "Word"
    return Word(fields["text"])


REGISTRY = Registry(
    codecs={
        "Pair": Codec(decode, lambda pair: bytes([pair.left]) + pair.right),
        "Reader": Codec(decode, None),
        "Liar": Codec(decode, lambda pair: b"\x00" + pair.right),
        "Number": TextCodec(
            lambda text: int(text, 16), lambda number: f"{number:x}", lambda n: {"n": n}
        ),
    },
    dialogues={"ask": Dialogue(ask, word), "sleep": Dialogue(sleep, word)},
    forms={
        "double": lambda given: given["double"] * 2,
        "halves": lambda given: [given["halves"] / 3],
        "table": lambda given: {"value": given["table"]["inner"]},
    },
)

HEX = 'hex = "0102"\nleft = 1\nright = "02"'
ASK = 'dialogue = "ask"\nquestion = "why"\n'
SCRIPT = """script = [
  { at = 1.0, send = "Word", text = "why" },
  { at = 1.2, receive = "Word", text = "so" },
]
"""

GOOD = {
    "codec": 'codec = "Pair"\nhex = "01 0203"\nleft = 1\nright = "0203"',
    "codec of many pieces": 'codec = "Pair"\nhex = ["01", "02 03"]\nleft = 1\nright = "0203"',
    "codec that reads only": 'codec = "Reader"\nhex = "010203"\nleft = 1\nright = "0203"',
    "codec with another canonical form": 'codec = "Liar"\ncanonical = "0002"\n' + HEX,
    "codec error": 'codec = "Pair"\nhex = "01"\nerror = "ProtocolError"\nsays = "too short"',
    "text": 'codec = "Number"\ntext = "ff"\nn = 255',
    "text with another canonical form": 'codec = "Number"\ntext = "FF"\ncanonical = "ff"\nn = 255',
    "text error": 'codec = "Number"\ntext = "x"\nerror = "ValueError"',
    "dialogue": ASK + SCRIPT + 'result = { answer = "so", took = 0.2 }',
    "dialogue error": ASK + SCRIPT.replace('"so"', '""') + 'error = "ProtocolError"',
    "dialogue whose stream ends": ASK
    + 'script = [{ send = "Word", text = "why" }, { receive = "end" }]\nerror = "ProtocolError"',
    "form": "double = 2\nresult = 4",
    "form with a float": "halves = 1.0\nresult = [0.333333]",
    "form with a table": "table = { inner = 1 }\nresult = { value = 1 }",
    "form error": 'double = {}\nerror = "TypeError"',
}

BAD = {
    "a wrong field": 'codec = "Pair"\nhex = "010203"\nleft = 2\nright = "0203"',
    "a missing field": 'codec = "Pair"\nhex = "010203"\nleft = 1',
    "a field too many": 'codec = "Pair"\nhex = "010203"\nleft = 1\nright = "0203"\nmiddle = 1',
    "an encoding that differs": 'codec = "Liar"\nhex = "0102"\nleft = 1\nright = "02"',
    "a wrong canonical form": 'codec = "Pair"\ncanonical = "0003"\n' + HEX,
    "a canonical form nobody makes": 'codec = "Reader"\ncanonical = "0102"\n' + HEX,
    "a codec unheard of": 'codec = "Triple"\nhex = "0102"',
    "an error that does not come": 'codec = "Pair"\nhex = "0102"\nerror = "ProtocolError"',
    "another error": 'codec = "Number"\ntext = "x"\nerror = "ProtocolError"',
    "a base class of the error": 'codec = "Pair"\nhex = "01"\nerror = "P2PError"',
    "an error nobody asked for": 'codec = "Pair"\nhex = "01"\nleft = 1',
    "an error in other words": 'codec = "Pair"\nhex = "01"\nerror = "ProtocolError"\nsays = "long"',
    "fields beside an error": 'codec = "Pair"\nhex = "01"\nleft = 1\nerror = "ProtocolError"',
    "an error unheard of": 'codec = "Pair"\nhex = "01"\nerror = "SomeError"',
    "another message sent": ASK.replace("why", "how")
    + SCRIPT
    + 'result = { answer = "so", took = 0.2 }',
    "another result": ASK + SCRIPT + 'result = { answer = "no", took = 0.2 }',
    "another time": ASK + SCRIPT + 'result = { answer = "so", took = 0.3 }',
    "a script too short": ASK + 'script = [{ send = "Word", text = "why" }]\nresult = {}',
    "a script too long": ASK
    + SCRIPT.replace("]\n", '  { receive = "Word", text = "oh" },\n]\n')
    + 'result = { answer = "so", took = 0.2 }',
    "a script too long for an error": ASK
    + SCRIPT.replace('"so"', '""').replace("]\n", '  { receive = "end" },\n]\n')
    + 'error = "ProtocolError"',
    "a step of the wrong side": ASK + 'script = [{ receive = "Word", text = "so" }]\nresult = {}',
    "a message's field nobody reads": ASK
    + SCRIPT.replace('"so"', '"so", loud = true')
    + 'result = { answer = "so", took = 0.2 }',
    "a key nobody reads": ASK
    + "polite = true\n"
    + SCRIPT
    + 'result = { answer = "so", took = 0.2 }',
    "a dialogue that sleeps": 'dialogue = "sleep"\nscript = []\nresult = 1',
    "no result": ASK + SCRIPT,
    "a form unheard of": "treble = 2\nresult = 6",
    "another result of a form": "double = 2\nresult = 5",
    "a result of another type": 'double = 2\nresult = "4"',
    "an inner key nobody reads": "table = { inner = 1, outer = 2 }\nresult = { value = 1 }",
    "a result beside the fields of a codec": 'codec = "Pair"\nresult = 1\n' + HEX,
}


def run_block(block: str) -> None:
    (vector,) = vectors_of("page", f'```toml vector="X1 a title"\n{block}\n```\n')
    run(vector, REGISTRY)


@pytest.mark.parametrize("block", GOOD.values(), ids=GOOD.keys())
def test_a_vector_that_holds_passes(block: str) -> None:
    run_block(block)


@pytest.mark.parametrize("block", BAD.values(), ids=BAD.keys())
def test_a_vector_that_does_not_hold_fails(block: str) -> None:
    expected = (AssertionError, ProtocolError, KeyError, ValueError, pytest.fail.Exception)
    with pytest.raises(expected):
        run_block(block)


def test_other_blocks_are_left_alone() -> None:
    text = "```mermaid\na\n```\n```toml\nx = 1\n```\n```\ny\n```\n"
    assert vectors_of("page", text) == []


def test_a_title_begins_with_the_rules_it_shows() -> None:
    (vector,) = vectors_of("page", '```toml vector="R7 AN12 a title of R9"\nx = 1\n```\n')
    assert vector.rules == ("R7", "AN12")
    assert vector.fields == {"x": 1}


@pytest.mark.parametrize(
    "text",
    [
        pytest.param('```toml vector="a title"\nx = 1\n```\n', id="no rule id"),
        pytest.param('```toml vektor="X1 a"\nx = 1\n```\n', id="misspelt"),
        pytest.param("```toml vector='X1 a'\nx = 1\n```\n", id="other quotes"),
        pytest.param('```toml vector="X1 a"\nx = 1\n```\n' * 2, id="two of one title"),
        pytest.param('  ```toml vector="X1 a"\n  x = 1\n  ```\n', id="indented"),
        pytest.param('```toml vector="X1 a"\nx = 1\n', id="not closed"),
        pytest.param('```toml vector="X1 a"\nx = = 1\n```\n', id="not TOML"),
    ],
)
def test_a_block_that_only_looks_like_a_vector_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"page|TOML|Invalid"):
        vectors_of("page", text)
