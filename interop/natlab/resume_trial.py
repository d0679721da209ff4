"""A long transfer that begins over a relay, through the kernel's NATs: prints what came of it.

Runs in a private world (see ``p2pnet.demo.namespaces``)::

    town tcp|quic KIND MIB CIRCUIT_MIB [RESTARTS]  the kind of both homes, what is sent, what a
                                                   circuit carries, how often the relay restarts
    roam tcp|quic me|peer new|same MIB             one end moves to another home, with another
                                                   address or the same, then so much is sent
    serve tcp|quic RELAY                           on a host: take what comes; prints each MiB
    send tcp|quic RELAY PEER MIB now|told          on a host: send so much, from now, or from when
                                                   a line comes in, and others before; prints a
                                                   line of JSON for each move, and the outcome
"""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count, pairwise
from pathlib import Path
from time import sleep

import trio

from interop.natlab.building import Town
from p2pnet import Host, open_host, presets
from p2pnet.core.addresses import is_relayed
from p2pnet.events import StreamMoved
from p2pnet.host.config import HostConfig
from p2pnet.interfaces import Stream
from p2pnet.protocols.ping import Ping
from p2pnet.protocols.resume.stream import ResumableStream
from p2pnet.testing.kinds import KINDS
from p2pnet.testing.matrix import Punched, speaking

BULK = "/test/bulk/1.0.0"
MIB = 1 << 20
MOVE_SECONDS = 1.0
"""What comes to a standstill so long before or after a move does so for its sake."""
RELAY = "11.0.0.1"
LISTEN: dict[Punched, str] = {
    "tcp": f"/ip4/{RELAY}/tcp/4001",
    "quic": f"/ip4/{RELAY}/udp/4001/quic-v1",
}
ROAMING_KIND = "port-restricted"
ROAMING_CIRCUIT_MIB = 512
ROAMING_MIB = 8
"""So much has come when one end moves."""

Argv = list[str]
Lines = Iterator[str]
Outcome = dict[str, object]


# ---- on the hosts ------------------------------------------------------------------------


def pieces() -> Iterator[bytes]:
    """Give data in which no two pieces are the same, a MiB each."""
    noise = hashlib.shake_256(b"noise").digest(MIB - 8)
    for number in count():
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


@dataclass
class Departures:
    """What is sent, and the moves meanwhile."""

    counts: bool
    """What is sent now counts."""
    began: float = field(default_factory=trio.current_time)
    moves: list[float] = field(default_factory=list)
    size: int = 0
    sha256: str = ""

    async def watch(self, host: Host) -> None:
        with host.subscribe(StreamMoved) as moves:
            async for moved in moves:
                self.moves.append(round(trio.current_time() - self.began, 3))
                print(json.dumps({"is_relayed": moved.connection.is_relayed}), flush=True)

    async def wait_for_word(self) -> None:
        await trio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True)
        self.counts = True

    async def give(self, stream: Stream, mib: int) -> None:
        """Send until so much has gone that counts, and the end."""
        digest = hashlib.sha256()
        for piece in pieces():
            mib -= self.counts
            self.size += len(piece)
            digest.update(piece)
            await stream.send_all(piece)
            if mib <= 0:
                break
        await stream.send_eof()
        self.sha256 = digest.hexdigest()


def edge(transport: Punched, relay: str) -> HostConfig:
    return speaking(transport, presets.edge(relays=[relay], port_mapping=False))


async def serve(config: HostConfig) -> None:
    async with open_host(config) as host:
        arrivals = Arrivals()
        host.handle(BULK, arrivals.take)
        await host.addresses.wait_for(lambda own: any(map(is_relayed, own)))
        print(host.peer_id, flush=True)
        await arrivals.watch(host)


def resent(stream: Stream) -> int:
    """Tell how many bytes a stream has sent more than once."""
    if not isinstance(stream, ResumableStream):
        raise TypeError(f"{stream} is not resumable")
    return stream.machine.sending.resent


async def send(config: HostConfig, peer: str, mib: int, when: str) -> None:
    async with open_host(config) as host:
        departures = Departures(counts=when == "now")
        stream = await host.open_stream(peer, BULK, limited="allow")
        begun_relayed = stream.connection.is_relayed
        async with trio.open_nursery() as nursery:
            nursery.start_soon(departures.watch, host)
            if when == "told":
                nursery.start_soon(departures.wait_for_word)
            await departures.give(stream, mib)
            answer = b"".join([bytes(chunk) async for chunk in stream])
            nursery.cancel_scope.cancel()
        await stream.aclose()
        seconds = trio.current_time() - departures.began
        connection = stream.connection
        outcome: Outcome = {
            "sent": departures.size,
            "sent_sha256": departures.sha256,
            "begun_relayed": begun_relayed,
            "ended_relayed": connection.is_relayed,
            "ended_at": str(connection.remote_address),
            "moves": departures.moves,
            "resent": resent(stream),
            "seconds": round(seconds, 3),
            "round_trip": round(await host.service(Ping).ping(connection), 4),
        }
        print(json.dumps(outcome | json.loads(answer)), flush=True)


