"""A delegated control group (version 2) for each session, where the machine has one: nothing leaves it by itself.

`cgroup.kill` ends everything in a group in one step, whatever its session, environment or user, and a fork in the
middle of it does not get away. Where we may not make groups (most desktops outside a service, most containers) the
pool makes do with what else tells a session's processes.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from pathlib import Path

MOUNTS = Path("/proc/self/mountinfo")
OWN = Path("/proc/self/cgroup")
EMPTY_SECONDS = 2.0
"""How long a killed group may take to become empty, at a daemon's start."""

_log = logging.getLogger("tundra.ptys")


class Cgroup:
    """The group of one session."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __repr__(self) -> str:
        return f"<Group {self.path}>"

    def take(self, pid: int) -> bool:
        """Move a process in that has just been started; what it starts from now on is born in the group."""
        return _wrote(self.path / "cgroup.procs", str(pid))

    def members(self) -> list[int]:
        """Pids of everything in it, in groups below it too."""
        found: list[int] = []
        for folder, _, _ in os.walk(self.path):
            with contextlib.suppress(OSError, ValueError):
                found += map(int, Path(folder, "cgroup.procs").read_text().split())
        return found

    def kill(self) -> None:
        """KILL everything in it."""
        _wrote(self.path / "cgroup.kill", "1")

    def remove(self) -> bool:
        """Take it away once it is empty. False when it is not."""
        for folder, _, _ in os.walk(self.path, topdown=False):
            try:
                os.rmdir(folder)
            except FileNotFoundError:
                continue
            except OSError:
                return False
        return True


class Cgroups:
    """The groups of one daemon: `<our own group>/tundra-<instance>/<session>`. None are made where `base` is None."""

    def __init__(self, instance: str) -> None:
        self.base: Path | None = None
        parent = delegated()
        if parent is None:
            return
        base = parent / f"tundra-{instance}"
        try:
            base.mkdir(mode=0o755)
        except OSError:
            return
        # A group that can be made but takes no process, or cannot be killed, is none.
        if (base / "cgroup.kill").exists() and os.access(base / "cgroup.procs", os.W_OK):
            self.base = base
        else:
            Cgroup(base).remove()

    def make(self, name: str) -> Cgroup | None:
        """A group for a session; None where there is no such thing."""
        if self.base is None:
            return None
        path = self.base / name
        try:
            path.mkdir()
        except OSError as exc:
            _log.warning("no control group for %s: %s", name, exc.strerror)
            return None
        return Cgroup(path)

    def close(self) -> None:
        """Take the daemon's group away; what is still in it is killed."""
        if self.base is not None:
            end_all(self.base)
            self.base = None


def delegated() -> Path | None:
    """Our own group of version 2, when we may make groups in it."""
    try:
        own = next(line[3:] for line in OWN.read_text().splitlines() if line.startswith("0::"))
        mounted = next(
            fields[4]
            for fields in (line.split() for line in MOUNTS.read_text().splitlines())
            if fields[fields.index("-") + 1] == "cgroup2"
        )
    except (OSError, StopIteration, ValueError):
        return None
    path = Path(mounted) / own.lstrip("/")
    return path if os.access(path, os.W_OK) and os.access(path / "cgroup.procs", os.W_OK) else None


def end_all(base: Path) -> bool:
    """Kill everything in a daemon's group and remove it. Blocks for moments; True when something lived there."""
    group = Cgroup(base)
    had = bool(group.members())
    deadline = time.monotonic() + EMPTY_SECONDS
    while True:
        group.kill()
        if group.remove() or time.monotonic() > deadline:
            return had
        time.sleep(0.005)


def _wrote(path: Path, text: str) -> bool:
    try:
        with path.open("w") as file:
            file.write(text)
    except OSError:
        return False
    return True
