"""`tundra logs`: the daemon's log, also when the daemon is dead."""

from __future__ import annotations

import collections
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tundra_nb.client.logs import wanted
from tundra_nb.errors import UsageError
from tundra_nb.local import log_lines
from tundra_nb.views import Lines

from .command import Command
from .command import command as _command
from .face import Face, pass_face
from .options import Time

if TYPE_CHECKING:
    import pandas as pd

POLL_SECONDS = 0.2
LINES = 50
CHUNK_BYTES = 65536


@_command("logs", cls=Command)
@click.option(
    "-n",
    "--lines",
    type=click.IntRange(min=1),
    help="Most lines to show, the newest.  [default: 50, or all that are asked for]",
)
@click.option("-f", "--follow", is_flag=True, help="Go on with lines as they come, until interrupted.")
@click.option("--since", type=Time(), help="From when on: 1h, yesterday, 14:00, ISO, all.")
@click.option("--level", type=click.Choice(log_lines.LEVELS), help="Lines of this level, or graver.")
@click.option("--operation", help="Lines of one call: its id, or the last digits of it.")
@click.option("--frame", is_flag=True, help="As a frame, with a column for each part.")
@pass_face
def command(
    face: Face,
    lines: int | None,
    follow: bool,
    since: str | None,
    level: str | None,
    operation: str | None,
    frame: bool,
) -> Lines | pd.DataFrame | None:
    """The last lines of the daemon's log; with --since, --level or --operation, those lines of it."""
    asked = wanted(since, level, operation)
    is_asked = asked != log_lines.WantedLines()
    paths = face.client.link.paths
    if paths is None:
        raise UsageError(problem="TUNDRA_URL is set: the log is on the Jupyter server's machine")
    if not paths.log.is_file():
        raise _no_log(paths.log)
    if frame and not follow:
        limit = lines or (None if is_asked else LINES)
        found_frame: pd.DataFrame = face.client.logs(since=since, level=level, operation=operation, limit=limit)
        return found_frame
    if is_asked:
        found = collections.deque((line.raw for line in log_lines.read(paths.log, asked)), maxlen=lines)
        last = [text for raw in found for text in raw.split("\n")]
    else:
        last = tail(paths.log, lines or LINES)
    if not follow:
        return Lines(last, source=str(paths.log))
    try:
        face.write("".join(f"{line}\n" for line in last))
        for text in followed(paths.log):
            some = (
                text
                if not is_asked
                else "".join(f"{line.raw}\n" for line in log_lines.parsed(text.splitlines()) if line in asked)
            )
            if some:
                face.write(some)
    except KeyboardInterrupt:
        return None
    return None


def _no_log(log: Path) -> UsageError:
    if log.exists():
        return UsageError(
            problem=f"{log} is no file, so the daemon cannot write its log there",
            remedy="Move it away; the log is begun anew at the next line.",
        )
    if not log.parent.parent.is_dir():
        return UsageError(
            problem=f"there is no data directory {log.parent.parent}",
            remedy="`tundra daemon status` tells whether a daemon runs; `tundra daemon restart` makes it anew.",
        )
    return UsageError(problem=f"there is no log yet at {log}", remedy="The daemon writes it when it starts.")


def tail(file: Path, lines: int) -> list[str]:
    """The last lines of a file, read from its end."""
    found = b""
    with file.open("rb") as log:
        at = log.seek(0, os.SEEK_END)
        while at > 0 and found.count(b"\n") <= lines:
            size = min(CHUNK_BYTES, at)
            at -= size
            log.seek(at)
            found = log.read(size) + found
    return found.decode("utf-8", errors="replace").splitlines()[-lines:]


def followed(file: Path) -> Iterator[str]:
    """What is appended to a file, also after it has been rotated."""
    log = file.open(encoding="utf-8", errors="replace")
    try:
        log.seek(0, os.SEEK_END)
        while True:
            if text := log.read():
                yield text
                continue
            time.sleep(POLL_SECONDS)
            if file.exists() and os.stat(file).st_ino != os.fstat(log.fileno()).st_ino:
                log.close()
                log = file.open(encoding="utf-8", errors="replace")
    finally:
        log.close()
