"""A simulated internet under virtual time, and the kit to test what is built on p2pnet.

::

    async def test_they_meet(world: World) -> None:  # of p2pnet.testing.pytest_plugin
        relay = await world.host(presets.relay())
        config = presets.edge(relays=[relay.address])
        alice = await world.host(config, at=world.home("port-restricted"))
        bob = await world.host(config, at=world.home("symmetric"))
        await alice.host.connect(bob.host.peer_id)

What is public can be imported from here, from ``p2pnet.testing.matrix`` and from
``p2pnet.testing.probing``. pytest is needed for ``p2pnet.testing.pytest_plugin`` only.
"""

from typing import TYPE_CHECKING

from p2pnet.core.lazy import lazily

if TYPE_CHECKING:
    from p2pnet.testing.conformance import (
        ConformanceFailure,
        check_muxer,
        check_security,
        check_transport,
    )
    from p2pnet.testing.insecure import Insecure
    from p2pnet.testing.kinds import KINDS, Kind
    from p2pnet.testing.links import Quality
    from p2pnet.testing.machines import Machine
    from p2pnet.testing.nat import Dependence, Nat, NatKind, PortChoice
    from p2pnet.testing.running import run
    from p2pnet.testing.sites import Families, Router, RouterSetup, Site
    from p2pnet.testing.theory import can_punch
    from p2pnet.testing.world import Leaked, World

HOMES = {
    "KINDS": "p2pnet.testing.kinds",
    "ConformanceFailure": "p2pnet.testing.conformance",
    "Dependence": "p2pnet.testing.nat",
    "Families": "p2pnet.testing.sites",
    "Insecure": "p2pnet.testing.insecure",
    "Kind": "p2pnet.testing.kinds",
    "Leaked": "p2pnet.testing.world",
    "Machine": "p2pnet.testing.machines",
    "Nat": "p2pnet.testing.nat",
    "NatKind": "p2pnet.testing.nat",
    "PortChoice": "p2pnet.testing.nat",
    "Quality": "p2pnet.testing.links",
    "Router": "p2pnet.testing.sites",
    "RouterSetup": "p2pnet.testing.sites",
    "Site": "p2pnet.testing.sites",
    "World": "p2pnet.testing.world",
    "can_punch": "p2pnet.testing.theory",
    "check_muxer": "p2pnet.testing.conformance",
    "check_security": "p2pnet.testing.conformance",
    "check_transport": "p2pnet.testing.conformance",
    "run": "p2pnet.testing.running",
}

__all__ = [
    "KINDS",
    "ConformanceFailure",
    "Dependence",
    "Families",
    "Insecure",
    "Kind",
    "Leaked",
    "Machine",
    "Nat",
    "NatKind",
    "PortChoice",
    "Quality",
    "Router",
    "RouterSetup",
    "Site",
    "World",
    "can_punch",
    "check_muxer",
    "check_security",
    "check_transport",
    "run",
]

if not TYPE_CHECKING:  # Who checks types is told of each name above.
    __getattr__ = lazily(__name__, HOMES)
