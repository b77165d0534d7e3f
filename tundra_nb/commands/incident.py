"""`tundra incident …`: a bad hour under a title, pinned, with a notebook that tells its story."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from tundra_nb.errors import UsageError
from tundra_nb.views import Message

from .command import Command, Group
from .face import Face, pass_face
from .options import Time

if TYPE_CHECKING:
    import pandas as pd

    from tundra_nb.client.results import Document, Stories


@click.group("incident", cls=Group)
@click.pass_context
@pass_face
def command(face: Face, ctx: click.Context) -> pd.DataFrame | None:
    """Pin a bad hour under a title, and tell its story in a notebook."""
    return face.client.incidents() if ctx.invoked_subcommand is None else None


@command.command("new", cls=Command)
@click.argument("title")
@click.option("--since", type=Time(), default="1h", show_default=True, help="From when on: 2h, 14:00, ISO.")
@click.option("--until", type=Time(), help="Until when.  [default: now]")
@click.option("--out", metavar="FILE", help="The notebook's file.  [default: in this folder, named after the title]")
@click.option("--no-run", is_flag=True, help="Write the notebook without running it.")
@pass_face
def new(face: Face, title: str, since: str, until: str | None, out: str | None, no_run: bool) -> Document:
    """Commit and tag the history, keep the window under TITLE, and write the notebook that tells what happened."""
    return face.client.incidents.new(title, since, until, out=out, run=not no_run, on_progress=face.progress)


@command.command("list", cls=Command)
@pass_face
def list_(face: Face) -> pd.DataFrame:
    """The incidents, the oldest first."""
    return face.client.incidents()


@command.command("open", cls=Command)
@click.argument("incident")
@click.option("--ref", metavar="REF", help="Another state than its pin: a deliberate new pin of this notebook.")
@click.option("--between", nargs=2, metavar="FROM TO", help="Another window than its own.")
@pass_face
def open_(face: Face, incident: str, ref: str | None, between: tuple[str, str] | None) -> Message:
    """Show this notebook the incident from now on: at its pin and in its window, where a command names no other.

    INCIDENT is its id, the last digits of it, its title, its tag or `last`.
    """
    if face.name == "cli":
        raise UsageError(
            problem="each command line is a process of its own: there is nothing to open an incident for",
            field="open",
            remedy=f"Give commands `--at REF`: `tundra incident show {incident}` tells it.",
        )
    return Message(face.client.incidents.open(incident, ref=ref, between=between))


@command.command("leave", cls=Command)
@pass_face
def leave(face: Face) -> Message:
    """Show this notebook the present again."""
    face.client.incidents.leave()
    return Message("This notebook shows the present again.")


@command.command("show", cls=Command)
@click.argument("incident")
@pass_face
def show(face: Face, incident: str) -> Document:
    """One incident: its window, its pin, its notebook."""
    return face.client.incidents.find(incident)


@command.command("story", cls=Command)
@click.argument("incident")
@pass_face
def story(face: Face, incident: str) -> Document:
    """What happened, in figures from the rows: what failed, since when, whom it hit, what was changed before."""
    return face.client.incidents.story(incident)


@command.command("worst", cls=Command)
@click.argument("incident")
@click.option("--limit", type=click.IntRange(min=1, max=50), default=5, show_default=True, help="Most calls to show.")
@pass_face
def worst(face: Face, incident: str, limit: int) -> Stories:
    """The calls that went worst, each with its causal chain."""
    return face.client.incidents.worst(incident, limit)


@command.command("note", cls=Command)
@click.argument("incident")
@click.argument("text", nargs=-1, required=True)
@pass_face
def note(face: Face, incident: str, text: tuple[str, ...]) -> Document:
    """Write a note about an incident; it belongs to the pin from the next `incident pin` on."""
    found = face.client.incidents.find(incident)
    return face.client.note(" ".join(text), found["title"])


@command.command("export", cls=Command)
@click.argument("incident")
@click.option("--out", metavar="FILE", help="The zip.  [default: in this folder, named after the title]")
@click.option("--whole", is_flag=True, help="All rows of the history at its pin, not those of its window.")
@click.option("--force", is_flag=True, help="Also over a file that is there.")
@pass_face
def export(face: Face, incident: str, out: str | None, whole: bool, force: bool) -> Document:
    """Write an incident as one zip: notebook, HTML, rows as Parquet, recordings, a manifest of hashes; masked.

    INCIDENT is its id, the last digits of it, its title, its tag, `last`, or the file of its notebook.
    """
    return face.client.incidents.export(incident, out, whole=whole, force=force, on_progress=face.progress)


@command.command("import", cls=Command)
@click.argument("file")
@click.option("--name", help="Name of the source that its rows become.  [default: after the title]")
@click.option("--out", metavar="FILE", help="The notebook's file.  [default: in this folder]")
@pass_face
def import_(face: Face, file: str, name: str | None, out: str | None) -> Document:
    """Prove the zip of an incident, then take its rows as a source and its notebook into this folder.

    A zip in which anything was changed is refused, with the member and the row. The notebook is not trusted: read it
    before you run or verify it.
    """
    return face.client.incidents.import_(file, name=name, out=out)


@command.command("pin", cls=Command)
@click.argument("incident")
@click.option("-m", "--message", "reason", default="", help="Why.")
@pass_face
def pin(face: Face, incident: str, reason: str) -> Document:
    """Pin the present history for it: what was noted since then belongs to it."""
    return face.client.incidents.pin(incident, reason)


@command.command("close", cls=Command)
@click.argument("incident")
@click.option("-m", "--message", "reason", default="", help="What it was, and what was done.")
@pass_face
def close(face: Face, incident: str, reason: str) -> Document:
    """Close an incident; its pin and its notebook stay."""
    return face.client.incidents.close(incident, reason)
