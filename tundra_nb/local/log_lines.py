"""The daemon's log read back: lines in both formats, in rotated files too, also while the daemon is dead."""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

LEVELS = ("debug", "info", "warning", "error", "critical")
_LINE = re.compile(r"(?P<at>\d{4}-\d\d-\d\dT[\d:.]+Z) (?P<level>[a-z]+) +(?P<logger>\S+)  (?P<rest>.*)")
_FIELD = re.compile(r'  ([A-Za-z_]\w*)=("(?:[^"\\]|\\.)*"|\S+)')
_FIELDS = re.compile(rf"(?:{_FIELD.pattern})*$")


class LogLine(msgspec.Struct, kw_only=True):
    """One line of the log; what follows it indented (a traceback) belongs to it. `raw` is how it stands there."""

    raw: str
    at: dt.datetime | None = None
    level: str = ""
    logger: str = ""
    message: str = ""
    fields: dict[str, Any] = {}
    traceback: str = ""

    def is_of(self, operation: str) -> bool:
        """Whether it is of the call with this id, or whose id ends so."""
        return str(self.fields.get("operation_id", "")).endswith(operation)


class WantedLines(msgspec.Struct, frozen=True, kw_only=True):
    """Which lines are asked for."""

    since: dt.datetime | None = None
    level: str | None = None
    """Only lines of this level, or graver."""
    operation: str | None = None

    def __contains__(self, line: LogLine) -> bool:
        if self.since is not None and (line.at is None or line.at < self.since):
            return False
        if self.level is not None and (line.level not in LEVELS or LEVELS.index(line.level) < LEVELS.index(self.level)):
            return False
        return self.operation is None or line.is_of(self.operation)


def parsed(texts: Iterable[str]) -> Iterator[LogLine]:
    """Lines of either format; what is neither (a library's own words) is a line without a level."""
    line: LogLine | None = None
    for text in texts:
        if text.startswith("    ") and line is not None:
            line.raw += f"\n{text}"
            line.traceback += f"\n{text[4:]}" if line.traceback else text[4:]
            continue
        if line is not None:
            yield line
        line = _of_json(text) if text.startswith("{") else _of_text(text)
    if line is not None:
        yield line


def files(log: Path) -> list[Path]:
    """The log and what was rotated out of it, oldest first."""
    older = [file for file in log.parent.glob(f"{log.name}.*") if file.name.rpartition(".")[2].isdigit()]
    older.sort(key=lambda file: -int(file.name.rpartition(".")[2]))
    return [*older, log]


def read(log: Path, wanted: WantedLines, end: int | None = None) -> Iterator[LogLine]:
    """The wanted lines of all files, oldest first; of the log itself up to `end`, in bytes, where a line ends."""
    for file in files(log):
        if wanted.since is not None and file != log and file.stat().st_mtime < wanted.since.timestamp():
            continue
        with file.open("rb") as stream:
            texts = _texts(stream, end if file == log else None)
            yield from (line for line in parsed(texts) if line in wanted)


def _texts(stream: Iterable[bytes], end: int | None) -> Iterator[str]:
    at = 0
    for line in stream:
        at += len(line)
        if end is not None and at > end:
            return
        yield line.decode("utf-8", errors="replace").rstrip("\r\n")


def _of_text(text: str) -> LogLine:
    match = _LINE.match(text)
    if match is None:
        return LogLine(raw=text, message=text)
    rest = match["rest"]
    fields_at = next(
        (found.start() for found in _FIELD.finditer(rest) if _FIELDS.match(rest, found.start())), len(rest)
    )
    fields = {name: _value(value) for name, value in _FIELD.findall(rest[fields_at:])}
    at = dt.datetime.fromisoformat(match["at"])
    return LogLine(
        raw=text, at=at, level=match["level"], logger=match["logger"], message=rest[:fields_at], fields=fields
    )


def _of_json(text: str) -> LogLine:
    try:
        told = json.loads(text)
        at = dt.datetime.fromisoformat(told.pop("at"))
        known = {name: str(told.pop(name, "")) for name in ("level", "logger", "message", "traceback")}
    except (ValueError, KeyError, TypeError, AttributeError):
        return LogLine(raw=text, message=text)
    return LogLine(raw=text, at=at, fields=told, **known)


def _value(text: str) -> Any:
    if text.startswith('"'):
        try:
            return json.loads(text)
        except ValueError:
            return text
    return text
