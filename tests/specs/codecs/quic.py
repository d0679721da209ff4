"""Fronts of packets, answers without a connection, and codes of closes."""

from __future__ import annotations

from typing import Any

from p2pnet.transports.quic.core import Cause, Ended
from p2pnet.transports.quic.endings import failed_connection
from p2pnet.transports.quic.packets import read_header, take_varint, version_negotiation
from tests.specs.forms import Fields


def header(given: Fields) -> dict[str, Any]:
    found = read_header(bytes.fromhex(given["header"]))
    return {
        "target": found.target,
        "source": found.source,
        "version": found.version or 0,
        "is_initial": found.is_initial,
        "token": found.token,
    }


def negotiate(given: Fields) -> bytes:
    return version_negotiation(read_header(bytes.fromhex(given["negotiate"])), given["first"])


def varint(given: Fields) -> int:
    data = bytes.fromhex(given["varint"])
    value, end = take_varint(data, 0)
    assert end == len(data)
    return value


def closed(given: Fields) -> str:
    return str(failed_connection(Ended(Cause.REMOTE, given["closed"], "")) or "")


FORMS = {"header": header, "negotiate": negotiate, "varint": varint, "closed": closed}
