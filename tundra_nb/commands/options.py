"""Options and value types that several commands share, and what completes them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar

import click
from click.shell_completion import CompletionItem

from tundra_nb.errors import CommandFailed, TundraError, UsageError
from tundra_nb.protocol.query import groups
from tundra_nb.types import TABLES, VERSIONED_TABLES, columns

from .command import Result
from .face import Face, face_of

if TYPE_CHECKING:
    import pandas as pd

    from tundra_nb.client.live import Live, R
    from tundra_nb.client.sync import Client

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")


class _Words(click.ParamType[str]):
    """A text with suggestions, none of which is a must; a suggestion may say what it is."""

    name = "text"

    def suggestions(self, ctx: click.Context) -> Iterable[str | tuple[str, str]]:
        raise NotImplementedError

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        pairs = [(one, "") if isinstance(one, str) else one for one in self.suggestions(ctx)]
        return [CompletionItem(word, help=told or None) for word, told in pairs if word.startswith(incomplete)]


class _Live(_Words):
    """Suggestions that the daemon knows; completion starts none."""

    def suggestions(self, ctx: click.Context) -> Iterable[str | tuple[str, str]]:
        client = face_of(ctx).client
        try:
            client.link.find(start=False)
            return self.known(client)
        except TundraError:
            return ()

    def known(self, client: Client) -> Iterable[str | tuple[str, str]]:
        raise NotImplementedError


class ProfileName(_Live):
    """The name of a profile."""

    name = "profile"

    def known(self, client: Client) -> Iterable[str | tuple[str, str]]:
        return client.profile_names()


class OperationId(_Live):
    """A call: `last`, or the last digits of its id."""

    name = "operation"

    def known(self, client: Client) -> Iterable[str | tuple[str, str]]:
        recent = client.calls(since="all", limit=20).iloc[::-1]
        told = [
            (str(row.operation_id)[-5:], f"{row.outcome}{f' {row.code}' if isinstance(row.code, str) else ''}")
            for row in recent.itertuples()
        ]
        return [("last", told[0][1] if told else ""), *told]


class SettingPath(_Live):
    """The path of a setting, with its value."""

    name = "path"

    def known(self, client: Client) -> Iterable[str | tuple[str, str]]:
        return [(str(row.path), f"is {row.value}") for row in client.settings().itertuples()]


class Assignment(SettingPath):
    """`PATH=VALUE`."""

    name = "assignment"

    def known(self, client: Client) -> Iterable[str | tuple[str, str]]:
        return [(f"{row.path}=", f"is {row.value}") for row in client.settings().itertuples()]


class Ref(_Live):
    """A state of the history: a branch, tag or commit."""

    name = "ref"

    def known(self, client: Client) -> Iterable[str | tuple[str, str]]:
        log = client.versions.log(limit=15)
        commits = [(str(row.commit)[:10], str(row.message).partition("\n")[0][:60]) for row in log.itertuples()]
        names = [(str(row.name), "branch") for row in client.versions.branches().itertuples()]
        tags = [(str(row.name), "tag") for row in client.versions.tags().itertuples()]
        return ["HEAD", "yesterday", *names, *tags, *commits]


class SourceName(_Live):
    """The name of a source."""

    name = "name"

    def known(self, client: Client) -> Iterable[str | tuple[str, str]]:
        return [(str(row.source), f"{row.kind}, {row.rows:,} rows") for row in client.sources().itertuples()]


class Time(_Words):
    """A time word."""

    name = "time"

    def suggestions(self, ctx: click.Context) -> Iterable[str | tuple[str, str]]:
        from tundra_nb.client import times

        return times.EXAMPLES


class CodeName(_Words):
    """An error code."""

    name = "code"

    def suggestions(self, ctx: click.Context) -> Iterable[str | tuple[str, str]]:
        from tundra_nb.client import explain

        return (*explain.codes(),)


class TopicName(CodeName):
    """An error, a situation, or a name of the original's."""

    def suggestions(self, ctx: click.Context) -> Iterable[str | tuple[str, str]]:
        from tundra_nb.client import explain

        told = explain.contents()
        names = [
            *super().suggestions(ctx),
            *(page.name for page in (*told.sections, *told.pages)),
            *(row.path for row in told.originals),
        ]
        return tuple(dict.fromkeys(names))


