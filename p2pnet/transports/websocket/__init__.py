"""WebSocket, plain and over TLS."""

from p2pnet.transports.websocket.config import WebSocket

__all__ = ["WebSocket"]
