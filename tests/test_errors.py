"""The error tree: each error tells the next step, and survives the way from daemon to kernel."""

from __future__ import annotations

import dataclasses
import importlib.resources
import json
import pickle
import re
import typing
from typing import Any

import click
import pytest

from tundra_nb import errors
from tundra_nb.commands.table import root
from tundra_nb.errors import spans
from tundra_nb.errors.spelling import OF_SOURCES, as_typed, inside
from tundra_nb.guide import lookup

EVERY = list(errors.every_error())
SAMPLES: dict[str, Any] = {
    "str": "x",
    "float": 1.5,
    "int": 3,
    "bool": True,
    "list[str]": ["a"],
    "list[dict[str, Any]]": [],
}


def made(cls: type[errors.TundraError]) -> errors.TundraError:
    """An instance with a plausible value for every fact."""
    hints = typing.get_type_hints(cls)
    facts = {}
    for field in dataclasses.fields(cls):
        hint = str(hints[field.name]).removesuffix(" | None").replace("typing.", "")
        hint = hint.removeprefix("<class '").removesuffix("'>")
        facts[field.name] = SAMPLES[hint]
    return cls(**facts)


@pytest.mark.parametrize("cls", EVERY, ids=lambda cls: cls.__name__)
def test_an_error_comes_back_from_the_wire_as_the_same_class_with_the_same_facts(cls: type[errors.TundraError]) -> None:
    error = made(cls)

    back = errors.from_wire(json.loads(json.dumps(error.to_wire())))

    assert type(back) is cls
    assert back.facts == error.facts
    assert (str(back), back.hint, back.reason) == (str(error), error.hint, error.reason)


@pytest.mark.parametrize("cls", EVERY, ids=lambda cls: cls.__name__)
def test_an_error_survives_pickling(cls: type[errors.TundraError]) -> None:
    error = made(cls)

    back = pickle.loads(pickle.dumps(error))

    assert type(back) is cls
    assert back.facts == error.facts


FAMILIES = {errors.ProviderError, errors.PtyError}
"""Never raised themselves."""


@pytest.mark.parametrize(
    "cls", [cls for cls in EVERY if cls not in FAMILIES | {errors.TundraError}], ids=lambda cls: cls.__name__
)
def test_an_error_has_a_guide_page_with_its_code_as_the_title(cls: type[errors.TundraError]) -> None:
    page = importlib.resources.files("tundra_nb.guide") / "errors" / f"{cls.guide}.md"

    assert f"# {cls.code}" in page.read_text().splitlines()[0]


@pytest.mark.parametrize("cls", EVERY, ids=lambda cls: cls.__name__)
def test_an_error_says_what_and_what_next_in_one_line_each(cls: type[errors.TundraError]) -> None:
    shown = made(cls)._render_traceback_()

    assert shown[0].startswith(f"{cls.code}: ")
    assert shown[-1].strip() == f"%tundra explain {cls.code}"
    assert 400 <= cls.http_status < 600


def test_an_error_of_a_newer_daemon_keeps_its_message() -> None:
    back = errors.from_wire({"type": "NotInventedYet", "code": "New", "message": "it broke", "facts": {"a": 1}})

    assert isinstance(back, errors.InternalError)
    assert str(back) == "it broke"


def test_the_tree_in_the_docstring_names_every_class() -> None:
    drawn = errors.__doc__ or ""

    assert [cls.__name__ for cls in EVERY if cls.__name__ not in drawn] == []


def test_the_exhausted_error_names_every_cause() -> None:
    causes: list[errors.TundraError] = [
        errors.HttpError(profile="a", host="h", kind="dns"),
        errors.KeyRejected(profile="b", status=401, variable="B_KEY"),
    ]

    error = errors.AllProvidersExhausted(causes=[cause.to_wire() for cause in causes])

    assert all(str(cause) in str(error) for cause in causes)


