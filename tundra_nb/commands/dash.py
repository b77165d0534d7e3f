"""`tundra dash`."""

from __future__ import annotations

from typing import Any

import click

from . import options
from .command import command as _command
from .face import Face, pass_face


@_command("dash")
@click.argument("since", required=False, type=options.Time())
@click.option("--between", type=options.Time(), nargs=2, metavar="FROM TO", help="Two times instead of SINCE.")
@click.option("--at", type=options.Ref(), metavar="REF", help="The history as of a commit, branch, tag or time.")
@click.option("--incident", metavar="WHICH", help="Its window, at its pin: id, title or `last`.")
@options.source
@options.profile("Only calls of this profile.")
@options.code
@click.option("--caller", help="Only calls of this caller: kernel, cli, python, gateway.")
@click.option("--still", is_flag=True, help="Notebook: only the static picture.")
@pass_face
def command(
    face: Face,
    since: str | None,
    between: tuple[str, str] | None,
    at: str | None,
    incident: str | None,
    source: str | None,
    profile: str | None,
    code: str | None,
    caller: str | None,
    still: bool,
) -> Any:
    """One hour on one page: what broke, since when, what was changed before, and what is still well.

    SINCE is a time (`2h`, `14:00`, `all`), one hour ago when left out. In a notebook it is live: drag to select, and
    `.selection` of the value is a frame of the calls; Ctrl and the wheel zoom; `e` goes to what failed.
    """
    from tundra_nb.dashboard.reading import Window
    from tundra_nb.dashboard.still import shown

    window = Window(
        since=since, between=between, at=at, incident=incident, source=source, profile=profile, code=code, caller=caller
    )
    if face.shows_live and not (still or face.wants_json):
        return face.widget("dash", window)
    found = shown(face.client, window)
    return found.frame if face.wants_json else found
