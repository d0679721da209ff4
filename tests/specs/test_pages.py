"""Every vector of every page of specs/ against the code."""

from __future__ import annotations

import pytest

from tests.specs.pages import CODECS, all_vectors, module_name, pages, registry_of
from tests.specs.runner import Vector, run

VECTORS = all_vectors()


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: f"{vector.page}: {vector.title}")
def test_the_code_does_what_the_page_says(vector: Vector) -> None:
    run(vector, registry_of(vector.page))


def test_there_are_vectors() -> None:
    assert VECTORS


def test_every_registering_module_belongs_to_a_page() -> None:
    modules = {path.stem for path in CODECS.glob("*.py")}
    assert modules <= {module_name(page) for page in pages()}


@pytest.mark.parametrize("page", sorted({vector.page for vector in VECTORS}))
def test_whatever_a_page_registers_is_used_on_it(page: str) -> None:
    registry = registry_of(page)
    forms = [vector.fields for vector in VECTORS if vector.page == page]
    assert set(registry.codecs) == {fields["codec"] for fields in forms if "codec" in fields}
    assert set(registry.dialogues) == {
        fields["dialogue"] for fields in forms if "dialogue" in fields
    }
    assert set(registry.forms) <= {next(iter(fields)) for fields in forms}
