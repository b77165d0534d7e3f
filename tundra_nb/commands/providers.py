"""`tundra providers [add/set/remove/reorder/test/recheck/park]`: the profiles."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, get_args

import click

from tundra_nb.client.results import Document
from tundra_nb.errors import TundraError
from tundra_nb.types import ProviderKind
from tundra_nb.views import Message
from tundra_nb.views.blocks import duration

from . import options
from .command import Command, Group, Result
from .face import Face, pass_face

if TYPE_CHECKING:
    import pandas as pd


@click.group("providers", cls=Group)
@click.option("--widget", is_flag=True, help="Notebook: a live view, with breakers and buckets.")
@options.all_
@click.pass_context
@pass_face
def command(face: Face, ctx: click.Context, widget: bool, is_all: bool) -> Any:
    """The profiles by priority: ready, cooling, parked, and why."""
    if ctx.invoked_subcommand is not None:
        return None
    return face.widget("providers") if widget else face.client.providers(all=is_all)


@command.command("add", cls=Command)
@click.argument("name")
@click.option("--kind", type=click.Choice(get_args(ProviderKind)), required=True, help="What API it speaks.")
@click.option("--base-url", help="Where it is; left out: the vendor's own host.")
@click.option("--model", help="Left out: chosen from the provider's own list.")
@click.option(
    "--api-key-env",
    type=options.Variable(),
    metavar="VARIABLE",
    help="Name of the variable that holds the key, never the key.",
)
@click.option("--priority", type=int, help="Lower is asked first.  [default: 0]")
@pass_face
def add(
    face: Face,
    name: str,
    kind: str,
    base_url: str | None,
    model: str | None,
    api_key_env: str | None,
    priority: int | None,
) -> Document:
    """Write a profile called NAME into the settings file, use it from now on, and ask it whether it answers."""
    added = face.client.add_provider(
        name, kind, base_url=base_url, model=model, api_key_env=api_key_env, priority=priority
    )
    return Document({**_brief(added), "test": _told(_test(face, name))})


@command.command("set", cls=Command)
@click.argument("name", type=options.ProfileName())
@click.option("--base-url", help="Where it is.")
@click.option("--model", help="What it is asked for; an empty text: chosen from the provider's own list.")
@click.option("--api-key-env", type=options.Variable(), metavar="VARIABLE", help="Name of the variable with the key.")
@click.option("--priority", type=int, help="Lower is asked first.")
@click.option("--rpm", type=click.FloatRange(min=0, min_open=True), help="Requests per minute.")
@click.option("--tpm", type=click.FloatRange(min=0, min_open=True), help="Tokens per minute.")
@click.option("--enabled/--disabled", default=None, help="Whether it is asked at all.")
@pass_face
def set_(face: Face, /, name: str, **fields: Any) -> Document:
    """Change profile NAME, in the settings file and in force at once."""
    given = {field: value for field, value in fields.items() if value is not None}
    changed = face.client.set_provider(name, **given)
    if given.get("enabled") is False:
        return changed
    return Document({**changed, "test": _told(_test(face, name))})


@command.command("remove", cls=Command)
@click.argument("name", type=options.ProfileName())
@pass_face
def remove(face: Face, name: str) -> Message:
    """Take profile NAME out of the settings file; its history stays."""
    face.client.remove_provider(name)
    return Message(f"Profile {name} is removed; `%tundra versions` has it, should it be wanted back.")


@command.command("reorder", cls=Command)
@click.argument("names", nargs=-1, required=True, type=options.ProfileName())
@pass_face
def reorder(face: Face, names: tuple[str, ...]) -> pd.DataFrame:
    """Have the profiles NAMES asked in this order, before all others."""
    return face.client.reorder_providers(names)


@command.command("test", cls=Command)
@click.argument("names", nargs=-1, type=options.ProfileName())
@pass_face
def test(face: Face, names: tuple[str, ...]) -> Result:
    """Ask for the list of models, the smallest call there is, and tell how long that took; without NAMES, of all."""
    found = [_test(face, name) for name in names or face.client.profile_names()]
    lines = "\n".join(f"{one['profile']}: {_told(one)}" for one in found)
    value = Message(lines or "There is no profile to test.")
    return Result(list(found) if face.wants_json else value, exit_code=0 if all(one["ok"] for one in found) else 1)


@command.command("recheck", cls=Command)
@click.argument("name", type=options.ProfileName())
@pass_face
def recheck(face: Face, name: str) -> Document:
    """Ask whether profile NAME can be used again, and take it back in when it can."""
    try:
        with _asking(face, name):
            return face.client.recheck_provider(name)
    except TundraError as error:
        states = {row["profile"]: row["state"] for row in face.client.status(brief=True)["profiles"]}
        if states.get(name) == "parked" and not error.parks:  # else its hint says so
            face.write(f"{name} stays parked.\n")
        raise


@command.command("park", cls=Command)
@click.argument("name", type=options.ProfileName())
@pass_face
def park(face: Face, name: str) -> Document:
    """Take profile NAME out of use until it is rechecked."""
    return face.client.park_provider(name)


def _test(face: Face, name: str) -> Document:
    with _asking(face, name):
        return face.client.test_provider(name)


@contextlib.contextmanager
def _asking(face: Face, name: str) -> Iterator[None]:
    """Tell what is waited for: a server that hangs takes its 20 s."""
    face.progress(f"asking {name} for its models …")
    try:
        yield
    finally:
        face.progress("")


def _told(found: Document) -> str:
    """What a test saw, in a line."""
    took = duration(found["latency_ms"] / 1000)
    if found["ok"]:
        count = found["models"]
        return f"answered in {took}, {count} model{'s' if count != 1 else ''}"
    hint = f" → {found['hint']}" if found["hint"] else ""
    return f"{found['code']} after {took}: {found['message']}{hint}"


def _brief(card: Document) -> dict[str, Any]:
    """What was chosen for a new profile."""
    shown = ("profile", "kind", "base_url", "model", "priority", "key_variable")
    return {name: card[name] for name in shown if card.get(name) not in (None, "")}
