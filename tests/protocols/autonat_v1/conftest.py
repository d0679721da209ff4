"""What the tests of AutoNAT v1 share: a simulated internet, as its services dial."""

from __future__ import annotations

from p2pnet.testing.pytest_plugin import world

__all__ = ["world"]
