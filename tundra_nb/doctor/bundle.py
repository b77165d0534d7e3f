"""`bundle`: one zip with everything that a report of a trouble needs, and no secret in it.

Masked twice: by value, which means every secret that this process, the settings and the servers around it know, in all
spellings, and by what keys look like. A list in the bundle tells what was masked where. Before anything is written the
finished files are searched once more in ways of their own; while a known secret is found, nothing is written.
"""

from __future__ import annotations

import base64
import collections
import datetime as dt
import importlib.metadata
import io
import json
import os
import platform
import re
import sys
import tempfile
import urllib.parse
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import psutil

from tundra_nb import settings
from tundra_nb._version import __version__
from tundra_nb.errors import ConfigError, TundraError, UsageError
from tundra_nb.local import running
from tundra_nb.local.place import Place as WirePlace
from tundra_nb.local.running import Connection
from tundra_nb.local.wire import Wire
from tundra_nb.paths import Paths
from tundra_nb.protocol import history
from tundra_nb.protocol.endpoint import params
from tundra_nb.protocol.words import JSON

# the one door to the runtime's code from here: a leaf that knows nothing of the runtime
from tundra_nb.runtime.telemetry.redact import MIN_SECRET_CHARS, Redactor, looks_like_key
from tundra_nb.settings import Loaded, store_login
from tundra_nb.types import TABLES

from .check import Checkup
from .place import Subject
from .run import doctor

ROWS = 200
"""The latest rows of each table are taken, at most so many."""
LOG_LINES = 2000
LOG_BYTES = 2_000_000
CELLS = 10
ASK_SECONDS = 10.0
PACKAGES = (
    *(
        "tundra-nb",
        "aiohttp",
        "anywidget",
        "doltlite",
        "httpx",
        "ipykernel",
        "ipywidgets",
        "jupyter-server",
        "jupyterlab",
    ),
    *("msgspec", "notebook", "pandas", "psutil", "pyarrow", "pymysql", "starlette", "uvicorn", "uvloop"),
)
MASK = re.compile(r"<(?:[A-Za-z_][\w.:-]*:[0-9a-f]{8}|key|token|password|secret)>")


class Bundle(msgspec.Struct, frozen=True, kw_only=True):
    """What was written, and what was masked in it."""

    file: str
    size_bytes: int
    members: list[str]
    masked: dict[str, dict[str, int]]
    """Mask → how often, by member."""
    missing: list[str]
    """What is not in it, and why."""


def bundle(
    out: str | os.PathLike[str] | None = None,
    *,
    force: bool = False,
    symptom: str = "",
    cells: Sequence[str] = (),
    where: Paths | None = None,
    environ: Mapping[str, str] | None = None,
) -> Bundle:
    """Write one zip with checkup, settings, versions, log, last rows, counts of errors, processes and `ISSUE.md`.

    Args:
        out: the file; a name with the time in this folder by default.
        force: also over a file that is there.
        symptom: what the report is about, for `ISSUE.md`.
        cells: the last cells of a notebook, for the steps of `ISSUE.md`.
        where: whose files; the data directory of the environment by default.
        environ: the environment whose secrets are masked and whose names are listed; this process's by default.

    Raises:
        UsageError: the file is there and `force` is not given, or a known secret would be in the bundle.
        ConfigError: it cannot be written.
    """
    from tundra_nb import paths

    env = os.environ if environ is None else environ
    place = Subject(where or paths.find(environ=env), env)
    now = dt.datetime.now(dt.UTC)
    file = Path(out).expanduser() if out else Path(f"tundra-bundle-{now:%Y%m%d-%H%M%S}.zip")
    if file.exists() and not force:
        raise UsageError(problem=f"{file} is there already", field="--out", remedy="Give another name, or `--force`.")
    known = secrets(place)
    redactor = Redactor(_salt(place))
    for name, value in known:
        redactor.register(name, value)
    found = _Members(redactor)
    _collect(found, place, doctor(where=place.paths, environ=env), symptom, cells, now)
    found.add("REDACTIONS.md", _report(found))
    found.check(known)
    _write(file, found.zipped(), force=force)
    return Bundle(
        file=str(file.resolve()),
        size_bytes=file.stat().st_size,
        members=list(found.texts),
        masked={name: dict(counts) for name, counts in found.masked.items() if counts},
        missing=found.missing,
    )


