"""Birthday punching by the command, through the kernel's NATs: prints a line of JSON a meeting.

Runs in a private world (see ``p2pnet.demo.namespaces``). Arguments: the kinds of the caller's home
and of the other one, how many meetings, and options for both (``--birthday``). Each meeting has two
homes of its own, so that no NAT knows anything of the meeting before.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from interop.natlab.building import Home, Town
from interop.natlab.matrix import RELAYS
from interop.natlab.trace_trial import P2PNET, Fields, told
from p2pnet.demo.private_world import tool
from p2pnet.testing.kinds import ALL_KINDS

DELAY = 0.02
TRACE_SECONDS = 90.0
SAMPLE_SECONDS = 0.05
FLOWS = Path("/proc/sys/net/netfilter/nf_conntrack_count")


def counting(other: Home) -> str:
    """Give rules that count what a home sends to another one."""
    match = f'iifname "lan" ip daddr {other.outside} meta l4proto udp'
    return f"""
        table ip counting {{
            counter sent {{ }}
            chain through {{
                type filter hook forward priority filter - 10; policy accept;
                {match} counter name sent
            }}
        }}
    """


@contextmanager
def watched(town: Town, home: Home, other: Home) -> Generator[Fields, None, None]:
    """Watch a router until the block ends.

    Gives the packets ``sent`` to the other home over UDP, and how many ``flows`` the NAT had at
    once, those to the relays included.
    """
    seen: Fields = {"kind": home.kind.name}
    nft = town.laboratory.command(home.name, [tool("nft")])
    subprocess.run([*nft, "-f", "-"], input=counting(other), text=True, check=True)
    over = threading.Event()
    counts = [0]

    def watch() -> None:
        with town.laboratory.entered(home.name):
            while not over.wait(SAMPLE_SECONDS):
                counts.append(int(FLOWS.read_text()))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()
    listed = [*nft, "list", "counters", "table", "ip", "counting"]
    text = subprocess.run(listed, stdout=subprocess.PIPE, text=True, check=True).stdout
    seen["sent"] = int(re.findall(r"packets (\d+)", text)[0])
    seen["flows"] = max(counts)


def meet(town: Town, homes: tuple[Home, Home], relays: Sequence[str], options: list[str]) -> Fields:
    """Let one peer trace the other, until it is direct or given up."""
    here, there = homes
    with ExitStack() as stack:
        caller, called = (
            stack.enter_context(watched(town, home, other))
            for home, other in ((here, there), (there, here))
        )
        node = town.laboratory.command(there.hosts[0], [*P2PNET, "node", *relays, *options])
        reservation = stack.enter_context(told([*node, "--json"], "reservation"))
        peer = str(reservation["address"]).rpartition("/")[2]
        me = [*P2PNET, "trace", peer, *relays, *options, "--seconds", f"{TRACE_SECONDS}", "--json"]
        done = subprocess.run(
            town.laboratory.command(here.hosts[0], me),
            stdout=subprocess.PIPE,
            text=True,
            check=False,
            timeout=2 * TRACE_SECONDS,
        )
    events = [json.loads(line) for line in done.stdout.splitlines()]
    return {"events": events, "homes": [caller, called]}


def main(here: str, there: str, meetings: str, *options: str) -> None:
    town = Town(delay=DELAY)
    with town.built(), ExitStack() as stack:
        relays: list[str] = []
        for name, ip in RELAYS.items():
            town.laboratory.add_public(name, ip)
            argv = [*P2PNET, "relay", "--listen", f"/ip4/{ip}/udp/4001/quic-v1", "--json"]
            relay = told(town.laboratory.command(name, argv), "listening")
            relays += ["--relay", str(stack.enter_context(relay)["address"])]
        for number in range(int(meetings)):
            homes = (
                town.add_home(f"home {number}a", ALL_KINDS[here], hosts=(f"{number}a",)),
                town.add_home(f"home {number}b", ALL_KINDS[there], hosts=(f"{number}b",)),
            )
            print(json.dumps(meet(town, homes, relays, list(options))), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
