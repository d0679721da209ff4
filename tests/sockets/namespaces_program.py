"""Build laboratories in a private world, observe what happens there, write it as JSON.

The program of `test_namespaces.py`, which starts it as root and as an ordinary user, and
judges what it observed. With ``support`` it writes what `check_support` finds instead.
"""

import json
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict

from p2pnet.demo.namespaces import (
    GATEWAY,
    Laboratory,
    LaboratoryError,
    Nat,
    check_support,
)

Observation = object  # What JSON can hold.
Address = tuple[str, int]

DELAY = 0.02
SOON = 0.25  # Seconds; a packet without delay takes a thousandth of it.
PATIENCE = 5.0
RELAY = "11.0.0.1"
OTHER = "11.0.0.2"
CARRIER = """
    table ip carrier {
        chain outgoing {
            type nat hook postrouting priority srcnat; policy accept;
            oifname "wan" ip protocol tcp snat to 11.0.5.1:7777
        }
    }
"""


def tcp(laboratory: Laboratory, host: str, port: int = 0) -> socket.socket:
    with laboratory.entered(host):
        made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    made.bind(("0.0.0.0", port))
    made.settimeout(PATIENCE)
    return made


def listener(laboratory: Laboratory, host: str, port: int) -> socket.socket:
    made = tcp(laboratory, host, port)
    made.listen()
    return made


def udp(laboratory: Laboratory, host: str, port: int) -> socket.socket:
    with laboratory.entered(host):
        made = socket.socket(type=socket.SOCK_DGRAM)
    made.bind(("0.0.0.0", port))
    made.settimeout(SOON)
    return made


def outcome(act: Callable[[], object]) -> str:
    try:
        act()
    except TimeoutError:
        return "silence"
    except ConnectionRefusedError:
        return "refused"
    except LaboratoryError as error:
        return str(error)
    return "done"


def dial(laboratory: Laboratory, host: str, to: Address) -> str:
    with tcp(laboratory, host) as dialer:
        dialer.settimeout(SOON)
        return outcome(lambda: dialer.connect(to))


def source_seen(laboratory: Laboratory, host: str, port: int, to: Address) -> list[object]:
    """Connect from ``port`` and say as whom one was seen, after a word in each direction."""
    seer = {RELAY: "relay", OTHER: "other"}[to[0]]
    with listener(laboratory, seer, to[1]) as server, tcp(laboratory, host, port) as dialer:
        dialer.connect(to)
        accepted, source = server.accept()
        with accepted:
            dialer.sendall(b"ping")
            accepted.sendall(accepted.recv(4))
            return [*source, dialer.recv(4).decode()]


def unsolicited(laboratory: Laboratory, home: str, host: str) -> list[str]:
    """Dial a port that has a listener behind it, and a mapping to another destination."""
    target = (laboratory.outside(home), 4001)
    with (
        listener(laboratory, "relay", 9000) as server,
        listener(laboratory, host, 4001),
        tcp(laboratory, host, 4001) as dialer,
    ):
        dialer.connect((RELAY, 9000))
        with server.accept()[0]:
            return [dial(laboratory, public, target) for public in ("relay", "other")]


def datagrams(laboratory: Laboratory) -> Observation:
    """Classify a home's NAT for UDP: what the world sees, and what comes back in."""
    with (
        udp(laboratory, "alice", 5001) as alice,
        udp(laboratory, "relay", 7001) as asked,
        udp(laboratory, "relay", 7002) as same_host,
        udp(laboratory, "other", 7001) as other_host,
    ):
        answers = {}
        for name, server in (
            ("asked", asked),
            ("same host", same_host),
            ("other host", other_host),
        ):
            server.sendto(b"unsolicited", (laboratory.outside("left"), 5001))
            alice.sendto(b"hello", (RELAY, 7001))
            _, source = asked.recvfrom(100)
            server.sendto(b"answer", source)
            answers[name] = [*source, outcome(lambda: alice.recv(100))]
        return answers


