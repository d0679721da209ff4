"""``p2pnet ping`` and ``p2pnet identify``: connect, ask, print the answer."""

from __future__ import annotations

import trio

from p2pnet.commands.output import Output
from p2pnet.core.peer_id import PeerId
from p2pnet.events import PunchAttemptFailed
from p2pnet.host.host import Host
from p2pnet.interfaces import Connection, Target
from p2pnet.protocols.identify import Identify
from p2pnet.protocols.ping import Ping

PING_TIMEOUT = 20.0
IDENTIFY_TIMEOUT = 10.0


async def ping(
    host: Host, target: Target, output: Output, *, count: int, direct_seconds: float
) -> int:
    """Ping a peer ``count`` times; wait for a direct connection first, if so asked."""
    connection = await host.connect(target)
    if connection.is_relayed and direct_seconds > 0:
        connection = await wait_direct(host, connection, direct_seconds, output)
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


async def wait_direct(
    host: Host, relayed: Connection, seconds: float, output: Output
) -> Connection:
    """Wait for a direct connection; if none comes, say why and go on with the relayed one."""
    peer = str(relayed.peer_id)
    reasons: list[str] = []
    with trio.move_on_after(seconds):
        async with trio.open_nursery() as nursery:
            await nursery.start(collect_reasons, host, relayed.peer_id, reasons)
            connection = await host.wait_direct(relayed.peer_id)
            nursery.cancel_scope.cancel()
        address = str(connection.remote_address)
        output.event("direct", f"direct to {peer} at {address}", peer=peer, address=address)
        return connection
    reasons = reasons or ["no hole punch ended in time; it is the peer who begins it"]
    remedy = host.explain(relayed.peer_id).remedy
    words = f"no direct connection to {peer} within {seconds:g} s: {'; '.join(reasons)}"
    words += f"\nwhat to do: {remedy}" if remedy else ""
    output.event("not_direct", words, peer=peer, reasons=reasons, remedy=remedy)
    return relayed


async def collect_reasons(
    host: Host, peer_id: PeerId, reasons: list[str], *, task_status: trio.TaskStatus[None]
) -> None:
    """Note why each attempt at a direct connection failed."""
    with host.subscribe(PunchAttemptFailed) as failures:
        task_status.started()
        async for failure in failures:
            if failure.peer_id != peer_id:
                continue
            # Not extend: the list is read while this loop still waits.
            reasons.append(f"attempt {failure.attempt}: {failure.reason}")


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
