"""One word for one thing: the names of classes, and the glossary."""

from __future__ import annotations

import ast
import difflib
import re
from collections import defaultdict

import pytest

from tests.conftest import ROOT
from tundra_nb import types
from tundra_nb.nearest import nearest

TWO_ENDS = {
    "Archive": "what the daemon tells of the archive, and the document that a user gets of it",
    "Incidents": "`t.incidents` asks the daemon, whose `Incidents` makes and finds them",
    "Pty": "the client's handle of the daemon's session",
    "Source": "what the daemon tells of a source, and the document that a user gets of it",
    "Sources": "`t.sources` asks the daemon, whose `Sources` holds them",
    "Tokens": "`t.tokens` asks the daemon, whose `Tokens` keeps them",
    "Versions": "`t.versions` asks the daemon, which asks `history.versions`",
}
"""Class names that stand twice: the two ends of one line, where the same thing has the same name."""
FILLERS = re.compile(r"Manager|Helper|Util|Common|^Base|Base$")


def classes() -> dict[str, list[str]]:
    """Where each public class stands."""
    found = defaultdict(list)
    for file in sorted((ROOT / "tundra_nb").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                found[node.name].append(f"{file.relative_to(ROOT)}:{node.lineno}")
    return found


def test_a_class_name_stands_for_one_thing() -> None:
    twice = {name: places for name, places in classes().items() if len(places) > 1}
    assert {name: places for name, places in twice.items() if name not in TWO_ENDS} == {}
    assert set(TWO_ENDS) <= set(twice), "no longer needed here"
    assert all(len(places) == 2 for places in twice.values())


def test_classes_are_nouns_of_the_domain() -> None:
    assert [name for name in classes() if FILLERS.search(name)] == []


def explained() -> list[str]:
    return re.findall(r"\*\*([\w ]+?)s?\*\*", types.__doc__ or "")


def test_the_glossary_explains_each_word_once() -> None:
    words = explained()
    assert len(words) == len(set(words))


@pytest.mark.parametrize("table", types.TABLES)
def test_the_glossary_explains_what_each_table_of_the_history_holds(table: str) -> None:
    noun = table.partition("_")[0]
    assert any(word.lower().startswith(noun) for word in explained())


def test_what_is_far_too_long_is_compared_with_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[list[str]] = []

    def keep(word: str, known: list[str], **_: object) -> list[str]:
        compared.append(known)
        return known

    monkeypatch.setattr(difflib, "get_close_matches", keep)
    assert nearest("m" * 100, ["model"]) is None
    assert nearest("modle", ["model", "m" * 100]) == "model"
    assert compared == [["model"]]
