"""Every command that a page, a hint, a remedy or the README names exists, with the options it is named with."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

import tundra_nb
from tests.test_errors import EVERY, made
from tundra_nb.commands.table import root
from tundra_nb.errors import TundraError
from tundra_nb.guide import originals, pages
from tundra_nb.kernel.line import split

PACKAGE = Path(tundra_nb.__file__).parent
ROOT = PACKAGE.parent
GENERATED = {"commands.md", "http-api.md", "settings.md"}
IN_SOURCE = re.compile(r"`(%{0,2}tundra [a-z][^`\n]*)`")
ANY = re.compile(r"X1|\[.*|[A-Z]{2,}\w*|…|.*[{}].*|-?\d+|NAME.*")
"""What stands for something: `NAME`, `ID`, a field of an f-string."""


def named() -> Iterator[tuple[str, str]]:
    """Where a command is named, and the command."""
    for file in [ROOT / "README.md", *sorted((PACKAGE / "guide").rglob("*.md"))]:
        if file.exists() and file.name not in GENERATED:
            for command in pages.commands(file.read_text()):
                yield file.name, command
    for variant in originals.variants():
        for command in pages.commands(variant.look):
            yield variant.path, command
    for cls in EVERY:
        for command in pages.commands(made(cls).hint):
            yield cls.__name__, command
    for file in sorted(PACKAGE.rglob("*.py")):
        for command in IN_SOURCE.findall(re.sub(r"\{[^{}`]*\}", "X1", file.read_text())):
            yield file.name, command.lstrip("%")


def problem(line: str) -> str:
    """Why a command line cannot be given; empty when it can."""
    try:
        words = shlex.split(line, comments=True)[1:]
    except ValueError as exc:
        return str(exc)
    command: click.Command = root
    context = click.Context(root, info_name="tundra")
    while words and isinstance(command, click.Group) and not words[0].startswith("-") and not ANY.fullmatch(words[0]):
        sub = command.get_command(context, words[0])
        if sub is None:
            return f"no command {words[0]!r} in {command.name!r}" if "|" not in words[0] else ""
        command = sub
        words = words[1:]
    if getattr(command, "takes_text", False):
        words = words[: next((i for i, word in enumerate(words) if not word.startswith("-")), len(words))]
    known = {opt for param in command.params for opt in (*param.opts, *param.secondary_opts)} | {"--help", "-h"}
    for word in words:
        if word.startswith("--") and len(word) > 2 and word.split("=")[0].rstrip(",.]") not in known:
            return f"no option {word} of {command.name!r}"
    return ""


def test_commands_are_found_in_pages_hints_and_sources() -> None:
    found = list(named())
    assert len(found) > 400
    assert {"HttpError.md", "HttpError", "README.md"} <= {where for where, _ in found} | {"HttpError"}


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("tundra frobnicate", "no command 'frobnicate' in 'tundra'"),
        ("tundra daemon frobnicate", "no command 'frobnicate' in 'daemon'"),
        ("tundra doctor --frobnicate", "no option --frobnicate of 'doctor'"),
        ("tundra doctor --for network", ""),
        ("tundra providers recheck NAME", ""),
    ],
)
def test_a_command_that_does_not_exist_would_be_noticed(line: str, why: str) -> None:
    assert problem(line) == why


def test_every_command_that_is_named_anywhere_exists() -> None:
    assert sorted({f"{where}: `{line}`: {why}" for where, line in named() if (why := problem(line))}) == []


def given_in_full() -> Iterator[tuple[str, str]]:
    """Lines of blocks of the README and the guide that stand for nothing else: a reader pastes them as they are."""
    for file in [ROOT / "README.md", *sorted((PACKAGE / "guide").glob("*.md"))]:
        if file.exists() and file.name not in GENERATED:
            for body in pages.FENCE.findall(file.read_text()):
                for line in body[1].splitlines():
                    found = re.match(r"(?:\$ |\w+ = )?%{0,2}(tundra(?: .*)?)$", line.strip())
                    if found and not re.search(r"\b[A-Z]{2,}\b|…|\|| && |[<>]", found[1].partition("#")[0]):
                        yield file.name, found[1]


def missing(line: str) -> str:
    """What a command line lacks, or has too much; empty when it can be given as it stands."""
    words = split(line.removeprefix("tundra"), root)  # as a notebook does; a shell leaves out a comment too
    command: click.Command = root
    context = click.Context(root, info_name="tundra")
    while words and isinstance(command, click.Group) and not words[0].startswith("-"):
        sub = command.get_command(context, words[0])
        if sub is None:
            return f"no command {words[0]!r}"
        command, context = sub, click.Context(sub, parent=context, info_name=words[0])
        words = words[1:]
    try:
        command.parse_args(click.Context(command, parent=context.parent), words)
    except click.exceptions.NoArgsIsHelpError:
        return ""
    except click.ClickException as exc:
        return "" if "does not exist" in exc.format_message() else exc.format_message()  # a file that is the reader's
    except TundraError as exc:
        return exc.message
    return ""


def test_every_line_of_the_readme_and_the_guide_can_be_pasted_as_it_stands() -> None:
    lines = list(given_in_full())
    assert len({line for where, line in lines if where == "README.md"}) > 10
    assert any("    #" in line for _, line in lines)
    assert missing("tundra incident export") == "Missing argument 'INCIDENT'."
    assert "--frobnicate" in missing("tundra dash --frobnicate 3")
    assert sorted({f"{where}: `{line}`: {why}" for where, line in lines if (why := missing(line))}) == []


def test_no_hint_leads_back_to_where_one_came_from() -> None:
    """`explain` shows hints and remedies: one that says only `explain` would run in a circle."""
    for cls in EVERY:
        if "hint" in vars(cls) and cls is not TundraError:
            assert "tundra explain" not in made(cls).hint, cls.__name__
    for page in pages.every_page().values():
        for remedy in page.remedies:
            assert "tundra explain" not in remedy
