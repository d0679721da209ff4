"""DNS addresses become IP addresses, within bounds. Rules: specs/addresses.md (A10 to A14)."""

from __future__ import annotations

from dataclasses import dataclass, field

from p2pnet.core.addresses import (
    Multiaddr,
    Scope,
    components,
    dns_name,
    is_relayed,
    join,
    parse,
    peer_id_of,
    scope_of_name,
    with_host,
)
from p2pnet.core.env import Network, RecordKind
from p2pnet.errors import FailedAttempt, LimitExceeded

MAX_LOOKUPS = 32
MAX_DEPTH = 4
DNSADDR = "dnsaddr="
KINDS: dict[str, tuple[RecordKind, ...]] = {
    "dns": ("AAAA", "A"),
    "dns4": ("A",),
    "dns6": ("AAAA",),
}
LOOPBACK: dict[RecordKind, str] = {"A": "127.0.0.1", "AAAA": "::1"}


@dataclass(slots=True)
class Resolution:
    """What came of it: addresses that can be dialled, and those that could not be resolved."""

    addresses: list[Multiaddr] = field(default_factory=list)
    failed: list[FailedAttempt] = field(default_factory=list)
    lookups: int = 0


async def resolve(
    addresses: tuple[Multiaddr, ...], network: Network, *, max_addresses: int
) -> Resolution:
    """Resolve each DNS address; others pass as they are.

    A relayed address passes too: the name in it is the relay's, and is resolved when the
    relay is dialled.
    """
    found = Resolution()
    for address in addresses:
        try:
            resolved = await resolve_one(address, network, found, depth=0)
        except (OSError, LimitExceeded) as error:
            found.failed.append(FailedAttempt(address, error))
            continue
        if not resolved:
            found.failed.append(FailedAttempt(address, OSError("DNS: no such name or address")))
        found.addresses += resolved
    found.addresses = list(dict.fromkeys(found.addresses))[:max_addresses]
    return found


async def resolve_one(
    address: Multiaddr, network: Network, found: Resolution, *, depth: int
) -> list[Multiaddr]:
    named = dns_name(address)
    if named is None or is_relayed(address):
        return [address]
    kind, name = named
    if kind == "dnsaddr":
        return await resolve_dnsaddr(address, name, network, found, depth=depth)
    ips = [ip for record in KINDS[kind] for ip in await lookup(name, record, network, found)]
    return [with_host(address, ip) for ip in ips]


async def resolve_dnsaddr(
    address: Multiaddr, name: str, network: Network, found: Resolution, *, depth: int
) -> list[Multiaddr]:
    if depth >= MAX_DEPTH:  # A12
        raise LimitExceeded("MAX_DEPTH", MAX_DEPTH, f"/dnsaddr/{name} refers on and on")
    tail = join(components(address)[1:]) if len(components(address)) > 1 else None
    resolved = []
    for text in await lookup(f"_dnsaddr.{name}", "TXT", network, found):
        entry = read_entry(text)
        if entry is not None and ends_with(entry, tail):  # A11
            resolved += await resolve_one(entry, network, found, depth=depth + 1)
    return resolved


async def lookup(
    name: str, record: RecordKind, network: Network, found: Resolution
) -> tuple[str, ...]:
    if record != "TXT" and scope_of_name(name) is Scope.LOOPBACK:
        return (LOOPBACK[record],)  # A13: RFC 6761, never ask the DNS for localhost
    found.lookups += 1
    if found.lookups > MAX_LOOKUPS:  # A12
        raise LimitExceeded("MAX_LOOKUPS", MAX_LOOKUPS, "DNS look-ups for one dial")
    return await network.lookup(name, record)


def read_entry(text: str) -> Multiaddr | None:
    """Return the address of a TXT record; None if it is a record of another kind."""
    try:
        return parse(text.removeprefix(DNSADDR)) if text.startswith(DNSADDR) else None
    except ValueError:
        return None


def ends_with(entry: Multiaddr, tail: Multiaddr | None) -> bool:
    """Tell if an entry is for the peer that was asked for."""
    if tail is None or peer_id_of(tail) is None:
        return True
    return peer_id_of(entry) in (peer_id_of(tail), None) and (
        peer_id_of(entry) is not None or dns_name(entry) is not None
    )
