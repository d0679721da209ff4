"""The ``p2pnet`` command. Arguments here; what each subcommand does is in ``commands/``."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from importlib.util import find_spec

import trio

from p2pnet import presets
from p2pnet.commands import asking, serving
from p2pnet.commands.arguments import (
    DIRECT_SECONDS,
    bare_peer,
    listen_address,
    peer,
    peer_address,
    positive,
    seconds,
    size,
    spelled_out,
    tcp_address,
)
from p2pnet.commands.doctor import Request, doctor
from p2pnet.commands.echo import echo
from p2pnet.commands.keys import new_key, print_id, read_key, read_psk
from p2pnet.commands.limits import read_limits, show_limits
from p2pnet.commands.output import CommandError, Output, nobody_reads
from p2pnet.commands.perf import perf
from p2pnet.commands.trace import trace
from p2pnet.core.keys import PrivateKey
from p2pnet.demo.program import demo
from p2pnet.errors import P2PError
from p2pnet.host.config import HostConfig
from p2pnet.host.host import Host
from p2pnet.host.opening import open_host
from p2pnet.interfaces import Part, Service, Transport
from p2pnet.protocols.identify import Identify
from p2pnet.protocols.perf import Perf
from p2pnet.transports.quic import QUIC
from p2pnet.transports.tcp import TCP
from p2pnet.transports.websocket import WebSocket

INTERRUPTED = 130
DEFAULT_PERF_BYTES = 16 * 1_048_576
FAILURES = (P2PError, OSError, ValueError, CommandError, trio.TooSlowError)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code: 0 on success only."""
    args = build_parser().parse_args(spelled_out(sys.argv[1:] if arguments is None else arguments))
    level = [logging.WARNING, logging.INFO, logging.DEBUG][min(args.verbose, 2)]
    logging.basicConfig(stream=sys.stderr, format="%(name)s: %(message)s")
    logging.getLogger("p2pnet").setLevel(level)
    output = Output(as_json=args.json, on_stderr=args.run is run_echo)
    try:
        code: int = args.run(args, output)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        return nobody_reads()
    except FAILURES as error:
        output.error(error)
        return 1
    return code


def build_parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--json", action="store_true", help="print events as JSON lines")
    common.add_argument("-v", "--verbose", action="count", default=0, help="log more, on stderr")
    parser = argparse.ArgumentParser(prog="p2pnet", description="Peers that find a way.")
    parser.add_argument("--version", action="version", version=Identify().agent_version)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(
        name: str, about: str, run: Callable[[argparse.Namespace, Output], int]
    ) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=about, description=about, parents=[common])
        added.set_defaults(run=run)
        return added

    key = commands.add_parser("key", help="make key files", description="make key files")
    about = "make a key file that only you can read, and print its peer id"
    new = key.add_subparsers(required=True, metavar="ACTION").add_parser(
        "new", help=about, description=about, parents=[common]
    )
    new.add_argument("file", metavar="FILE", help="must not exist yet")
    new.set_defaults(run=lambda args, output: new_key(args.file, output))

    id_ = add("id", "print the peer id of a key file", run_id)
    id_.add_argument("--key", required=True, metavar="FILE")

    node = add("node", "run an edge node, until Ctrl-C", run_node)
    add_identity(node, "a free port on all addresses")
    node.add_argument(
        "--relay",
        action="append",
        default=[],
        type=peer_address,
        metavar="ADDR",
        help="keep a reservation there, to be found by peer id; may be repeated",
    )
    node.add_argument("--echo", action="store_true", help="serve /p2pnet/echo/1.0.0")
    add_perf_server(node)

    relay = add("relay", "run a relay, until Ctrl-C", run_relay)
    add_identity(relay, "port 4001 on all addresses")
    add_limits(relay)
    add_perf_server(relay)

    ping = add("ping", "measure the round trip to a peer", run_ping)
    add_target(ping)
    ping.add_argument("--count", type=positive, default=3, metavar="N", help="default: 3")
    add_direct(ping)

    trace_ = add("trace", "show how a peer is reached, and why not better", run_trace)
    add_target(trace_, many_relays=True)
    trace_.add_argument(
        "--seconds",
        type=seconds,
        default=DIRECT_SECONDS,
        metavar="N",
        help="wait at most so long for a direct connection; default: %(default)g",
    )

    identify = add("identify", "show what a peer says of itself", run_identify)
    add_target(identify)

    echo_ = add("echo", "send stdin to a peer's echo, and print what comes back", run_echo)
    add_target(echo_)
    add_direct(echo_)

    add_perf(add("perf", "measure how fast bytes go to a peer, and back", run_perf))

    add_doctor(
        add("doctor", "find out who can reach this machine, and what would help", run_doctor)
    )

    add("demo", "show two peers behind NATs meet over a relay and end up direct", run_demo)
    return parser


def add_identity(parser: argparse.ArgumentParser, anywhere: str) -> None:
    parser.add_argument(
        "--key", metavar="FILE", help="who to be, made by `p2pnet key new`; default: anybody new"
    )
    parser.add_argument(
        "--listen",
        action="append",
        default=[],
        type=listen_address,
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
        type=tcp_address,
        metavar="ADDR",
        help="serve metrics for Prometheus there, such as /ip4/127.0.0.1/tcp/9464",
    )


