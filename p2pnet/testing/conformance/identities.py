"""Who meets in the cases: two peers whose keys are known, and their kits."""

from __future__ import annotations

from p2pnet.core.env import Env
from p2pnet.core.keys import PrivateKey
from p2pnet.core.peer_id import PeerId
from p2pnet.interfaces import Kit, Role, Upgrader
from p2pnet.negotiation.upgrader import LayeredUpgrader
from p2pnet.testing.conformance.judging import pattern

KEYS = {role: PrivateKey.from_seed(pattern(role.value, 32)) for role in Role}
PEERS = {role: PeerId.from_public_key(key.public_key) for role, key in KEYS.items()}
STRANGER = PeerId.from_public_key(PrivateKey.from_seed(pattern("stranger", 32)).public_key)


def other(role: Role) -> Role:
    return Role.LISTENER if role is Role.DIALER else Role.DIALER


def kit_of(role: Role, env: Env, upgrader: Upgrader | None = None) -> Kit:
    return kit_with(KEYS[role], env, upgrader)


def kit_with(key: PrivateKey, env: Env, upgrader: Upgrader | None = None) -> Kit:
    peer_id = PeerId.from_public_key(key.public_key)
    return Kit(env, key, peer_id, upgrader or LayeredUpgrader())
