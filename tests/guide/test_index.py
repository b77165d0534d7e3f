"""The error index and the pages: every class, situation and name of the original's, linked both ways."""

from __future__ import annotations

import collections
import re

import pytest

from tundra_nb import errors
from tundra_nb.client import explain
from tundra_nb.guide import lookup, originals, pages

PAGES = pages.every_page()
EVERY_CRATE = {
    "at-agents": 9,
    "at-bridge": 5,
    "at-core": 7,
    "at-daemon": 1,
    "at-harness": 4,
    "at-integrations": 5,
    "at-intelligence": 4,
    "at-session": 1,
    "tauri": 1,
}
"""Enums of the original by crate, as counted in its source."""
SITUATIONS = {
    "zombie-and-leaked-sessions",
    "port-3306-conflict",
    "connection-refused",
    "migration-failure",
    "permission-denied",
    "disk-full",
    "damaged-store",
    "clock-set-back",
    "history-behind",
}


def test_the_index_has_every_enum_and_variant_of_the_original() -> None:
    assert len(originals.enums()) == 37
    assert len(originals.variants()) == 138
    assert collections.Counter(rows[0].crate for rows in originals.enums().values()) == EVERY_CRATE
    assert len({row.path for row in originals.variants()}) == 138


@pytest.mark.parametrize("row", originals.variants(), ids=lambda row: row.path)
def test_a_row_of_the_index_is_whole_and_leads_somewhere(row: originals.Variant) -> None:
    assert row.means
    assert row.severity in ("critical", "high", "medium", "low", "info")
    assert row.category in pages.CATEGORIES
    assert row.here in PAGES or row.here == ""
    assert row.here or "`" in row.look, "where nothing corresponds, something to do is named"
    assert row in originals.find(row.path)
    assert row in originals.find(row.enum)
    assert row in lookup.find(row.path).originals


def test_every_error_class_has_a_page_and_every_page_of_an_error_a_class() -> None:
    written = {name for name, page in PAGES.items() if page.kind == "error"}

    assert set(pages.classes()) - written == set(), "classes without a page"
    assert written - set(pages.classes()) == set(), "pages without a class"


def test_every_situation_has_a_page() -> None:
    assert {name for name, page in PAGES.items() if page.kind == "situation"} >= SITUATIONS


@pytest.mark.parametrize("page", PAGES.values(), ids=lambda page: page.name)
def test_a_page_has_its_sections_in_order(page: pages.Page) -> None:
    assert list(page.sections) == list(pages.SECTIONS)
    assert [name for name, body in page.sections.items() if not body] == []
    assert page.category in pages.CATEGORIES
    assert page.intro
    assert page.seen
    assert page.severity
    assert len(page.remedies) >= 1
    assert all("`" in remedy for remedy in page.remedies[:1]), "the first remedy names something to do"
    assert "`%tundra explain" not in page.sections["Remedies"], "a remedy does not lead back to where one came from"


@pytest.mark.parametrize(("name", "cls"), pages.classes().items(), ids=str)
def test_class_code_and_page_lead_to_each_other(name: str, cls: type) -> None:
    page = PAGES[name]

    assert page.code == pages.classes()[name].code
    assert lookup.find(name).pages[0] == page
    snake = re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
    assert lookup.for_error(page.code, snake) == page


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        ("httperror", "HttpError"),
        ("HttpEror", "HttpError"),
        ("Open", "BreakerOpen"),
        ("circuitbreakererror::open", "BreakerOpen"),
        ("at_harness::RateLimitError::Exceeded", "LimitExceeded"),
        ("disk full", "disk-full"),
        ("Port 3306 conflict", "port-3306-conflict"),
        ("2026-01-31T10:00:00Z WARN at_intelligence: gave up: AllProvidersExhausted", "AllProvidersExhausted"),
        ("LlmError::RateLimited { retry_after_secs: Some(3) }", "RateLimited"),
        ("could not connect: Connection refused (os error 111)", "connection-refused"),
        ("local: nothing arrived for 30 s (idle deadline)", "Timeout"),
        ("sqlite3.OperationalError: attempt to write a readonly database", "permission-denied"),
        ("thread 'main' panicked: PtyError::AtCapacity { max: 10 }", "AtCapacity"),
    ],
)
def test_a_name_is_found_however_it_is_spelled_and_in_a_line_of_a_log(asked: str, name: str) -> None:
    assert lookup.find(asked).pages[0].name == name


@pytest.mark.parametrize("asked", ["zzzzqqq", "", "it rained all day and nothing else happened"])
def test_what_means_nothing_is_said_to_be_unknown(asked: str) -> None:
    found = lookup.find(asked)

    assert (found.pages, found.originals) == ((), ())


def test_the_guide_has_the_sections_of_the_seeds_guide_and_each_leads_on() -> None:
    sections = pages.sections()
    assert set(pages.TROUBLESHOOTING) <= set(sections)
    entry = sections["troubleshooting"].text
    for name in pages.TROUBLESHOOTING:
        assert f"({name}.md)" in entry
        assert len(list(pages.commands(sections[name].text))) >= 4, name
        assert explain.guide(name) == sections[name]
    assert "(errors/index.md)" in entry


@pytest.mark.parametrize("tool", ["pgrep", "pkill", "tail -f", "tail -50", "top", "env"])
def test_each_shell_tool_of_the_seeds_checklist_is_answered_by_a_command(tool: str) -> None:
    row = next(line for line in pages.sections()["checklist"].text.splitlines() if line.startswith(f"| `{tool}`"))
    assert list(pages.commands(row))


def test_a_first_remedy_is_given_for_each_error_of_the_history() -> None:
    for name, cls in pages.classes().items():
        snake = re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
        assert explain.remedy(cls.code, snake, "primary"), name
        assert "NAME" not in explain.remedy(cls.code, snake, "primary")


@pytest.mark.parametrize(
    ("kind", "profile", "helps"),
    [
        ("context", "p", "shorten the prompt"),
        ("model", "p", "profile.p.model="),
        ("model", "gateway", "gateway.models"),
    ],
)
def test_the_remedy_of_what_a_model_cannot_do_is_for_that(kind: str, profile: str, helps: str) -> None:
    error = errors.Unsupported(profile=profile, kind=kind, model="m")
    assert helps in explain.remedy(error.code, error.reason, profile, error.message)


@pytest.mark.parametrize(
    ("deadline", "helps"),
    [
        ("idle", "deadlines.idle_seconds"),
        ("total", "deadlines.total_seconds"),
        ("operation", "router.deadline_seconds"),
        ("connect", "doctor --for network"),
        ("models", "doctor --for network"),
        ("command", "--timeout"),
    ],
)
def test_the_remedy_of_a_passed_deadline_is_what_helps_against_that_one(deadline: str, helps: str) -> None:
    error = errors.Timeout(profile="p", deadline=deadline, seconds=20)
    first = explain.remedy(error.code, error.reason, "p", error.message)
    assert helps in first
    assert not [other for other in ("idle_", "total_", "router.") if other in first and other not in helps]
