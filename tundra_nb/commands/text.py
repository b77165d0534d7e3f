"""Where the options of a text command end and its text begins: one rule for notebooks and the command line.

    ask [options] TEXT [options]

Known options stand before the text or after it. One in the middle of the text is refused, so that a word which looks
like an option is never sent unseen; behind `--` everything is text. An option that the command does not know is text,
unless it is nearly one that it knows.
"""

from __future__ import annotations

import dataclasses
import re
import shlex
from collections.abc import Iterator, Sequence

import click

from tundra_nb.errors import UsageError
from tundra_nb.nearest import nearest

END = "--"
"""Behind it nothing is an option."""
PROSE = re.compile(r"""(?:"[^"]*"|'[^']*')(?=[\s.,;:!?)]|$)|\S+""")
"""Words of a text for people: a quote counts at the beginning of a word only, so that an apostrophe is none."""
NEARLY = 0.8
"""Share of equal letters from which a word is taken for a mistyped option."""


@dataclasses.dataclass(frozen=True)
class Word:
    """A word as it was given, and where it stands in the line."""

    text: str
    start: int
    end: int


@dataclasses.dataclass(frozen=True)
class Divided:
    """The words of options, and which of the words given are the text."""

    options: list[str]
    text: range


def divide(command: click.Command, words: Sequence[str]) -> Divided:
    """Part the words that follow a text command's name.

    Raises:
        UsageError: a known option stands in the middle of the text.
    """
    taken, place = _options(command, words, 0)
    if place < len(words) and words[place] == END:
        return Divided(taken, range(place + 1, len(words)))
    for index in range(place, len(words)):
        word = words[index]
        if word == END:
            break
        if _known(command, word) is None:
            _refuse_typo(command, word)
            continue
        more, end = _options(command, words, index)
        if end < len(words):
            raise _misplaced(command, word.partition("=")[0])
        return Divided([*taken, *more], range(place, index))
    return Divided(taken, range(place, len(words)))


def words_of(command: click.Command, line: str) -> list[Word]:
    """The words of a line as far as options are concerned: what stands in quotes is one word."""
    if getattr(command, "is_code", False):
        return _code_words(line)
    return [Word(found[0], found.start(), found.end()) for found in PROSE.finditer(line)]


def _code_words(line: str) -> list[Word]:
    """Words by the quoting of shells; by spaces where a quote is not closed."""
    made: list[Word] = []
    quote = ""
    start = -1
    escaped = False
    for index, character in enumerate(line):
        if escaped:
            escaped = False
        elif character == "\\" and quote != "'":
            escaped = True
            start = index if start < 0 else start
        elif quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote, start = character, index if start < 0 else start
        elif character.isspace():
            if start >= 0:
                made.append(Word(line[start:index], start, index))
            start = -1
        elif start < 0:
            start = index
    if quote:
        return [Word(found[0], found.start(), found.end()) for found in re.finditer(r"\S+", line)]
    if start >= 0:
        made.append(Word(line[start:], start, len(line)))
    return made


def shell_word(text: str) -> str:
    """One word of options as a shell would read it: `WORD='two words'`. An apostrophe that closes nothing stays."""
    try:
        words = shlex.split(text)
    except ValueError:
        return text
    return words[0] if len(words) == 1 else text


def unquoted(text: str) -> str:
    """A text without the one pair of quotes around all of it."""
    if text[:1] in ("'", '"'):
        try:
            words = shlex.split(text)
        except ValueError:
            return text
        if len(words) == 1:
            return words[0]
    return text


def _options(command: click.Command, words: Sequence[str], place: int) -> tuple[list[str], int]:
    """The options from here on with their values, and where they end."""
    taken: list[str] = []
    while place < len(words) and len(words[place]) > 1 and words[place].startswith("-") and words[place] != END:
        option = _known(command, words[place])
        if option is None and taken_by_text(words[place]):
            break
        values = 0 if option is None or option.is_flag or _is_attached(option, words[place]) else option.nargs
        taken += words[place : place + 1 + values]
        place += 1 + values
    return taken, min(place, len(words))


def taken_by_text(word: str) -> bool:
    """Whether a word that begins like an option can be none: `-5 degrees`, `- a list`."""
    return not re.match(r"--?[A-Za-z]", word)


def _known(command: click.Command, word: str) -> click.Option | None:
    """The option that a word gives, by name, with a value attached, or not at all."""
    for option in _all(command):
        if any(word == name or _has_value(option, name, word) for name in (*option.opts, *option.secondary_opts)):
            return option
    return None


def _has_value(option: click.Option, name: str, word: str) -> bool:
    if name.startswith("--"):
        return word.startswith(f"{name}=")
    return not option.is_flag and word.startswith(name) and not word.startswith("--")


def _is_attached(option: click.Option, word: str) -> bool:
    return word not in (*option.opts, *option.secondary_opts)


def _all(command: click.Command) -> Iterator[click.Option]:
    for param in command.get_params(click.Context(command, **command.context_settings)):
        if isinstance(param, click.Option):
            yield param


def _refuse_typo(command: click.Command, word: str) -> None:
    if getattr(command, "is_code", False) or not word.startswith("--"):
        return
    name = word.partition("=")[0]
    known = [one for option in _all(command) for one in option.opts if one.startswith("--")]
    if near := nearest(name, known, closeness=NEARLY):
        raise UsageError(problem=f"no option {name} (behind `{END}` it would be text)", field=name, nearest=near)


def _misplaced(command: click.Command, name: str) -> UsageError:
    return UsageError(
        problem=f"{name} is an option of `{command.name}`, and stands in the middle of the text",
        field=name,
        remedy=f"Put it before the text; if it belongs to the text, put `{END}` before the text.",
    )
