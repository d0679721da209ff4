"""Public names are found when they are used, and importing the package costs little."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

import p2pnet


@pytest.mark.parametrize("package", ["p2pnet", "p2pnet.testing"])
def test_every_public_name_is_found_at_home(package: str) -> None:
    module = importlib.import_module(package)
    assert sorted(module.HOMES) == sorted(module.__all__)
    for name in module.__all__:
        assert getattr(module, name) is not None


def test_a_name_that_is_not_public_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        p2pnet.nonsense  # type: ignore[attr-defined]  # noqa: B018


def test_importing_the_package_imports_neither_trio_nor_cryptography() -> None:
    program = "import sys, p2pnet; print(*sorted({'trio', 'cryptography'} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=True, text=True
    )
    assert done.stdout.strip() == ""