def test_a_hint_names_its_commands_as_data_and_each_face_spells_them() -> None:
    error = errors.BreakerOpen(profile="primary", retry_after=3.0)
    assert error.commands == ("breakers reset primary",)
    assert "`%tundra breakers reset primary`" in error.hint
    assert "`tundra breakers reset primary`" in as_typed(error.hint)
    assert as_typed("run `%%tundra sh` or `tundra status`") == "run `tundra sh` or `tundra status`"
    assert as_typed("`100%tundra`") == "`100%tundra`"


def test_an_error_in_a_notebook_tells_a_wait_as_a_span_and_as_a_point_of_time() -> None:
    """The span for whom it stops now, the time for whoever reads the saved notebook."""
    error = errors.RateLimited(profile="main", retry_after=90.0)
    line = error._render_traceback_()[0]
    assert re.search(r"again in 1 min 30 s, at \d\d:\d\d:\d\d \S+$", line), line
    assert spans.dated(str(error), 0) == "main: rate limited by the provider (429), again at 1970-01-01T00:01:30Z"


def test_one_caller_that_waits_is_told_as_one() -> None:
    told = [errors.AtCapacity(capacity=2, holders=["p"], waiting=count).message for count in (0, 1, 3)]
    waiting = ["", " and one caller waits", " and 3 callers wait"]
    assert told == [f"all 2 PTYs are in use{words}: p" for words in waiting]


def test_advice_about_a_source_reads_that_source_with_every_command_that_can() -> None:
    told = inside("`%tundra why 12`, `tundra calls`, `%%tundra sql`, `tundra status`, `%tundra why --in b`", "a")
    assert told == (
        "`%tundra why --in a 12`, `tundra calls --in a`, `%%tundra sql --in a`, `tundra status`, `%tundra why --in b`"
    )
    assert inside("`%tundra why 12`", None) == "`%tundra why 12`"
    assert inside("`%tundra why 12`", r"a\g<9>") == r"`%tundra why --in a\g<9> 12`", "whatever was typed as its name"
    face = click.Context(root)
    options = {name: root.get_command(face, name) for name in root.list_commands(face)}
    able = {name for name, found in options.items() if found and any("--in" in param.opts for param in found.params)}
    assert able - {"mcp"} == set(OF_SOURCES), "`mcp` is for programs"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (errors.HttpError(profile="p", host="h", kind="tls", cause="WRONG_VERSION_NUMBER"), "speaks TLS at that port"),
        (errors.HttpError(profile="p", host="h", kind="tls", cause="certificate has expired"), "enew the server's"),
        (
            errors.HttpError(profile="p", host="h", kind="tls", cause="Hostname mismatch"),
            "certificate is for another name",
        ),
        (errors.HttpError(profile="p", host="h", kind="tls", cause="self-signed certificate"), "SSL_CERT_FILE"),
        (errors.HttpError(profile="p", host="h", kind="dns"), "and the network"),
        (errors.HttpError(profile="p", host="h", kind="proxy"), "HTTPS_PROXY"),
        (errors.HttpError(profile="p", host="h", kind="connect"), "Is the server running?"),
        (errors.Redirected(profile="p", status=304), "a web server or a cache"),
        (
            errors.LimitExceeded(tier="user", key="u", resource="tokens", requested=9, retry_after=None, limit=3),
            "aise the burst",
        ),
        (
            errors.BudgetSpent(name="n", profile="p", budget=1, spent=1, needed=None, retry_after=None),
            "a model with a price",
        ),
        (errors.BudgetSpent(name="n", profile="p", budget=1, spent=1, needed=2, retry_after=9), "sk for less"),
        (errors.TokenRefused(kind="url"), "end it in a header"),
    ],
)
def test_the_first_remedy_for_a_message_is_what_the_hint_says(error: errors.TundraError, words: str) -> None:
    """The history keeps the message of an error, and not its hint."""
    page = lookup.for_error(error.code, error.reason, str(error))
    assert page is not None
    assert words in error.hint
    assert words in page.remedies_for(str(error))[0]
