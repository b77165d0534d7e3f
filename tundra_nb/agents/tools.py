"""The tools, made from the table of commands: name, what it does, its arguments as a JSON schema, and how it is run.

Twelve at most: hosts send every tool's schema with every request, and some send only the first forty of all their
servers. What is not in the two tables below does not exist for an agent: nothing that runs a command, asks a model,
pushes, imports or changes a setting, and nothing that takes a URL or a path.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import functools
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import click

from tundra_nb.commands import command as commands
from tundra_nb.commands.face import Face
from tundra_nb.commands.table import TABLE, root
from tundra_nb.errors import TundraError, UsageError
from tundra_nb.nearest import nearest
from tundra_nb.types import Reply

from . import answers

if TYPE_CHECKING:
    from tundra_nb.client.live import Live, R
    from tundra_nb.client.sync import Client, ReplyStream

READS = (
    ("status",),
    ("calls",),
    ("attempts",),
    ("errors",),
    ("why",),
    ("explain",),
    ("sql",),
    ("breakers",),
    ("limits",),
    ("diff",),
    ("doctor",),
    ("incident", "list"),
)
"""Commands that only read; those that this version has become tools."""
ACTS = (("breakers", "reset"), ("providers", "recheck"), ("providers", "park"))
"""Commands that act; tools only where their name is allowed, and run only after a yes to the exact command."""
PREFIX = "tundra_"
MIN_ID_DIGITS = 15
"""Ids are time-ordered 63-bit numbers; shorter ones count something."""
_HIDDEN = frozenset({"as_json", "as_csv", "as_tsv", "as_name", "widget", "plot", "fix", "wait", "source", "traceback"})
"""Parameters that a face needs and an agent does not; `source` is given to the whole toolbox."""
_BODY = "text"
"""The free text of a command, handed over beside the command line, so that no word of it can be an option."""


class AgentFace(Face):
    """An agent as a face: it is given values, and nothing is shown while a command runs."""

    name = "agent"
    prefix = "tundra "

    def __init__(self, client: Client, body: str | None = None) -> None:
        super().__init__(body)
        self._client = client

    @property
    def client(self) -> Client:
        return self._client

    def show_answer(self, stream: ReplyStream, asked: str = "") -> Reply:
        del asked
        stream.close()
        _refuse()

    def show_output(self, live: Live[R]) -> R:
        del live
        _refuse()

    def write(self, text: str) -> None:
        """Nothing is shown: what a tool gives is its answer."""


@dataclasses.dataclass(frozen=True)
class Tool:
    """One command as a tool.

    `schema` is a JSON schema of an object without further properties; `acts` says whether it changes anything.
    """

    name: str
    path: tuple[str, ...]
    description: str
    schema: Mapping[str, Any]
    acts: bool
    command: click.Command = dataclasses.field(repr=False)

    @property
    def label(self) -> str:
        """As `--allow` names it."""
        return "-".join(self.path)


@dataclasses.dataclass(frozen=True)
class ToolAnswer:
    """What a tool gave: text to read, whether it stands for a failure that the caller can mend, the rows' whole ids."""

    text: str
    is_error: bool = False
    ids: frozenset[str] = frozenset()


def readers() -> dict[str, Tool]:
    """The tools that read, by name."""
    return _made(READS, acts=False)


def actors(allowed: Sequence[str] = ()) -> dict[str, Tool]:
    """The tools that act, of those that are allowed by name (`breakers-reset`), or `all`.

    Raises:
        UsageError: a name is none of them.
    """
    if not allowed:
        return {}
    known = _made(ACTS, acts=True)
    labels = {tool.label: tool for tool in known.values()}
    for name in allowed:
        if name != "all" and name not in labels:
            raise UsageError(
                problem=f"nothing called {name!r} can be allowed",
                field="--allow",
                nearest=nearest(name, labels),
                remedy=f"These can: {', '.join(labels)}, all.",
            )
    if "all" in allowed:
        return known
    return {tool.name: tool for label, tool in labels.items() if label in allowed}


