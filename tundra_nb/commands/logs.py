"""`tundra logs`: the daemon's log, also when the daemon is dead."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import click

from tundra_nb.errors import UsageError
from tundra_nb.views import Lines

from .command import Command
from .command import command as _command
from .face import Face, pass_face

POLL_SECONDS = 0.2
CHUNK_BYTES = 65536


@_command("logs", cls=Command)
@click.option("-n", "--lines", type=click.IntRange(min=1), default=50, show_default=True, help="So many lines.")
@click.option("-f", "--follow", is_flag=True, help="Go on with lines as they come, until interrupted.")
@pass_face
def command(face: Face, lines: int, follow: bool) -> Lines | None:
    """The last lines of the daemon's log."""
    paths = face.client.link.paths
    if paths is None:
        raise UsageError(problem="TUNDRA_URL is set: the log is on the Jupyter server's machine")
    if not paths.log.is_file():
        raise _no_log(paths.log)
    if not follow:
        return Lines(tail(paths.log, lines), source=str(paths.log))
    try:
        face.write("".join(f"{line}\n" for line in tail(paths.log, lines)))
        for text in followed(paths.log):
            face.write(text)
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
