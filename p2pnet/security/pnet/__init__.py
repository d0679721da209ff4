"""Private networks: a pre-shared key under everything else. Rules: specs/pnet.md."""

from p2pnet.security.pnet.key import BadPreSharedKey, PreSharedKey

__all__ = ["BadPreSharedKey", "PreSharedKey"]
