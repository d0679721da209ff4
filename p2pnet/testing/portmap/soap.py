"""SOAP as UPnP speaks it: a call read from hostile XML, an answer or a fault written.

    <Envelope><Body><u:Action xmlns:u="service type"><Argument>text</Argument>...

The reader is expat itself: it refuses document types, so there are no entities to expand, it
takes UTF-8 only, and it keeps nothing but one action and a bounded number of arguments.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from xml.parsers import expat
from xml.sax.saxutils import escape, quoteattr

from p2pnet.errors import ProtocolError

NAME = "SOAP"
ENVELOPE = "http://schemas.xmlsoap.org/soap/envelope/"
ENCODING = "http://schemas.xmlsoap.org/soap/encoding/"
CONTROL = "urn:schemas-upnp-org:control-1-0"
MAX_ARGUMENTS = 32
MAX_ELEMENTS = 64
DEPTH_OF_ACTION = 3
DEPTH_OF_ARGUMENTS = 4
SEPARATOR = " "


@dataclass(frozen=True, slots=True)
class Call:
    """An action of a service, with its arguments as text."""

    service_type: str
    action: str
    arguments: Mapping[str, str]


class UpnpError(Exception):
    """An action failed; ``code`` is UPnP's word for it."""

    def __init__(self, code: int) -> None:
        super().__init__(f"UPnP error {code}: {DESCRIPTIONS[code]}")
        self.code = code


DESCRIPTIONS = {
    401: "Invalid Action",
    402: "Invalid Args",
    501: "Action Failed",
    605: "String Argument Too Long",
    606: "Action not authorized",
    713: "SpecifiedArrayIndexInvalid",
    714: "NoSuchEntryInArray",
    716: "WildCardNotPermittedInExtPort",
    718: "ConflictInMappingEntry",
    725: "OnlyPermanentLeasesSupported",
    726: "RemoteHostOnlySupportsWildcard",
    728: "NoPortMapsAvailable",
    729: "ConflictWithOtherMechanisms",
    730: "PortMappingNotFound",
    731: "ReadOnly",
    732: "WildCardNotPermittedInIntPort",
    733: "InconsistentParameters",
}


class Reader:
    """What expat calls while it reads a request."""

    def __init__(self) -> None:
        self.action: tuple[str, str] | None = None
        self.arguments: dict[str, str] = {}
        self._path: list[str] = []
        self._elements = 0
        self._text: list[str] = []

    def start(self, name: str, attributes: object) -> None:
        del attributes
        self._elements += 1
        if self._elements > MAX_ELEMENTS:
            raise ProtocolError(NAME, "too many elements")
        self._path.append(name)
        if not self._in_body:
            return
        if len(self._path) > DEPTH_OF_ARGUMENTS:
            raise ProtocolError(NAME, "an argument with elements in it")
        if len(self._path) == DEPTH_OF_ACTION:
            if self.action is not None:
                raise ProtocolError(NAME, "two actions")
            service_type, _, action = name.rpartition(SEPARATOR)
            self.action = service_type, action
        self._text.clear()

    @property
    def _in_body(self) -> bool:
        envelope = [ENVELOPE + SEPARATOR + name for name in ("Envelope", "Body")]
        if self._path[:1] != envelope[:1]:
            raise ProtocolError(NAME, "no envelope")
        return len(self._path) > 2 and self._path[:2] == envelope

    def end(self, name: str) -> None:
        if len(self._path) == DEPTH_OF_ARGUMENTS and self._in_body:
            argument = name.rpartition(SEPARATOR)[2]
            if argument in self.arguments or len(self.arguments) >= MAX_ARGUMENTS:
                raise ProtocolError(NAME, "an argument twice, or too many")
            self.arguments[argument] = "".join(self._text)
        self._path.pop()

    def text(self, data: str) -> None:
        if len(self._path) == DEPTH_OF_ARGUMENTS:
            self._text.append(data)

    def doctype(self, *_: object) -> None:
        raise ProtocolError(NAME, "a document type")


def decode_untrusted(data: bytes) -> Call:
    """Read a call; the caller has bounded its length.

    Raises:
        ProtocolError: if it is none.
    """
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise ProtocolError(NAME, "not UTF-8") from None
    reader = Reader()
    parser = expat.ParserCreate("utf-8", SEPARATOR)
    parser.buffer_text = True
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.text
    parser.StartDoctypeDeclHandler = reader.doctype
    try:
        parser.Parse(text, True)
    except expat.ExpatError as error:
        raise ProtocolError(NAME, f"not well-formed: {error}") from None
    if reader.action is None:
        raise ProtocolError(NAME, "no action")
    return Call(*reader.action, reader.arguments)


def encode_answer(call: Call, values: Mapping[str, str]) -> bytes:
    inner = "".join(f"<{name}>{encode_text(value)}</{name}>" for name, value in values.items())
    name = f"u:{call.action}Response"
    return encode_envelope(f"<{name} xmlns:u={quoteattr(call.service_type)}>{inner}</{name}>")


def encode_text(text: str) -> str:
    """Write text so that clients find XML inside it that do not undo entities."""
    if text.startswith("<") and "]]>" not in text:
        return f"<![CDATA[{text}]]>"
    return escape(text)


def encode_fault(code: int) -> bytes:
    return encode_envelope(
        "<s:Fault><faultcode>s:Client</faultcode><faultstring>UPnPError</faultstring>"
        f'<detail><UPnPError xmlns="{CONTROL}"><errorCode>{code}</errorCode>'
        f"<errorDescription>{DESCRIPTIONS[code]}</errorDescription></UPnPError></detail></s:Fault>"
    )


def encode_envelope(body: str) -> bytes:
    return (
        '<?xml version="1.0"?>\n'
        f'<s:Envelope xmlns:s="{ENVELOPE}" s:encodingStyle="{ENCODING}">'
        f"<s:Body>{body}</s:Body></s:Envelope>\r\n"
    ).encode()
