"""`tundra logs`: the daemon's log, also when the daemon is dead."""

from __future__ import annotations

import collections
import contextlib
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tundra_nb.client.logs import wanted
from tundra_nb.errors import UsageError
from tundra_nb.local import log_lines
from tundra_nb.views import Lines

from . import options
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
@options.source
@click.option("--frame", is_flag=True, help="As a frame, with a column for each part.")
@pass_face
def command(
    face: Face,
    lines: int | None,
    follow: bool,
    since: str | None,
    level: str | None,
    operation: str | None,
    source: str | None,
    frame: bool,
) -> Lines | pd.DataFrame | None:
    """The last lines of the daemon's log; with --since, --level or --operation, those lines of it."""
    asked = wanted(since, level, operation)
    if source is not None:
        if follow or operation:
            raise UsageError(
                problem="the lines of a source neither grow nor name calls",
                field="--follow" if follow else "--operation",
                remedy=f"`%tundra why --in {source}` tells of its calls.",
            )
        return _of_source(face, source, since, level, lines, frame=frame)
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
    end = whole_until(paths.log) if follow else paths.log.stat().st_size
    if is_asked:
        found = collections.deque((line.raw for line in log_lines.read(paths.log, asked, end)), maxlen=lines)
        last = [text for raw in found for text in raw.split("\n")]
    else:
        last = tail(paths.log, lines or LINES, end)
    if not follow:
        return Lines(last, source=str(paths.log))
    try:
        face.show_lines(_shown(paths.log, last, end, asked if is_asked else None))
    except KeyboardInterrupt:
        return None
    return None


def _shown(log: Path, last: Iterable[str], end: int, asked: log_lines.WantedLines | None) -> Iterator[str]:
    """The last lines, then those that come; of these only what is asked for."""
    yield "".join(f"{line}\n" for line in last)
    for text in followed(log, end):
        wanted_lines = log_lines.parsed(text.splitlines()) if asked is not None else ()
        yield text if asked is None else "".join(f"{line.raw}\n" for line in wanted_lines if line in asked)


def _of_source(
    face: Face, source: str, since: str | None, level: str | None, lines: int | None, *, frame: bool
) -> Lines | pd.DataFrame:
    limit = lines or (None if since or level else LINES)
    found: pd.DataFrame = face.client.logs(since=since, level=level, limit=limit, source=source)
    if frame:
        return found
    parts = zip(found["at"], found["level"], found["logger"], found["message"], strict=True)
    texts = [f"{at:%Y-%m-%dT%H:%M:%S.%f}Z {level:<8} {logger}  {message}" for at, level, logger, message in parts]
    return Lines([line for text in texts for line in text.split("\n")], source=f"source {source}")


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


def whole_until(file: Path) -> int:
    """Where the last whole line of a file ends, in bytes: whoever writes may be in the middle of the next."""
    with file.open("rb") as log:
        at = log.seek(0, os.SEEK_END)
        while at > 0:
            size = min(CHUNK_BYTES, at)
            at -= size
            log.seek(at)
            if newline := log.read(size).rfind(b"\n") + 1:
                return at + newline
    return 0


def tail(file: Path, lines: int, end: int) -> list[str]:
    """The last lines of a file before a place in it, read from there backwards."""
    found = b""
    with file.open("rb") as log:
        at = end
        while at > 0 and found.count(b"\n") <= lines:
            size = min(CHUNK_BYTES, at)
            at -= size
            log.seek(at)
            found = log.read(size) + found
    return found.decode("utf-8", errors="replace").splitlines()[-lines:]


def followed(file: Path, start: int) -> Iterator[str]:
    """Whole lines that come behind a place in a file, also after it was rotated or cut; "" where none has come."""
    log = file.open(encoding="utf-8", errors="replace")
    begun = ""
    try:
        log.seek(start)
        while True:
            if text := log.read():
                whole, end, begun = (begun + text).rpartition("\n")
                yield whole + end
                continue
            yield ""
            time.sleep(POLL_SECONDS)
            with contextlib.suppress(FileNotFoundError):
                now, known = os.stat(file), os.fstat(log.fileno())
                if now.st_ino != known.st_ino:
                    if text := begun + log.read():  # written before it was moved away
                        yield text
                    log.close()
                    log, begun = file.open(encoding="utf-8", errors="replace"), ""
                elif now.st_size < log.tell():
                    log.seek(0)
                    begun = ""
    finally:
        log.close()
