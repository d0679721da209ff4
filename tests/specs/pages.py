"""The pages of specs/, their vectors and rules, and what each page has registered."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

from tests.specs.runner import Registry, Vector, vectors_of

ROOT = Path(__file__).resolve().parents[2]
SPECS = ROOT / "specs"
CODECS = Path(__file__).parent / "codecs"
RULE = re.compile(r"^- \*\*([A-Z]{1,2}\d+)\*\* ", re.MULTILINE)

LETTERS = {
    "addresses": "A",
    "autonat": "AN",
    "autonat-v1": "AO",
    "cli": "C",
    "connections": "S",
    "dcutr": "D",
    "dialing": "DI",
    "framing": "F",
    "identify": "I",
    "keepalive": "KA",
    "multistream": "M",
    "nat": "NT",
    "noise": "N",
    "peer-id": "P",
    "perf": "PF",
    "ping": "PI",
    "pnet": "PN",
    "port-mapping": "PM",
    "quic": "Q",
    "reachability": "V",
    "relay": "R",
    "resume": "RS",
    "signed-envelope": "E",
    "tls": "T",
    "websocket": "W",
    "yamux": "Y",
}
"""The rules of a page are numbered behind letters of its own, so that ``R7`` means one rule."""


def pages() -> dict[str, str]:
    """Return the text of each page by its name."""
    return {
        path.stem: path.read_text(encoding="utf-8")
        for path in sorted(SPECS.glob("*.md"))
        if path.stem != "README"
    }


def rules_of(text: str) -> list[str]:
    return RULE.findall(text)


def module_name(page: str) -> str:
    return page.replace("-", "_")


def registry_of(page: str) -> Registry:
    """Import tests/specs/codecs/<page>.py and take what it registers."""
    found = vars(importlib.import_module(f"tests.specs.codecs.{module_name(page)}"))
    return Registry(found.get("CODECS", {}), found.get("DIALOGUES", {}), found.get("FORMS", {}))


def all_vectors() -> list[Vector]:
    return [vector for page, text in pages().items() for vector in vectors_of(page, text)]
