"""QUIC version 1: security and streams in one, over UDP."""

from p2pnet.transports.quic.config import QUIC

__all__ = ["QUIC"]
