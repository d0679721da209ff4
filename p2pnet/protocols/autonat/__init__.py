"""AutoNAT v2: learn which of our addresses can be dialled, and tell others of theirs.

Rules: specs/autonat.md.
"""

from p2pnet.protocols.autonat.client import AutoNAT, AutoNATService
from p2pnet.protocols.autonat.server import AutoNATServer, AutoNATServerService

__all__ = ["AutoNAT", "AutoNATServer", "AutoNATServerService", "AutoNATService"]
