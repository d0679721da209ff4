"""``p2pnet trace``: follow the way to a peer, and say how it ended and what would change that."""

from __future__ import annotations

from collections.abc import Sequence

import trio

from p2pnet.commands.checkup import fields_of_findings, fields_of_nat
from p2pnet.commands.output import Output
from p2pnet.commands.telling import hint_of, telling
from p2pnet.core.peer_id import PeerId
from p2pnet.core.tasks import EXPECTED
from p2pnet.host.host import Host
from p2pnet.interfaces import Target


async def trace(
    host: Host, target: Target, output: Output, *, relays: Sequence[str] = (), seconds: float
) -> int:
    """Connect to a peer, tell what happens until it is direct or will not be; 0 if it is."""
    async with telling(host, target, output, relays=relays) as tale:
        try:
            await host.connect(target)
        except EXPECTED:
            # Each address has been told of; the verdict below says what it comes to.
            direct = None
        else:
            direct = await tale.wait_direct(seconds)
    conclude(host, tale.peer_id, output, seconds=trio.current_time() - tale.began)
    return 0 if direct is not None else 1


def conclude(host: Host, peer_id: PeerId, output: Output, *, seconds: float) -> None:
    """Say how the peer is reached, why not better, and what would change that."""
    told = host.explain(peer_id)
    connections = host.connections(peer_id)
    lines = ["", f"{told.state} ({seconds:.3f} s)"]
    nats = host.nat.value.told
    lines += [f"our NAT, {name.upper()}: {nat.words}" for name, nat in nats]
    for finding in told.findings:
        lines += [f"why: {finding.cause.words}", f"  {finding.detail}"]
    if told.remedy:
        lines.append(f"what would change it: {told.remedy}")
    hint = hint_of(host, told)
    lines += [f"what would tell more: {hint}"] if hint else []
    output.event(
        "trace",
        "\n".join(lines),
        peer=str(peer_id),
        connected=bool(connections),
        direct=any(not each.is_relayed for each in connections),
        state=told.state,
        seconds=round(seconds, 6),
        nat=[fields_of_nat(*each) for each in nats],
        findings=fields_of_findings(told),
        remedy=told.remedy,
        hint=hint,
    )
