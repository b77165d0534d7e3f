"""The guide says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.guide import generate
from tundra_nb import errors
from tundra_nb.guide import pages


@pytest.mark.parametrize("path", generate.pages(), ids=lambda path: path.name)
def test_a_generated_page_is_up_to_date(path: Path) -> None:
    assert path.read_text() == generate.pages()[path], "run `make docs`"


@pytest.mark.parametrize("path", sorted(generate.GUIDE.rglob("*.md")), ids=lambda path: path.name)
def test_links_between_pages_lead_somewhere(path: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", path.read_text())

    assert [link for link in links if not (path.parent / link).exists()] == []


def test_the_outcome_table_has_every_error_that_an_attempt_can_end_with() -> None:
    ends = {name for name, cls in pages.classes().items() if issubclass(cls, errors.ProviderError)}

    assert ends - {"ProviderError"} <= generate.OUTCOMES.keys()


def test_every_setting_says_what_it_means() -> None:
    page = (generate.GUIDE / "settings.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| .* \| *(.*?) *\|$", page, re.MULTILINE)
    assert len(rows) > 40
    assert [key for key, meaning in rows if not meaning] == []


def test_the_pictures_are_few_and_small_for_they_are_in_the_wheel() -> None:
    files = sorted(generate.GUIDE.glob("pictures/*"))
    assert {file.name for file in files} == {
        f"{name}-{theme}.png" for name in ("dash", "why", "panel") for theme in ("light", "dark")
    }
    assert sum(file.stat().st_size for file in files) <= 400_000
