"""Circuit relay v2: be called through a relay, and be one. Rules: specs/relay.md."""

from p2pnet.protocols.relay.client import RelayClient, RelayClientService
from p2pnet.protocols.relay.server import RelayServer, RelayServerService

__all__ = ["RelayClient", "RelayClientService", "RelayServer", "RelayServerService"]