def add_target(parser: argparse.ArgumentParser, *, many_relays: bool = False) -> None:
    parser.add_argument(
        "target",
        type=peer,
        metavar="ADDR",
        help="multiaddr that ends in /p2p/<peer id>; or a bare peer id, with --relay",
    )
    parser.add_argument(
        "--relay",
        action="append" if many_relays else "store",
        type=peer_address,
        metavar="ADDR",
        help="where the peer can be found" + ("; may be repeated" if many_relays else ""),
    )
    add_psk(parser)


def add_perf(parser: argparse.ArgumentParser) -> None:
    add_target(parser)
    for way in ("upload", "download"):
        parser.add_argument(
            f"--{way}",
            type=size,
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
        type=bare_peer,
        metavar="PEER",
        help="serve /perf/1.0.0 to this peer id only; may be repeated",
    )


def add_doctor(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "targets",
        nargs="*",
        type=peer,
        metavar="ADDR",
        help="peers to dial and explain: multiaddrs that end in /p2p/<peer id>, or bare peer ids",
    )
    parser.add_argument(
        "--relay",
        action="append",
        default=[],
        type=peer_address,
        metavar="ADDR",
        help="a relay that should work; may be repeated",
    )
    parser.add_argument(
        "--listen",
        action="append",
        default=[],
        type=listen_address,
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


def run_id(args: argparse.Namespace, output: Output) -> int:
    return print_id(read_key(args.key), output)


def run_node(args: argparse.Namespace, output: Output) -> int:
    config = presets.edge(
        key=load_key(args.key),
        listen=args.listen or presets.ANYWHERE,
        relays=args.relay,
        transports=transports(args),
        services=perf_server(args),
    )
    return trio.run(lambda: serving.node(in_network(args, config), output, with_echo=args.echo))


def run_relay(args: argparse.Namespace, output: Output) -> int:
    limits = read_limits(args.limit)
    if args.limits:
        return show_limits(limits, output)
    config = presets.relay(
        key=load_key(args.key),
        listen=args.listen or presets.RELAY_PORTS,
        limits=limits,
        transports=transports(args),
        services=perf_server(args),
    )
    return trio.run(lambda: serving.relay(in_network(args, config), output, metrics=args.metrics))


def run_ping(args: argparse.Namespace, output: Output) -> int:
    return with_host(
        args,
        lambda host: asking.ping(
            host,
            args.target,
            output,
            count=args.count,
            direct_seconds=args.direct,
            relays=relays(args),
        ),
    )


def run_trace(args: argparse.Namespace, output: Output) -> int:
    return with_host(
        args,
        lambda host: trace(host, args.target, output, relays=relays(args), seconds=args.seconds),
    )


def run_identify(args: argparse.Namespace, output: Output) -> int:
    return with_host(args, lambda host: asking.identify(host, args.target, output))


def run_echo(args: argparse.Namespace, output: Output) -> int:
    return with_host(args, lambda host: echo(host, args.target, direct_seconds=args.direct))


def run_perf(args: argparse.Namespace, output: Output) -> int:
    default = DEFAULT_PERF_BYTES if args.upload is args.download is None else 0
    upload = default if args.upload is None else args.upload
    download = default if args.download is None else args.download
    return with_host(
        args,
        lambda host: perf(
            host,
            args.target,
            output,
            upload=upload,
            download=download,
            direct_seconds=args.direct,
        ),
        services=[Perf(allow=())],
    )


def perf_server(args: argparse.Namespace) -> list[Part[Service]]:
    if args.perf_for:
        return [Perf(allow=args.perf_for)]
    return [Perf()] if args.perf else []


def run_doctor(args: argparse.Namespace, output: Output) -> int:
    config = presets.edge(
        listen=args.listen or presets.ANYWHERE, relays=args.relay, transports=transports(args)
    )
    request = Request(
        relays=args.relay, targets=args.targets, seconds=args.seconds, watch=args.watch
    )
    return trio.run(lambda: doctor(in_network(args, config), output, request))


def run_demo(args: argparse.Namespace, output: Output) -> int:
    return demo(output)


def transports(args: argparse.Namespace) -> list[Part[Transport]]:
    """Return TCP, and what is installed besides; QUIC cannot keep to a pre-shared key."""
    found: list[Part[Transport]] = [TCP()]
    if find_spec("aioquic") and not args.psk:
        found.append(QUIC())
    if find_spec("wsproto"):
        found.append(WebSocket())
    return found


def in_network(args: argparse.Namespace, config: HostConfig) -> HostConfig:
    return replace(config, private_network=read_psk(args.psk)) if args.psk else config


def relays(args: argparse.Namespace) -> Sequence[str]:
    match args.relay:
        case None:
            return ()
        case str(relay):
            return (relay,)
        case many:
            return tuple(many)


def with_host(
    args: argparse.Namespace,
    act: Callable[[Host], Awaitable[int]],
    *,
    services: Sequence[Part[Service]] = (),
) -> int:
    """Open an edge host that knows the relays it is given, and do one thing with it."""
    edge = presets.edge(relays=relays(args), transports=transports(args), services=services)
    config = in_network(args, edge)

    async def run() -> int:
        async with open_host(config) as host:
            return await act(host)

    return trio.run(run)


def load_key(path: str | None) -> PrivateKey | None:
    return read_key(path) if path else None


if __name__ == "__main__":
    sys.exit(main())
