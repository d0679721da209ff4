"""NAT-PMP, RFC 6886: the small protocol that Apple's routers began with."""
