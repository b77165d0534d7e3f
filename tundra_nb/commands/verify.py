"""`tundra verify`: whether a notebook still shows what its data say."""

from __future__ import annotations

from pathlib import Path

import click

from tundra_nb.client.results import Document

from .command import Command, Result
from .command import command as _command
from .face import Face, pass_face


@_command("verify", cls=Command)
@click.argument("notebooks", nargs=-1, required=True, metavar="NOTEBOOK…")
@click.option("--trust", is_flag=True, help="Run it although Jupyter does not trust it.")
@click.option("--report", metavar="FILE", help="Also write what was found as one HTML page.")
@click.option("--update", is_flag=True, help="Write the new outputs into it.")
@pass_face
def command(face: Face, notebooks: tuple[str, ...], trust: bool, report: str | None, update: bool) -> Result:
    """Run notebooks again in a clean kernel, without keys and acting commands, and compare cell by cell.

    The exit code is 0 when every cell is the same, 1 when one was edited, changed, failed, is gone or had nothing
    saved.
    """
    from tundra_nb.incidents.verify import NOTHING, verify

    told = {}
    verdicts = []
    is_same = True
    files = [Path(name).name for name in notebooks]
    for given in notebooks:
        name = given if files.count(Path(given).name) > 1 else Path(given).name
        verdict = verify(
            Path(given),
            is_trusted=trust,
            update=update,
            on_progress=lambda text, name=name: face.progress(text and f"{name}, {text}"),  # type: ignore[misc]
        )
        is_same = is_same and verdict.is_same
        verdicts.append(verdict)
        for cell in verdict.cells:
            detail = f": {cell.detail}" if cell.detail else ""
            number = f"was {cell.number}" if cell.state == "gone" else cell.number
            told[f"{name} [{number}]"] = f"{cell.state}{detail} · {cell.source}"
        told[name] = ("the same" if verdict.is_same else "not the same") if verdict.cells else NOTHING
    if report is not None:
        from tundra_nb.incidents.report import write

        write(verdicts, Path(report))
    return Result(Document(told), exit_code=0 if is_same else 1)
