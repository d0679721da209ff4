"""Public names that are imported when they are first used: importing a package costs little."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping


def lazily(package: str, homes: Mapping[str, str]) -> Callable[[str], object]:
    """Return a module's ``__getattr__`` (PEP 562) that finds each name in its home.

    ``homes`` has the module of each name; a module itself is at home in the name of its own.
    """

    def find(name: str) -> object:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module = importlib.import_module(homes[name])
        is_module = homes[name] == f"{package}.{name}"
        return module if is_module else getattr(module, name)

    return find
