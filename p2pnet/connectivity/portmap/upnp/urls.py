"""Where a router says that its pages are; nothing but itself is ever asked. Pure. Rule PM14."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address
from urllib.parse import urljoin, urlsplit

from p2pnet.core.addresses import Endpoint
from p2pnet.errors import ProtocolError

NAME = "UPnP"
MAX_CHARACTERS = 1024
PRINTABLE = re.compile(r"[!-~]+")
"""What a URL is made of: nothing that could end a line of a request, or begin another."""


@dataclass(frozen=True, slots=True)
class Url:
    """An HTTP URL whose host is an IPv4 address."""

    endpoint: Endpoint
    target: str
    """Path and query, as requests name them."""

    def __str__(self) -> str:
        return f"http://{self.endpoint}{self.target}"


def read_url(text: str, *, base: str = "", host: str) -> Url:
    """Read a URL that must be at ``host``; a relative one is relative to ``base``.

    Raises:
        ProtocolError: if it is none, or leads elsewhere.
    """
    text = text.strip()
    if len(text) > MAX_CHARACTERS or not PRINTABLE.fullmatch(text):
        raise ProtocolError(NAME, "a URL that is none")
    try:
        parts = urlsplit(urljoin(base, text))
        port = 80 if parts.port is None else parts.port
        found = str(IPv4Address(parts.hostname or ""))
    except (AddressValueError, ValueError):
        raise ProtocolError(NAME, "a URL that is none, or whose host is not an IP") from None
    if parts.scheme != "http" or parts.username is not None or port == 0:
        raise ProtocolError(NAME, f"a URL that is not plain HTTP: {text[:64]!r}")
    if found != host:  # PM14
        raise ProtocolError(NAME, f"{host} gives a URL at {found}")
    query = f"?{parts.query}" if parts.query else ""
    return Url(Endpoint(found, port), (parts.path or "/") + query)
