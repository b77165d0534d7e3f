"""`tundra simulate`: recorded arrivals under other settings."""

from __future__ import annotations

from typing import Any

import click

from . import options
from .command import command as _command
from .face import Face, pass_face


@_command("simulate")
@click.argument("incident", required=False)
@click.option("--since", type=options.Time(), help="From when on.  [default: 1d, unless an incident is named]")
@click.option("--between", nargs=2, metavar="FROM TO", help="Two times, instead of `--since`.")
@click.option("--at", type=options.Ref(), metavar="REF", help="The history and the settings as of a state.")
@click.option(
    "--set",
    "settings",
    multiple=True,
    type=options.Assignment(),
    metavar="PATH=VALUE,…",
    help="A setting and its values.",
)
@click.option("--propose", metavar="BRANCH", help="Write the one variant on this branch; `merge` puts it into force.")
@click.option(
    "--workers", type=click.IntRange(min=1), metavar="N", help="Run N variants side by side, in processes of their own."
)
@options.plot
@pass_face
def command(
    face: Face,
    incident: str | None,
    since: str | None,
    between: tuple[str, str] | None,
    at: str | None,
    settings: tuple[str, ...],
    propose: str | None,
    workers: int | None,
    plot: bool,
) -> Any:
    """What would have become of the recorded calls: the same limiter, breakers and router under other settings.

    INCIDENT, or a window. `--set` may be given several times, each with several values: every combination is a
    variant. A request that was never sent in truth has no known end: it widens the band from ok_least to ok_most, and
    is never counted as a success.
    """
    frame = face.client.simulate(
        incident,
        since=since,
        between=between,
        at=at,
        settings=settings,
        propose=propose,
        workers=workers,
        on_progress=face.progress,
    )
    return options.plotted(frame, plot, face)
