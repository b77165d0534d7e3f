"""Terminals and processes: limits, leaks, zombies, descriptors; and how busy the machine is."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

import psutil

from tundra_nb.errors.spelling import as_typed
from tundra_nb.local import running

from .check import Check, Finding, size
from .place import Subject

MARKER = "TUNDRA_PTY_ID"
"""In the environment of each process of a terminal, as the pool sets it: `<daemon>/<terminal>`."""
WARNS_AT = 0.8
"""Share of the pool, of the system's terminals or of descriptors that is in use."""
LOAD_PER_CPU = 4.0
LOW_MEMORY = 0.05


def pool(place: Subject, check: Check) -> Sequence[Finding]:
    status = place.status
    if status is None:
        return [check.found("skipped", "no daemon runs")]
    told = status.get("ptys") or {}
    used, capacity = int(told.get("open") or 0), int(told.get("capacity") or 0)
    evidence = f"{used} of {capacity} in use"
    remedy = (
        "`tundra pty list` shows who holds them, `tundra pty kill ID` frees one; `tundra settings set pty.capacity=20`."
    )
    if capacity and used >= capacity:
        return [check.found("fail", evidence, remedy, page="AtCapacity")]
    if capacity and used >= capacity * WARNS_AT:
        return [check.found("warn", evidence, remedy, page="AtCapacity")]
    return [check.found("ok", evidence)]


BOUNDARIES = {
    "cgroup": "each terminal has a control group: whatever a command does, all of it ends with its terminal",
    "subreaper": "the guard adopts what leaves its terminal: it ends with it; what `sudo` started and left, when the"
    " terminals that are as old have ended; another user's processes only if this one may end them",
    "neither": "nobody adopts what leaves its terminal: its marks tell it, some of it at the next start only",
}


def boundary(place: Subject, check: Check) -> Sequence[Finding]:
    """What ends a process that tries to outlive its terminal, on this machine."""
    if place.status is None:
        return [check.found("skipped", "no daemon runs")]
    kind = str((place.status.get("ptys") or {}).get("boundary") or "")
    if kind not in BOUNDARIES:
        return [check.found("skipped", "this daemon does not tell")]
    remedy = "Start the daemon by `tundra daemon start`, which puts a guard above it." if kind == "neither" else ""
    return [check.found("warn" if kind == "neither" else "ok", f"{kind}: {BOUNDARIES[kind]}", remedy)]


def system_ptys(place: Subject, check: Check) -> Sequence[Finding]:
    del place
    try:
        used = int(Path("/proc/sys/kernel/pty/nr").read_text())
        most = int(Path("/proc/sys/kernel/pty/max").read_text())
    except (OSError, ValueError):
        return [check.found("skipped", "this system does not tell")]
    told = f"{used} of {most} in use on this machine"
    if used >= most * WARNS_AT:
        remedy = "End terminals (`tundra pty list`), or as root `sysctl kernel.pty.max=8192`."
        return [check.found("warn", told, remedy, page="SpawnFailed")]
    return [check.found("ok", told)]


def descriptors(place: Subject, check: Check) -> Sequence[Finding]:
    process = place.process
    if process is None:
        return [check.found("skipped", "no daemon runs")]
    try:
        used = process.num_fds()
        most = process.rlimit(psutil.RLIMIT_NOFILE)[0]
    except (psutil.Error, AttributeError, OSError):
        return [check.found("skipped", "the daemon's descriptors cannot be counted from here")]
    told = f"{used} of {most} in use by the daemon"
    if used >= most * WARNS_AT:
        remedy = "`tundra pty kill ID` ends a terminal; or a higher `ulimit -n`, then `tundra daemon restart`."
        return [check.found("warn", told, remedy, page="SpawnFailed")]
    return [check.found("ok", told)]


def leaks(place: Subject, check: Check) -> Sequence[Finding]:
    """Processes that a daemon of this directory started and that no daemon holds."""
    left = []
    for process in psutil.process_iter():
        try:
            if process.uids().real != os.getuid():
                continue
            mark, _, pty_id = process.environ().get(MARKER, "").partition("/")
            if pty_id and (place.paths.ptys / f"{pty_id}.out").exists() and not _lives(mark):
                left.append(f"{process.pid} {process.name()}")
        except (psutil.Error, OSError):
            continue
    if (guard := running.guard_left(place.record)) is not None and running.is_stopped(guard):
        left.insert(0, f"{guard.pid} (its guard, stopped by a signal)")
    if left:
        remedy = (
            "`tundra clean` shows them, `tundra clean --yes` ends them; `tundra daemon start` a guard that was stopped."
        )
        evidence = f"{len(left)} outlived their daemon: {', '.join(left[:5])}"
        return [check.found("warn", evidence, remedy, page="zombie-and-leaked-sessions", fix="clean")]
    return [check.found("ok", "none")]


def _lives(mark: str) -> bool:
    """Whether the daemon that marked a process lives: `<pid in hex>.<start>`."""
    try:
        return psutil.pid_exists(int(mark.partition(".")[0], 16))
    except ValueError:
        return True


