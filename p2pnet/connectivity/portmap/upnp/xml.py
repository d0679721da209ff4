"""Hostile XML, read element by element within limits. Pure. Rule PM16.

The reader is expat itself. It is given UTF-8, whatever the document says it is, and refuses
document types, so there are no entities to expand; it keeps a path and the text of the element
it is in. Names lose their prefixes: real routers get namespaces wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from xml.parsers import expat

from p2pnet.errors import ProtocolError

NAME = "XML"
MAX_DEPTH = 32
MAX_ELEMENTS = 4_096
MAX_TEXT = 4_096
"""Characters of one element."""

Path = tuple[str, ...]
Leaf = Callable[[Path, str], None]
"""Told of each element as it ends: its path from the root, and its own text."""


class Reader:
    """What expat calls."""

    def __init__(self, ended: Leaf) -> None:
        self._ended = ended
        self._path: list[str] = []
        self._texts: list[list[str]] = []
        self._lengths: list[int] = []
        self._elements = 0

    def start(self, name: str, attributes: object) -> None:
        del attributes
        self._elements += 1
        if self._elements > MAX_ELEMENTS or len(self._path) >= MAX_DEPTH:
            raise ProtocolError(NAME, "too many elements, or too deep")
        self._path.append(name.rpartition(":")[2])
        self._texts.append([])
        self._lengths.append(0)

    def text(self, data: str) -> None:
        self._lengths[-1] += len(data)
        if self._lengths[-1] > MAX_TEXT:
            raise ProtocolError(NAME, "a text that is too long")
        self._texts[-1].append(data)

    def end(self, name: str) -> None:
        del name
        text = "".join(self._texts.pop()).strip()
        self._lengths.pop()
        path = tuple(self._path)
        self._path.pop()
        self._ended(path, text)

    def doctype(self, *_: object) -> None:
        raise ProtocolError(NAME, "a document type")


def read_untrusted(data: bytes, ended: Leaf) -> None:
    """Read a document, whose length the caller has bounded.

    Raises:
        ProtocolError: if it is not well-formed, or over a limit.
    """
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        data = data.decode("latin-1").encode("utf-8")
    reader = Reader(ended)
    parser = expat.ParserCreate("utf-8")
    parser.buffer_text = True
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.text
    parser.StartDoctypeDeclHandler = reader.doctype
    try:
        parser.Parse(data.strip(b"\0 \t\r\n"), True)
    except expat.ExpatError as error:
        raise ProtocolError(NAME, f"not well-formed: {error}") from None
