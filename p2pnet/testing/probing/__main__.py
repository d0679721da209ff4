"""The probes as a command, for hosts that are namespaces. Usage: the docstring of the package."""

from __future__ import annotations

import argparse
import ipaddress
import json
import sys
from collections.abc import Mapping, Sequence

import trio

from p2pnet.core.addresses import Endpoint
from p2pnet.core.env import Env
from p2pnet.testing.probing.classifying import classify
from p2pnet.testing.probing.judging import Classification, Unmeasurable
from p2pnet.testing.probing.observing import ObserverEndpoints, serve_observer
from p2pnet.testing.probing.punching import Plan, PunchResult, punch
from p2pnet.testing.probing.rendezvous import serve_rendezvous

INTERRUPTED = 130

Field = str | int | float | bool | None | Sequence[str]
Fields = Mapping[str, Field]


def main(arguments: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(arguments)
    code = 0
    try:
        trio.run(args.run, args)
    except* KeyboardInterrupt:
        code = INTERRUPTED
    except* (OSError, ValueError, Unmeasurable) as group:
        say("error", {"message": str(group.exceptions[0])})
        code = 1
    return code


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m p2pnet.testing.probing",
        description="Measure NATs, and punch through them with plain sockets.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    observer = commands.add_parser("observer", help="tell who asks what source is seen")
    observer.add_argument("--address", action="append", required=True, help="own one; repeatable")
    observer.add_argument("--ports", type=int, nargs=2, default=[7001, 7002])
    observer.add_argument("--partner", type=endpoint, help="an observer with another address")
    observer.set_defaults(run=run_observer)

    rendezvous = commands.add_parser("rendezvous", help="bring hosts together")
    rendezvous.add_argument("--at", type=endpoint, required=True)
    rendezvous.set_defaults(run=run_rendezvous)

    classifier = commands.add_parser("classify", help="classify the NATs of this host")
    classifier.add_argument("--observer", type=endpoint, action="append", required=True)
    classifier.add_argument("--patience", type=float, default=3.0, help="seconds")
    classifier.set_defaults(run=run_classify)

    puncher = commands.add_parser("punch", help="meet a peer")
    puncher.add_argument("--rendezvous", type=endpoint, required=True)
    puncher.add_argument("--name", required=True)
    puncher.add_argument("--peer", required=True)
    puncher.add_argument("--patience", type=float, default=5.0, help="seconds to punch")
    puncher.add_argument("--wait", type=float, default=30.0, help="seconds to wait for the peer")
    puncher.add_argument("--skew", type=float, default=0.0, help="seconds to be late by")
    puncher.set_defaults(run=run_punch)

    for asking in (classifier, puncher):
        asking.add_argument("--transport", choices=["udp", "tcp"], required=True)
        asking.add_argument("--local", type=endpoint, help="the endpoint to ask from")
    return parser


def endpoint(text: str) -> Endpoint:
    """Read ``1.2.3.4:5`` or ``[::1]:5``."""
    host, _, port = text.rpartition(":")
    return Endpoint(str(ipaddress.ip_address(host.strip("[]"))), int(port))


async def run_observer(args: argparse.Namespace) -> None:
    first, second = args.ports
    await serve_observer(
        Env.system().network,
        args.address,
        (first, second),
        partner=args.partner,
        task_status=Announcer(),
    )


async def run_rendezvous(args: argparse.Namespace) -> None:
    await serve_rendezvous(Env.system().network, args.at, task_status=Announcer())


class Announcer:
    """Tells that a server is ready."""

    def started(self, value: ObserverEndpoints | None = None) -> None:
        if value is not None:
            say("ready", {"tcp": texts(value.tcp), "udp": texts(value.udp)})


async def run_classify(args: argparse.Namespace) -> None:
    env = Env.system()
    found = await classify(
        env.network,
        args.transport,
        tuple(args.observer),
        jitter=env.jitter,
        local=args.local,
        patience=args.patience,
    )
    say("classified", classification_fields(found))


async def run_punch(args: argparse.Namespace) -> None:
    env = Env.system()
    plan = Plan(
        name=args.name,
        peer=args.peer,
        local=args.local,
        patience=args.patience,
        wait=args.wait,
        skew=args.skew,
    )
    result = await punch(env.network, args.transport, args.rendezvous, plan=plan, jitter=env.jitter)
    say("punched", punch_fields(result))


def classification_fields(found: Classification) -> Fields:
    return {
        "transport": found.transport,
        "blocked": found.blocked,
        "outside": text_of(found.outside),
        "translated": found.translated,
        "mapping": found.mapping.value if found.mapping else None,
        "filtering": found.filtering.value if found.filtering else None,
        "ports": found.ports.value if found.ports else None,
        "preserves_port": found.preserves_port,
        "port_step": found.port_step,
        "hairpins": found.hairpins,
        "unsolicited": found.unsolicited,
    }


def punch_fields(result: PunchResult) -> Fields:
    return {
        "direct": result.direct,
        "reason": result.reason,
        "seconds": round(result.seconds, 4),
        "remote": text_of(result.remote),
        "outside": text_of(result.outside),
    }


def text_of(found: Endpoint | None) -> str | None:
    return str(found) if found else None


def texts(endpoints: Sequence[Endpoint]) -> tuple[str, ...]:
    return tuple(str(each) for each in endpoints)


def say(event: str, fields: Fields) -> None:
    sys.stdout.write(json.dumps({"event": event, **fields}) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
