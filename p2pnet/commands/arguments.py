"""Addresses, peers and sizes on the command line, read and checked."""

from __future__ import annotations

import argparse

from p2pnet.commands.perf import size_in_bytes
from p2pnet.core.addresses import Endpoint, parse, peer_id_of, tcp_endpoint
from p2pnet.core.peer_id import PeerId


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