# ---- around them -------------------------------------------------------------------------


class Relay:
    """A relay that can be started anew, the same each time."""

    def __init__(self, town: Town, listen: str, key: Path, circuit_mib: int) -> None:
        own = [sys.executable, "-m", "p2pnet"]
        subprocess.run([*own, "key", "new", str(key)], check=True, stdout=subprocess.DEVNULL)
        limit = f"circuit_bytes={circuit_mib * MIB}"
        options = ["--key", str(key), "--listen", listen, "--limit", limit, "--json"]
        town.laboratory.add_public("relay", RELAY)
        self._argv = town.laboratory.command("relay", [*own, "relay", *options])
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


@contextmanager
def process(argv: Argv) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as running:
        try:
            yield running
        finally:
            running.terminate()


@contextmanager
def scene(transport: Punched, kind: str, circuit_mib: int) -> Iterator[tuple[Town, Relay]]:
    """Have a relay for a while, and ``me`` and ``peer`` each in a home of its own."""
    built = Town(delay=0.02)
    with built.built(), tempfile.TemporaryDirectory() as folder:
        for host in ("me", "peer"):
            built.add_home(f"home of {host}", KINDS[kind], hosts=(host,))
        relay = Relay(built, LISTEN[transport], Path(folder) / "key", circuit_mib)
        try:
            yield built, relay
        finally:
            relay.stop()


class Transfer:
    """What goes from ``me`` to ``peer``."""

    def __init__(self, sending: subprocess.Popen[str], arriving: Lines) -> None:
        self._arriving = arriving
        self._sending = sending
        self._saying = lines_of(sending)

    def wait_for(self, mib: int) -> None:
        """Wait until so much has come."""
        next(line for line in self._arriving if int(line) >= mib)

    def wait_until_direct(self) -> None:
        next(line for line in self._saying if not json.loads(line)["is_relayed"])

    def tell(self) -> None:
        """Have what is sent count."""
        if self._sending.stdin is not None:
            print(file=self._sending.stdin, flush=True)

    def outcome(self) -> str:
        """Wait for the end; a line of JSON."""
        threading.Thread(target=list, args=[self._arriving], daemon=True).start()
        *_, last = self._saying
        return last.strip()


@contextmanager
def transfer(
    built: Town, relay: Relay, transport: Punched, mib: int, when: str = "now"
) -> Iterator[Transfer]:
    def on(host: str, *words: str) -> Argv:
        argv = [sys.executable, "-m", "interop.natlab.resume_trial", *words]
        return built.laboratory.command(host, argv)

    with process(on("peer", "serve", transport, relay.address)) as serving:
        arriving = lines_of(serving)
        peer = next(arriving).strip()
        words = ["send", transport, relay.address, peer, str(mib), when]
        with process(on("me", *words)) as sending:
            yield Transfer(sending, arriving)


def lines_of(running: subprocess.Popen[str]) -> Lines:
    return iter(running.stdout or ())


def town(transport: Punched, kind: str, mib: int, circuit_mib: int, restarts: int = 0) -> str:
    with (
        scene(transport, kind, circuit_mib) as (built, relay),
        transfer(built, relay, transport, mib) as begun,
    ):
        for number in range(1, restarts + 1):
            begun.wait_for(number * mib // (restarts + 1))
            relay.restart()
        return begun.outcome()


def roam(transport: Punched, who: str, address: str, mib: int) -> str:
    with scene(transport, ROAMING_KIND, ROAMING_CIRCUIT_MIB) as (built, relay):
        # Whoever is there first has the address that the one who moves had before.
        others = ("somebody",) if address == "new" else ()
        built.add_home("another home", KINDS[ROAMING_KIND], hosts=others)
        before = built.laboratory.address(who)
        with transfer(built, relay, transport, mib, "told") as begun:
            begun.wait_until_direct()
            begun.wait_for(ROAMING_MIB)
            built.laboratory.move(who, "another home")
            begun.tell()
            outcome: Outcome = json.loads(begun.outcome())
        addresses = [before, built.laboratory.address(who)]
    return json.dumps(outcome | {"addresses": addresses})


def main(role: str, transport: Punched, words: Sequence[str]) -> None:
    match role, *words:
        case "serve", relay:
            trio.run(serve, edge(transport, relay))
        case "send", relay, peer, mib, when:
            trio.run(send, edge(transport, relay), peer, int(mib), when)
        case "town", kind, *numbers:
            print(town(transport, kind, *map(int, numbers)))
        case "roam", who, address, mib:
            print(roam(transport, who, address, int(mib)))
        case _:
            raise SystemExit(__doc__)


if __name__ == "__main__":
    _, role, transport, *words = sys.argv
    main(role, "quic" if transport == "quic" else "tcp", words)
