"""The click classes of all commands: common options, lazy loading, "did you mean", our errors instead of click's."""

from __future__ import annotations

import dataclasses
import importlib
import keyword
import os
import re
from collections.abc import Callable, Sequence
from typing import Any, Literal

import click

from tundra_nb.errors import UsageError
from tundra_nb.nearest import nearest

from .face import Face, face_of
from .text import divide

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


Form = Literal["", "json", "csv", "tsv"]
"""How a result is printed; empty: for people."""


@dataclasses.dataclass(frozen=True)
class Result:
    """What a command gave, and what its caller is to do with it."""

    value: Any = None
    form: Form = ""
    as_name: str | None = None
    exit_code: int = 0


class Command(click.Command):
    """A command with `--json` and `--as`; its result is a `Result`.

    `takes_text`: what follows the options is one text, taken as it stands, with no quotes needed.
    """

    takes_text = False
    has_data = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("context_settings", CONTEXT)
        super().__init__(*args, **kwargs)
        if self.has_data:
            self.params += data_options()

    def get_short_help_str(self, limit: int = 0) -> str:
        """The whole first sentence; click would cut it to one line."""
        return super().get_short_help_str(1000)

    def invoke(self, ctx: click.Context) -> Any:
        face = face_of(ctx)
        form, as_name = _take_form(ctx, face)
        value = super().invoke(ctx)
        face.check_body_taken(ctx.command_path.partition(" ")[2])
        if isinstance(value, Result):
            return dataclasses.replace(value, form=form, as_name=as_name)
        return Result(value, form, as_name)


class TextCommand(Command):
    """A command whose last argument is free text; `text` has the rule on options around it."""

    takes_text = True
    is_code = False
    """The text is code, in which quotes hold words together."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if ctx.resilient_parsing:  # completion: half a line is no mistake
            return super().parse_args(ctx, args)
        parts = divide(self, args)
        return super().parse_args(ctx, [*parts.options, "--", *(args[index] for index in parts.text)])


class CodeCommand(TextCommand):
    """A text command whose text is code."""

    is_code = True


class ShellCommand(CodeCommand):
    """A text command whose text is for a shell: `-h` belongs to what it runs, as in `df -h`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("context_settings", CONTEXT | {"help_option_names": ["--help"]})
        super().__init__(*args, **kwargs)


class PlainCommand(Command):
    """A command that gives no data, only does something."""

    has_data = False


class NumberCommand(Command):
    """A command whose argument may be `-2`, which is no option."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        numbers = [arg for arg in args if re.fullmatch(r"-\d+", arg)]
        others = [arg for arg in args if arg not in numbers]
        return super().parse_args(ctx, [*others, "--", *numbers] if numbers else others)


class Group(click.Group):
    """A command with sub-commands; by itself it is the command that `callback` is."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("context_settings", CONTEXT)
        kwargs.setdefault("invoke_without_command", True)
        super().__init__(*args, **kwargs)
        self.params += data_options()

    def invoke(self, ctx: click.Context) -> Any:
        face = face_of(ctx)
        form, as_name = _take_form(ctx, face)
        value = super().invoke(ctx)
        if isinstance(value, Result):
            return dataclasses.replace(value, form=value.form or form, as_name=value.as_name or as_name)
        face.check_body_taken(ctx.command_path.partition(" ")[2])
        return Result(value, form, as_name)

    def get_short_help_str(self, limit: int = 0) -> str:
        """The whole first sentence; click would cut it to one line."""
        return super().get_short_help_str(1000)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0] if args else ""
        if name and not name.startswith("-") and self.get_command(ctx, name) is None and not ctx.resilient_parsing:
            known = self.list_commands(ctx)
            top = ctx.find_root()
            elsewhere = isinstance(top.command, click.Group) and name in top.command.list_commands(top)
            raise UsageError(
                problem=_without_keys(f"no command {' '.join([*_path(ctx), name])!r}"),
                field="command",
                nearest=None if elsewhere else nearest(name, known),
                remedy=f"`%tundra {name}` is a command of its own." if elsewhere else f"Known: {', '.join(known)}.",
            )
        return super().resolve_command(ctx, args)


