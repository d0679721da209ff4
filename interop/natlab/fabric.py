"""A home's router as a program, for what the NAT of the kernel lacks.

It judges real packets with the same class as the simulated internet (`p2pnet.testing.nat`)
and adds delay, jitter and loss, another outside address in the middle of everything, NATs
that refuse simultaneous open, and limits on mappings. Run it in the network namespace of
the router, where the inside has the router's address and the outside a public one::

    python -m interop.natlab.fabric --inside lan --outside wan --kind symmetric --delay 20ms

::

    hosts -- inside interface -- NAT -- delay, jitter, loss -- outside interface -- internet

Standard input takes lines: ``rebind ADDRESS``, ``reset``, ``delay 50ms``, ``jitter 5ms``,
``loss 0.05``, ``statistics``, ``quit``. Each gets a line of JSON on standard output, after
a first one when the router is ready. It ends when standard input is closed. What it cannot
translate, it drops and counts: fragments, and ICMP but for what concerns the router itself.

No other NAT may be in that namespace, and the router's own TCP and UDP get no answers from
outside. Per packet it takes some 50 microseconds: enough for 20,000 packets a second.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from ipaddress import IPv4Address
from random import Random
from typing import Final

from interop.natlab.forwarding import Forwarder
from interop.natlab.nat_chain import NatChain
from interop.natlab.packet_interface import PacketInterface
from interop.natlab.router_kernel import RouterKernel
from interop.natlab.slow_line import Quality, SlowLine
from p2pnet.demo.private_world import LaboratoryError
from p2pnet.errors import ProtocolError
from p2pnet.testing.kinds import ALL_KINDS
from p2pnet.testing.nat import Nat, Side
from p2pnet.testing.nat_kind import NatKind

BETWEEN: Final = "100.64.0.{}"
"""Addresses between the NATs of a chain; they never show outside this process."""

LONGEST_WAIT: Final = 3600.0  # Seconds.
STANDARD_INPUT: Final = 0

Answer = dict[str, object]


class Router:
    """A forwarder on two real interfaces, and its control channel."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._quality = Quality(options.delay, options.jitter, options.loss)
        kinds = layers(options.kind, options.layer, options.max_mappings)
        self._kernel = RouterKernel(options.inside, options.outside)
        self._kernel.take_over(translates=any(kind.translates for kind in kinds))
        if options.outside_address is not None:
            self._kernel.move_outside(options.outside_address)
        self._nats = make_nats(kinds, str(self._kernel.outside_address), Random(options.seed))
        self._outgoing = SlowLine(self._quality, Random(f"outgoing {options.seed}"))
        self._incoming = SlowLine(self._quality, Random(f"incoming {options.seed}"))
        self._inside = PacketInterface(options.inside)
        self._outside = PacketInterface(options.outside)
        self._forwarder = Forwarder(
            self._nats,
            outgoing=self._outgoing,
            incoming=self._incoming,
            own_address=str(self._kernel.inside_address),
            send=self._send,
        )
        self._typed = b""

    def run(self) -> None:
        """Route until told to quit."""
        with self._inside, self._outside:
            say({"ready": True, "outside": str(self._kernel.outside_address)})
            while self._work():
                pass
            say({"statistics": self._statistics()})

    def _work(self) -> bool:
        now = time.monotonic()
        wait = min(max(self._forwarder.release(now) - now, 0.0), LONGEST_WAIT)
        sources: list[PacketInterface | int] = [self._inside, self._outside, STANDARD_INPUT]
        readable, _, _ = select.select(sources, [], [], wait)
        if self._inside in readable:
            self._take_in(self._inside, self._forwarder.from_inside)
        if self._outside in readable:
            self._take_in(self._outside, self._forwarder.from_outside)
        return STANDARD_INPUT not in readable or self._read_lines()

    def _take_in(self, interface: PacketInterface, take: Callable[[bytes, float], None]) -> None:
        for received in interface.receive():
            if isinstance(received, ProtocolError):
                self._forwarder.drop(received.reason)
            else:
                take(received, time.monotonic())

    def _send(self, side: Side, packet: bytes) -> None:
        (self._inside if side is Side.INSIDE else self._outside).send(packet)

    def _read_lines(self) -> bool:
        arrived = os.read(STANDARD_INPUT, 4096)
        *lines, self._typed = (self._typed + arrived).split(b"\n")
        for line in lines:
            words = line.decode(errors="replace").split()
            if words == ["quit"]:
                return False
            if words:
                say(self._obey(words))
        return bool(arrived)

    def _obey(self, words: Sequence[str]) -> Answer:
        try:
            match words:
                case ["rebind", address]:
                    self._kernel.move_outside(IPv4Address(address))
                    self._nats.set_outside(address)
                case ["reset"]:
                    self._nats.reset()
                case ["delay", duration]:
                    self._set_quality(replace(self._quality, delay=seconds(duration)))
                case ["jitter", duration]:
                    self._set_quality(replace(self._quality, jitter=seconds(duration)))
                case ["loss", share]:
                    self._set_quality(replace(self._quality, loss=float(share)))
                case ["statistics"]:
                    return {"statistics": self._statistics()}
                case _:
                    raise ValueError("there is no such command")
        except (ValueError, LaboratoryError) as error:
            return {"error": f"{' '.join(words)}: {error}"}
        return {"done": " ".join(words)}

    def _set_quality(self, quality: Quality) -> None:
        self._quality = self._outgoing.quality = self._incoming.quality = quality

    def _statistics(self) -> dict[str, int]:
        for interface in (self._inside, self._outside):
            self._forwarder.drop(f"buffer of {interface.name} full", interface.count_overruns())
        mappings = self._nats.count_mappings(time.monotonic())
        return {**self._forwarder.counts, "mappings": mappings}


