"""DCUtR: from a relayed connection to a direct one, through both NATs. Rules: specs/dcutr.md."""

from p2pnet.protocols.dcutr.birthday import Birthday
from p2pnet.protocols.dcutr.service import DCUtR, DCUtRService

__all__ = ["Birthday", "DCUtR", "DCUtRService"]
