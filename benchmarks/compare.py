"""``make bench``: p2pnet beside the other implementations, the same work in turn.

Each turn is one work of one implementation, client and server in a process of their own; a round
has a turn of every implementation, so that what changes on the machine meets them all.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import time
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

from benchmarks.implementations import (
    IMPLEMENTATIONS,
    RAW,
    ROOT,
    STACKS,
    Implementation,
    Missing,
    environment,
)
from benchmarks.processes import Peer, PeerFailed
from benchmarks.summary import print_summary
from benchmarks.works import WORKS, Sample, Work

RESULTS = ROOT / "benchmarks" / "results"
PATIENCE_SECONDS = 60.0
IDLE_CONNECTIONS = 100
SETTLING_SECONDS = 1.0
WARMING_DIALS = 10
"""Before memory is read: the code is loaded then, and heaps have grown."""
FAILURES = 3
"""After so many at one work, an implementation is not asked for it again."""


class Pair:
    """A client and a server of one implementation."""

    def __init__(
        self, which: Implementation, stack: str, *, clients: int = 1, servers: int = 1
    ) -> None:
        def start(role: str, hosts: int) -> Peer:
            settings = {**STACKS[stack], "ROLE": role, "HOSTS": str(hosts)}
            return Peer(which.command, settings, RESULTS / f"{which.name}-{role}.log")

        self.server = start("serve", servers)
        try:
            self.client = start("drive", clients)
        except PeerFailed:
            self.server.close()
            raise

    def take_turn(self, work: Work, amount: int) -> Sample:
        request = {**work.request, "amount": amount, "address": self.server.addresses[0]}
        before = self.client.processor_seconds(), self.server.processor_seconds()
        answer = self.client.ask(request, PATIENCE_SECONDS)
        return Sample(
            amount,
            answer["seconds"],
            answer.get("times", []),
            self.client.processor_seconds() - before[0],
            self.server.processor_seconds() - before[1],
        )

    def close(self) -> None:
        self.client.close()
        self.server.close()


class Contestant:
    """An implementation on one stack: its processes, its figures, and what went wrong."""

    def __init__(self, which: Implementation, stack: str) -> None:
        self.name = which.name
        self.rounds: list[dict[str, float]] = []
        self.failures: dict[str, list[str]] = {}
        self.version = ""
        self._which = which
        self._stack = stack
        self._amount = 0

    @cached_property
    def _pair(self) -> Pair:
        pair = Pair(self._which, self._stack)
        self.version = pair.server.version
        return pair

    def warm_up(self, work: Work, seconds: float) -> None:
        """Find how much can be done in such a time, by doing it twice."""
        self._amount = work.least
        for _ in range(2):
            sample = self._try(work)
            if sample is None:
                return
            self._amount = max(work.least, int(sample.amount / sample.seconds * seconds))

    def take_turn(self, work: Work, number: int) -> None:
        """Do it, for the round of that number."""
        sample = self._try(work)
        if sample is not None:
            self._keep(number, work.figures(sample))

    def _try(self, work: Work) -> Sample | None:
        if self._gave_up(work.name):
            return None
        try:
            return self._pair.take_turn(work, self._amount)
        except PeerFailed as error:
            self._fail(work.name, error)
            self.close()
            return None

    def measure_memory(self, number: int) -> None:
        """Have one end hold many connections, whose other ends are hosts in the other process."""
        if self.name == RAW or self._gave_up("memory"):
            return
        try:
            many = Pair(self._which, self._stack, clients=IDLE_CONNECTIONS)
            self._keep(number, {"server_kb": kb_per_connection(many, many.server)})
            many = Pair(self._which, self._stack, servers=IDLE_CONNECTIONS)
            self._keep(number, {"client_kb": kb_per_connection(many, many.client)})
        except PeerFailed as error:
            self._fail("memory", error)

    def _keep(self, number: int, figures: dict[str, float]) -> None:
        while len(self.rounds) <= number:
            self.rounds.append({})
        self.rounds[number] |= figures

    def _gave_up(self, work: str) -> bool:
        return len(self.failures.get(work, [])) >= FAILURES

    def _fail(self, work: str, error: PeerFailed) -> None:
        self.failures.setdefault(work, []).append(str(error))
        print(f"  {self.name}, {work}: {error}", flush=True)

    def close(self) -> None:
        """End the processes; the next turn starts new ones."""
        if "_pair" in self.__dict__:
            self._pair.close()
            del self.__dict__["_pair"]


def kb_per_connection(pair: Pair, measured: Peer) -> float:
    try:
        first = {"work": "dial", "amount": WARMING_DIALS, "address": pair.server.addresses[0]}
        pair.client.ask(first, PATIENCE_SECONDS)
        before = settled_bytes(measured)
        pair.client.ask({"work": "hold", "addresses": pair.server.addresses}, PATIENCE_SECONDS)
        return (settled_bytes(measured) - before) / IDLE_CONNECTIONS / 1000
    finally:
        pair.close()


def settled_bytes(peer: Peer) -> int:
    time.sleep(SETTLING_SECONDS)
    peer.ask({"work": "collect"}, PATIENCE_SECONDS)
    return peer.resident_bytes()


def compare(stack: str, available: list[Implementation], rounds: int, seconds: float) -> dict:
    contestants = [Contestant(each, stack) for each in available if stack in each.stacks]
    for work in WORKS:
        print(f"{stack}: {work.name}", flush=True)
        for each in contestants:
            each.warm_up(work, seconds)
        for number in range(rounds):
            for each in contestants:
                each.take_turn(work, number)
    for each in contestants:
        each.close()
    print(f"{stack}: memory", flush=True)
    for number in range(rounds):
        for each in contestants:
            each.measure_memory(number)
    return {
        each.name: {"version": each.version, "rounds": each.rounds, "failures": each.failures}
        for each in contestants
    }


def find(wanted: list[str]) -> tuple[list[Implementation], dict[str, str]]:
    """Return the implementations that are to be had, and why the others are not."""
    available, missing = [], {}
    for each in IMPLEMENTATIONS:
        if each.name not in wanted:
            continue
        try:
            each.prepare()
            available.append(each)
        except Missing as reason:
            missing[each.name] = str(reason)
            print(f"missing: {each.name}: {reason}", flush=True)
    return available, missing


def describe_machine() -> dict[str, str]:
    names = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return {
        "processor": f"{names[0] if names else platform.machine()}, {os.cpu_count()} cores",
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "commit": commit.stdout.strip(),
        "load": f"{os.getloadavg()[0]:.1f}",
    }


def plot(results: Path, program: str = "benchmarks.plot") -> None:
    """Draw the results, with matplotlib in an environment of its own."""
    try:
        python = environment("plot", "matplotlib")
    except Missing as reason:
        print(f"no plot: {reason}")
        return
    subprocess.run([str(python), "-m", program, str(results)], cwd=ROOT, check=False)


def read_arguments() -> argparse.Namespace:
    names = [each.name for each in IMPLEMENTATIONS]
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("--quick", action="store_true", help="p2pnet and raw sockets, in a minute")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of a turn, about")
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    parser.add_argument("--stacks", nargs="+", choices=list(STACKS), default=list(STACKS))
    parser.add_argument("--no-plot", action="store_true")
    return parser.parse_args()


def main() -> None:
    chosen = read_arguments()
    RESULTS.mkdir(exist_ok=True)
    available, missing = find(chosen.only)
    now = datetime.now(UTC)
    report = {
        "date": now.strftime("%Y-%m-%d %H:%M UTC"),
        "rounds": chosen.rounds,
        "seconds": chosen.seconds,
        "machine": describe_machine(),
        "missing": missing,
        "stacks": {},
    }
    path = RESULTS / f"compare-{now:%Y%m%d-%H%M%S}.json"
    for stack in chosen.stacks:
        report["stacks"][stack] = compare(stack, available, chosen.rounds, chosen.seconds)
        path.write_text(json.dumps(report, indent=1))
    print_summary(report)
    for name, reason in missing.items():
        print(f"missing: {name}: {reason}")
    if not chosen.no_plot:
        plot(path)
    print(f"{path.relative_to(ROOT)}; it goes to docs/performance.md by:")
    print(f"python -m benchmarks.report {path.relative_to(ROOT)}")
