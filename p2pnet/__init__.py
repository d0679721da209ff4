"""A modular peer-to-peer networking stack on trio, wire-compatible with libp2p."""
