"""The history's database: engine, schema, spool, disk, and who listens on the ports."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from tundra_nb.errors import StoreDamaged, from_wire
from tundra_nb.local import dolt_server
from tundra_nb.protocol import greeting
from tundra_nb.protocol import status as status_routes

from .check import Check, Finding, size
from .place import Subject

LOW_BYTES = 1_000_000_000
FULL_BYTES = 64_000_000
"""What is kept free for the spool; below it calls may be refused."""
BEHIND_BYTES = 50_000_000
MYSQL_PORT = 3306
SQLITE_HEADER = b"SQLite format 3\0"


def store(place: Subject, check: Check) -> Sequence[Finding]:
    """What the daemon says of it; and of the file, where the daemon is dead."""
    status = place.status
    if status is not None:
        whole = place.ask(status_routes.STATUS, seconds=8.0) or {}
        told = (whole.get("store") if "error" not in whole else None) or status.get("store") or {}
        error = told.get("error")
        engine = f"{status.get('engine')}, {told.get('state')}"
        if error:
            words = error.get("message") if isinstance(error, dict) else error
            hint = (
                error.get("hint") if isinstance(error, dict) else "`tundra status` tells more; `tundra logs -n 50` all."
            )
            page = _page(str(words))
            return [check.found("fail", f"{engine}: {words}", str(hint), page=page)]
        if told.get("refused_rows"):
            remedy = "`tundra logs -n 50` says why; `tundra bundle` has what a report needs."
            return [
                check.found("warn", f"{engine}: {told['refused_rows']} rows were refused", remedy, page="StoreError")
            ]
        return [check.found("ok", f"{engine}, {size(told.get('size_bytes') or 0)}")]
    if place.settings.store.engine == "dolt":
        return [check.found("skipped", "no daemon runs; the server is looked at beside this")]
    file = place.paths.store
    if not file.exists():
        return [check.found("ok", "none yet; the first start makes it")]
    if not os.access(file, os.R_OK):
        remedy = f"`chmod u+rw {file}`; it must belong to you."
        return [check.found("fail", f"{file} cannot be read", remedy, page="permission-denied")]
    if place.process is not None:
        return [check.found("skipped", f"{file} is in use by a daemon that does not answer")]
    return [_look_inside(place, check, file)]


def _look_inside(place: Subject, check: Check, file: Path) -> Finding:
    """Open the file as a daemon would, in a process of its own: the engine cannot live in this one."""
    env = {name: value for name, value in place.environ.items() if name not in NOT_FOR_THE_ENGINE}
    command = [sys.executable, "-P", "-m", "tundra_nb.runtime.history.look", str(file)]
    try:
        done = subprocess.run(command, env=env, capture_output=True, check=False, timeout=LOOK_SECONDS)
        told = msgspec.json.decode(done.stdout)
    except subprocess.TimeoutExpired:
        return check.found("skipped", f"{file}: not looked through within {LOOK_SECONDS:g} s")
    except msgspec.DecodeError:
        evidence = f"{file}: the engine died over it (exit code {done.returncode})"
        return check.found("fail", evidence, RESTORE, page="damaged-store")
    if "error" in told:
        error = from_wire(told["error"])
        if isinstance(error, StoreDamaged):
            is_newer = error.kind == "newer"
            remedy = error.hint if is_newer else RESTORE
            return check.found("fail", error.message, remedy, page="migration-failure" if is_newer else "damaged-store")
        return check.found("fail", error.message, error.hint, page=type(error).__name__)
    how = "sound" if told["is_whole"] else "sound as far as there was time to test"
    evidence = f"{file}, {size(file.stat().st_size)}, schema {told['schema']}, {how}; no daemon runs"
    return check.found("ok", evidence)


LOOK_SECONDS = 7.0
NOT_FOR_THE_ENGINE = ("LD_PRELOAD", "_DOLTLITE_BOOTSTRAPPED")
"""Left by the engine in a process that has loaded it; a child takes them for its own."""
RESTORE = "`tundra daemon start`, then `tundra restore` puts the last backup in place."


def spool(place: Subject, check: Check) -> Sequence[Finding]:
    folder = place.paths.spool
    waiting = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) if folder.is_dir() else 0
    status = place.status
    told = (status or {}).get("store") or {}
    if status is None:
        return [check.found("ok", f"{size(waiting)} on disk; delivered at the next start")]
    behind = told.get("waiting_bytes") or 0
    if behind > BEHIND_BYTES or (told.get("is_behind") and told.get("error")):
        remedy = "`tundra status` names the store's own error; `tundra daemon restart` where there is none."
        return [check.found("warn", f"{size(behind)} wait for the database", remedy, page="history-behind")]
    return [check.found("ok", f"{size(behind)} wait, {size(waiting)} on disk")]


def disk(place: Subject, check: Check) -> Sequence[Finding]:
    folder = place.paths.data_dir
    nearest = next((above for above in (folder, *folder.parents) if above.is_dir()), Path("/"))
    try:
        usage = shutil.disk_usage(nearest)
        inodes = os.statvfs(nearest)
    except OSError as exc:
        return [
            check.found("fail", f"{nearest}: {exc.strerror}", "Is the disk there? `df -h` shows.", page="disk-full")
        ]
    told = f"{size(usage.free)} free of {size(usage.total)} at {nearest}"
    remedy = "`tundra clean` shows what can go, `tundra clean --yes` removes it; or free space on that disk."
    if usage.free < FULL_BYTES or (inodes.f_files and inodes.f_favail == 0):
        return [check.found("fail", told, remedy, page="disk-full", fix="clean")]
    if usage.free < 2e6 * (reserve := place.settings.store.reserve_mb):
        told += f"; nothing more of terminals and recordings is kept when {size(reserve * 1e6)} are left"
        remedy = f"`tundra settings set store.reserve_mb=64` keeps less free, or: {remedy}"
        return [check.found("warn", told, remedy, page="disk-full")]
    if usage.free < LOW_BYTES:
        return [check.found("warn", told, remedy, page="disk-full", fix="clean")]
    return [check.found("ok", told)]


def ports(place: Subject, check: Check) -> Sequence[Finding]:
    """Who listens on MySQL's port and on ours."""
    settings = place.settings.store
    made = []
    wanted = {MYSQL_PORT: "127.0.0.1", settings.port: settings.host}
    for port, host in sorted(wanted.items()):
        version = greeting.ask(host, port)
        who = dolt_server.listener(port) if host in dolt_server.LOCAL else ""
        told = f"nobody listens on {host}:{port}"
        if version is not None:
            told = (
                f"{greeting.product(version)} {version}".strip()
                + (f" ({who})" if who else "")
                + f" listens on {host}:{port}"
            )
        is_ours = port == settings.port and settings.engine == "dolt"
        title = f"port {port}"
        if not is_ours:
            made.append(check.found("ok", told, part=str(port), title=title))
        elif version is None:
            remedy = (
                "`tundra dolt start`; or `tundra settings set store.engine=doltlite`, then `tundra daemon restart`."
            )
            made.append(
                check.found(
                    "fail", told, remedy, part=str(port), title=title, page="connection-refused", fix="dolt_start"
                )
            )
        elif greeting.product(version) != greeting.LIKE_DOLT or greeting.is_oracles(version):
            remedy = "`tundra settings set store.port=3307`, `tundra dolt start`, then `tundra daemon restart`."
            made.append(check.found("fail", told, remedy, part=str(port), title=title, page="port-3306-conflict"))
        else:
            made.append(check.found("ok", told, part=str(port), title=title))
    return made


def _page(words: str) -> str:
    lowered = words.lower()
    for part, page in (
        ("no space", "disk-full"),
        ("not dolt", "port-3306-conflict"),
        ("damaged", "damaged-store"),
        ("newer", "migration-failure"),
        ("migrat", "migration-failure"),
        ("read-only", "permission-denied"),
        ("readonly", "permission-denied"),
    ):
        if part in lowered:
            return page
    return "StoreUnavailable"


CHECKS = (
    Check(id="store.database", group="database", title="database", look=store, also=("performance",), deadline=9.0),
    Check(id="store.spool", group="database", title="spool", look=spool, also=("performance",)),
    Check(id="store.disk", group="database", title="disk", look=disk, also=("performance", "configuration")),
    Check(id="store.ports", group="database", title="ports", look=ports, also=("network",), deadline=6.0),
)
