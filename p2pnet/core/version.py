"""What this implementation calls itself."""

AGENT = "p2pnet/0.1.0"
