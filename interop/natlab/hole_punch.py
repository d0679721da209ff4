"""One hole punch: a relay in public, two peers each behind a NAT of its own.

Runs in a private world (see ``p2pnet.demo.namespaces``); prints the dialer's line.
Arguments: relay, listener and dialer, each the name of an implementation, and a transport; then,
if they are not to be the ordinary ones, the kinds of the homes of the listener and the dialer.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Network

import trio

from interop.natlab.building import Town
from interop.processes import Line, dialled, serving
from p2pnet.demo.namespaces import PUBLIC_NETWORK, Laboratory
from p2pnet.testing.kinds import ALL_KINDS

LISTEN = {"tcp": "/ip4/{}/tcp/4001", "quic": "/ip4/{}/udp/4001/quic-v1"}
DELAY = 0.02
ECHO_BYTES = 1024 * 1024
DIRECT_SECONDS = 45


async def punch(
    laboratory: Laboratory, relay: str, listener: str, dialer: str, *, transport: str
) -> Line:
    place = partial(partial, laboratory.command)
    listen = LISTEN[transport].format("0.0.0.0")
    async with serving(
        relay, "relay", placed=place("relay"), LISTEN=LISTEN[transport].format("11.0.0.1")
    ) as between:
        address = next(a for a in between.addresses if "/11.0.0.1/" in a)
        async with serving(
            listener,
            "listen",
            placed=place("listener"),
            LISTEN=listen,
            RELAY=address,
            HOLE_PUNCH="1",
        ) as there:
            return await dialled(
                dialer,
                placed=place("dialer"),
                LISTEN=listen,
                RELAY=address,
                TARGET=f"{address}/p2p-circuit/p2p/{there.peer_id}",
                HOLE_PUNCH="1",
                DIRECT_SECONDS=str(DIRECT_SECONDS),
                ECHO_BYTES=str(ECHO_BYTES),
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Which addresses everybody has."""

    internet: IPv4Network = PUBLIC_NETWORK
    relay: str = "11.0.0.1"
    listener_outside: str = "11.0.1.1"
    listener_inside: str = "192.168.1.0/24"
    dialer_outside: str = "11.0.2.1"
    dialer_inside: str = "192.168.1.0/24"


@contextmanager
def two_homes(places: Places | None = None) -> Iterator[Laboratory]:
    """Have a relay in public, and a listener and a dialer, each in a home behind a NAT."""
    at = places or Places()
    with Laboratory(delay=DELAY, internet=at.internet) as laboratory:
        laboratory.add_public("relay", at.relay)
        laboratory.add_home(
            "home of the listener", outside=at.listener_outside, inside=at.listener_inside
        )
        laboratory.add_home(
            "home of the dialer", outside=at.dialer_outside, inside=at.dialer_inside
        )
        laboratory.add_host("home of the listener", "listener")
        laboratory.add_host("home of the dialer", "dialer")
        yield laboratory


@contextmanager
def homes_of(listener: str, dialer: str) -> Iterator[Laboratory]:
    """Have the same with homes of these kinds, see ``p2pnet.testing.kinds``."""
    town = Town(delay=DELAY)
    with town.built():
        town.laboratory.add_public("relay", Places().relay)
        town.add_home("home of the listener", ALL_KINDS[listener], hosts=("listener",))
        town.add_home("home of the dialer", ALL_KINDS[dialer], hosts=("dialer",))
        yield town.laboratory


def main(
    relay: str, listener: str, dialer: str, transport: str = "tcp", *kinds_of_homes: str
) -> None:
    with homes_of(*kinds_of_homes) if kinds_of_homes else two_homes() as laboratory:
        punching = partial(punch, laboratory, relay, listener, dialer, transport=transport)
        print(json.dumps(trio.run(punching)), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