def simultaneous_open(laboratory: Laboratory, homes: list[str], port: int) -> Observation:
    """Have one host of each home connect to the other's home, both from ``port``."""
    hosts = {"left": "alice", "right": "bob", "refusing": "rita", "touchy": "tom"}
    ends = [tcp(laboratory, hosts[home], port) for home in homes]
    targets = [(laboratory.outside(home), port) for home in reversed(homes)]
    try:
        for end, target in zip(ends, targets, strict=True):
            end.setblocking(False)
            end.connect_ex(target)
        for end in ends:
            _, ready, _ = select.select([], [end], [], PATIENCE)
            error = end.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if not ready or error:
                return os.strerror(error) if ready else "silence"
            end.settimeout(PATIENCE)
        ends[0].sendall(b"well met")
        return [ends[1].recv(100).decode(), *(list(end.getpeername()) for end in ends)]
    finally:
        for end in ends:
            end.close()


def moved(laboratory: Laboratory) -> Observation:
    """Move a host with a socket to another home, and back; say where the world sees it."""
    laboratory.add_home("cottage", outside="11.0.6.1")
    seen = []
    with udp(laboratory, "amy", 5002) as amy, udp(laboratory, "relay", 7003) as relay:
        for home in ("cottage", "left"):
            laboratory.move("amy", home)
            source = sent_until_heard(home.encode(), amy, relay, (RELAY, 7003))
            relay.sendto(b"answer", source)
            seen.append([laboratory.address("amy"), *source, amy.recv(100).decode()])
    return seen


def sent_until_heard(
    text: bytes, sender: socket.socket, hearer: socket.socket, to: Address
) -> Address:
    """Send again what is lost, as the first one was while other laboratories came and went.

    Nobody found out where. A host that is never heard fails the test that runs this program.
    """
    while True:
        sender.sendto(text, to)
        with suppress(TimeoutError):
            heard, (host, port) = hearer.recvfrom(100)
            if heard == text:  # And not one more that was sent from the home before.
                return host, port


def run_on(laboratory: Laboratory, host: str) -> Observation:
    """Use a program's own loopback on ``host``; say which address it leaves from."""
    program = (
        "import socket; s = socket.create_server(('127.0.0.1', 0));"
        "c = socket.create_connection(s.getsockname());"
        "u = socket.socket(type=socket.SOCK_DGRAM); u.connect(('11.0.0.1', 9));"
        "print(u.getsockname()[0], end='')"
    )
    argv = laboratory.command(host, [sys.executable, "-I", "-c", program])
    return subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=True).stdout


def mistakes(laboratory: Laboratory) -> Observation:
    laboratory.add_home("tiny", outside="11.0.9.1", inside="192.168.9.0/30")
    laboratory.add_host("tiny", "only")
    return [
        outcome(lambda: laboratory.add_host("tiny", "one too many")),
        outcome(lambda: laboratory.add_host("nowhere", "nobody")),
        outcome(lambda: laboratory.move("alice", "tiny")),
        outcome(lambda: laboratory.add_host("tiny", "alice")),
        outcome(lambda: laboratory.add_public("left", "11.0.0.9")),
        outcome(lambda: laboratory.add_public("twin", laboratory.outside("left"))),
        outcome(lambda: laboratory.add_public("gate", str(GATEWAY))),
        outcome(lambda: laboratory.add_public("far", "11.1.0.1")),
        outcome(lambda: laboratory.command("nobody", ["true"])),
    ]


def build(laboratory: Laboratory) -> float:
    """Say for how many seconds processors worked, here and in children."""
    worked_before = sum(os.times()[:4])
    laboratory.add_public("relay", RELAY)
    for number, (home, host) in enumerate((("left", "alice"), ("right", "bob")), 1):
        laboratory.add_home(home, outside=f"11.0.{number}.1")
        laboratory.add_host(home, host)
    return sum(os.times()[:4]) - worked_before


def add_the_rest(laboratory: Laboratory) -> None:
    laboratory.add_public("other", OTHER)
    laboratory.add_host("left", "amy")
    laboratory.add_home("symmetric", outside="11.0.3.1", nat=Nat.SYMMETRIC)
    laboratory.add_host("symmetric", "sam")
    laboratory.add_home("refusing", outside="11.0.4.1", nat=Nat.REFUSING)
    laboratory.add_host("refusing", "rita")
    laboratory.add_home("carrier", outside="11.0.5.1", inside="100.64.1.0/24", nat=CARRIER)
    laboratory.add_home_behind("carrier", "village", nat=Nat.PORT_RESTRICTED)
    laboratory.add_host("village", "vera")