class CodeOrLast(TopicName):
    """The same, or `last`."""

    def suggestions(self, ctx: click.Context) -> Iterable[str | tuple[str, str]]:
        return ("last", *super().suggestions(ctx))


class ChangingTable(_Words):
    """A table whose rows people change."""

    name = "table"

    def suggestions(self, ctx: click.Context) -> Iterable[str | tuple[str, str]]:
        return (*VERSIONED_TABLES, "note")


class TableName(_Words):
    """A table of the history."""

    name = "table"

    def suggestions(self, ctx: click.Context) -> Iterable[str | tuple[str, str]]:
        return tuple(TABLES)


class SqlWord(_Words):
    """A word of a statement: a table, a column, or one of SQL's own."""

    name = "sql"

    def suggestions(self, ctx: click.Context) -> Iterable[str | tuple[str, str]]:
        return sql_words()


def sql_words() -> list[tuple[str, str]]:
    """What a statement over the history is made of, and what each word is."""
    found = dict.fromkeys(("select", "from", "where", "group by", "order by", "limit", "count(*)"), "SQL")
    found |= dict.fromkeys(TABLES, "table")
    for table in TABLES:
        for column in columns(table):
            found[column.name] = f"{found[column.name]}, {table}" if column.name in found else f"column of {table}"
    return list(found.items())


class GroupNames(_Words):
    """Columns to group by, with commas between."""

    name = "columns"

    def suggestions(self, ctx: click.Context) -> Iterable[str | tuple[str, str]]:
        return groups("operation")

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        done, comma, word = incomplete.rpartition(",")
        chosen = done.split(",")
        return [
            CompletionItem(done + comma + group)
            for group in groups("operation")
            if group.startswith(word) and group not in chosen
        ]


class PtyId(_Live):
    """The id of a PTY."""

    name = "id"

    def known(self, client: Client) -> Iterable[str | tuple[str, str]]:
        return client.ptys.ids()


class Variable(click.ParamType[str]):
    """The name of a variable; a key that was pasted there is refused, and not repeated."""

    name = "variable"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        del ctx
        field = param.opts[-1] if isinstance(param, click.Option) else "NAMES"
        _check_variable(str(value), field)
        return str(value)


def _check_variable(name: str, field: str) -> None:
    from tundra_nb.settings.variables import check

    check(name, field)


def child(function: F) -> F:
    """`--cwd`, `--env` and `--with-keys`: what a child process starts with."""
    for option in (
        click.option(
            "--with-keys", multiple=True, type=Variable(), metavar="NAME", help="Let this key variable through."
        ),
        click.option("--env", multiple=True, metavar="NAME=VALUE", help="Set a variable."),
        click.option("--cwd", metavar="FOLDER", help="Where to start.  [default: here]"),
    ):
        function = option(function)
    return function


def variables(given: Sequence[str]) -> dict[str, str]:
    """`NAME=VALUE` words as a mapping.

    Raises:
        UsageError: one has no `=`.
    """
    for word in given:
        if not word.partition("=")[1] or word.startswith("="):
            raise UsageError(  # not repeated: it may be a key
                problem="--env is not of the form NAME=VALUE", field="--env", remedy="For example `--env DEBUG=1`."
            )
        _check_variable(word.partition("=")[0], "--env")
    return {name: value for name, _, value in (word.partition("=") for word in given)}


