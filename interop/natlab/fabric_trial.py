"""Use routers that are programs with plain sockets, and write what was observed as JSON.

The program of `interop/test_fabric.py`, which judges it. Runs in a private world (see
``p2pnet.demo.namespaces``); its arguments are one of `TRIALS`, a kind of NAT, and options::

    internet: 11.0.0.0/16
     |-- server   11.0.0.1
     |-- other    11.0.0.2
     |-- router a 11.0.1.1, lan 192.168.1.1 (a fabric) -- alice 192.168.1.2
     `-- router b 11.0.2.1, lan 192.168.1.1 (a fabric) -- bob   192.168.1.2
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from typing import Final, Protocol

from interop.natlab.running_fabric import RunningFabric
from p2pnet.demo.namespaces import Laboratory, LaboratoryError

Observation = dict[str, object]
Address = tuple[str, int]

SERVER, OTHER = ("11.0.0.1", 4001), ("11.0.0.2", 4001)
OUTSIDE_A, OUTSIDE_B, OUTSIDE_LATER = "11.0.1.1", "11.0.2.1", "11.0.1.9"
PUBLIC_INSIDE: Final = "11.0.3.0/24"
"""The network of a home whose router does not translate."""

PATIENCE: Final = 60.0
"""Seconds; a socket allows so many for all of a ``sendall``, however well it gets on."""
SOON: Final = 0.5  # Seconds; long enough for an answer on this machine.
BULK: Final = 4 * 1024 * 1024
DATAGRAMS: Final = 200
UDP_SEGMENT: Final = 103  # From <linux/udp.h>.
UNTRANSLATED: Final = ("open", "firewall")


class Homes:
    """A laboratory with two public hosts, and homes of one host behind fabrics."""

    def __init__(self, laboratory: Laboratory) -> None:
        self.laboratory = laboratory
        for name, (address, _) in (("server", SERVER), ("other", OTHER)):
            laboratory.add_public(name, address)

    @contextmanager
    def home(self, host: str, outside: str, kind: str, *options: str) -> Iterator[RunningFabric]:
        """Add a home with one host, whose router runs for as long as the block lasts."""
        home = f"home of {host}"
        network = PUBLIC_INSIDE if kind in UNTRANSLATED else "192.168.1.0/24"
        self.laboratory.add_home(home, outside=outside, inside=network, nat="")
        self.laboratory.add_host(home, host)
        given = ("--inside", "lan", "--outside", "wan", "--kind", kind, *options)
        with RunningFabric(given, placed=partial(self.laboratory.command, home)) as fabric:
            yield fabric

    def connected(self) -> tuple[socket.socket, socket.socket, Address]:
        """Connect alice to the server; give both ends, and the address she has there."""
        listening, client = self.tcp("server", SERVER[1]), self.tcp("alice")
        with listening:
            listening.listen()
            client.connect(SERVER)
            accepted, source = listening.accept()
        accepted.settimeout(PATIENCE)
        return client, accepted, (str(source[0]), int(source[1]))

    def udp(self, host: str, port: int = 0) -> socket.socket:
        with self.laboratory.entered(host):
            made = socket.socket(type=socket.SOCK_DGRAM)
        made.bind(("0.0.0.0", port))
        made.settimeout(SOON)
        return made

    def tcp(self, host: str, port: int = 0) -> socket.socket:
        with self.laboratory.entered(host):
            made = socket.socket()
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(("0.0.0.0", port))
        made.settimeout(PATIENCE)
        return made


def seen_as(sender: socket.socket, receiver: socket.socket, remote: Address) -> Address | None:
    """Send a datagram; give the source it arrives with, None if it does not."""
    sender.sendto(b"who am I", remote)
    try:
        received, source = receiver.recvfrom(100)
    except TimeoutError:
        return None
    if received != b"who am I":
        raise RuntimeError(f"{received!r} arrived")
    return str(source[0]), int(source[1])


def arrives(sender: socket.socket, receiver: socket.socket, remote: Address) -> bool:
    return seen_as(sender, receiver, remote) is not None


def outcome_of_connect(connecting: socket.socket, remote: Address) -> str:
    try:
        connecting.connect(remote)
    except OSError as error:
        return type(error).__name__
    return "connected"


def bulk(homes: Homes, kind: str, *options: str) -> Observation:
    """Send much both ways at once over one TCP connection."""
    up, down = os.urandom(BULK), os.urandom(BULK)
    with ThreadPoolExecutor() as threads, homes.home("alice", OUTSIDE_A, kind, *options) as fabric:
        client, accepted, source = homes.connected()
        began = time.monotonic()
        at_server = threads.submit(swap, accepted, down, threads)
        at_alice = threads.submit(swap, client, up, threads)
        received = at_server.result(), at_alice.result()
        took = time.monotonic() - began
    return {
        "source": source[0],
        "intact": received == (hashlib.sha256(up).digest(), hashlib.sha256(down).digest()),
        "seconds": took,
        "statistics": fabric.statistics,
    }


def swap(connection: socket.socket, data: bytes, threads: ThreadPoolExecutor) -> bytes:
    """Send ``data`` while receiving until the end; give the hash of what was received."""
    sending = threads.submit(send_all, connection, data)
    received = hashlib.sha256()
    while chunk := connection.recv(65536):
        received.update(chunk)
    sending.result()
    return received.digest()


def send_all(connection: socket.socket, data: bytes) -> None:
    connection.sendall(data)
    connection.shutdown(socket.SHUT_WR)


def in_a_row(homes: Homes, kind: str, *options: str) -> Observation:
    """Run each NAT of a kind of two in a router of its own."""
    laboratory = homes.laboratory
    laboratory.add_home("carrier", outside=OUTSIDE_A, inside="100.64.1.0/24", nat="")
    laboratory.add_home_behind("carrier", "home", nat="")
    laboratory.add_host("home", "alice")
    given = ("--inside", "lan", "--outside", "wan", "--kind", kind, *options, "--layer")
    with (
        RunningFabric((*given, "1"), placed=partial(laboratory.command, "carrier")) as outer,
        RunningFabric((*given, "0"), placed=partial(laboratory.command, "home")) as inner,
    ):
        alice, server = homes.udp("alice", 5000), homes.udp("server", SERVER[1])
        source = seen_as(alice, server, SERVER)
        answered = source is not None and arrives(server, alice, source)
        mappings = [fabric.count()["mappings"] for fabric in (inner, outer)]
    return {"source": source, "answered": answered, "mappings": mappings}


def mapping(homes: Homes, kind: str, *options: str) -> Observation:
    """Look from two hosts at one socket inside, and knock at it unasked."""
    with homes.home("alice", OUTSIDE_A, kind, *options):
        alice, server = homes.udp("alice", 5000), homes.udp("server", SERVER[1])
        other = homes.udp("other", OTHER[1])
        first, again = seen_as(alice, server, SERVER), seen_as(alice, server, SERVER)
        stranger = first is not None and arrives(other, alice, first)
        second = seen_as(alice, other, OTHER)
        answered = first is not None and arrives(server, alice, first)
    return {
        "first": first,
        "again": again,
        "second": second,
        "answered": answered,
        "stranger": stranger,
    }


def delay(homes: Homes, kind: str, *durations: str) -> Observation:
    """Measure round trips with one delay after the other: of a datagram, and to connect."""
    rounds, connects = [], []
    with homes.home("alice", OUTSIDE_A, kind) as fabric:
        alice, server = homes.udp("alice"), homes.udp("server", SERVER[1])
        listening = homes.tcp("server", SERVER[1])
        listening.listen()
        for duration in durations:
            fabric.tell(f"delay {duration}")
            began = time.monotonic()
            source = seen_as(alice, server, SERVER)
            if source is None or not arrives(server, alice, source):
                raise RuntimeError("no echo")
            rounds.append(time.monotonic() - began)
            began = time.monotonic()
            outcome_of_connect(homes.tcp("alice"), SERVER)
            connects.append(time.monotonic() - began)
    return {"rounds": rounds, "connects": connects}


def loss(homes: Homes, kind: str, *options: str) -> Observation:
    """Send many datagrams over a line that loses some."""
    arrived = 0
    with homes.home("alice", OUTSIDE_A, kind, *options) as fabric:
        alice, server = homes.udp("alice"), homes.udp("server", SERVER[1])
        for number in range(DATAGRAMS):
            alice.sendto(bytes([number]), SERVER)
        with suppress(TimeoutError):
            while server.recv(100):
                arrived += 1
    return {"arrived": arrived, "statistics": fabric.statistics}


def unsolicited(homes: Homes, kind: str, *options: str) -> Observation:
    """Connect from outside to a listener inside that nobody opened the NAT for."""
    with homes.home("alice", OUTSIDE_A, kind, *options) as fabric:
        listening, stranger = homes.tcp("alice", 5000), homes.tcp("other")
        listening.listen()
        stranger.settimeout(SOON)
        outcome = outcome_of_connect(stranger, (OUTSIDE_A, 5000))
    return {"outcome": outcome, "statistics": fabric.statistics}


def rebind(homes: Homes, kind: str, *options: str) -> Observation:
    """Change the outside address while a datagram socket and a connection are in use."""
    with homes.home("alice", OUTSIDE_A, kind, *options) as fabric:
        alice, server = homes.udp("alice"), homes.udp("server", SERVER[1])
        client, accepted, _ = homes.connected()
        before = seen_as(alice, server, SERVER)
        fabric.tell(f"rebind {OUTSIDE_LATER}")
        old_works = before is not None and arrives(server, alice, before)
        after = seen_as(alice, server, SERVER)
        new_works = after is not None and arrives(server, alice, after)
        client.send(b"lost")
        accepted.settimeout(SOON)
        survived = True
        try:
            accepted.recv(100)
        except TimeoutError:
            survived = False
    return {
        "before": before,
        "after": after,
        "old_works": old_works,
        "new_works": new_works,
        "connection_survived": survived,
    }


def reset(homes: Homes, kind: str, *options: str) -> Observation:
    """Reboot the router: what came in before does so no longer, until somebody asks again."""
    with homes.home("alice", OUTSIDE_A, kind, *options) as fabric:
        alice, server = homes.udp("alice", 5000), homes.udp("server", SERVER[1])
        source = seen_as(alice, server, SERVER) or ("", 0)
        before = arrives(server, alice, source)
        fabric.tell("reset")
        after = arrives(server, alice, source)
        again = seen_as(alice, server, SERVER) is not None and arrives(server, alice, source)
    return {"before": before, "after": after, "again": again}


def limit(homes: Homes, kind: str, *options: str) -> Observation:
    """Use three sockets, and then the first one again."""
    with homes.home("alice", OUTSIDE_A, kind, *options) as fabric:
        server = homes.udp("server", SERVER[1])
        sockets = [homes.udp("alice") for _ in range(3)]
        arrived = [arrives(made, server, SERVER) for made in sockets]
        first_again = arrives(sockets[0], server, SERVER)
    return {"arrived": arrived, "first_again": first_again, "statistics": fabric.statistics}


def simultaneous_open(homes: Homes, kind: str, *options: str) -> Observation:
    """Have two homes connect to one another at the same moment."""
    with (
        ThreadPoolExecutor() as threads,
        homes.home("alice", OUTSIDE_A, kind, *options) as fabric,
        homes.home("bob", OUTSIDE_B, kind, *options),
    ):
        alice, bob = homes.tcp("alice", 5000), homes.tcp("bob", 5000)
        for made in (alice, bob):
            made.settimeout(1.5)  # A SYN is repeated after 1 s.
        at_alice = threads.submit(outcome_of_connect, alice, (OUTSIDE_B, 5000))
        at_bob = threads.submit(outcome_of_connect, bob, (OUTSIDE_A, 5000))
        outcomes = [at_alice.result(), at_bob.result()]
        greeting = b""
        if outcomes == ["connected", "connected"]:
            alice.sendall(b"hello")
            greeting = bob.recv(100)
    return {"outcomes": outcomes, "greeting": greeting.decode(), "statistics": fabric.statistics}


def hairpin(homes: Homes, kind: str, *options: str) -> Observation:
    """Send to one's own outside address."""
    with homes.home("alice", OUTSIDE_A, kind, *options):
        one, two = homes.udp("alice", 5000), homes.udp("alice", 5001)
        server = homes.udp("server", SERVER[1])
        outside = [seen_as(made, server, SERVER) for made in (one, two)]
        arrives(two, one, (OUTSIDE_A, 5000))  # Opens the filter for what comes back.
        source = seen_as(one, two, (OUTSIDE_A, 5001))
    return {"outside": outside, "source": source}


