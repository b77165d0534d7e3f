"""The guard reads SQL as its dialect does: nothing hides in a string, no string looks like a command."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tundra_nb.errors import QueryRefused
from tundra_nb.runtime.history.sql_guard import DOLT, DOLTLITE, Dialect, checked

ENGINES = pytest.mark.parametrize("dialect", [DOLTLITE, DOLT], ids=lambda dialect: dialect.name)


@ENGINES
def test_a_closing_semicolon_and_comments_are_taken_off(dialect: Dialect) -> None:
    assert checked("select 1 ; -- the end\n", dialect) == "select 1"


@ENGINES
@pytest.mark.parametrize(
    "text", ["select 'it''s; drop'", "select 'INTO', 'sleep(1)', '@@x'", "select 1 /* ; drop table x */"]
)
def test_strings_and_comments_are_not_commands(dialect: Dialect, text: str) -> None:
    assert checked(text, dialect) == text.split(" /*", maxsplit=1)[0]


def test_a_backslash_hides_a_quote_in_one_dialect_only() -> None:
    text = r"select 'x\'; delete from operation; -- '"
    assert checked(text, DOLT) == text
    with pytest.raises(QueryRefused):
        checked(text, DOLTLITE)


def test_a_double_quoted_word_is_a_name_in_one_dialect_and_a_string_in_the_other() -> None:
    assert checked('select "sleep(1)"', DOLT)
    with pytest.raises(QueryRefused, match="not allowed"):
        checked('select "sleep"(1)', DOLTLITE)


def test_two_dashes_without_a_space_are_refused_where_their_meaning_is_in_doubt() -> None:
    """MySQL sees two minus signs, Dolt a comment: what a string is behind them depends on that."""
    for text in ("select 1--1", "select 1 --'\n, sleep(2) -- '"):
        with pytest.raises(QueryRefused, match="cannot read the statement"):
            checked(text, DOLT)
    assert checked("select 1--1", DOLTLITE) == "select 1"


@ENGINES
@pytest.mark.parametrize(
    "text",
    [
        "with {name} as (select 1) select {name}(1)",
        "select {name}(1) from note window {name} as (order by at)",
        "with recursive {name} as (select 1 union all select {name}(1) from {name}) select 1",
        "select * from {name} window {name} as (partition by 1)",
        "select * from {name} where 1 in (with {name} as (select 1) select 1)",
        "select * from (with {name} as (select 1) select 1) x join {name} on 1 = 1",
        "with a as (select 1), {name}(b) as (select 2) select * from a union select {name}(2)",
    ],
)
@pytest.mark.parametrize("name", ["sleep", "load_file", "spool_place", "dolt_remotes"])
def test_a_name_that_a_statement_defines_is_that_where_it_is_defined_only(
    dialect: Dialect, text: str, name: str
) -> None:
    with pytest.raises(QueryRefused):
        checked(text.format(name=name), dialect)


def test_a_definition_of_dolt_does_not_hide_a_table_before_its_end() -> None:
    for text in (
        "with spool_place as (select * from spool_place) select 1",
        "with a as (select * from spool_place), spool_place as (select 1) select * from a",
    ):
        with pytest.raises(QueryRefused, match="spool_place"):
            checked(text, DOLT)
    assert checked("with a as (select 1 x), b as (select x from a) select * from b, a", DOLT)
    assert checked("with recursive w(n) as (select 1 union all select n + 1 from w where n < 9) select n from w", DOLT)
    assert checked("with w(n) as (select 1 union all select n + 1 from w where n < 9) select n from w", DOLTLITE)


@ENGINES
@pytest.mark.parametrize("text", ["select 1\xa0+ 1", "select \u0130 from note", "select loc\u212a", "select 1 \x0b"])
def test_outside_of_quotes_only_ascii_is_read(dialect: Dialect, text: str) -> None:
    """Engines differ in what beyond it is a space, a letter, or the same word."""
    with pytest.raises(QueryRefused, match="cannot read"):
        checked(text, dialect)


@ENGINES
@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("delete from operation", "must begin with SELECT, WITH or EXPLAIN, not 'delete'"),
        ("select 1; select 2", "only one statement"),
        ("select slep(1)", r"function slep\(\) is not allowed"),
        ("select * from oparation", "did you mean 'operation'"),
        ("select * from other.operation", "'other.operation' is not a table of the history"),
        ("select * from (((operation join mysql.user)))", "mysql.user"),
        ("select 'open", "cannot read the statement at"),
        ("select 1)", "no opening one"),
        ("select " + "1," * 40_000 + "1", "longer than"),
        ("select 1\0", "NUL"),
    ],
)
def test_a_refusal_says_what_is_in_the_way(dialect: Dialect, text: str, says: str) -> None:
    with pytest.raises(QueryRefused, match=says):
        checked(text, dialect)


@ENGINES
@given(text=st.text(max_size=200))
def test_any_text_is_either_passed_or_refused(dialect: Dialect, text: str) -> None:
    with contextlib.suppress(QueryRefused):
        checked(text, dialect)


@ENGINES
@given(inside=st.text(st.characters(exclude_characters="'\\\0", codec="utf-8"), max_size=40))
def test_any_text_in_a_string_is_passed(dialect: Dialect, inside: str) -> None:
    assert checked(f"select '{inside}' as x from operation", dialect)


@ENGINES
@given(
    before=st.sampled_from(["select 1", "select * from operation", "with w as (select 1 a) select * from w"]),
    gap=st.sampled_from([";", " ; ", "/**/;", ";--\n", "\n;\n", "; /* x */ "]),
    after=st.sampled_from(["delete from operation", "select 2", "drop table note", "call dolt_gc()"]),
)
def test_a_second_statement_never_passes(dialect: Dialect, before: str, gap: str, after: str) -> None:
    with pytest.raises(QueryRefused):
        checked(before + gap + after, dialect)


@ENGINES
@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("select " + "1+" * 20_000 + "1", "words and signs"),
        ("select " + "(" * 5_000 + "1" + ")" * 5_000, "words and signs"),
        ("select " + "(" * 2_000 + "1" + ")" * 2_000, "parentheses within each other"),
        ("select " + "(" * 30_000, "words and signs"),
        ("select 1" + " union all select 1" * 500, "UNION"),
    ],
    ids=["a long sum", "deep", "less deep", "never closed", "many unions"],
)
def test_what_takes_the_square_of_its_length_to_plan_is_refused(dialect: Dialect, text: str, says: str) -> None:
    with pytest.raises(QueryRefused, match=says):
        checked(text, dialect)


@ENGINES
def test_a_list_of_three_thousand_ids_is_asked_for(dialect: Dialect) -> None:
    ids = ", ".join(str(7_533_000_000_000_000_000 + number) for number in range(3_000))
    assert checked(f"select * from operation where operation_id in ({ids})", dialect)
