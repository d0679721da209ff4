"""What the command prints is what specs/cli.md says."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "specs" / "cli.md").read_text()
SOURCES = [*(ROOT / "p2pnet" / "commands").glob("*.py"), *(ROOT / "p2pnet" / "demo").glob("*.py")]
TOLD_TO_THE_DIRECTOR = {"listening"}
"""Events of the actors which the demo uses, but does not print."""


def printed() -> list[tuple[str, set[str]]]:
    """Return each event that the code prints by name, with its fields."""
    events = []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Call) and node.args):
                continue
            if not re.fullmatch(r"(.+\.)?(event|_say)|tell", ast.unparse(node.func)):
                continue
            first = node.args[0]
            if isinstance(first, ast.Constant) and isinstance(first.value, str):
                fields = {keyword.arg for keyword in node.keywords if keyword.arg}
                events.append((first.value, fields))
    return events


def documented() -> dict[str, set[str]]:
    """Return each event of the tables, with the words of its fields."""
    fields: dict[str, set[str]] = {}
    for name, row in re.findall(r"^\| `(\w+)` \|(.*)$", PAGE, re.MULTILINE):
        fields.setdefault(name, set()).update(re.findall(r"`(\w+)`", row))
    return fields


def test_every_event_and_field_is_documented() -> None:
    """C5: what is printed is a contract."""
    events = printed()
    assert len(events) > 20
    known = documented()
    for name, fields in events:
        if name not in TOLD_TO_THE_DIRECTOR:
            assert name in known, name
            assert fields <= known[name], (name, fields - known[name])
