"""The default gateways, read from the tables of Linux, and guessed elsewhere."""

from __future__ import annotations

import sys
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from p2pnet.core import routes
from p2pnet.core.routes import guessed, ipv4_gateways, ipv6_gateways

HEAD = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"


def route(destination: str, gateway: str, flags: str, metric: int, mask: str) -> str:
    """Write a line of /proc/net/route as this machine would."""
    numbers = [
        f"{int.from_bytes(IPv4Address(text).packed, sys.byteorder):08X}"
        for text in (destination, gateway, mask)
    ]
    return f"eth0\t{numbers[0]}\t{numbers[1]}\t{flags}\t0\t0\t{metric}\t{numbers[2]}\t0\t0\t0\n"


def test_only_usable_default_routes_with_a_router_count() -> None:
    table = (
        HEAD
        + route("0.0.0.0", "192.168.1.1", "0003", 600, "0.0.0.0")
        + route("0.0.0.0", "10.0.0.1", "0003", 100, "0.0.0.0")
        + route("0.0.0.0", "10.9.9.9", "0203", 0, "0.0.0.0")  # rejects
        + route("0.0.0.0", "0.0.0.0", "0001", 0, "0.0.0.0")  # leads to no router
        + route("10.0.0.0", "0.0.0.0", "0001", 0, "255.0.0.0")
        + route("0.0.0.0", "10.8.0.1", "0003", 0, "128.0.0.0")  # half of the internet
        + "broken\n"
    )
    assert ipv4_gateways(table) == [(600, "192.168.1.1"), (100, "10.0.0.1")]


def test_link_local_gateways_are_left_out() -> None:
    zero = "0" * 32

    def line(destination: str, length: str, gateway: str, flags: str = "00000003") -> str:
        columns = (destination, length, zero, "00", gateway, "00000400", "0", "0", flags, "eth0")
        return " ".join(columns) + "\n"

    table = (
        line(zero, "00", "fe800000000000000000000000000001")
        + line(zero, "00", "fd000000000000000000000000000001")
        + line("2a00" + zero[4:], "20", "fd000000000000000000000000000009")
        + line(zero, "00", zero, "00200200")
        + "short line\n"
    )
    assert ipv6_gateways(table) == [(0x400, "fd00::1")]


@pytest.mark.parametrize(
    ("own", "guess"),
    [
        (("192.168.1.5", "255.255.255.0"), ("192.168.1.1",)),
        (("10.20.30.40", "255.0.0.0"), ("10.0.0.1",)),
        (("192.168.1.1", "255.255.255.0"), ()),  # a router itself
        (("10.0.0.8", "255.255.255.255"), ()),
        (("127.0.0.1", "255.0.0.0"), ()),
        (("169.254.7.7", "255.255.0.0"), ()),
        (("11.0.1.2", "255.255.255.0"), ()),
    ],
)
def test_elsewhere_the_first_address_of_a_private_network_is_guessed(
    own: tuple[str, str], guess: tuple[str, ...]
) -> None:
    assert guessed([own, own]) == guess


def test_where_there_is_no_table_of_routes_the_interfaces_are_looked_at(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(routes, "IPV4_ROUTES", tmp_path / "none")
    assert routes.gateways() == guessed(routes.own_networks())
    assert ("127.0.0.1", "255.0.0.0") in routes.own_networks()
