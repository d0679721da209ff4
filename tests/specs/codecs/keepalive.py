"""Keepalive: how long a connection may be silent."""

from __future__ import annotations

from p2pnet.core.keepalive import silence
from tests.specs.forms import Fields


def silences(given: Fields) -> list[float]:
    case = given["silence"]
    return [
        round(silence(case["longest"], case["idle_timeout"], drawn), 9) for drawn in case["drawn"]
    ]


FORMS = {"silence": silences}
