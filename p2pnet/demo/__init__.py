"""Show what p2pnet is for: two peers behind NATs that meet by way of a relay."""
