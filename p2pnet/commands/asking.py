"""``p2pnet ping`` and ``p2pnet identify``: connect, ask, print the answer."""

from __future__ import annotations

from collections.abc import Sequence

import trio

from p2pnet.commands.checkup import fields_of_findings
from p2pnet.commands.output import Output
from p2pnet.commands.telling import hint_of, telling
from p2pnet.host.host import Host
from p2pnet.interfaces import Connection, Target
from p2pnet.protocols.identify import Identify
from p2pnet.protocols.ping import Ping

PING_TIMEOUT = 20.0
IDENTIFY_TIMEOUT = 10.0


async def ping(
    host: Host,
    target: Target,
    output: Output,
    *,
    count: int,
    direct_seconds: float,
    relays: Sequence[str] = (),
) -> int:
    """Ping a peer ``count`` times; wait for a direct connection first, if so asked."""
    if direct_seconds > 0:
        connection = await connect_direct(
            host, target, output, seconds=direct_seconds, relays=relays
        )
    else:
        connection = await host.connect(target)
    for sequence in range(count):
        with trio.fail_after(PING_TIMEOUT):
            seconds = await host.service(Ping).ping(connection)
        kind = "relayed" if connection.is_relayed else "direct"
        output.event(
            "ping",
            f"ping {sequence + 1}: {seconds * 1000:.2f} ms, {kind}",
            peer=str(connection.peer_id),
            sequence=sequence + 1,
            rtt_ms=round(seconds * 1000, 3),
            relayed=connection.is_relayed,
        )
        if sequence + 1 < count:
            await trio.sleep(min(1.0, 0.2 + seconds))
    return 0


async def connect_direct(
    host: Host, target: Target, output: Output, *, seconds: float, relays: Sequence[str] = ()
) -> Connection:
    """Connect to a peer and wait until that is direct, telling what happens (C13).

    If it does not become direct, say why, and go on with the relayed connection.
    """
    async with telling(host, target, output, relays=relays) as tale:
        connection = await host.connect(target)
        if not connection.is_relayed:
            return connection
        direct = await tale.wait_direct(seconds)
    peer = str(connection.peer_id)
    if direct is not None:
        address = str(direct.remote_address)
        output.event("direct", f"direct to {peer} at {address}", peer=peer, address=address)
        return direct
    reasons = tale.reasons or ["no hole punch ended in time; it is the peer who begins it"]
    explanation = host.explain(connection.peer_id)
    words = [f"no direct connection to {peer}: {'; '.join(reasons)}"]
    words += [f"why: {finding.cause.words}" for finding in explanation.findings]
    words += [f"what to do: {explanation.remedy}"] if explanation.remedy else []
    hint = hint_of(host, explanation)
    words += [f"what would tell more: {hint}"] if hint else []
    output.event(
        "not_direct",
        "\n".join(words),
        peer=peer,
        reasons=reasons,
        findings=fields_of_findings(explanation),
        remedy=explanation.remedy,
        hint=hint,
    )
    return connection


async def identify(host: Host, target: Target, output: Output) -> int:
    """Print what a peer says of itself, and at which address it sees this host."""
    connection = await host.connect(target)
    with trio.fail_after(IDENTIFY_TIMEOUT):
        info = await host.service(Identify).wait_identified(connection)
    addresses = [str(address) for address in info.addresses]
    observed = str(info.observed_address) if info.observed_address else None
    words = [
        f"peer       {connection.peer_id}",
        f"agent      {info.agent_version}",
        f"protocol   {info.protocol_version}",
        f"sees us at {observed or '(not said)'}",
        *(f"listens at {address}" for address in addresses),
        *(f"speaks     {protocol}" for protocol in info.protocols),
    ]
    output.event(
        "identify",
        "\n".join(words),
        peer=str(connection.peer_id),
        agent=info.agent_version,
        protocol_version=info.protocol_version,
        protocols=list(info.protocols),
        addresses=addresses,
        observed=observed,
        relayed=connection.is_relayed,
    )
    return 0
