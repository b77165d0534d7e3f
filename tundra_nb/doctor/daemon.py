"""The daemon: process, socket, lock, version, log. All of it can be looked at while it is dead."""

from __future__ import annotations

import os
import stat
import urllib.error
import urllib.request
from collections.abc import Sequence

from tundra_nb._version import API, __version__
from tundra_nb.local import running
from tundra_nb.protocol import doors

from .check import Check, Finding, size
from .place import Subject

ERRORS_SHOWN = 1
TAIL_BYTES = 65536
BIG_LOG = 500_000_000
URL_SECONDS = 4.0


def process(place: Subject, check: Check) -> Sequence[Finding]:
    if place.environ.get("TUNDRA_URL"):
        return [check.found("skipped", "TUNDRA_URL is set: the daemon is that server's")]
    owner = place.record
    is_here = owner is None or owner.state == "stopping" or owner.host == os.uname().nodename
    if place.connection is None and owner is not None and not is_here:
        evidence = f"the daemon of {place.paths.data_dir} was started on {owner.host}"
        remedy = "Work on that machine, or choose another `TUNDRA_DATA_DIR` here, then `tundra daemon start`."
        return [check.found("fail", evidence, remedy, page="IpcError")]
    if place.connection is not None:
        status = place.status
        if status is None:
            if running.is_starting(place.paths):
                return [check.found("ok", f"starting, pid {place.connection.pid}")]
            pid = place.connection.pid
            evidence = f"pid {pid} accepts connections and does not answer"
            remedy = "`tundra daemon stop --force`, then `tundra daemon start`."
            if running.is_stopped(place.connection):
                evidence = f"pid {pid} is stopped by a signal"
                remedy = f"`kill -CONT {pid}` lets it go on; `tundra daemon restart --force` replaces it."
            return [check.found("fail", evidence, remedy, page="IpcError", fix="restart")]
        return [check.found("ok", f"runs, pid {status['pid']}, version {status['version']}")]
    if place.process is not None:
        evidence = f"pid {place.process.pid} lives, and nobody listens at {place.paths.socket}"
        remedy = _again(place.process.pid)
        return [check.found("fail", evidence, remedy, page="IpcError", fix="restart")]
    if place.paths.is_held:
        evidence = "stopped on purpose with `tundra daemon stop`"
        return [check.found("warn", evidence, "`tundra daemon start` brings it back.", page="IpcError", fix="start")]
    return [check.found("ok", "not running; the next call starts it")]


def socket(place: Subject, check: Check) -> Sequence[Finding]:
    file = place.paths.socket
    folder = file.parent
    if folder.exists():
        mode, owner = stat.S_IMODE(folder.stat().st_mode), folder.stat().st_uid
        if owner != os.geteuid():
            evidence = f"{folder} belongs to uid {owner}, not to you"
            remedy = f"`rm -r {folder}` as that user or root, or set XDG_RUNTIME_DIR; then `tundra daemon start`."
            return [check.found("fail", evidence, remedy, page="permission-denied")]
        if mode & 0o077:
            evidence = f"{folder} may be entered by others (mode {mode:o})"
            return [check.found("fail", evidence, f"`chmod 700 {folder}`", page="permission-denied", fix="private")]
    if not file.exists():
        if place.process is not None:
            evidence = f"{file} has been deleted while the daemon (pid {place.process.pid}) lives"
            remedy = _again(place.process.pid)
            return [check.found("fail", evidence, remedy, page="IpcError", fix="restart")]
        return [check.found("ok", "none, as no daemon runs")]
    if place.connection is None and place.process is None:
        evidence = f"{file} is there, and nobody listens: a daemon that was killed left it"
        remedy = f"`rm {file}` removes it; `tundra daemon start` replaces it."
        return [check.found("warn", evidence, remedy, page="IpcError", fix="remove_socket")]
    if not stat.S_ISSOCK(file.stat().st_mode):
        remedy = f"`rm {file}`, then `tundra daemon start`."
        return [check.found("fail", f"{file} is no socket", remedy, page="IpcError", fix="remove_socket")]
    return [check.found("ok", f"{file}, mode {stat.S_IMODE(file.stat().st_mode):o}")]


def _again(pid: int) -> str:
    return f"It binds a new one by itself; if not within seconds: `kill {pid}`, then `tundra daemon start`."


