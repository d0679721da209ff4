"""WebSocket: the part."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from p2pnet.errors import ExtraMissing
from p2pnet.interfaces import Kit

if TYPE_CHECKING:
    from p2pnet.transports.websocket.transport import WebSocketTransport

Pem = bytes | str | os.PathLike[str]
"""The content of a PEM file as bytes, or its path."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WebSocket:
    """The transport for ``/ip4/…/tcp/…/ws``, ``…/tls/ws`` (``…/wss``) and ``…/tls/sni/<name>/ws``.

    With a plain port of TCP of the same host it can share the port. Needs ``p2pnet[ws]``.
    """

    certificate: Pem | None = field(default=None, repr=False)
    """What to show to the web at ``/tls/ws``, with the intermediate certificates behind it. Not
    needed behind a proxy that speaks TLS. A file that changes is read again."""
    key: Pem | None = field(default=None, repr=False)
    """The private key of ``certificate``, not encrypted."""
    authorities: Pem | None = None
    """Further certificate authorities to trust when dialling, beside those of the system."""
    connect_timeout: float = 10.0
    """Seconds until a SYN that nobody answers is given up."""
    handshake_timeout: float = 15.0
    """Seconds for the handshakes of TLS and HTTP together."""
    reuse_port: bool = True
    """Dial from the port that is listened on for WebSocket."""
    max_head_bytes: int = 16_384
    """Bounds the HTTP request and the response (W4)."""
    max_frame_bytes: int = 16 * 1024 * 1024
    """Bounds the payload of a frame of the remote (W9)."""
    max_message_bytes: int = 16 * 1024 * 1024
    """Bounds all frames of a message together; nothing waits for a whole one (W9)."""

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key come together")
        if self.connect_timeout <= 0 or self.handshake_timeout <= 0:
            raise ValueError("connect_timeout and handshake_timeout must be positive")
        if self.max_head_bytes < 1024:
            raise ValueError("max_head_bytes must be at least 1024")
        if min(self.max_frame_bytes, self.max_message_bytes) < 65_536:
            raise ValueError("max_frame_bytes and max_message_bytes must be at least 65536")

    def build(self, kit: Kit) -> WebSocketTransport:
        """Build it.

        Raises:
            ExtraMissing: if the extra ``p2pnet[ws]`` is not installed.
            OSError, ValueError: if ``authorities`` are none; ``certificate`` is read when there
                is somewhere to listen with it.
        """
        try:
            from p2pnet.transports.websocket.transport import WebSocketTransport  # noqa: PLC0415
        except ModuleNotFoundError as error:
            if error.name != "wsproto":
                raise
            raise ExtraMissing("WebSocket needs wsproto", "ws") from None
        return WebSocketTransport(self, kit)