def zombies(place: Subject, check: Check) -> Sequence[Finding]:
    dead = []
    for pid in _family(place):
        try:
            process = psutil.Process(pid)
            if process.status() == psutil.STATUS_ZOMBIE:
                dead.append(str(pid))
        except psutil.Error:
            continue
    if dead:
        evidence = f"{len(dead)} ended and not waited for: {', '.join(dead[:5])}"
        return [
            check.found(
                "warn",
                evidence,
                "`tundra clean --yes`, else `tundra daemon restart`.",
                page="zombie-and-leaked-sessions",
            )
        ]
    return [check.found("ok", "none")]


def _family(place: Subject) -> set[int]:
    process = place.process
    if process is None:
        return set()
    try:
        above = process.parent()
        root = above if above is not None and "tundra_nb.daemon" in " ".join(above.cmdline()) else process
        return {root.pid, process.pid, *(child.pid for child in root.children(recursive=True))}
    except psutil.Error:
        return {process.pid}


def protection(place: Subject, check: Check) -> Sequence[Finding]:
    """Profiles that are parked or cooling, breakers that are open, buckets that are empty."""
    status = place.status
    if status is None:
        return [check.found("skipped", "no daemon runs")]
    made: list[Finding] = []
    for row in status.get("profiles") or ():
        name, state = str(row["profile"]), str(row["state"])
        title = f"{name}: state"
        if state == "parked":
            reason = str(row.get("reason") or "parked")
            remedy = as_typed(str(row.get("hint") or f"`tundra providers recheck {name}`"))
            made.append(
                check.found(
                    "fail", reason, remedy, part=f"{name}.parked", title=title, page="Parked", group="authentication"
                )
            )
        elif state == "cooling":
            told = f"rate limited, again at {row.get('cooling_until') or 'the next call'}"
            remedy = f"Wait, or `tundra settings set profile.{name}.rpm=50` spaces calls."
            made.append(check.found("warn", told, remedy, part=f"{name}.cooling", title=title, page="RateLimited"))
    for row in status.get("breakers") or ():
        if row["state"] == "open":
            told = f"open after {row.get('failures')} failures, probe at {row.get('probe_at') or 'the next call'}"
            remedy = f"`tundra breaker-history` says why; once it is mended `tundra breakers reset {row['profile']}`."
            part = f"{row['profile']}.breaker"
            made.append(
                check.found("fail", told, remedy, part=part, title=f"{row['profile']}: breaker", page="BreakerOpen")
            )
    for row in status.get("limits") or ():
        if row.get("owner", "tundra") == "tundra" and (row.get("remaining") or 0) < 1 <= (row.get("limit") or 0):
            name = f"{row.get('tier')} {row.get('resource')}"
            remedy = "`tundra limit-history` shows who waits; `tundra settings set limits.global.rate=100` raises it."
            made.append(
                check.found(
                    "warn", "empty", remedy, part=name.replace(" ", "."), title=f"bucket {name}", page="LimitExceeded"
                )
            )
    for drill in status.get("faults") or ():
        remedy = f"`tundra fault stop --profile {drill['profile']}` ends it."
        made.append(
            check.found("warn", f"faults are injected into {drill['profile']}", remedy, part="drill", title="drill")
        )
    return made or [check.found("ok", "no profile is parked, no breaker open, no bucket empty")]


def machine(place: Subject, check: Check) -> Sequence[Finding]:
    cpus = os.cpu_count() or 1
    load = psutil.getloadavg()[0]
    memory = psutil.virtual_memory()
    made = []
    told = f"load {load:.1f} on {cpus} processors"
    if load > cpus * LOAD_PER_CPU:
        busy = _busiest()
        remedy = "`top` shows who is busy" + (f"; now {busy}" if busy else "") + ". End what need not run."
        made.append(check.found("warn", told, remedy, part="load", title="processors"))
    else:
        made.append(check.found("ok", told, part="load", title="processors"))
    told = f"{size(memory.available)} free of {size(memory.total)}"
    if memory.available < memory.total * LOW_MEMORY:
        remedy = "End what need not run (`top`); a kernel with large frames can be restarted."
        made.append(check.found("warn", told, remedy, part="memory", title="memory"))
    else:
        process = place.process
        with contextlib.suppress(psutil.Error):
            told += f"; the daemon has {size(process.memory_info().rss)}" if process is not None else ""
        made.append(check.found("ok", told, part="memory", title="memory"))
    return made


def _busiest() -> str:
    best: tuple[float, str] = (0.0, "")
    for process in psutil.process_iter():
        try:
            if not process.cmdline():
                continue  # the kernel's own
            times = process.cpu_times()
            best = max(best, (times.user + times.system, f"{process.name()} (pid {process.pid})"))
        except psutil.Error:
            continue
    return best[1]


CHECKS = (
    Check(id="ptys.pool", group="processes", title="terminals", look=pool, also=("performance",)),
    Check(id="ptys.boundary", group="processes", title="what ends escapees", look=boundary),
    Check(id="ptys.system", group="processes", title="system's terminals", look=system_ptys),
    Check(id="ptys.descriptors", group="processes", title="descriptors", look=descriptors, also=("performance",)),
    Check(id="ptys.leaks", group="processes", title="leaked processes", look=leaks),
    Check(id="ptys.zombies", group="processes", title="zombies", look=zombies),
    Check(
        id="protection",
        group="performance",
        title="breakers and limits",
        look=protection,
        also=("network", "authentication"),
    ),
    Check(id="machine", group="performance", title="machine", look=machine),
)