def version(place: Subject, check: Check) -> Sequence[Finding]:
    found = place.connection
    if found is None:
        return [check.found("skipped", "no daemon runs")]
    if found.api != API:
        evidence = f"the daemon speaks API {found.api} (version {found.version}), this client {API} ({__version__})"
        return [check.found("fail", evidence, "`tundra daemon restart` replaces it.", page="IpcError", fix="restart")]
    if found.version != __version__:
        evidence = f"the daemon is of version {found.version}, this client of {__version__}"
        return [check.found("warn", evidence, "`tundra daemon restart` replaces it.", page="IpcError", fix="restart")]
    return [check.found("ok", f"{found.version}, API {found.api}")]


def log(place: Subject, check: Check) -> Sequence[Finding]:
    file = place.paths.log
    if not file.exists():
        return [check.found("ok", f"{file} is not there yet: the daemon writes it when it starts")]
    if not file.is_file():
        evidence = f"{file} is no file"
        return [check.found("fail", evidence, "Move it away, then `tundra daemon start`.", page="ConfigError")]
    if not os.access(file, os.W_OK):
        remedy = f"`chmod u+w {file}`; it must belong to you."
        return [check.found("fail", f"{file} cannot be written", remedy, page="permission-denied")]
    written = file.stat().st_size
    if written > BIG_LOG:
        remedy = f"`tundra daemon stop`, then move {file} away; `[log] filter` keeps it shorter."
        return [check.found("warn", f"{file} has {size(written)}", remedy)]
    with file.open("rb") as stream:
        stream.seek(max(0, written - TAIL_BYTES))
        lines = stream.read().decode("utf-8", "replace").splitlines()
    wrong = [line for line in lines if " ERROR " in line or '"level":"error"' in line.lower()]
    told = f"{file}, {size(written)}"
    if wrong:
        return [
            check.found("warn", f"{told}; last error: {wrong[-1][:160]}", "`tundra logs -n 50` shows what led to it.")
        ]
    return [check.found("ok", told)]


def through_jupyter(place: Subject, check: Check) -> Sequence[Finding]:
    url = place.environ.get("TUNDRA_URL")
    if not url:
        return [check.found("skipped", "TUNDRA_URL is not set: the daemon is reached directly")]
    request = urllib.request.Request(f"{url.rstrip('/')}/tundra/api/status?brief=1")  # noqa: S310 - the user's own
    if token := place.environ.get("TUNDRA_TOKEN"):
        request.add_header("Authorization", f"token {token}")
    remedy = "Correct `TUNDRA_URL` and `TUNDRA_TOKEN`: `jupyter server list` shows both."
    try:
        with urllib.request.urlopen(request, timeout=URL_SECONDS) as answer:  # noqa: S310 - the user's own
            return [check.found("ok", f"{url} answered {answer.status}")]
    except urllib.error.HTTPError as refused:
        if refused.code == 404:
            remedy = "On that server's machine: `jupyter server extension list` must show tundra_nb as enabled."
        return [check.found("fail", f"{url} answered {refused.code}", remedy, page="TransportError")]
    except (OSError, ValueError) as exc:
        told = getattr(exc, "reason", exc)
        return [check.found("fail", f"{url} cannot be reached: {told}", remedy, page="TransportError")]


def gateway(place: Subject, check: Check) -> Sequence[Finding]:
    """Whether the gateway listens where settings say so."""
    told = place.ask(doors.GATEWAY)
    if told is None or "error" in told:
        return [check.found("skipped", "no daemon answers")]
    if told["problem"]:
        state = f"it still listens at {told['listen']}" if told["listening"] else "it does not listen"
        return [check.found("warn", f"{state}: {told['problem']}", told["hint"] or "", page="ConfigError")]
    return [check.found("ok", f"listens at {told['url']}" if told["listening"] else "does not listen")]


CHECKS = (
    Check(id="daemon.process", group="processes", title="daemon", look=process, also=("configuration", "performance")),
    Check(id="daemon.socket", group="processes", title="socket", look=socket, also=("configuration",)),
    Check(id="daemon.version", group="configuration", title="daemon's version", look=version, also=("processes",)),
    Check(id="daemon.log", group="performance", title="log", look=log, also=("processes",)),
    Check(id="daemon.url", group="network", title="TUNDRA_URL", look=through_jupyter, also=("authentication",)),
    Check(id="daemon.gateway", group="network", title="gateway", look=gateway, also=("configuration",)),
)
