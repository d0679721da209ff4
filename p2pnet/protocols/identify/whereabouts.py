"""From where a peer speaks, as far as this host can tell. Rule: specs/identify.md (I19).

A private address says that its owner is in a private network; but not always that it is in ours.
"""

from __future__ import annotations

import ipaddress
from contextlib import suppress

from p2pnet.core.addresses import Scope, ip_of, scope, unwrapped
from p2pnet.core.env import Network
from p2pnet.interfaces import Connection

CARRIERS = ipaddress.ip_network("100.64.0.0/10")
"""RFC 6598: behind a carrier's NAT are customers who have nothing to do with each other."""


def whereabouts(connection: Connection, network: Network) -> Scope:
    """Tell from where a peer, or its relay, speaks: no stranger is taken for a neighbour."""
    remote = connection.remote_address
    found, ip = scope(remote), ip_of(remote)
    if found is not Scope.PRIVATE or ip is None:
        return found
    ip = unwrapped(ip)
    with suppress(OSError):
        if ip in CARRIERS:
            own = map(ipaddress.ip_address, network.interface_addresses())
            return found if any(each in CARRIERS for each in own) else Scope.PUBLIC
        # A router that puts its own address in place of a caller's stands for anybody.
        arrived = connection.is_inbound and not connection.is_relayed
        if arrived and str(ip) in network.gateways():
            return Scope.PUBLIC
    return found