class LazyGroup(Group):
    """A group whose commands are imported when they are used.

    `table`: name → module of this package, or the whole name of a module of a room above.
    """

    def __init__(self, *args: Any, table: dict[str, str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.table = table

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.table:
            return None
        name = self.table[cmd_name]
        module = importlib.import_module(name if "." in name else f".{name}", __package__)
        found: click.Command = module.command
        return found


def command(name: str, *, cls: type[Command] = Command, **options: Any) -> Callable[[Callable[..., Any]], Command]:
    """A sub-command of this name; its docstring is its help."""
    return click.command(name, cls=cls, **options)


def data_options() -> list[click.Parameter]:
    """What every command with a result takes."""
    return [
        click.Option(["--json", "as_json"], is_flag=True, help="Print JSON."),
        click.Option(["--csv", "as_csv"], is_flag=True, help="Print a table as CSV, every row and column."),
        click.Option(["--tsv", "as_tsv"], is_flag=True, help="The same with tabs between."),
        click.Option(["--as", "as_name"], metavar="NAME", help="Notebook: bind the result to this variable."),
    ]


def _take_form(ctx: click.Context, face: Face) -> tuple[Form, str | None]:
    """How the result is wanted, out of the parameters that the command's function does not know."""
    forms: tuple[Form, ...] = ("json", "csv", "tsv")
    given = [form for form in forms if ctx.params.pop(f"as_{form}", False)]
    name = ctx.params.pop("as_name", None)
    if len(given) > 1:
        raise UsageError(problem=f"--{given[0]} and --{given[1]} exclude each other", field=f"--{given[1]}")
    if name is not None:
        check_name(name, face)
    face.wants_json = bool(given)
    return (given[0] if given else ""), name


def check_name(name: str, face: Face) -> None:
    """Refuse what cannot be a variable, or a variable where there are none.

    Raises:
        UsageError: it is so.
    """
    if face.name != "kernel":
        raise UsageError(problem="`--as` binds a variable of a notebook; here there are none", field="--as")
    if not name.isidentifier() or keyword.iskeyword(name):
        raise UsageError(problem=f"{name!r} is not a name for a variable", field="--as")


def usage_error(exc: click.ClickException, face: Face) -> UsageError:
    """Click's error in our form, naming the nearest word."""
    problem = exc.format_message().strip().rstrip(".")
    problem = problem[:1].lower() + problem[1:]
    near: str | None = None
    field: str | None = None
    if isinstance(exc, click.NoSuchOption):
        field = exc.option_name
        problem = f"no option {exc.option_name}"
        known = [word for param in _params(exc.ctx) for word in param.opts if word.startswith("--")]
        near = nearest(exc.option_name, known)
    elif isinstance(exc, click.BadParameter):
        field = exc.param.human_readable_name if exc.param is not None else None
        if exc.param is not None and isinstance(exc.param.type, click.Choice):
            bad = re.search(r"'(.*?)'", exc.message)
            near = nearest(bad.group(1), map(str, exc.param.type.choices)) if bad else None
    path = " ".join(_path(exc.ctx)) if isinstance(exc, click.UsageError) and exc.ctx is not None else ""
    remedy = face.words(f"`%tundra {path} --help` shows how.".replace("  ", " "))
    return UsageError(problem=_without_keys(problem), field=field, nearest=near, remedy=remedy)


def _without_keys(problem: str) -> str:
    """What was typed is told, but not a key, which a notebook would keep."""
    from tundra_nb.settings.variables import without_keys  # an error may take its time

    return without_keys(problem)


def run(root: click.Command, args: Sequence[str], face: Face) -> Result:
    """Run a command line on a face.

    Raises:
        TundraError: what went wrong, a wrong option included.
    """
    try:
        with root.make_context(face.prefix.strip(), list(args), obj=face) as ctx:
            found = root.invoke(ctx)
    except click.exceptions.Exit as done:
        return Result(exit_code=done.exit_code)
    except click.ClickException as exc:
        raise usage_error(exc, face) from None
    except FileNotFoundError as exc:
        if _is_somewhere():
            raise
        raise UsageError(
            problem="the folder in which this runs was removed", field="cwd", remedy="Go to one that is there: `cd ~`."
        ) from exc
    return found if isinstance(found, Result) else Result(found)


def _is_somewhere() -> bool:
    try:
        os.getcwd()
    except FileNotFoundError:
        return False
    return True


def _params(ctx: click.Context | None) -> list[click.Parameter]:
    return [] if ctx is None else ctx.command.get_params(ctx)


def _path(ctx: click.Context | None) -> list[str]:
    return [] if ctx is None else ctx.command_path.split(" ")[1:]