def described(tool: Tool) -> dict[str, Any]:
    """A tool as `tools/list` tells it."""
    return {
        "name": tool.name,
        "title": " ".join(("tundra", *tool.path)),
        "description": tool.description,
        "inputSchema": dict(tool.schema),
        "annotations": {
            "readOnlyHint": not tool.acts,
            "destructiveHint": tool.acts,
            "idempotentHint": True,
            "openWorldHint": False,
        },
    }


class Toolbox:
    """The tools of one agent, and the client that they read through.

    Args:
        connect: gives the client that reads, and acts where that was allowed and agreed to; asked once, by the first
            tool, because a host that only lists the tools should not wait for it.
        tools: which tools there are, by name.
        at: every read that can be is as of this ref; then no tool takes `at`.
        source: every read that can be is of this source.
        until: relative times count from here rather than from now, so that a pinned reading is the same next year.
        since: the beginning of the window where a tool names none.
        max_chars: of one answer.
    """

    def __init__(
        self,
        connect: Callable[[], Client],
        tools: Mapping[str, Tool],
        *,
        at: str | None = None,
        source: str | None = None,
        until: dt.datetime | None = None,
        since: dt.datetime | None = None,
        max_chars: int = answers.MAX_CHARS,
    ) -> None:
        self._connect = connect
        self._all = dict(tools)
        self._at = at
        self._source = source
        self._until = until
        self._since = since
        self._max_chars = max_chars
        self.tools = {name: self._bound(tool) for name, tool in tools.items()}

    @functools.cached_property
    def client(self) -> Client:
        return self._connect()

    def command_line(self, name: str, arguments: Mapping[str, Any]) -> str:
        """The command that a tool stands for, as a person would give it.

        Raises:
            UsageError: there is no such tool or argument, or a value is of the wrong type.
        """
        tool = self._tool(name)
        argv, body = self._argv(tool, arguments)
        words = [word for word in argv if word != "--"]
        return " ".join(["tundra", *tool.path, *map(_quoted, words), *([_quoted(body)] if body else [])])

    def check(self, name: str, arguments: Mapping[str, Any]) -> None:
        """Refuse what would fail, before a person is asked about it.

        Raises:
            UsageError: no such tool, argument, value or profile.
        """
        tool = self._tool(name)
        self._argv(tool, arguments)
        if tool.acts:
            profile = str(arguments.get("name", ""))
            known = self.client.profile_names()
            if profile not in known:
                raise UsageError(
                    problem=f"no profile {profile!r}",
                    field="name",
                    nearest=nearest(profile, known),
                    remedy=f"Profiles: {', '.join(known)}.",
                )

    def call(self, name: str, arguments: Mapping[str, Any]) -> ToolAnswer:
        """Run a tool; what goes wrong is told in the answer, so that a model can do it better."""
        try:
            self.check(name, arguments)
            tool = self._tool(name)
            argv, body = self._argv(tool, arguments)
            face = AgentFace(self.client, body)
            result = commands.run(root, [*tool.path, *argv], face)
            return ToolAnswer(self._text(tool, result.value, arguments, face), ids=_ids(result.value))
        except TundraError as error:
            told = f"{error.code}: {error.message}"
            if error.hint:
                told += f"\nnext: {error.hint.replace('%%tundra ', 'tundra ').replace('%tundra ', 'tundra ')}"
            return ToolAnswer(answers.cut(answers.plain(told), self._max_chars), is_error=True)

    def _text(self, tool: Tool, value: Any, arguments: Mapping[str, Any], face: Face) -> str:
        what = self.command_line(tool.name, arguments)
        if type(value).__name__ == "DataFrame":
            shown = arguments.get("limit")
            told = answers.frame_text(
                value,
                what,
                shown=shown if isinstance(shown, int) and shown > 0 else answers.SHOWN,
                max_chars=self._max_chars - 400,
            )
            return told if len(value) else f"{told}\n{self._nothing()}"
        from tundra_nb.views import show, text

        told = face.words(text.plain(show.blocks_of(value)))
        return answers.cut(answers.plain(f"{what}\n{told}"), self._max_chars, "Ask for one call, code or profile.")

    def _nothing(self) -> str:
        """No rows is not "healthy": what was looked for, and what there is."""
        told = "No row matches; that says nothing about rows outside this window and these filters."
        try:
            profiles = self.client.profile_names()
        except TundraError:
            return told
        return f"{told} Profiles: {', '.join(profiles) or 'none'}."

    def _tool(self, name: str) -> Tool:
        if name not in self._all:
            raise UsageError(
                problem=f"no tool {name!r}",
                field="tool",
                nearest=nearest(name, self._all),
                remedy=f"Tools: {', '.join(self._all)}.",
            )
        return self._all[name]

    def _bound(self, tool: Tool) -> Tool:
        """The tool without the arguments that this toolbox decides on."""
        if self._at is None:
            return tool
        properties = {name: value for name, value in tool.schema["properties"].items() if name != "at"}
        return dataclasses.replace(tool, schema={**tool.schema, "properties": properties})

    def _argv(self, tool: Tool, arguments: Mapping[str, Any]) -> tuple[list[str], str | None]:
        """The command line of a call, and its free text."""
        params = {_key(param): param for param in tool.command.params if _is_offered(param, acts=tool.acts)}
        unknown = [name for name in arguments if name not in params]
        if unknown:
            raise UsageError(
                problem=f"{tool.name} takes no argument {unknown[0]!r}",
                field=unknown[0],
                nearest=nearest(unknown[0], params),
                remedy=f"It takes: {', '.join(params) or 'none'}.",
            )
        argv: list[str] = []
        words: list[str] = []
        body: str | None = None
        for name, param in params.items():
            value = arguments.get(name)
            if name == "at" and self._at is not None:
                value = self._at
            if name == "since" and value is None and not arguments.get("between") and self._since is not None:
                value = self._since.isoformat()
            if name == "limit" and tool.path[0] != "sql":
                _checked(param, name, value)
                continue  # the head counts every row; how many are shown is the answer's business
            if value is None or value is False:
                if isinstance(param, click.Argument) and param.required:
                    raise UsageError(
                        problem=f"{tool.name} needs {name}", field=name, remedy=f"It takes: {', '.join(params)}."
                    )
                continue
            given = _checked(param, name, value)
            if isinstance(param, click.Argument):
                if name == _BODY:
                    body = given[0]
                else:
                    words += given
            elif isinstance(param, click.Option) and param.is_flag:
                argv.append(param.opts[-1])
            elif param.nargs > 1:
                argv += [_long(param), *map(self._moment, given)]
            else:
                argv.append(f"{_long(param)}={self._moment(given[0]) if name == 'since' else given[0]}")
        if self._source is not None and any("--in" in param.opts for param in tool.command.params):
            argv.append(f"--in={self._source}")
        if words and not all(re.fullmatch(r"-\d+", word) for word in words):
            argv.append("--")
        return [*argv, *words], body

    def _moment(self, word: str) -> str:
        """A time word as a point of time, counted from where this toolbox stands."""
        if self._until is None:
            return word
        from tundra_nb.client import times

        when = times.from_word(word, now=self._until)
        return when.isoformat() if when else word


