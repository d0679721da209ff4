"""specs/README.md lists the pages that there are, with their letters."""

from __future__ import annotations

import re

from tests.specs.pages import LETTERS, ROOT, SPECS, all_vectors, pages

ROW = re.compile(r"^\| \[([\w-]+)\]\(([\w-]+)\.md\) \| ([A-Z]{1,2}) \|.*$", re.MULTILINE)
CODE = re.compile(r"`([\w/]+(?:\.py|/))`")
INDEX = (SPECS / "README.md").read_text(encoding="utf-8")
ROWS = {row[1]: row for row in ROW.finditer(INDEX)}


def test_every_page_is_listed_once_under_its_name_and_letter() -> None:
    assert sorted(row[1] for row in ROW.finditer(INDEX)) == sorted(pages())
    for name, row in ROWS.items():
        assert (row[2], row[3]) == (name, LETTERS[name])


def test_the_code_that_is_named_exists() -> None:
    for row in ROWS.values():
        for path in CODE.findall(row[0].split("|")[4]):
            assert (ROOT / "p2pnet" / path).exists(), path


def test_the_pages_with_vectors_are_those_that_are_said_to_have_some() -> None:
    assert set(pages()) - {vector.page for vector in all_vectors()} == {"cli"}


def test_the_links_lead_somewhere() -> None:
    for link in re.findall(r"\]\(([^)]+)\)", INDEX):
        assert (SPECS / link).exists(), link
