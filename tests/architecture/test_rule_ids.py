"""Every rule of a page is shown by a vector or a test, and no code names a rule that is not."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections import Counter
from pathlib import Path

from tests.specs.pages import LETTERS, ROOT, all_vectors, pages, rules_of

# In prose: known letters and one or two digits, so that P256, SHA2 or IP4 are no rules.
MENTION = re.compile(
    rf"\b(?:{'|'.join(sorted(LETTERS.values(), key=len, reverse=True))})\d{{1,2}}\b"
)
THIS = Path(__file__)


def rules() -> dict[str, str]:
    """Return each rule's page by its id."""
    return {rule: page for page, text in pages().items() for rule in rules_of(text)}


def words_of(source: str) -> str:
    """Return the comments and docstrings of a module."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    words = [token.string for token in tokens if token.type == tokenize.COMMENT]
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, documented):
            words.append(ast.get_docstring(node) or "")
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            words.append(str(node.value.value))  # The text under a field or a constant.
    return "\n".join(words)


def test_the_rules_of_a_page_have_the_letters_of_the_page_and_are_in_order() -> None:
    assert set(pages()) <= set(LETTERS), "add the page's letters to tests/specs/pages.py"
    for page, text in pages().items():
        found = rules_of(text)
        assert found, f"{page} has no rules"
        numbers = [int(rule.removeprefix(LETTERS[page])) for rule in found]
        assert numbers == sorted(set(numbers)), page


def test_no_two_rules_have_one_id() -> None:
    counts = Counter(rule for text in pages().values() for rule in rules_of(text))
    assert counts, "no rules at all"
    assert [rule for rule, count in counts.items() if count > 1] == []


def test_a_vector_names_rules_of_its_own_page() -> None:
    known = rules()
    wrong = {
        (vector.page, rule)
        for vector in all_vectors()
        for rule in vector.rules
        if known.get(rule) != vector.page
    }
    assert wrong == set()


def test_every_rule_is_named_by_a_vector_or_a_test() -> None:
    named = {rule for vector in all_vectors() for rule in vector.rules}
    for folder in ("tests", "interop"):
        for path in (ROOT / folder).rglob("*.py"):
            if path != THIS:
                named |= set(MENTION.findall(path.read_text(encoding="utf-8")))
    assert sorted(set(rules()) - named) == []


def test_every_rule_that_code_names_exists() -> None:
    known = rules()
    unknown = {
        (path.relative_to(ROOT).as_posix(), mention)
        for path in sorted((ROOT / "p2pnet").rglob("*.py"))
        for mention in MENTION.findall(words_of(path.read_text(encoding="utf-8")))
        if mention not in known
    }
    assert sorted(unknown) == []