def layers(kind: str, layer: int | None, max_mappings: int | None) -> tuple[NatKind, ...]:
    """Give the NATs of a named kind, from the host outwards, or one layer of them.

    Raises:
        LaboratoryError: The kind has no such layer.
    """
    nats = ALL_KINDS[kind].nats
    if layer is not None:
        if not 0 <= layer < len(nats):
            raise LaboratoryError(f"{kind} has no layer {layer}")
        nats = (nats[layer],)
    if max_mappings is not None:
        nats = tuple(replace(nat, max_mappings=max_mappings) for nat in nats)
    return nats


def make_nats(kinds: Sequence[NatKind], outside: str, random: Random) -> NatChain:
    """Put NATs one behind the other; the last one's public address is ``outside``."""
    between = [BETWEEN.format(number) for number in range(1, len(kinds))]
    addresses = [*between, outside]
    return NatChain(
        [
            Nat(kind, outside=[address], choose=random.randrange)
            for kind, address in zip(kinds, addresses[-len(kinds) :] if kinds else (), strict=True)
        ]
    )


def seconds(text: str) -> float:
    """Read a duration: ``20ms``, ``1.5s`` or a number of seconds."""
    for unit, scale in (("ms", 0.001), ("s", 1.0)):
        if text.endswith(unit):
            return float(text.removesuffix(unit)) * scale
    return float(text)


def say(answer: Answer) -> None:
    print(json.dumps(answer), flush=True)


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="fabric", description="A NAT router as a program.")
    parser.add_argument("--inside", required=True, metavar="INTERFACE")
    parser.add_argument("--outside", required=True, metavar="INTERFACE")
    parser.add_argument("--kind", required=True, choices=sorted(ALL_KINDS), metavar="NAME")
    parser.add_argument("--layer", type=int, help="only one NAT of the kind; 0 is a home's own")
    parser.add_argument("--outside-address", type=IPv4Address, metavar="IP")
    parser.add_argument("--delay", type=seconds, default=0.0, metavar="20ms")
    parser.add_argument("--jitter", type=seconds, default=0.0, metavar="5ms")
    parser.add_argument("--loss", type=float, default=0.0, metavar="0.05")
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    parser.add_argument("--max-mappings", type=int, metavar="N")
    try:
        Router(parser.parse_args(argv)).run()
    except (LaboratoryError, ValueError, OSError) as error:
        print(f"fabric: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
