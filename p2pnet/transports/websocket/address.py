"""WebSocket addresses, read and written. Pure. Rules: specs/websocket.md (W1, W2, W3)."""

from __future__ import annotations

from dataclasses import dataclass, replace

from p2pnet.core.addresses import Endpoint, Multiaddr, components, parse
from p2pnet.interfaces import Opening


@dataclass(frozen=True, slots=True)
class WebAddress:
    """What a WebSocket address says."""

    endpoint: Endpoint
    is_secure: bool
    name: str | None = None
    """The server's name, where it has one: for SNI and its certificate, and for ``Host``."""

    @property
    def opening(self) -> Opening:
        """What a connection there begins with."""
        return Opening.TLS if self.is_secure else Opening.HTTP

    @property
    def server_name(self) -> str:
        """The name that the certificate must be for; without one, the IP."""
        return self.name or self.endpoint.host

    @property
    def host(self) -> str:
        """The ``Host`` of the request (W3)."""
        name = self.name or self.endpoint.host
        name = f"[{name}]" if ":" in name else name
        usual = 443 if self.is_secure else 80
        return name if self.endpoint.port == usual else f"{name}:{self.endpoint.port}"

    def at(self, endpoint: Endpoint) -> WebAddress:
        """Return the same at another endpoint."""
        return replace(self, endpoint=endpoint)


def read(address: Multiaddr) -> WebAddress | None:
    """Read a WebSocket address with an IP, with or without ``/p2p``; None for any other (W1)."""
    parts = components(address)
    if parts[-1][0] == "p2p":
        parts = parts[:-1]
    match parts:
        case (("ip4" | "ip6", host), ("tcp", port), *behind):
            endpoint = Endpoint(host, int(port))
        case _:
            return None
    match behind:
        case [("ws", "")]:
            return WebAddress(endpoint, is_secure=False)
        case [("sni", name), ("ws", "")]:
            return named(WebAddress(endpoint, is_secure=False), name)
        case [("tls", ""), ("ws", "")] | [("wss", "")]:
            return WebAddress(endpoint, is_secure=True)
        case [("tls", ""), ("sni", name), ("ws", "")]:
            return named(WebAddress(endpoint, is_secure=True), name)
        case _:
            return None


def named(address: WebAddress, name: str) -> WebAddress | None:
    """Add a name, as it is written in requests; it comes from anybody (W2)."""
    try:
        name = name.removesuffix(".").encode("idna").decode("ascii")
        f"{name}:65535".encode("idna")  # So wsproto looks at it once more.
    except UnicodeError:
        return None
    return replace(address, name=name)


def write(address: WebAddress) -> Multiaddr:
    """Write it as others do. There the name of a server without TLS has no place (W3)."""
    endpoint = address.endpoint
    kind = "ip6" if endpoint.is_ipv6 else "ip4"
    tls = "/tls" if address.is_secure else ""
    sni = f"/sni/{address.name}" if address.is_secure and address.name else ""
    return parse(f"/{kind}/{endpoint.host}/tcp/{endpoint.port}{tls}{sni}/ws")
