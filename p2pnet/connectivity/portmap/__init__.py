"""Port mapping: asks the routers of this host to forward its ports. Rules: specs/port-mapping.md.

service    which ports, which routers; what is told to the host
site       one router: searched in every protocol at once, and what was found there
keeper     one port at one router: asked for, kept, given back
lease      when to ask for it again; pure
pcp, nat_pmp, upnp    the protocols
"""

from p2pnet.connectivity.portmap.service import (
    MappedPort,
    PortMapping,
    PortMappingService,
    RouterReport,
)

__all__ = ["MappedPort", "PortMapping", "PortMappingService", "RouterReport"]
