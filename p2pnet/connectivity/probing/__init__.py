"""Tells by ports of its own what the NAT does. Rules: specs/reachability.md (V14, V15).

service    when, and what is told to the host
probe      the ports, and what is done with them
policy     who is asked, and when; pure
"""

from p2pnet.connectivity.probing.service import NatProbing, NatProbingService

__all__ = ["NatProbing", "NatProbingService"]
