"""The arguments of the ``p2pnet`` command.

Imports next to nothing, so that ``--help`` and a mistyped word are answered at once; arguments
that need more to be checked are checked by ``arguments.py``, once there are any.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from importlib import import_module
from itertools import pairwise

from p2pnet.core.version import AGENT

DIRECT_SECONDS = 60.0
"""Three hole punches, each with its conversation, are over by then."""


def spelled_out(arguments: Sequence[str]) -> list[str]:
    """Give a bare ``--direct`` its seconds, which would else be looked for in what follows."""
    spelled = list(arguments)
    for at, (argument, following) in enumerate(pairwise([*spelled, ""])):
        if argument == "--direct" and not is_number(following):
            spelled[at] = f"--direct={DIRECT_SECONDS:g}"
    return spelled


def is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def checked(name: str) -> Callable[[str], object]:
    """Return the check of that name in ``arguments.py``, which is imported when it is called."""

    def check(text: str) -> object:
        result: object = getattr(import_module("p2pnet.commands.arguments"), name)(text)
        return result

    return check


def positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return int(text)


def seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise argparse.ArgumentTypeError(f"{text} is not a number of seconds")
    return value


def build_parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--json", action="store_true", help="print events as JSON lines")
    common.add_argument("-v", "--verbose", action="count", default=0, help="log more, on stderr")
    parser = argparse.ArgumentParser(prog="p2pnet", description="Peers that find a way.")
    parser.add_argument("--version", action="version", version=AGENT)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, about: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=about, description=about, parents=[common])
        added.set_defaults(command=name)
        return added

    key = commands.add_parser("key", help="make key files", description="make key files")
    about = "make a key file that only you can read, and print its peer id"
    new = key.add_subparsers(required=True, metavar="ACTION").add_parser(
        "new", help=about, description=about, parents=[common]
    )
    new.add_argument("file", metavar="FILE", help="must not exist yet")
    new.set_defaults(command="key new")

    id_ = add("id", "print the peer id of a key file")
    id_.add_argument("--key", required=True, metavar="FILE")

    add_node(add("node", "run an edge node, until Ctrl-C"))

    relay = add("relay", "run a relay, until Ctrl-C")
    add_identity(relay, "port 4001 on all addresses, of UDP too where QUIC is installed")
    add_limits(relay)
    add_perf_server(relay)

    ping = add("ping", "measure the round trip to a peer")
    add_target(ping)
    ping.add_argument("--count", type=positive, default=3, metavar="N", help="default: 3")
    add_direct(ping)

    trace_ = add("trace", "show how a peer is reached, and why not better")
    add_target(trace_)
    trace_.add_argument(
        "--seconds",
        type=seconds,
        default=DIRECT_SECONDS,
        metavar="N",
        help="wait at most so long for a direct connection; default: %(default)g",
    )
    add_birthday(trace_)

    identify = add("identify", "show what a peer says of itself")
    add_target(identify)

    echo_ = add("echo", "send stdin to a peer's echo, and print what comes back")
    add_target(echo_)
    add_direct(echo_)

    add_perf(add("perf", "measure how fast bytes go to a peer, and back"))

    add_doctor(add("doctor", "find out who can reach this machine, and what would help"))

    add("demo", "show two peers behind NATs meet over a relay and end up direct")
    return parser


def add_node(parser: argparse.ArgumentParser) -> None:
    add_identity(parser, "a free port on all addresses, of UDP too where QUIC is installed")
    parser.add_argument(
        "--relay",
        action="append",
        default=[],
        type=checked("peer_address"),
        metavar="ADDR",
        help="keep a reservation there, to be found by peer id; may be repeated",
    )
    parser.add_argument("--echo", action="store_true", help="serve /p2pnet/echo/1.0.0")
    add_perf_server(parser)
    add_birthday(parser)


def add_identity(parser: argparse.ArgumentParser, anywhere: str) -> None:
    parser.add_argument(
        "--key", metavar="FILE", help="who to be, made by `p2pnet key new`; default: anybody new"
    )
    parser.add_argument(
        "--listen",
        action="append",
        default=[],
        type=checked("listen_address"),
        metavar="ADDR",
        help=f"such as /ip4/0.0.0.0/tcp/4001; may be repeated; default: {anywhere}",
    )
    add_psk(parser)


def add_psk(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--psk", metavar="FILE", help="key file of a private network, such as swarm.key of IPFS"
    )


def add_limits(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--limit",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="change a limit; may be repeated",
    )
    parser.add_argument("--limits", action="store_true", help="show all limits, and do no more")
    parser.add_argument(
        "--metrics",
        type=checked("tcp_address"),
        metavar="ADDR",
        help="serve metrics for Prometheus there, such as /ip4/127.0.0.1/tcp/9464",
    )


def add_target(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "target",
        type=checked("peer"),
        metavar="ADDR",
        help="multiaddr that ends in /p2p/<peer id>; or a bare peer id, with --relay",
    )
    parser.add_argument(
        "--relay",
        action="append",
        default=[],
        type=checked("peer_address"),
        metavar="ADDR",
        help="where the peer can be found; may be repeated: two show what kind of NAT is here",
    )
    add_psk(parser)


def add_perf(parser: argparse.ArgumentParser) -> None:
    add_target(parser)
    for way in ("upload", "download"):
        parser.add_argument(
            f"--{way}",
            type=checked("size"),
            metavar="N",
            help="bytes, such as 4096, 10kB or 64MiB; default: 16MiB, or none if only the other "
            "is given",
        )
    add_direct(parser)


def add_perf_server(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--perf", action="store_true", help="serve /perf/1.0.0: work for whoever measures"
    )
    parser.add_argument(
        "--perf-for",
        action="append",
        default=[],
        type=checked("bare_peer"),
        metavar="PEER",
        help="serve /perf/1.0.0 to this peer id only; may be repeated",
    )


def add_doctor(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "targets",
        nargs="*",
        type=checked("peer"),
        metavar="ADDR",
        help="peers to dial and explain: multiaddrs that end in /p2p/<peer id>, or bare peer ids",
    )
    parser.add_argument(
        "--relay",
        action="append",
        default=[],
        type=checked("peer_address"),
        metavar="ADDR",
        help="a relay that should work; may be repeated",
    )
    parser.add_argument(
        "--listen",
        action="append",
        default=[],
        type=checked("listen_address"),
        metavar="ADDR",
        help="where to listen meanwhile, as the program that has trouble; may be repeated",
    )
    parser.add_argument(
        "--seconds", type=seconds, default=10.0, metavar="N", help="look so long; default: 10"
    )
    add_psk(parser)
    parser.add_argument("--watch", action="store_true", help="tell what changes, until Ctrl-C")


def add_direct(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--direct",
        type=seconds,
        default=0.0,
        metavar="SECONDS",
        help="tell what happens and, if relayed, wait for a direct connection, "
        f"{DIRECT_SECONDS:g} seconds unless told otherwise; default: 0",
    )
    add_birthday(parser)


def add_birthday(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--birthday",
        action="store_true",
        help="where a NAT gives random ports, look for one over QUIC by very many packets, "
        "if the peer does so, too",
    )
