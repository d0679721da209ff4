"""AutoNAT v1: can others dial this host? For peers without v2. Rules: specs/autonat-v1.md."""

from p2pnet.protocols.autonat_v1.client import AutoNATv1, AutoNATv1Service
from p2pnet.protocols.autonat_v1.server import AutoNATv1Server, AutoNATv1ServerService

__all__ = ["AutoNATv1", "AutoNATv1Server", "AutoNATv1ServerService", "AutoNATv1Service"]