def _ids(value: Any) -> frozenset[str]:
    """The ids of the rows in a result: long numbers in columns or fields that are called so."""
    if type(value).__name__ == "DataFrame":
        columns = [value[name] for name in value.columns if value[name].dtype.kind in "iuO"]
        return frozenset(text for column in columns for text in column.dropna().astype(str) if _is_id(text))
    if isinstance(value, Mapping):
        parts = [row for rows in value.values() for row in (rows if isinstance(rows, list) else [rows])]
        return frozenset(
            str(field) for row in parts if isinstance(row, Mapping) for field in row.values() if _is_id(str(field))
        )
    return frozenset()


def _is_id(text: str) -> bool:
    return text.isdecimal() and len(text) >= MIN_ID_DIGITS


def _refuse() -> NoReturn:
    raise UsageError(problem="an agent runs no command and asks no model through a tool", field="tool")


def _made(paths: Sequence[tuple[str, ...]], *, acts: bool) -> dict[str, Tool]:
    tools: dict[str, Tool] = {}
    with click.Context(root) as ctx:
        for path in paths:
            command = _command(ctx, path)
            if command is not None:
                tool = Tool(PREFIX + "_".join(path), path, _description(command), _schema(command, acts), acts, command)
                tools[tool.name] = tool
    return tools


