"""Fronts of packets, answers without a connection, and codes of closes."""

from __future__ import annotations

from typing import Any

from p2pnet.transports.quic.core import Cause, Ended
from p2pnet.transports.quic.endings import failed_connection
from p2pnet.transports.quic.packets import read_header, take_varint, version_negotiation
from p2pnet.transports.quic.path_size import PathSize
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


def search(given: Fields) -> dict[str, Any]:
    carries, most = given["search"]["carries"], given["search"]["most"]
    path, probes, now = PathSize(1232, most), [], 0.0
    while size := path.probe(now, round_trip=1.0, timeout=3.0):
        probes.append(size)
        (path.acknowledged if size <= carries else path.lost)(size)
        now += 1.0
    return {"probes": probes, "size": path.size}


def fate(given: Fields) -> int:
    path = PathSize(1232, 1452)
    path.acknowledged(path.probe(0.0, round_trip=1.0, timeout=3.0))
    for told in given["fate"]:
        what, _, number = told.partition(" ")
        if what == "arrived":
            path.packet_arrived(int(number), 1452)
        else:
            path.packet_missed(int(number), 1452, 1.0)
    return path.size


FORMS = {
    "header": header,
    "negotiate": negotiate,
    "varint": varint,
    "closed": closed,
    "search": search,
    "fate": fate,
}
