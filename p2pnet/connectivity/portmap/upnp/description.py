"""The page on which a gateway lists its services. Pure. Rule PM17."""

from __future__ import annotations

from dataclasses import dataclass

from p2pnet.connectivity.portmap.upnp.urls import Url, read_url
from p2pnet.connectivity.portmap.upnp.xml import Path, read_untrusted
from p2pnet.errors import ProtocolError

NAME = "UPnP"
MAX_SERVICES = 64
MAX_CANDIDATES = 4
PREFIX = "urn:schemas-upnp-org:service:"
WANTED = (
    f"{PREFIX}WANIPConnection:2",
    f"{PREFIX}WANIPConnection:1",
    f"{PREFIX}WANPPPConnection:1",
)
"""The services that map ports, the best first."""


@dataclass(frozen=True, slots=True)
class Service:
    """Where and as what a service takes calls."""

    service_type: str
    control: Url

    @property
    def is_second(self) -> bool:
        """Tell if it knows what came with version 2."""
        return self.service_type == WANTED[0]


class Listing:
    """Collects the services while a description is read."""

    def __init__(self) -> None:
        self.base = ""
        self.services: list[tuple[str, str]] = []
        self._type = ""
        self._control = ""

    def ended(self, path: Path, text: str) -> None:
        match path:
            case ("root", "URLBase"):
                self.base = text
            case (*_, "service", "serviceType"):
                self._type = text
            case (*_, "service", "controlURL"):
                self._control = text
            case (*_, "service"):
                if len(self.services) >= MAX_SERVICES:
                    raise ProtocolError(NAME, "too many services")
                self.services.append((self._type, self._control))
                self._type = self._control = ""


def decode_untrusted(data: bytes, location: Url) -> tuple[Service, ...]:
    """Return the services that may map ports, the best first, of the page at ``location``.

    Raises:
        ProtocolError: if there is none, or the page is none.
    """
    listing = Listing()
    read_untrusted(data, listing.ended)
    host = location.endpoint.host
    base = str(read_url(listing.base, host=host) if listing.base else location)
    found = [
        Service(service_type, read_url(control, base=base, host=host))
        for wanted in WANTED
        for service_type, control in listing.services
        if service_type == wanted
    ]
    if not found:
        raise ProtocolError(NAME, "a gateway without a service that maps ports")
    return tuple(dict.fromkeys(found))[:MAX_CANDIDATES]
