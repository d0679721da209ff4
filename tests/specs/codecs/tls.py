"""The certificates of libp2p, judged and made, and the headers of TLS records."""

from __future__ import annotations

from typing import Any

from p2pnet.core.keys import PrivateKey
from p2pnet.core.peer_id import PeerId
from p2pnet.security.tls.certificate import KeyKind, judge, make_certificate
from p2pnet.security.tls.records import RecordHeaders
from tests.specs.forms import Fields


def judge_certificate(given: Fields) -> PeerId:
    data = bytes.fromhex("".join(given["certificate"]))
    return PeerId.from_public_key(judge(data, now=float(given["now"])))


def make(given: Fields) -> dict[str, Any]:
    """Make a certificate with a source of chance that knows but one byte."""
    chance = int(given["chance"])
    key = PrivateKey.from_seed(bytes([given["make"]]) * 32)
    made = make_certificate(key, lambda count: bytes([chance]) * count, kind=KeyKind(given["kind"]))
    return {"der": made.der, "bytes": len(made.der)}


def look_at_headers(given: Fields) -> str:
    headers = RecordHeaders()
    for chunk in given["records"]:
        headers.check(bytes.fromhex(chunk))
    return "good"


FORMS = {"certificate": judge_certificate, "make": make, "records": look_at_headers}