def segmented(homes: Homes, kind: str, *options: str) -> Observation:
    """Have the kernel cut one send into many datagrams, which it leaves to the device."""
    with homes.home("alice", OUTSIDE_A, kind, *options):
        alice, server = homes.udp("alice"), homes.udp("server", SERVER[1])
        alice.setsockopt(socket.SOL_UDP, UDP_SEGMENT, 1000)
        alice.sendto(bytes(10_500), SERVER)
        sizes = [len(server.recv(20_000)) for _ in range(11)]
    return {"sizes": sizes}


def commands(homes: Homes, kind: str, *lines: str) -> Observation:
    """Tell the router lines that it may not understand, and see whether it still works."""
    answers = []
    with homes.home("alice", OUTSIDE_A, kind) as fabric:
        for line in lines:
            try:
                answers.append(fabric.tell(line))
            except LaboratoryError as error:
                answers.append({"refused": str(error)})
        works = arrives(homes.udp("alice"), homes.udp("server", SERVER[1]), SERVER)
    return {"answers": answers, "works": works}


def program(homes: Homes, *arguments: str) -> Observation:
    """Run the router with its standard input closed from the beginning."""
    homes.laboratory.add_home("home", outside=OUTSIDE_A, nat="")
    argv = [sys.executable, "-m", "interop.natlab.fabric", *arguments]
    done = subprocess.run(
        homes.laboratory.command("home", argv),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    return {"status": done.returncode, "lines": done.stdout.splitlines(), "errors": done.stderr}


class Trial(Protocol):
    """What can be observed; the last arguments are mostly options of the router."""

    def __call__(self, homes: Homes, kind: str, /, *options: str) -> Observation: ...


TRIALS: Final[Mapping[str, Trial]] = {
    "bulk": bulk,
    "mapping": mapping,
    "in-a-row": in_a_row,
    "delay": delay,
    "loss": loss,
    "unsolicited": unsolicited,
    "rebind": rebind,
    "reset": reset,
    "limit": limit,
    "simultaneous-open": simultaneous_open,
    "hairpin": hairpin,
    "segmented": segmented,
    "commands": commands,
    "program": program,
}


def main(trial: str, kind: str, *options: str) -> None:
    with Laboratory() as laboratory:
        print(json.dumps(TRIALS[trial](Homes(laboratory), kind, *options)), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
