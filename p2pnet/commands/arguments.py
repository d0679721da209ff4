"""What may stand on the command line: each kind of argument, read and checked."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from itertools import pairwise

from p2pnet.commands.perf import size_in_bytes
from p2pnet.core.addresses import Endpoint, parse, peer_id_of, tcp_endpoint
from p2pnet.core.peer_id import PeerId

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


def address(text: str) -> str:
    try:
        return str(parse(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def tcp_address(text: str) -> Endpoint:
    endpoint = tcp_endpoint(parse(address(text)))
    if endpoint is None:
        raise argparse.ArgumentTypeError(f"{text} is not an IP address and a TCP port")
    return endpoint


def listen_address(text: str) -> str:
    checked = address(text)
    if peer_id_of(parse(checked)) is not None:
        raise argparse.ArgumentTypeError(f"{text} names a peer; leave out /p2p/... and give --key")
    return checked


def peer_address(text: str) -> str:
    checked = address(text)
    if peer_id_of(parse(checked)) is None:
        raise argparse.ArgumentTypeError(f"{text} does not end in /p2p/<peer id>")
    return checked


def peer(text: str) -> str:
    if text.startswith("/"):
        return peer_address(text)
    try:
        return str(PeerId.parse(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def bare_peer(text: str) -> PeerId:
    try:
        return PeerId.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def size(text: str) -> int:
    try:
        return size_in_bytes(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


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
