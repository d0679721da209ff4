"""Peers for the tests of resume."""

from __future__ import annotations

from p2pnet.core.keys import PrivateKey
from p2pnet.core.peer_id import PeerId

ALICE, BOB, CAROL = (
    PeerId.from_public_key(PrivateKey.from_seed(bytes([n]) * 32).public_key) for n in (1, 2, 3)
)
