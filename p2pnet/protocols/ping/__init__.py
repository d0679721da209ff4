"""Ping: measure the round trip to a peer, and answer those who measure. Rules: specs/ping.md."""

from p2pnet.protocols.ping.service import Ping, PingService

__all__ = ["Ping", "PingService"]