def secrets(place: Subject) -> list[tuple[str, str]]:
    """Every secret that can be known here, by name: of environment, settings, a Dolt server's logins, Jupyter."""
    found = [(name, value) for name, value in place.environ.items() if looks_like_key(name, value)]
    named = {profile.api_key_env for profile in place.settings.profile} | {place.settings.store.password_env}
    found += [(name, place.environ[name]) for name in named if place.environ.get(name)]
    for name, value in place.environ.items():  # a proxy's or a database's address with a password in it
        found += [(name, part) for part in re.findall(r"://[^/\s:@]*:([^/\s@]+)@", value)]
    try:
        login = store_login.load(place.paths.dolt)
    except ConfigError:
        login = None
    if login is not None:
        found += [("dolt password", login.password), ("dolt reader password", login.reader_password)]
    found += _jupyter_tokens()
    if isinstance(place.config, Loaded):
        text = settings.read_text(place.config_file)
        found += [("settings", part) for part in re.findall(r"://[^/\s:@]*:([^/\s@]+)@", text)]
    return [(name, value.strip()) for name, value in found if len(value.strip()) >= MIN_SECRET_CHARS]


def _jupyter_tokens() -> list[tuple[str, str]]:
    from jupyter_core.paths import jupyter_runtime_dir

    found = []
    for file in Path(jupyter_runtime_dir()).glob("*.json"):
        try:
            told = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(told, dict):
            found += [(f"Jupyter {name}", told[name]) for name in ("token", "key") if isinstance(told.get(name), str)]
    return [(name, value) for name, value in found if value]


class _Members:
    """The files of a bundle as they are masked."""

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self.texts: dict[str, str] = {}
        self.masked: dict[str, collections.Counter[str]] = {}
        self.missing: list[str] = []

    def add(self, name: str, text: str) -> None:
        before = collections.Counter(MASK.findall(text))
        masked = self._redactor.text(text)
        self.masked[name] = collections.Counter(MASK.findall(masked)) - before
        self.texts[name] = masked

    def data(self, name: str, value: Any) -> None:
        """Masked as values, before JSON gives them escapes, and once more as text."""
        plain = self._redactor.data(msgspec.to_builtins(value, str_keys=True))
        before = collections.Counter(MASK.findall(msgspec.json.encode(value).decode()))
        text = self._redactor.text(msgspec.json.format(msgspec.json.encode(plain), indent=1).decode())
        self.masked[name] = collections.Counter(MASK.findall(text)) - before
        self.texts[name] = text

    def check(self, known: Sequence[tuple[str, str]]) -> None:
        """Search everything for what must not be there.

        Raises:
            UsageError: a known secret is in it; names which and where, never its value.
        """
        for member, text in self.texts.items():
            for name, value in known:
                if any(form in text for form in spellings(value)):
                    raise UsageError(
                        problem=f"the value of {name} would be in {member} of the bundle: nothing was written",
                        field="--out",
                        remedy=f"Unset {name} in this process if it is no secret, or report this; `tundra doctor` shows"
                        " its findings without a file.",
                    )

    def zipped(self) -> bytes:
        made = io.BytesIO()
        with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as packed:
            for name, text in self.texts.items():
                packed.writestr(zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0)), text)
        return made.getvalue()


def spellings(secret: str) -> set[str]:
    """The forms that the last search looks for: made apart from those of the masking, so that one checks the other."""
    raw = secret.encode("utf-8", "surrogateescape")
    found = {secret, json.dumps(secret)[1:-1], repr(secret)[1:-1], urllib.parse.quote(secret, safe="")}
    found |= {urllib.parse.quote_plus(secret), raw.hex(), raw.hex().upper(), secret[::-1]}
    found.add(base64.b64encode(raw).decode().rstrip("="))
    found.add(base64.urlsafe_b64encode(raw).decode().rstrip("="))
    for before in (b":", b"a:", b"ab:"):  # of Basic authentication; only what the secret alone decides
        part = base64.b64encode(before + raw).decode().rstrip("=")[4:-1]
        if (
            len(part) * 3 // 4 >= MIN_SECRET_CHARS
        ):  # less of it is a word: "dG9rZW" of "mytoken" is in every "input_tokens"
            found.add(part)
    return {form for form in found if len(form) >= MIN_SECRET_CHARS}


