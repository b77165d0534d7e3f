"""`tundra replay`: recorded calls through today's code."""

from __future__ import annotations

from typing import Any

import click

from . import options
from .command import command as _command
from .face import Face, pass_face


@_command("replay")
@click.argument("incident", required=False)
@click.option("--since", type=options.Time(), help="Beginning of a window, instead of an incident.")
@click.option("--between", nargs=2, metavar="FROM TO", help="Two times, instead of `--since`.")
@click.option("--at", type=options.Ref(), metavar="REF", help="The history and the settings as of a state.")
@click.option(
    "--set",
    "settings",
    multiple=True,
    type=options.Assignment(),
    metavar="PATH=VALUE",
    help="A setting to change against those of then.",
)
@click.option("--speed", type=float, help="How many times faster than real time.  [default: as fast as it goes]")
@click.option("--parting", is_flag=True, help="Only calls that end otherwise now.")
@pass_face
def command(
    face: Face,
    incident: str | None,
    since: str | None,
    between: tuple[str, str] | None,
    at: str | None,
    settings: tuple[str, ...],
    speed: float | None,
    parting: bool,
) -> Any:
    """Run recorded calls again, offline, on a virtual clock, and show then against now, and where they part.

    INCIDENT is its id, the last digits of it, its title, its tag or `last`. Providers are played back: from
    recordings where there are any (see `record`), else as the rows tell; everything else is today's code.
    """
    frame = face.client.replay(
        incident, since=since, between=between, at=at, settings=settings, speed=speed, on_progress=face.progress
    )
    if not face.wants_json:
        told = frame.attrs["summary"]
        width = max(map(len, told))
        face.write("".join(f"{name:<{width}}  {text}\n" for name, text in told.items()))
    if parting:
        attrs = frame.attrs
        frame = frame[frame["parts"]].reset_index(drop=True)
        frame.attrs.update(attrs)
    return frame
