"""SSDP: how a UPnP gateway is found, by multicast and by asking it. Pure. Rules PM12, PM13."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from p2pnet.connectivity.portmap.upnp.http import decode_head_untrusted, status_of
from p2pnet.connectivity.portmap.upnp.urls import Url, read_url
from p2pnet.core.addresses import Endpoint
from p2pnet.errors import ProtocolError

NAME = "SSDP"
GROUP: Final = Endpoint("239.255.255.250", 1900)
MAX_BYTES = 2_048
GATEWAY = "urn:schemas-upnp-org:device:InternetGatewayDevice:"
TARGETS = (f"{GATEWAY}1", f"{GATEWAY}2")
"""Devices of version 2 answer to both; some of version 1 to anything."""
SERVICES = (
    "urn:schemas-upnp-org:service:WANIPConnection:",
    "urn:schemas-upnp-org:service:WANPPPConnection:",
)
SECONDS_TO_ANSWER = 1
"""MX: who is asked by multicast may wait for up to so long."""


@dataclass(frozen=True, slots=True)
class Found:
    """A gateway says that its description is there."""

    target: str
    location: Url


def encode_search(target: str) -> bytes:
    lines = (
        "M-SEARCH * HTTP/1.1",
        f"HOST: {GROUP}",
        'MAN: "ssdp:discover"',
        f"MX: {SECONDS_TO_ANSWER}",
        f"ST: {target}",
        "USER-AGENT: p2pnet/0.1 UPnP/1.1",
    )
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


def decode_untrusted(data: bytes, source: str) -> Found:
    """Read an answer that came from an IP address.

    Raises:
        ProtocolError: if it is none, is of no gateway, or names a place elsewhere.
    """
    if len(data) > MAX_BYTES:  # PM13
        raise ProtocolError(NAME, f"an answer of {len(data)} bytes")
    head = decode_head_untrusted(data.rstrip(b"\r\n\0"))
    if status_of(head) != 200:
        raise ProtocolError(NAME, f"an answer of status {status_of(head)}")
    target = head.headers.get("st", "")
    if not target.startswith((GATEWAY, *SERVICES)):
        raise ProtocolError(NAME, "an answer of something that is no gateway")
    return Found(target, read_url(head.headers.get("location", ""), host=source))