def _collect(
    found: _Members, place: Subject, checkup: Checkup, symptom: str, cells: Sequence[str], now: dt.datetime
) -> None:
    found.data("doctor.json", checkup)
    found.data("versions.json", _versions())
    found.data("settings.json", _settings(place))
    found.add("environment.txt", "\n".join(sorted(place.environ)) + "\n")
    found.data("processes.json", _processes(place))
    found.add("daemon.log", _log(place, found))
    rows = _tables(place, found)
    for table, told in rows.items():
        found.data(f"tables/{table}.json", told)
    found.data("errors.json", _errors(rows.get("error_event", [])))
    found.add("ISSUE.md", _issue(checkup, rows, symptom, cells, now))


def _versions() -> dict[str, Any]:
    found: dict[str, Any] = {
        "tundra_nb": __version__,
        "python": sys.version,
        "executable": sys.executable,
        "platform": platform.platform(),
    }
    packages: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            packages[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            packages[name] = None
    return found | {"packages": packages}


def _settings(place: Subject) -> Any:
    if isinstance(place.config, ConfigError):
        return {"file": str(place.config_file), "error": place.config.message}
    return {
        "file": str(place.config_file),
        "settings": [msgspec.to_builtins(line) for line in settings.lines(place.config)],
    }


def _processes(place: Subject) -> list[dict[str, Any]]:
    """The daemon, its guard, worker and terminals."""
    process = place.process
    if process is None:
        return []
    family = [process]
    try:
        above = process.parent()
        family = [*([above] if above else []), process, *process.children(recursive=True)]
    except psutil.Error:
        pass
    found = []
    for member in family:
        try:
            with member.oneshot():
                found.append(
                    {
                        "pid": member.pid,
                        "parent": member.ppid(),
                        "name": member.name(),
                        "command": member.cmdline(),
                        "status": member.status(),
                        "cpu_seconds": sum(member.cpu_times()[:2]),
                        "rss_bytes": member.memory_info().rss,
                        "started_at": dt.datetime.fromtimestamp(member.create_time(), dt.UTC).isoformat(),
                    }
                )
        except psutil.Error:
            continue
    return found


def _log(place: Subject, found: _Members) -> str:
    try:
        with place.paths.log.open("rb") as stream:
            size = stream.seek(0, os.SEEK_END)
            stream.seek(max(0, size - LOG_BYTES))
            lines = stream.read().decode("utf-8", "replace").splitlines()
    except OSError as exc:
        found.missing.append(f"daemon.log: {exc.strerror}")
        return ""
    return "\n".join(lines[-LOG_LINES:]) + "\n"


def _tables(place: Subject, found: _Members) -> dict[str, list[dict[str, Any]]]:
    if place.connection is None:
        found.missing.append("tables: no daemon runs, and only its store worker may open the history")
        return {}
    if running.is_stopped(place.connection):
        found.missing.append("tables: the daemon was stopped by a signal")
        return {}
    rows = {}
    for table in TABLES:
        try:
            status, told = _rows(place.connection, table)
        except (OSError, TundraError) as exc:
            found.missing.append(f"tables from {table} on: the daemon does not answer: {exc}")
            break  # it would keep us waiting as long for each
        if status != 200:
            found.missing.append(f"tables/{table}.json: {told.get('message') or status}")
            continue
        rows[table] = list(told.get("rows") or ())
    return rows


def _rows(to: Connection, table: str) -> tuple[int, dict[str, Any]]:
    """The latest rows of a table as JSON.

    Raises:
        OSError: the daemon does not answer in time, or not with JSON.
    """
    wire = Wire(WirePlace(socket=to.socket), connect_timeout=ASK_SECONDS)
    try:
        wire.set_timeout(ASK_SECONDS)
        asked = params(history.FrameParams(since="all", limit=ROWS, newest=True))
        target = f"{history.HISTORY.at(frame=table)}?{urllib.parse.urlencode(asked)}"
        answer = wire.exchange("GET", target, {"Accept": JSON, "Connection": "close"})
        found = msgspec.json.decode(answer.read())
    except msgspec.DecodeError as exc:
        raise OSError(f"the answer is not JSON: {exc}") from exc
    finally:
        wire.close()
    return answer.status, found if isinstance(found, dict) else {}


def _errors(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """How often each code, by hour, among the latest rows."""
    counts = collections.Counter(
        (str(row.get("at"))[:13], str(row.get("code")), str(row.get("severity"))) for row in rows
    )
    return [
        {"hour": f"{hour}:00Z", "code": code, "severity": severity, "count": count}
        for (hour, code, severity), count in sorted(counts.items())
    ]


def _issue(
    checkup: Checkup,
    rows: Mapping[str, Sequence[Mapping[str, Any]]],
    symptom: str,
    cells: Sequence[str],
    now: dt.datetime,
) -> str:
    """A report to fill in: symptom, steps, what was expected, versions."""
    last = next(iter(rows.get("error_event") or ()), None)
    what = symptom or (f"{last.get('code')}: {last.get('message')}" if last else "(say what you saw)")
    lines = [
        "# Report",
        "",
        f"Made {now:%Y-%m-%d %H:%M} UTC by tundra_nb {__version__}.",
        "",
        "## Symptom",
        "",
        what,
        "",
    ]
    lines += ["## Steps", ""]
    steps = [cell.strip() for cell in cells if cell.strip()][-CELLS:]
    for step in steps:
        lines += ["```", step, "```", ""]
    if not steps:
        calls = list(rows.get("operation") or ())[:CELLS]
        lines += [
            f"1. {row.get('at')} {row.get('kind')} asked of {row.get('requested_model') or 'the profile'}'s model:"
            f" {row.get('outcome')} {row.get('code') or ''}".rstrip()
            for row in reversed(calls)
        ] or ["(say what you did)"]
    lines += ["", "## Expected", "", "(say what should have happened)", "", "## What is wrong here", ""]
    wrong = [finding for finding in checkup.checks if finding.state in ("fail", "warn")]
    lines += [f"- {finding.state}: {finding.title}: {finding.evidence}" for finding in wrong] or [
        "- nothing that a checkup finds"
    ]
    packages = {name: version for name, version in _versions()["packages"].items() if version}
    lines += ["", "## Versions", "", f"- Python {sys.version.split()[0]}, {platform.platform()}"]
    lines += [f"- {name} {version}" for name, version in packages.items()]
    return "\n".join(lines) + "\n"


def _report(found: _Members) -> str:
    """What was masked where, and what is missing."""
    lines = ["# What was masked", ""]
    for name, counts in found.masked.items():
        if counts:
            lines += [f"## {name}", "", *(f"- `{mask}`: {count} times" for mask, count in sorted(counts.items())), ""]
    if not any(found.masked.values()):
        lines += ["Nothing had to be.", ""]
    lines += [
        "A mask is the name of the variable and a salted fingerprint, which tells two values apart and gives none away."
    ]
    if found.missing:
        lines += ["", "# What is missing", "", *(f"- {told}" for told in found.missing)]
    return "\n".join(lines) + "\n"


def _salt(place: Subject) -> bytes | None:
    try:
        return place.paths.salt.read_bytes() or None
    except OSError:
        return None


def _write(file: Path, content: bytes, *, force: bool) -> None:
    """Beside the file, then into place: nobody sees half of it, and it is readable by its owner only."""
    try:
        descriptor, draft = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
        try:
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(content)
            if force:
                os.replace(draft, file)
            else:
                os.link(draft, file)
        finally:
            Path(draft).unlink(missing_ok=True)
    except FileExistsError:
        raise UsageError(problem=f"{file} is there already", field="--out", remedy="Give another name.") from None
    except OSError as exc:
        raise ConfigError(
            where=str(file), problem=f"cannot be written: {exc.strerror}", remedy="Give another place with `--out`."
        ) from exc
