"""What the command prints is what specs/cli.md says."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "specs" / "cli.md").read_text()
SOURCES = [*(ROOT / "p2pnet" / "commands").glob("*.py"), *(ROOT / "p2pnet" / "demo").glob("*.py")]


def printed() -> list[tuple[str, set[str]]]:
    """Return each event that the code prints by name, with its fields."""
    events = []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute | ast.Name)):
                continue
            name = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
            if name not in ("event", "tell") or not node.args:
                continue
            first = node.args[0]
            if isinstance(first, ast.Constant) and isinstance(first.value, str):
                fields = {keyword.arg for keyword in node.keywords if keyword.arg}
                events.append((first.value, fields))
    return events


def test_every_event_and_field_is_documented() -> None:
    """C5: what is printed is a contract."""
    words = set(re.findall(r"`(\w+)`", PAGE))
    events = printed()
    assert len(events) > 20
    for name, fields in events:
        assert name in words, name
        assert fields <= words, (name, fields - words)
