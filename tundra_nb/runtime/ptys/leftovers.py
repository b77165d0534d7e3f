"""What earlier daemons left behind: processes that no record names, sockets nobody listens on, old transcripts.

A start of the daemon ends what the record of the last one names (`record`). This is for the rest, on the user's demand:
a record can be lost, and two deaths in a row can outrun it. Only the owner of a data directory may call it, so any
other daemon of that directory is dead. A process counts as a stray only if its marker names a daemon whose pid is free
*and* a session whose transcript is in our own folder; it is never our own session.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import time
from pathlib import Path
from typing import Literal, NamedTuple

from . import budget, processes, record, transcript

Kind = Literal["process", "socket", "transcript"]


class Leftover(NamedTuple):
    """One thing to be removed."""

    kind: Kind
    name: str
    """Path, or `pid 123 (command)`."""
    detail: str
    stray: record.Stray | None = None


def look(
    transcripts: Path,
    instance: str,
    socket_folder: Path,
    days: float,
    keep: frozenset[str],
    *,
    is_space_needed: bool = False,
) -> list[Leftover]:
    """Everything that `remove` would remove. Looks at every process and file: not for an event loop.

    Args:
        transcripts: folder of the transcripts.
        instance: marker of the daemon that asks; its sessions are nobody's leftovers.
        socket_folder: where sockets of daemons are.
        days: how long transcripts are kept.
        keep: sessions that are open.
        is_space_needed: the disk is short: all transcripts of ended sessions can go, young ones too.
    """
    aged = transcript.old(transcripts, days, keep)
    spare = [path for path in budget.ended(transcripts, keep) if path not in aged] if is_space_needed else []
    return [
        *_strays(transcripts, instance),
        *_dead_sockets(socket_folder),
        *(
            Leftover("transcript", str(path), f"quiet for {(time.time() - path.stat().st_mtime) / 86_400:.0f} days")
            for path in aged
        ),
        *(
            Leftover("transcript", str(path), f"{path.stat().st_size / 1e6:,.1f} MB, ended; the disk is short")
            for path in spare
        ),
    ]


def remove(found: list[Leftover]) -> None:
    """Remove what `look` found; processes get HUP, then two seconds, then KILL. Blocks until they are gone."""
    record.end(leftover.stray for leftover in found if leftover.stray is not None)
    for leftover in found:
        if leftover.kind == "socket":
            Path(leftover.name).unlink(missing_ok=True)
        elif leftover.kind == "transcript":
            transcript.delete(Path(leftover.name))


def _strays(transcripts: Path, instance: str) -> list[Leftover]:
    found = []
    for pid in processes.all_pids():
        mark, _, pty_id = processes.marker(pid).partition("/")
        if not pty_id or mark == instance or not (transcripts / f"{pty_id}.out").exists() or not _is_dead(mark):
            continue
        process = processes.look(pid)
        if process is not None and process.is_alive and pid != os.getpid():
            command = record.command_of(pid)
            stray = record.Stray(pid, process.start, pty_id, command)
            found.append(Leftover("process", f"pid {pid} ({command})", f"of PTY {pty_id} of a dead daemon", stray))
    return found


def _is_dead(mark: str) -> bool:
    """Whether the daemon with this marker is gone: `<pid in hex>.<start>`. A reused pid counts as alive."""
    with contextlib.suppress(ValueError):
        process = processes.look(int(mark.partition(".")[0], 16))
        return process is None or not process.is_alive
    return False


def _dead_sockets(folder: Path) -> list[Leftover]:
    return [
        Leftover("socket", str(path), "nobody listens on it")
        for path in sorted(folder.glob("*.sock"))
        if stat.S_ISSOCK(path.lstat().st_mode) and not _answers(path)
    ]


def _answers(path: Path) -> bool:
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:  # busy, or not ours to judge
            return True
    return True
