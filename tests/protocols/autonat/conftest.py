"""These tests run in the simulated internet, not in the world in memory of the folder above."""

from __future__ import annotations

from p2pnet.testing.pytest_plugin import world

__all__ = ["world"]