def _command(ctx: click.Context, path: tuple[str, ...]) -> click.Command | None:
    if path[0] not in TABLE:
        return None
    found: click.Command | None = root
    for word in path:
        found = found.get_command(ctx, word) if isinstance(found, click.Group) else None
    return found


def _description(command: click.Command) -> str:
    return " ".join((command.help or "").replace("\b", "").split())


def _schema(command: click.Command, acts: bool) -> dict[str, Any]:
    offered = [param for param in command.params if _is_offered(param, acts=acts)]
    return {
        "type": "object",
        "properties": {_key(param): _property(param) for param in offered},
        "required": [_key(param) for param in offered if param.required or _key(param) == _BODY],
        "additionalProperties": False,
    }


def _is_offered(param: click.Parameter, *, acts: bool) -> bool:
    if param.name in _HIDDEN or (isinstance(param, click.Option) and param.hidden):
        return False
    if acts:
        return isinstance(param, click.Argument)
    return not isinstance(param.type, click.Path | click.File)


def _key(param: click.Parameter) -> str:
    """What an argument is called in the schema: the option as people know it."""
    if isinstance(param, click.Option):
        return _long(param).lstrip("-").replace("-", "_")
    return str(param.name)


def _long(param: click.Parameter) -> str:
    return max(param.opts, key=len)


def _property(param: click.Parameter) -> dict[str, Any]:
    told: dict[str, Any] = {"type": "string"}
    if isinstance(param.type, click.Choice):
        told["enum"] = [str(choice) for choice in param.type.choices]
    elif isinstance(param.type, click.IntRange) or param.type is click.INT:
        told["type"] = "integer"
        if isinstance(param.type, click.IntRange) and param.type.min is not None:
            told["minimum"] = param.type.min
    elif isinstance(param.type, click.FloatRange) or param.type is click.FLOAT:
        told["type"] = "number"
    elif isinstance(param, click.Option) and param.is_flag:
        told["type"] = "boolean"
    if param.nargs > 1:
        told = {"type": "array", "items": told, "minItems": param.nargs, "maxItems": param.nargs}
    if isinstance(param, click.Option) and param.help:
        told["description"] = " ".join(param.help.split())
    return told


def _checked(param: click.Parameter, name: str, value: Any) -> list[str]:
    """The value as words of a command line.

    Raises:
        UsageError: it is not of the argument's type.
    """
    if value is None:
        return []
    if param.nargs > 1:
        if not isinstance(value, list) or len(value) != param.nargs or not all(isinstance(v, str) for v in value):
            raise UsageError(problem=f"{name} is a list of {param.nargs} texts", field=name)
        return [str(v) for v in value]
    if isinstance(param, click.Option) and param.is_flag:
        if value is not True:
            raise UsageError(problem=f"{name} is true or false", field=name)
        return []
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise UsageError(problem=f"{name} is a text or a number, not {type(value).__name__}", field=name)
    if isinstance(param.type, click.IntRange) and (not isinstance(value, int) or value < (param.type.min or value)):
        raise UsageError(problem=f"{name} is a whole number from {param.type.min} on", field=name)
    return [str(value)]


def _quoted(word: str) -> str:
    return shlex.quote(word)
