"""Identify: tell peers who this host is, and learn who they are. Rules: specs/identify.md."""

from p2pnet.protocols.identify.service import Identify, IdentifyService

__all__ = ["Identify", "IdentifyService"]
