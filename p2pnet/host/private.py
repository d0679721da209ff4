"""Whether a host is in a private network, and what puts its streams under the key of that."""

from __future__ import annotations

import os

from p2pnet.core.env import Env
from p2pnet.host.config import HostConfig
from p2pnet.security.pnet.driver import Protector

FORCING = "LIBP2P_FORCE_PNET"
"""With "1" in this variable no host is opened but in a private network, as go-libp2p has it."""


class PrivateNetworkForced(ValueError):
    """The environment wants a private network, and the config has none."""


def protector_for(config: HostConfig, env: Env) -> Protector | None:
    """Return what protects the streams of a host; None in the public network.

    Raises:
        ExtraMissing: if the extra is not installed.
        PrivateNetworkForced: if the environment wants a private network.
    """
    if config.private_network is not None:
        return Protector(config.private_network, env.random_bytes)
    if os.environ.get(FORCING) == "1":  # PN9
        raise PrivateNetworkForced(f"{FORCING} is 1, and the host has no private_network")
    return None
