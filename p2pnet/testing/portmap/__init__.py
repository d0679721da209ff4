"""What a simulated home router speaks so that hosts can ask for port mappings.

UPnP-IGD, NAT-PMP and PCP, the server's side: bytes in, bytes out. No sockets, no clock.
Begin at ``router_service``.
"""
