"""A laboratory of network namespaces: every kind of NAT, with real packets."""
