"""SOAP as UPnP speaks it: calls written, answers and faults read. Pure. Rule PM18."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from p2pnet.connectivity.portmap.upnp.xml import Path, read_untrusted
from p2pnet.errors import ProtocolError

NAME = "SOAP"
MAX_ARGUMENTS = 32
ENVELOPE = "http://schemas.xmlsoap.org/soap/envelope/"
ENCODING = "http://schemas.xmlsoap.org/soap/encoding/"


@dataclass(frozen=True, slots=True)
class Fault:
    """The call failed; ``code`` is UPnP's word for it."""

    code: int
    description: str

    def __str__(self) -> str:
        return f"UPnP error {self.code}" + (f" ({self.description})" if self.description else "")


Values = Mapping[str, str]


def escaped(text: str) -> str:
    """Escape text for XML; ``xml.sax`` would bring the clients of HTTP and FTP along."""
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return text.replace('"', "&quot;")


def encode_call(service_type: str, action: str, arguments: Mapping[str, str]) -> bytes:
    inner = "".join(f"<{name}>{escaped(value)}</{name}>" for name, value in arguments.items())
    return (
        '<?xml version="1.0"?>\r\n'
        f'<s:Envelope xmlns:s="{ENVELOPE}" s:encodingStyle="{ENCODING}"><s:Body>'
        f'<u:{action} xmlns:u="{escaped(service_type)}">{inner}</u:{action}>'
        "</s:Body></s:Envelope>\r\n"
    ).encode()


class Reading:
    """Collects what an answer says."""

    def __init__(self, action: str) -> None:
        self._answer = f"{action}Response"
        self.is_answered = False
        self.values: dict[str, str] = {}
        self.code = ""
        self.description = ""

    def ended(self, path: Path, text: str) -> None:
        match path:
            case ("Envelope", "Body", answer) if answer == self._answer:
                self.is_answered = True
            case ("Envelope", "Body", answer, name) if answer == self._answer:
                if len(self.values) >= MAX_ARGUMENTS:
                    raise ProtocolError(NAME, "too many arguments")
                self.values[name] = text
            case ("Envelope", "Body", "Fault", *_, "errorCode"):
                self.code = text
            case ("Envelope", "Body", "Fault", *_, "errorDescription"):
                self.description = "".join(filter(str.isprintable, text))[:64]


def decode_untrusted(data: bytes, action: str) -> Values | Fault:
    """Read what came back for a call.

    Raises:
        ProtocolError: if it is neither an answer to it nor a fault with a code.
    """
    reading = Reading(action)
    read_untrusted(data, reading.ended)
    if reading.code:
        code = reading.code
        if not (code.isascii() and code.isdigit()) or len(code) > 4:
            raise ProtocolError(NAME, "a fault without a code")
        return Fault(int(code), reading.description)
    if not reading.is_answered:
        raise ProtocolError(NAME, "neither an answer nor a fault")
    return reading.values
