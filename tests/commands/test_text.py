"""Options of text commands: parsed before and after the text, refused within it, in both faces by one rule."""

from __future__ import annotations

import click
import pytest

from tundra_nb.cli import CommandLine
from tundra_nb.commands.command import run as run_command
from tundra_nb.commands.table import root
from tundra_nb.commands.text import divide
from tundra_nb.errors import UsageError
from tundra_nb.kernel.line import split


def find(name: str) -> click.Command:
    found = root.get_command(click.Context(root), name)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("line", "options", "text"),
    [
        ("ask -p down hi --no-failover", ["-p", "down", "--no-failover"], "hi"),
        ("ask hi -pdown --json", ["-pdown", "--json"], "hi"),
        ("ask hi there --profile=down", ["--profile=down"], "hi there"),
        ("ask --as x hi --max-tokens 5", ["--as", "x", "--max-tokens", "5"], "hi"),
        ("note it's done --on why", ["--on", "why"], "it's done"),
        ("sql select 1 --limit 5", ["--limit", "5"], "select 1"),
        ("run make test --timeout 5", ["--timeout", "5"], "make test"),
        ("run df -h", [], "df -h"),
        ("run git log -- --json", [], "git log -- --json"),
        ("run -- ls --json", [], "ls --json"),
        ("ask -- what does --no-failover do?", [], "what does --no-failover do?"),
        ("ask -5 degrees", [], "-5 degrees"),
        ("ask - one\n- two", [], "- one\n- two"),
    ],
)
def test_known_options_around_the_text_are_parsed_in_a_notebook_and_in_a_shell(
    line: str, options: list[str], text: str
) -> None:
    words = split(line, root)
    assert words == [line.split(maxsplit=1)[0], *options, "--", text]
    given = line.split()[1:]
    parts = divide(find(line.split(maxsplit=1)[0]), given)
    assert parts.options == options
    assert [given[index] for index in parts.text] == text.split()


@pytest.mark.parametrize(
    "line",
    [
        "ask hi --no-failover there",
        "ask It's --no-failover isn't it",
        "ask -p a hi -m big and so on",
        "note about --on this and that",
        "run ls --json | wc",
        "sh echo --timeout 5 now",
        "sql select --limit 5 from operation",
    ],
)
def test_a_known_option_within_the_text_is_refused_and_the_way_out_named(line: str) -> None:
    with pytest.raises(UsageError) as in_notebook:
        split(line, root)
    with pytest.raises(UsageError) as in_shell:
        divide(find(line.split(maxsplit=1)[0]), line.split()[1:])
    assert in_notebook.value.message == in_shell.value.message
    assert "`--`" in in_notebook.value.hint


@pytest.mark.parametrize(
    "line", ['ask "what does --json do" there', "run grep '--json x' file", "sql select '--limit' as word"]
)
def test_what_stands_in_quotes_is_text(line: str) -> None:
    assert split(line, root)[1] == "--"


def test_a_mistyped_option_is_not_sent() -> None:
    with pytest.raises(UsageError) as caught:
        split("ask -p down hi --no-failvoer", root)
    assert caught.value.nearest == "--no-failover"


def test_an_unknown_option_before_the_text_is_refused() -> None:
    with pytest.raises(UsageError, match="no option --sytem"):
        run_command(root, ["ask", "--sytem", "x", "hi"], CommandLine())
