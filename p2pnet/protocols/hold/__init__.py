"""Learns how long the NAT keeps a mapping, and helps others to. Rules: specs/keepalive.md."""

from p2pnet.protocols.hold.service import Hold, HoldService

__all__ = ["Hold", "HoldService"]
