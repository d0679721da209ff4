"""Which private names of a library our own code uses: read from the code, so none is forgotten."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import p2pnet.transports.quic

FOLDER = Path(p2pnet.transports.quic.__file__).parent


def names_used(*modules: str) -> set[str]:
    """Return the private attributes that modules use, and neither define nor set."""
    used: set[str] = set()
    own: set[str] = set()
    for module in modules:
        tree = ast.parse((FOLDER / f"{module}.py").read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                used.add(node.attr)
            own |= set(bound_by(node))
    return {name for name in used - own if name.startswith("_") and not name.startswith("__")}


def bound_by(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.FunctionDef):
        yield node.name
    elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
        yield node.attr
