"""How the line of a magic is read."""

from __future__ import annotations

import shlex
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tundra_nb.commands.table import root
from tundra_nb.errors import UsageError
from tundra_nb.kernel.line import expand, split

word = st.text(st.characters(exclude_categories=["C", "Z"], exclude_characters="{}\\;"), min_size=1, max_size=8)


@given(words=st.lists(word, max_size=5))
def test_quoted_words_come_back_as_they_were(words: list[str]) -> None:
    line = "calls " + shlex.join(words)
    assert split(line, root)[1:] == words


@given(prompt=st.text(st.characters(exclude_categories=["C"]), min_size=1, max_size=40))
def test_a_prompt_needs_no_quotes(prompt: str) -> None:
    text = prompt.strip()
    if not text or text[0] in "-'\"" or "{{" in text or text.endswith(";"):
        return
    assert split(f"ask -p local --max-tokens 5 {text}", root) == ["ask", "-p", "local", "--max-tokens", "5", "--", text]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", []),
        ("  status ; ", ["status"]),
        ("ask Don't panic", ["ask", "--", "Don't panic"]),
        ('ask "Say hi"', ["ask", "--", "Say hi"]),
        ("ask 'one' and 'two'", ["ask", "--", "'one' and 'two'"]),
        ("ask --no-failover --json hi there", ["ask", "--no-failover", "--json", "--", "hi there"]),
        ("ask --profile=local hi", ["ask", "--profile=local", "--", "hi"]),
        ("ask -plocal hi", ["ask", "-plocal", "--", "hi"]),
        ("ask -- -5 or 5?", ["ask", "--", "-5 or 5?"]),
        ("ask -p", ["ask", "-p"]),
        ("ask", ["ask"]),
        ("sql select 'a' || \"b\"", ["sql", "--", "select 'a' || \"b\""]),
        ("calls --since 1h", ["calls", "--since", "1h"]),
        ("calls --since 1h    # a DataFrame", ["calls", "--since", "1h"]),
        ("calls # one blank does where no text can be", ["calls"]),
        ("# it's how everything is", []),
        ("ask --as reply             # ask; the answer streams in", ["ask", "--as", "reply"]),
        ('incident new "a bad  # hour"   # a notebook', ["incident", "new", "a bad  # hour"]),
        ("ask what is # in Python?", ["ask", "--", "what is # in Python?"]),
        ("ask who mends  #12?  # a question", ["ask", "--", "who mends  #12?"]),
        ("run echo 'a  # b'  # of the shell", ["run", "--", "echo 'a  # b'"]),
    ],
)
def test_lines_are_split(line: str, words: list[str]) -> None:
    assert split(line, root) == words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{{a}} and {{ b['k'] }}", "1 and two words"),
        (r"\{{a}}", "{{a}}"),
        ('{"a": {"b": 1}}', '{"a": {"b": 1}}'),
        ("{a} $a", "{a} $a"),
        ("{{sum(x for x in (1, 2))}}", "3"),
    ],
)
def test_expressions_in_double_braces_are_expanded_and_nothing_else(text: str, expected: str) -> None:
    assert expand(text, {"a": 1}, {"b": {"k": "two words"}}) == expected


def test_an_expanded_value_stays_one_word() -> None:
    scope: dict[str, Any] = {"name": "it's a name; with -- all"}
    assert split("calls --profile {{name}}", root, scope) == ["calls", "--profile", scope["name"]]


def test_an_unknown_name_names_the_nearest() -> None:
    with pytest.raises(UsageError) as caught:
        expand("{{promt}}", {"prompt": 1})
    assert caught.value.nearest == "prompt"


def test_an_expression_that_fails_is_told() -> None:
    with pytest.raises(UsageError, match="ZeroDivisionError"):
        expand("{{1 / 0}}", {})


@pytest.mark.parametrize(
    "text",
    [
        "docker ps --format '{{.Names}}'",
        "kubectl get -o go-template='{{range .items}}{{.metadata.name}}{{end}}'",
        "{{range}}",
        "{{len}}",
        "{{range(3)}}",
        "{{ item.name }}",
        "{% for x in y %}{{ x }}{% endfor %}",
        "{{#if x}}",
        "{{ }}",
    ],
)
def test_braces_of_other_languages_are_refused_and_how_to_write_them_told(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        expand(text, {"items": 1})
    assert r"\{{" in f"{caught.value.message} {caught.value.hint}"


def test_escaped_braces_arrive_as_they_are() -> None:
    assert split(r"sh docker ps --format '\{{.Names}}'", root)[-1] == "docker ps --format '{{.Names}}'"


def test_a_builtin_may_work_on_what_is_the_users() -> None:
    assert expand("{{len(rows)}} {{max(r for r in rows)}}", {"rows": [1, 2]}) == "2 2"
