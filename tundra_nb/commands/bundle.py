"""`tundra bundle`: one masked zip with everything that a report needs."""

from __future__ import annotations

import click

from tundra_nb.doctor.bundle import Bundle

from .command import command as _command
from .face import Face, pass_face


@_command("bundle")
@click.option("--out", metavar="FILE", help="Where to.  [default: tundra-bundle-TIME.zip in this folder]")
@click.option("--force", is_flag=True, help="Also over a file that is there.")
@click.option("--symptom", default="", help="What the report is about.")
@pass_face
def command(face: Face, out: str | None, force: bool, symptom: str) -> Bundle:
    """Write one zip with everything that a report needs: checkup, settings, versions, log, last rows, ISSUE.md.

    Secrets are masked by value and by what keys look like; what was masked where stands in it. Nothing is written
    while a known secret would be in it. Look through it before you send it.
    """
    return face.client.bundle(out, force=force, symptom=symptom, cells=face.cells())
