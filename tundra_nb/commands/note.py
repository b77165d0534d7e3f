"""`tundra note`: an annotation in the history."""

from __future__ import annotations

import click

from tundra_nb.client.results import Document

from .command import TextCommand
from .command import command as _command
from .face import Face, pass_face


@_command("note", cls=TextCommand)
@click.argument("text", nargs=-1)
@click.option("--on", "subject", default="", metavar="SUBJECT", help="What it is about: an id, a code, a word.")
@pass_face
def command(face: Face, text: tuple[str, ...], subject: str) -> Document:
    """Write an annotation into the history. TEXT, or the cell below, is what was seen or done."""
    body = "\n".join(part for part in (" ".join(text), face.take_body(text) or "") if part.strip())
    return face.client.note(body, subject)
