"""Yamux: many streams over one connection, each with credit of its own."""

from p2pnet.muxers.yamux.driver import Yamux

__all__ = ["Yamux"]
