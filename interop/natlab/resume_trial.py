"""A long transfer that begins over a relay, through the kernel's NATs: prints what came of it.

Runs in a private world (see ``p2pnet.demo.namespaces``)::

    town KIND MIB CIRCUIT_MIB [RESTARTS]   the kind of both homes, what is sent, what a circuit
                                           carries, and how often the relay is started anew
    serve RELAY                            on a host: take what comes; prints each MiB
    send RELAY PEER MIB                    on a host: send it; prints the outcome, one JSON line
"""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from time import sleep

import trio

from interop.natlab.building import Town
from p2pnet import Host, open_host, presets
from p2pnet.core.addresses import is_relayed
from p2pnet.events import StreamMoved
from p2pnet.interfaces import Stream
from p2pnet.protocols.ping import Ping
from p2pnet.testing.kinds import KINDS

BULK = "/test/bulk/1.0.0"
MIB = 1 << 20
PATIENCE = 900.0
"""Seconds for all of it."""
MOVE_SECONDS = 1.0
"""What comes to a standstill so long before or after a move does so for its sake."""

Argv = list[str]
Outcome = dict[str, object]


def pieces(size: int) -> Iterator[bytes]:
    """Give data in which no two pieces are the same."""
    noise = hashlib.shake_256(b"noise").digest(MIB - 8)
    for number in range(size // MIB):
        yield number.to_bytes(8, "big") + noise


@dataclass
class Arrivals:
    """What has come, and when."""

    times: list[float] = field(default_factory=list)
    moves: list[float] = field(default_factory=list)
    size: int = 0

    async def watch(self, host: Host) -> None:
        with host.subscribe(StreamMoved) as moves:
            async for _ in moves:
                self.moves.append(trio.current_time())

    async def take(self, stream: Stream) -> None:
        """Take all that comes, and answer with what it was."""
        digest = hashlib.sha256()
        async for chunk in stream:
            self.times.append(trio.current_time())
            before, self.size = self.size, self.size + len(chunk)
            digest.update(chunk)
            if self.size // MIB > before // MIB:
                print(self.size // MIB, flush=True)
        outcome = {
            "received": self.size,
            "received_sha256": digest.hexdigest(),
            "longest_gap": self.longest_gap(),
            "gaps_at_moves": [self.longest_gap(at) for at in self.moves],
        }
        await stream.send_all(json.dumps(outcome).encode())
        await stream.send_eof()

    def longest_gap(self, near: float | None = None) -> float:
        """Return the longest time between two arrivals, of those near a moment if one is given."""
        gaps = [
            late - early
            for early, late in pairwise(self.times)
            if near is None or early - MOVE_SECONDS <= near <= late + MOVE_SECONDS
        ]
        return round(max(gaps, default=0.0), 4)


async def serve(relay: str) -> None:
    async with open_host(presets.edge(relays=[relay], port_mapping=False)) as host:
        arrivals = Arrivals()
        host.handle(BULK, arrivals.take)
        await host.addresses.wait_for(lambda own: any(map(is_relayed, own)))
        print(host.peer_id, flush=True)
        await arrivals.watch(host)


async def send(relay: str, peer: str, mib: int) -> None:
    config = presets.edge(relays=[relay], port_mapping=False)
    async with open_host(config) as host:
        began, digest, moves = trio.current_time(), hashlib.sha256(), Arrivals()
        stream = await host.open_stream(peer, BULK, limited="allow")
        begun_relayed = stream.connection.is_relayed
        async with trio.open_nursery() as nursery:
            nursery.start_soon(moves.watch, host)
            for piece in pieces(mib * MIB):
                digest.update(piece)
                await stream.send_all(piece)
            await stream.send_eof()
            answer = b"".join([bytes(chunk) async for chunk in stream])
            nursery.cancel_scope.cancel()
        await stream.aclose()
        seconds = trio.current_time() - began
        connection = stream.connection
        outcome: Outcome = {
            "sent": mib * MIB,
            "sent_sha256": digest.hexdigest(),
            "begun_relayed": begun_relayed,
            "ended_relayed": connection.is_relayed,
            "moves": [round(at - began, 3) for at in moves.moves],
            "seconds": round(seconds, 3),
            "round_trip": round(await host.service(Ping).ping(connection), 4),
        }
        print(json.dumps(outcome | json.loads(answer)), flush=True)


@contextmanager
def process(argv: Argv) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    ) as running:
        try:
            yield running
        finally:
            running.terminate()


class Relay:
    """A relay that can be started anew, the same each time."""

    def __init__(self, place: Callable[[Argv], Argv], key: Path, circuit_mib: int) -> None:
        own = [sys.executable, "-m", "p2pnet"]
        subprocess.run([*own, "key", "new", str(key)], check=True, stdout=subprocess.DEVNULL)
        listen = ["--key", str(key), "--listen", "/ip4/11.0.0.1/tcp/4001", "--json"]
        limit = f"circuit_bytes={circuit_mib * MIB}"
        self._argv = place([*own, "relay", *listen, "--limit", limit])
        self._running = self._start()

    def _start(self) -> subprocess.Popen[str]:
        running = subprocess.Popen(
            self._argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
        )
        if running.stdout is None:
            raise OSError("the relay has no output")
        self.address = str(json.loads(running.stdout.readline())["address"])
        # Nobody reads what else it says, and it must not wait for that.
        threading.Thread(target=running.stdout.read, daemon=True).start()
        return running

    def restart(self) -> None:
        self.stop()
        sleep(1.0)
        self._running = self._start()

    def stop(self) -> None:
        self._running.send_signal(signal.SIGINT)
        self._running.wait()


def transfer(relay: Relay, place: Callable[[str, Argv], Argv], *, mib: int, restarts: int) -> str:
    own = [sys.executable, "-m", "interop.natlab.resume_trial"]
    with process(place("peer", [*own, "serve", relay.address])) as serving:
        lines = serving.stdout or iter(())
        peer = next(lines).strip()
        with process(place("me", [*own, "send", relay.address, peer, str(mib)])) as sending:
            for number in range(1, restarts + 1):
                share = number * mib // (restarts + 1)
                next(line for line in lines if int(line) >= share)
                relay.restart()
            threading.Thread(target=list, args=[lines], daemon=True).start()
            outcome, _ = sending.communicate(timeout=PATIENCE)
    return outcome


def town(kind: str, mib: int, circuit_mib: int, restarts: int = 0) -> None:
    built = Town(delay=0.02)
    with built.built(), tempfile.TemporaryDirectory() as folder:
        laboratory = built.laboratory
        laboratory.add_public("relay", "11.0.0.1")
        built.add_home("home of me", KINDS[kind], hosts=("me",))
        built.add_home("home of the peer", KINDS[kind], hosts=("peer",))
        place = partial(laboratory.command, "relay")
        relay = Relay(place, Path(folder) / "key", circuit_mib)
        try:
            print(transfer(relay, laboratory.command, mib=mib, restarts=restarts), end="")
        finally:
            relay.stop()


def main(role: str, words: Sequence[str]) -> None:
    match role, *words:
        case "serve", relay:
            trio.run(serve, relay)
        case "send", relay, peer, mib:
            trio.run(send, relay, peer, int(mib))
        case "town", kind, *numbers:
            town(kind, *map(int, numbers))
        case _:
            raise SystemExit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
