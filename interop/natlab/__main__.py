"""The laboratory on the command line; root is not needed where user namespaces are permitted.

::

    python -m interop.natlab kinds
    python -m interop.natlab up home-a=port-restricted home-b=symmetric --delay 20ms
    python -m interop.natlab run a -- ip address          # from another terminal
    python -m interop.natlab up home-a=carrier home-b=open -- sh -c '...'
    python -m interop.natlab calibrate --kinds full-cone,symmetric --transport udp
    python -m interop.natlab matrix                       # p2pnet in each pair of kinds: long
    python -m interop.natlab matrix --sample
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from typing import Final, get_args

from interop.natlab import calibrating, inhabited, matrix
from interop.natlab.building import Engine
from p2pnet.demo.namespaces import LaboratoryError, check_support, reexec_command
from p2pnet.testing.kinds import ALL_KINDS, Kind
from p2pnet.testing.matrix import TRANSPORTS as PUNCHED
from p2pnet.testing.packet import TransportName

INTERRUPTED: Final = 130
TRANSPORTS: Final = get_args(TransportName)


def main(arguments: Sequence[str] | None = None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments
    own, command = split(arguments)
    parser = build_parser()
    options = parser.parse_args(own)
    if command and options.does not in ("up", "run"):
        parser.error("a command is for `up` and `run` only")
    try:
        return act(options, own, command)
    except (LaboratoryError, OSError) as error:
        print(f"natlab: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED


def split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Separate the command after ``--`` from what comes before."""
    words = list(arguments)
    at = words.index("--") if "--" in words else len(words)
    return words[:at], words[at + 1 :]


def act(options: argparse.Namespace, own: list[str], command: list[str]) -> int:
    match options.does:
        case "kinds":
            return list_kinds(as_json=options.json)
        case "run":
            return inhabited.run(options.host, command, lab=options.lab)
        case "up" if options.inside is not None:
            plan = inhabited.Plan(options.homes, options.delay, options.engine)
            return inhabited.live(plan, options.inside, command)
        case "up":
            words = [sys.executable, "-m", "interop.natlab", *own]
            return inhabited.up(words, command, as_json=options.json)
        case "calibrate" if options.inside:
            return calibrating.calibrate(
                calibrating.Wanted(
                    options.kinds,
                    options.transport,
                    options.engine,
                    options.simulate,
                    options.combinations,
                ),
                as_json=options.json,
            )
        case "matrix" if options.inside:
            return matrix.run_matrix(
                matrix.pairs_of(options.kinds, sample=options.sample),
                (options.transport,) if options.transport else PUNCHED,
                as_json=options.json,
            )
        case _:
            return go_inside([sys.executable, "-m", "interop.natlab", *own, "--inside"])


def go_inside(argv: list[str]) -> int:
    """Become ``argv`` in a private world."""
    support = check_support()
    if not support.usable or support.how is None:
        raise LaboratoryError("; ".join(support.missing))
    command = reexec_command(argv, how=support.how)
    os.execv(command[0], command)


def list_kinds(*, as_json: bool) -> int:
    for kind in ALL_KINDS.values():
        layers = [inhabited.described(nat) for nat in kind.nats]
        if as_json:
            print(json.dumps({"kind": kind.name, "nats": layers}))
        else:
            words = "; behind it: ".join(", ".join(layer) for layer in layers)
            print(f"{kind.name:24}{words or 'a public host'}")
    return 0


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m interop.natlab",
        description="Hosts behind every kind of NAT, in network namespaces of their own.",
    )
    actions = parser.add_subparsers(required=True, dest="does", metavar="ACTION")
    listing = actions.add_parser("kinds", help="list the kinds of homes")

    up = actions.add_parser("up", help="build a laboratory, and keep it until Ctrl-C or EOF")
    up.add_argument("homes", nargs="+", type=home, metavar="home-NAME=KIND")
    up.add_argument("--delay", type=duration, default=0.0, metavar="20ms")
    up.add_argument("--inside", help=argparse.SUPPRESS)

    run = actions.add_parser("run", help="run a command on a host of a laboratory that is up")
    run.add_argument("host")
    run.add_argument("--lab", type=int, metavar="PID", help="which, if there are several")

    calibrate = actions.add_parser("calibrate", help="compare theory, simulation and packets")
    calibrate.add_argument("--kinds", type=kinds, metavar="A,B", help="those of the matrix")
    calibrate.add_argument(
        "--combinations", action="store_true", help="classify every combination of properties"
    )
    calibrate.add_argument("--transport", choices=TRANSPORTS, help="both, if not given")
    calibrate.add_argument("--no-simulation", action="store_false", dest="simulate")
    calibrate.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)

    meet = actions.add_parser("matrix", help="let p2pnet meet in homes of each pair of kinds")
    meet.add_argument("--kinds", type=kinds, metavar="A,B", help="those of the matrix")
    meet.add_argument("--sample", action="store_true", help="only two pairs of each kind")
    meet.add_argument("--transport", choices=PUNCHED, help="both, if not given")
    meet.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)

    for action in (up, calibrate):
        action.add_argument("--engine", choices=get_args(Engine), default="kernel")
    for action in (listing, up, calibrate, meet):
        action.add_argument("--json", action="store_true", help="JSON, one object a line")
    return parser


def home(text: str) -> tuple[str, Kind]:
    """Read ``home-a=symmetric``: the host of the home is called ``a``."""
    name, _, kind = text.partition("=")
    host = name.removeprefix("home-")
    if not host:
        raise argparse.ArgumentTypeError(f"{text!r} has no name; write home-a=symmetric")
    return host, kind_named(kind)


def kinds(text: str) -> tuple[Kind, ...]:
    return tuple(kind_named(name) for name in text.split(","))


def kind_named(name: str) -> Kind:
    if name not in ALL_KINDS:
        raise argparse.ArgumentTypeError(f"no kind {name!r}; there are {', '.join(ALL_KINDS)}")
    return ALL_KINDS[name]


def duration(text: str) -> float:
    """Read ``20ms``, ``0.5s`` or a number of seconds."""
    number, scale = (text[:-2], 0.001) if text.endswith("ms") else (text.removesuffix("s"), 1.0)
    try:
        seconds = float(number) * scale
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no duration, such as 20ms") from None
    if not 0 <= seconds <= 10:
        raise argparse.ArgumentTypeError(f"{text!r} is not from 0 to 10 s")
    return seconds


if __name__ == "__main__":
    sys.exit(main())
