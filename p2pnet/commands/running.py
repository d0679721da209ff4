"""Each subcommand, with its arguments: opens the host it needs, and does what it is for."""

from __future__ import annotations

import argparse
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from importlib.util import find_spec

import trio

from p2pnet import presets
from p2pnet.commands import asking, serving
from p2pnet.commands.descriptors import raise_limit, warn_if_fewer
from p2pnet.commands.doctor import Request, doctor
from p2pnet.commands.echo import echo
from p2pnet.commands.keys import new_key, print_id, read_key, read_psk
from p2pnet.commands.limits import read_limits, show_limits
from p2pnet.commands.output import CommandError, Output, nobody_reads
from p2pnet.commands.perf import perf
from p2pnet.commands.trace import trace
from p2pnet.core.keys import PrivateKey
from p2pnet.errors import P2PError
from p2pnet.host.config import HostConfig
from p2pnet.host.host import Host
from p2pnet.host.opening import open_host
from p2pnet.interfaces import Part, Service, Transport
from p2pnet.protocols.dcutr import Birthday, DCUtR
from p2pnet.protocols.perf import Perf
from p2pnet.protocols.relay import RelayClient
from p2pnet.security.tls import TLS
from p2pnet.transports.quic import QUIC
from p2pnet.transports.tcp import TCP
from p2pnet.transports.websocket import WebSocket

DEFAULT_PERF_BYTES = 16 * 1_048_576
FAILURES = (P2PError, OSError, ValueError, CommandError, trio.TooSlowError)
Run = Callable[[argparse.Namespace, Output], int]


def run_command(args: argparse.Namespace, run: Run | None = None) -> int:
    """Do what the arguments ask for, or ``run``; return the exit code: 0 on success only."""
    output = Output(as_json=args.json, on_stderr=args.command == "echo")
    raise_limit()
    try:
        return (run or COMMANDS[args.command])(args, output)
    except BrokenPipeError:
        return nobody_reads()
    except FAILURES as error:
        output.error(error)
        return 1


def run_id(args: argparse.Namespace, output: Output) -> int:
    return print_id(read_key(args.key), output)


def run_key_new(args: argparse.Namespace, output: Output) -> int:
    return new_key(args.file, output)


def run_node(args: argparse.Namespace, output: Output) -> int:
    config = presets.edge(
        key=load_key(args.key),
        listen=args.listen or None,
        relays=args.relay,
        transports=transports(args),
        services=[*perf_server(args), *birthday(args)],
    )
    return trio.run(lambda: serving.node(in_network(args, config), output, with_echo=args.echo))


def run_relay(args: argparse.Namespace, output: Output) -> int:
    limits = read_limits(args.limit)
    if args.limits:
        return show_limits(limits, output)
    config = presets.relay(
        key=load_key(args.key),
        listen=args.listen or None,
        limits=limits,
        transports=transports(args),
        services=perf_server(args),
    )
    warn_if_fewer(raise_limit(), config.swarm.max_connections)
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
            relays=args.relay,
        ),
    )


def run_trace(args: argparse.Namespace, output: Output) -> int:
    return with_host(
        args,
        lambda host: trace(host, args.target, output, relays=args.relay, seconds=args.seconds),
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
        listen=args.listen or None, relays=args.relay, transports=transports(args)
    )
    request = Request(
        relays=args.relay, targets=args.targets, seconds=args.seconds, watch=args.watch
    )
    return trio.run(lambda: doctor(in_network(args, config), output, request))


def transports(args: argparse.Namespace) -> list[Part[Transport]]:
    """Return TCP, and what is installed besides; QUIC cannot keep to a pre-shared key."""
    found: list[Part[Transport]] = [TCP()]
    if find_spec("aioquic") and not args.psk:
        found.append(QUIC())
    if find_spec("wsproto"):
        found.append(WebSocket())
    return found


def in_network(args: argparse.Namespace, config: HostConfig) -> HostConfig:
    """Give a host its network, and TLS for peers that know no Noise (C17)."""
    config = replace(config, security=[*config.security, TLS()])
    if not args.psk:
        return config
    if any("quic-v1" in str(address).split("/") for address in config.listen):
        raise CommandError(
            "QUIC cannot keep to a pre-shared key", "listen by TCP or WebSocket, or without --psk"
        )
    return replace(config, private_network=read_psk(args.psk))


def birthday(args: argparse.Namespace) -> Sequence[Part[Service]]:
    """Allow birthday punching, if that was asked for (C18)."""
    return [DCUtR(birthday=Birthday())] if "birthday" in args and args.birthday else []


def with_host(
    args: argparse.Namespace,
    act: Callable[[Host], Awaitable[int]],
    *,
    services: Sequence[Part[Service]] = (),
) -> int:
    """Open a host that calls others, through the relays it is given, and do one thing with it."""
    services = [*services, *birthday(args)]
    config = in_network(args, calling(args.relay, transports(args), services))

    async def run() -> int:
        async with open_host(config) as host:
            return await act(host)

    return trio.run(run)


def calling(
    relays: Sequence[str],
    transports: Sequence[Part[Transport]] = presets.TRANSPORTS,
    services: Sequence[Part[Service]] = (),
) -> HostConfig:
    """Describe an edge host that nobody has to call, so that it takes up no relay (C15)."""
    config = presets.edge(transports=transports, services=services)
    others = [part for part in config.services if not isinstance(part, RelayClient)]
    return replace(config, services=[*others, RelayClient(relays=tuple(relays), reserve=False)])


def load_key(path: str | None) -> PrivateKey | None:
    return read_key(path) if path else None


COMMANDS: dict[str, Run] = {
    "key new": run_key_new,
    "id": run_id,
    "node": run_node,
    "relay": run_relay,
    "ping": run_ping,
    "trace": run_trace,
    "identify": run_identify,
    "echo": run_echo,
    "perf": run_perf,
    "doctor": run_doctor,
}
