"""What a page of specs/ registers so that its vectors run; README.md beside this tells how."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from typing import Any, Generic, Protocol, TypeVar

from p2pnet.core.addresses import Multiaddr
from p2pnet.core.keys import PublicKey
from p2pnet.core.peer_id import PeerId

T = TypeVar("T")

Toml = Any
"""A value of TOML, whose types a page knows and nobody else: a table, a list, a number, text."""


class Fields(Mapping[str, Toml]):
    """A TOML table that knows which of its keys were read, so that no typo goes unseen."""

    def __init__(self, table: Mapping[str, Toml]) -> None:
        self._table = {key: tracked(value) for key, value in table.items()}
        self._read: set[str] = set()

    def __getitem__(self, key: str) -> Toml:
        self._read.add(key)
        return self._table[key]

    def __contains__(self, key: object) -> bool:
        return key in self._table

    def __iter__(self) -> Iterator[str]:
        return iter(self._table)

    def __len__(self) -> int:
        return len(self._table)

    def unread(self) -> list[str]:
        found = [key for key in self._table if key not in self._read]
        for key in self._read & self._table.keys():
            found += [f"{key}.{inner}" for inner in unread(self._table[key])]
        return found


def tracked(value: object) -> Toml:
    match value:
        case dict():
            return Fields(value)
        case list():
            return [tracked(item) for item in value]
        case _:
            return value


def unread(value: object) -> list[str]:
    match value:
        case Fields():
            return value.unread()
        case list():
            return [key for item in value for key in unread(item)]
        case _:
            return []


def plain(value: object) -> Toml:
    """Turn a value into what TOML can say; a field that is None is left out."""
    match value:
        case Enum():
            return value.name
        case None | bool() | str() | int() | float():
            return value
        case bytes() | bytearray():
            return value.hex()
        case PublicKey():
            return value.encode().hex()
        case PeerId() | Multiaddr():
            return str(value)
        case Mapping():
            return {str(key): plain(item) for key, item in value.items() if item is not None}
        case list() | tuple():
            return [plain(item) for item in value]
        case set() | frozenset():
            return sorted(plain(item) for item in value)
        case _ if is_dataclass(value) and not isinstance(value, type):
            return plain({field.name: getattr(value, field.name) for field in fields(value)})
        case _:
            return str(value)


@dataclass(frozen=True)
class Codec(Generic[T]):
    """Bytes to a value and back. ``encode`` is None for what is only ever read."""

    decode: Callable[[bytes], T]
    encode: Callable[[T], bytes] | None
    describe: Callable[[T], object] = plain


@dataclass(frozen=True)
class TextCodec(Generic[T]):
    """Text to a value and back."""

    decode: Callable[[str], T]
    encode: Callable[[T], str] | None
    describe: Callable[[T], object] = plain


class Channel(Protocol):
    async def send(self, message: object, /) -> None: ...
    async def receive(self) -> Toml: ...


@dataclass(frozen=True)
class Dialogue:
    """A conversation: ``play(channel, now, given)`` and what makes a step's message.

    ``message(name, fields)`` builds the message called ``name``. For a step that receives it may
    raise, as the decoder would.
    """

    play: Callable[[Channel, Callable[[], float], Fields], Coroutine[Any, Any, object]]
    message: Callable[[str, Fields], object]


Form = Callable[[Fields], object]
"""A form of the page's own: given the whole block, returns what ``result`` says, or raises."""
