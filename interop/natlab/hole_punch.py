"""One hole punch: a relay in public, two peers each behind a NAT of its own.

Runs in a private world (see ``p2pnet.demo.namespaces``); prints the dialer's line.
Arguments: relay, listener and dialer, each the name of an implementation.
"""

from __future__ import annotations

import json
import sys
from functools import partial

import trio

from interop.processes import Line, dialled, serving
from p2pnet.demo.namespaces import Laboratory

LISTEN = "/ip4/0.0.0.0/tcp/4001"
ECHO_BYTES = 1024 * 1024
DIRECT_SECONDS = 45


async def punch(laboratory: Laboratory, relay: str, listener: str, dialer: str) -> Line:
    place = partial(partial, laboratory.command)
    async with serving(
        relay, "relay", placed=place("relay"), LISTEN="/ip4/11.0.0.1/tcp/4001"
    ) as between:
        address = next(a for a in between.addresses if "/11.0.0.1/" in a)
        async with serving(
            listener,
            "listen",
            placed=place("listener"),
            LISTEN=LISTEN,
            RELAY=address,
            HOLE_PUNCH="1",
        ) as there:
            return await dialled(
                dialer,
                placed=place("dialer"),
                LISTEN=LISTEN,
                RELAY=address,
                TARGET=f"{address}/p2p-circuit/p2p/{there.peer_id}",
                HOLE_PUNCH="1",
                DIRECT_SECONDS=str(DIRECT_SECONDS),
                ECHO_BYTES=str(ECHO_BYTES),
            )


def main(relay: str, listener: str, dialer: str) -> None:
    with Laboratory(delay=0.02) as laboratory:
        laboratory.add_public("relay", "11.0.0.1")
        laboratory.add_home("home of the listener", outside="11.0.1.1")
        laboratory.add_home("home of the dialer", outside="11.0.2.1")
        laboratory.add_host("home of the listener", "listener")
        laboratory.add_host("home of the dialer", "dialer")
        print(json.dumps(trio.run(punch, laboratory, relay, listener, dialer)), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
