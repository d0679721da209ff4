"""``p2pnet trace`` of a peer behind a NAT, from behind another: prints its JSON lines.

Runs in a private world (see ``p2pnet.demo.namespaces``). Arguments: the kinds of both homes.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager

from interop.natlab.building import Town
from p2pnet.testing.kinds import KINDS

P2PNET = [sys.executable, "-m", "p2pnet"]
RELAYS = ("11.0.0.1", "11.0.0.2")
TRACE_SECONDS = 90.0

Fields = dict[str, object]


@contextmanager
def told(argv: list[str], what: str) -> Generator[Fields, None, None]:
    """Run a command until the block ends; gives the first event of a name that it tells."""
    with subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield next(event for event in map(json.loads, process.stdout or ()) if is_(event, what))
        finally:
            process.terminate()


def is_(event: Fields, what: str) -> bool:
    return event["event"] == what


def trace(command: Callable[[str, list[str]], list[str]]) -> str:
    with ExitStack() as stack:
        relays: list[str] = []
        for number, ip in enumerate(RELAYS, 1):
            argv = [*P2PNET, "relay", "--listen", f"/ip4/{ip}/tcp/4001", "--json"]
            event = stack.enter_context(told(command(f"relay-{number}", argv), "listening"))
            relays += ["--relay", str(event["address"])]
        node = [*P2PNET, "node", *relays[:2], "--json"]
        reservation = stack.enter_context(told(command("peer", node), "reservation"))
        peer = str(reservation["address"]).rpartition("/")[2]
        done = subprocess.run(
            command("me", [*P2PNET, "trace", peer, *relays, "--json"]),
            stdout=subprocess.PIPE,
            text=True,
            check=False,
            timeout=TRACE_SECONDS,
        )
    return done.stdout


def main(here: str, there: str) -> None:
    town = Town(delay=0.02)
    with town.built():
        for number, ip in enumerate(RELAYS, 1):
            town.laboratory.add_public(f"relay-{number}", ip)
        town.add_home("home of me", KINDS[here], hosts=("me",))
        town.add_home("home of the peer", KINDS[there], hosts=("peer",))
        print(trace(town.laboratory.command), end="", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
