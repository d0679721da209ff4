"""DNS addresses become IP addresses, within bounds. Rules: specs/addresses.md (A10 to A14)."""

from __future__ import annotations

from dataclasses import dataclass, field

import trio

from p2pnet.core.addresses import (
    Multiaddr,
    Scope,
    components,
    dns_name,
    is_relayed,
    join,
    parse,
    scope_of_name,
    with_host,
)
from p2pnet.core.env import Network, RecordKind
from p2pnet.errors import FailedAttempt, LimitExceeded, NameNotFound, NameServersSilent

MAX_LOOKUPS = 32
MAX_DEPTH = 4
MAX_SECONDS = 15.0
"""For all look-ups of one dial together."""
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

    addresses: dict[Multiaddr, Multiaddr] = field(default_factory=dict)
    """Each with the address it came from."""
    failed: list[FailedAttempt] = field(default_factory=list)
    lookups: int = 0


async def resolve(
    addresses: tuple[Multiaddr, ...], network: Network, *, max_addresses: int
) -> Resolution:
    """Resolve each DNS address; others pass as they are.

    A relayed address passes too: the name in it is the relay's, and is resolved when the
    relay is dialled (A14).
    """
    found = Resolution()
    deadline = trio.current_time() + MAX_SECONDS
    for origin in addresses:
        resolved = [origin]
        if has_name(origin):
            with trio.move_on_at(deadline) as waiting:
                resolved = await resolve_one(origin, network, found, depth=0)
            if waiting.cancelled_caught:  # A12
                resolved = []
                found.failed.append(FailedAttempt(origin, trio.TooSlowError()))
        for address in resolved:
            if len(found.addresses) < max_addresses:
                found.addresses.setdefault(address, origin)
            elif address not in found.addresses:  # A14: nothing is left out silently
                error = LimitExceeded("max_addresses_per_dial", max_addresses)
                found.failed.append(FailedAttempt(address, error))
    return found


def has_name(address: Multiaddr) -> bool:
    """Tell if an address has to be resolved before it is dialled."""
    return dns_name(address) is not None and not is_relayed(address)


async def resolve_one(
    address: Multiaddr, network: Network, found: Resolution, *, depth: int
) -> list[Multiaddr]:
    """Resolve an address, or note why it can't be; one that fails does not spoil the others."""
    named = dns_name(address)
    if named is None or not has_name(address):
        return [address]
    try:
        if named[0] == "dnsaddr":
            resolved = await resolve_dnsaddr(address, named[1], network, found, depth=depth)
        else:
            resolved = await resolve_host(address, named, network, found)
    except (NameServersSilent, LimitExceeded) as error:
        found.failed.append(FailedAttempt(address, error))
        return []
    if not resolved:
        found.failed.append(FailedAttempt(address, NameNotFound(named[1])))
    return resolved


async def resolve_host(
    address: Multiaddr, named: tuple[str, str], network: Network, found: Resolution
) -> list[Multiaddr]:
    """Look for IP addresses of all families asked for; one that answers is enough (A10)."""
    kind, name = named
    ips: list[str] = []
    errors: list[Exception] = []
    for record in KINDS[kind]:
        try:
            ips += await lookup(name, record, network, found)
        except (NameServersSilent, LimitExceeded) as error:
            errors.append(error)
    if errors and not ips:
        raise errors[0]
    return [at_ip(address, ip) for ip in ips]


def at_ip(address: Multiaddr, ip: str) -> Multiaddr:
    """Put an IP in the place of the name; to a WebSocket server the name goes on to matter (W3)."""
    (_, name), *behind = components(address)
    match behind:
        case [tcp, ("ws", ""), *rest]:
            behind = [tcp, ("sni", name), ("ws", ""), *rest]
        case [tcp, ("wss", ""), *rest] | [tcp, ("tls", ""), ("ws", ""), *rest]:
            behind = [tcp, ("tls", ""), ("sni", name), ("ws", ""), *rest]
    return with_host(join([("dns", name), *behind]), ip)


async def resolve_dnsaddr(
    address: Multiaddr, name: str, network: Network, found: Resolution, *, depth: int
) -> list[Multiaddr]:
    if depth >= MAX_DEPTH:  # A12
        raise LimitExceeded("MAX_DEPTH", MAX_DEPTH, f"/dnsaddr/{name} refers on and on")
    tail = components(address)[1:]
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
    try:
        return await network.lookup(name, record)
    except OSError as error:
        raise NameServersSilent(name, str(error)) from None


def read_entry(text: str) -> Multiaddr | None:
    """Return the address of a TXT record; None if it is a record of another kind."""
    try:
        return parse(text.removeprefix(DNSADDR)) if text.startswith(DNSADDR) else None
    except ValueError:
        return None


def ends_with(entry: Multiaddr, tail: tuple[tuple[str, str], ...]) -> bool:
    """Tell if an entry ends in what stood behind the name: the peer that was asked for."""
    return not tail or components(entry)[-len(tail) :] == tail
