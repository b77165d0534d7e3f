"""`tundra fault [list/kinds/start/set/clear/stop]`: faults injected into a profile while a notebook runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from tundra_nb.client.results import Document
from tundra_nb.errors import UsageError

from . import options
from .command import Command, Group
from .face import Face, pass_face

if TYPE_CHECKING:
    import pandas as pd


class Kind(click.ParamType[str]):
    """The name of a fault."""

    name = "kind"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        del ctx, param
        from tundra_nb.faults.faults import FAULTS

        return [CompletionItem(f.name, help=f.summary) for f in FAULTS.values() if f.name.startswith(incomplete)]


_profile = click.option(
    "-p", "--profile", type=options.ProfileName(), help="Which profile.  [default: the one that has a drill]"
)


@click.group("fault", cls=Group)
@click.pass_context
@pass_face
def command(face: Face, ctx: click.Context) -> pd.DataFrame | None:
    """The faults that are injected now, and how often each happened.

    Only in this daemon, and never in the settings file: a restart ends them.
    """
    return face.client.faults() if ctx.invoked_subcommand is None else None


@command.command("list", cls=Command)
@pass_face
def list_(face: Face) -> pd.DataFrame:
    """The faults that are injected now, and how often each happened."""
    return face.client.faults()


@command.command("kinds", cls=Command)
@pass_face
def kinds(face: Face) -> pd.DataFrame:
    """Every fault that can be injected."""
    del face
    import msgspec
    import pandas as pd

    from tundra_nb.faults.faults import FAULTS

    return pd.DataFrame([msgspec.structs.asdict(fault) for fault in FAULTS.values()])


@command.command("start", cls=Command)
@click.option(
    "-p", "--profile", type=options.ProfileName(), help="Which profile.  [default: the one that is asked first]"
)
@pass_face
def start(face: Face, profile: str | None) -> Document:
    """Put a fault proxy in front of a profile. Nothing fails yet: `fault set KIND` says what does."""
    if profile is None:
        names = face.client.profile_names()
        if not names:
            raise UsageError(problem="there is no profile to inject faults into", field="profile")
        profile = names[0]
    return face.client.start_faults(profile)


@command.command("set", cls=Command)
@click.argument("kind", type=Kind())
@_profile
@click.option("--count", type=click.IntRange(min=1), help="How often at most.  [default: always]")
@click.option("--probability", type=click.FloatRange(0, 1), help="How likely for each request.  [default: 1]")
@click.option("--seed", type=int, help="The same seed gives the same choices.  [default: 0]")
@click.option("--seconds", type=float, help="What a retry hint says, or how slow it is.  [default: 1]")
@click.option("--model", metavar="PATTERN", help="Only requests for these models.  [default: *]")
@click.option("--after-events", type=int, help="Real events before an error in a stream.")
@click.option("--after-bytes", type=int, help="Where a stream is cut.")
@click.option("--status", type=int, help="The status that an error in a stream would have had.")
@pass_face
def set_(
    face: Face,
    kind: str,
    profile: str | None,
    count: int | None,
    probability: float | None,
    seed: int | None,
    seconds: float | None,
    model: str | None,
    after_events: int | None,
    after_bytes: int | None,
    status: int | None,
) -> Document:
    """Have KIND happen from now on, after the faults that are set already. `fault kinds` lists them."""
    rule = {
        "count": count,
        "probability": probability,
        "seed": seed,
        "seconds": seconds,
        "model": model,
        "events": after_events,
        "cut_bytes": after_bytes,
        "status": status,
    }
    given = {name: value for name, value in rule.items() if value is not None}
    return face.client.set_fault(_chosen(face, profile), kind, **given)


@command.command("clear", cls=Command)
@click.argument("kind", type=Kind(), required=False)
@_profile
@pass_face
def clear(face: Face, kind: str | None, profile: str | None) -> Document:
    """Have KIND, or every fault, happen no longer. The proxy stays."""
    return face.client.clear_faults(_chosen(face, profile), kind)


@command.command("stop", cls=Command)
@_profile
@pass_face
def stop(face: Face, profile: str | None) -> Document:
    """Take the proxy away: the profile is reached directly again."""
    return face.client.stop_faults(_chosen(face, profile))


def _chosen(face: Face, profile: str | None) -> str:
    """The profile that is meant: the one named, or the only one with a drill."""
    if profile is not None:
        return profile
    names = list(dict.fromkeys(face.client.faults()["profile"]))
    if len(names) == 1:
        return str(names[0])
    raise UsageError(
        problem="faults are injected into several profiles" if names else "no profile has a fault proxy",
        field="profile",
        remedy=f"Name one of them with `--profile`: {', '.join(map(str, names))}."
        if names
        else "`%tundra fault start` puts one in front of the first profile.",
    )
