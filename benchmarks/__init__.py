"""Benchmarks: p2pnet beside raw loopback sockets, measured in one run and told as ratios."""