def observe_without_delay() -> dict[str, Observation]:
    seen: dict[str, Observation] = {}
    with Laboratory() as laboratory:
        seen["work to build"] = build(laboratory)
        add_the_rest(laboratory)
        seen["addresses"] = [laboratory.address("alice"), laboratory.outside("left")]
        seen["run on alice"] = run_on(laboratory, "alice")
        seen["run on relay"] = run_on(laboratory, "relay")
        seen["addresses of vera"] = [laboratory.address("vera"), laboratory.outside("village")]
        seen["run on a router"] = run_on(laboratory, "carrier")
        for host in ("alice", "rita", "sam", "vera"):
            seen[f"sources of {host}"] = [
                source_seen(laboratory, host, 4001, (RELAY, 9001)),
                source_seen(laboratory, host, 4001, (OTHER, 9002)),
            ]
        for home, host in (("left", "alice"), ("symmetric", "sam"), ("refusing", "rita")):
            seen[f"unsolicited to {home}"] = unsolicited(laboratory, home, host)
        seen["datagrams"] = datagrams(laboratory)
        seen["punched"] = simultaneous_open(laboratory, ["left", "right"], 6001)
        seen["punched again"] = simultaneous_open(laboratory, ["right", "left"], 6002)
        seen["dials of amy"] = [
            dial(laboratory, "amy", ("192.168.1.2", 4001)),
            dial(laboratory, "amy", ("10.1.2.3", 4001)),
        ]
        seen["moved"] = moved(laboratory)
        route = ["ip", "route", "add", "192.168.1.2", "via", laboratory.outside("left")]
        subprocess.run(laboratory.command("relay", route), check=True)
        by_route = dial(laboratory, "relay", ("192.168.1.2", 4001))
        seen["dial by a route of one's own"] = by_route
        seen["mistakes"] = mistakes(laboratory)
    seen["after the end"] = outcome(lambda: laboratory.command("alice", ["true"]))
    return seen


def observe_with_delay() -> dict[str, Observation]:
    seen: dict[str, Observation] = {}
    with Laboratory(delay=DELAY) as laboratory:
        build(laboratory)
        for number, (home, host) in enumerate((("refusing", "rita"), ("touchy", "tom")), 3):
            laboratory.add_home(home, outside=f"11.0.{number}.1", nat=Nat.REFUSING)
            laboratory.add_host(home, host)
        with listener(laboratory, "relay", 9000) as server:
            with tcp(laboratory, "alice") as dialer:
                began = time.monotonic()
                dialer.connect((RELAY, 9000))
                seen["round trip"] = time.monotonic() - began
                with server.accept()[0] as accepted:
                    seen["transfer"] = transfer(dialer, accepted)
        seen["punched refusing"] = simultaneous_open(laboratory, ["refusing", "touchy"], 6003)
        seen["unsolicited late"] = dial(laboratory, "relay", ("11.0.3.1", 6003))
        seen["dials of alice late"] = dial(laboratory, "alice", ("10.1.2.3", 4001))
    return seen


def transfer(sender: socket.socket, receiver: socket.socket) -> Observation:
    """Send pieces of many segments; say whether they arrived as they were."""
    piece = bytes(range(256)) * 256
    with receiver.makefile("rb") as arriving:
        for _ in range(8):
            sender.sendall(piece)
            if arriving.read(len(piece)) != piece:
                return "damaged"
    return "whole"


def observe() -> dict[str, Observation]:
    before = os.listdir("/proc/self/fd")
    seen = {**observe_without_delay(), **observe_with_delay()}
    seen["left open"] = len(os.listdir("/proc/self/fd")) - len(before)
    return seen


if __name__ == "__main__":
    match sys.argv[1]:
        case "observe":
            found = observe()
        case "support":
            found = asdict(check_support())
        case unknown:
            sys.exit(f"unknown task {unknown}")
    json.dump(found, sys.stdout)