def check(function: F) -> F:
    """`--check` and `--no-check`: whether a failing command is an error of its cell."""
    return click.option(
        "--check/--no-check",
        "is_checked",
        default=None,
        help="A failing command is an error, and ends a notebook that runs as a whole.  [default: `pty.check`]",
    )(function)


def ended(face: Face, live: Live[R], is_checked: bool | None) -> Result:
    """Show the output of a command to its end, unless JSON was asked for; a failing one is exit code 1.

    Raises:
        CommandFailed: it failed, and that is to be an error.
    """
    run = live.drain(lambda _: None) if face.wants_json else face.show_output(live)
    if not run.is_ok and (_is_checked(face) if is_checked is None else is_checked):
        raise CommandFailed(command=live.what, ending=run.ending, pty_id=run.pty_id)
    return Result(run, exit_code=0 if run.is_ok else 1)


def _is_checked(face: Face) -> bool:
    """The setting; asked only once something has failed."""
    if face.name == "cli":
        return False  # its exit code says it
    found = face.client.settings()
    return bool((found.loc[found["path"] == "pty.check", "value"] == "true").any())


class WindowOptions(TypedDict):
    """Which rows of the history: as the client's methods for frames take it."""

    since: str | None
    between: tuple[str, str] | None
    at: str | None
    limit: int | None
    wait: float | None
    source: str | None
    all: bool


def window(function: Callable[..., T]) -> Callable[..., T]:
    """`--since`, `--between`, `--at`, `--limit`, `--wait`, `--in` and `--all`, handed on as one `window`."""

    @functools.wraps(function)
    def with_window(
        *args: Any,
        since: str | None,
        between: tuple[str, str] | None,
        at: str | None,
        limit: int | None,
        wait: float | None,
        source: str | None,
        is_all: bool,
        **others: Any,
    ) -> T:
        window = WindowOptions(since=since, between=between, at=at, limit=limit, wait=wait, source=source, all=is_all)
        return function(*args, window=window, **others)

    decorated: Callable[..., T] = with_window
    for option in (
        all_,
        source,
        wait,
        click.option("--limit", type=click.IntRange(min=1), help="At most so many rows, the newest."),
        click.option("--at", type=Ref(), metavar="REF", help="The history as of a commit, branch, tag or time."),
        click.option("--between", type=Time(), nargs=2, metavar="FROM TO", help="Two times instead of --since."),
        click.option("--since", type=Time(), help="From when on: 1h, yesterday, 14:00, ISO, all.  [default: 24h]"),
    ):
        decorated = option(decorated)
    return decorated


def all_(function: F) -> F:
    return click.option("--all", "is_all", is_flag=True, help="Show what all daemons that share this history wrote.")(
        function
    )


def source(function: F) -> F:
    return click.option(
        "--in", "source", type=SourceName(), metavar="NAME", help="Read this source, which `import` made, instead."
    )(function)


def wait(function: F) -> F:
    return click.option(
        "--wait",
        is_flag=False,
        flag_value="60",
        type=click.FloatRange(0, 120),
        metavar="[SECONDS]",
        help="Wait until all that was recorded is in the store, at most so long (60).",
    )(function)


def profile(help: str) -> Callable[[F], F]:  # noqa: A002 - click's own word
    return click.option("-p", "--profile", type=ProfileName(), help=help)


def code(function: F) -> F:
    return click.option("--code", type=CodeName(), help="Only those with this error code.")(function)


def by(function: F) -> F:
    return click.option("--by", type=GroupNames(), help="Group by these: counts, p50/p95, errors, cost.")(function)


def plot(function: F) -> F:
    return click.option("--plot", is_flag=True, help="A picture, with the rows folded away.")(function)


def plotted(frame: pd.DataFrame, is_wanted: bool, face: Face, *, buckets: bool = False) -> Any:
    """The frame, or its picture where that is wanted: `.frame` of it is the frame."""
    if not is_wanted or face.wants_json:
        return frame
    from tundra_nb.views.plots import plot as draw

    return draw(frame, buckets=buckets)
