"""The daemon's log as a frame: read from its file, so also while the daemon is dead."""

from __future__ import annotations

import collections
import json
from typing import TYPE_CHECKING

from tundra_nb.errors import UsageError
from tundra_nb.frames import frames
from tundra_nb.local import log_lines
from tundra_nb.types import Column

from . import api
from .call import Flow
from .link import Link
from .times import When, resolve

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = (
    Column("at", "time", nullable=True),
    Column("level", "category", nullable=True),
    Column("logger", "category", nullable=True),
    Column("message", "text", nullable=False),
    Column("operation_id", "id", nullable=True),
    Column("attempt_id", "id", nullable=True),
    Column("fields", "text", nullable=True),
    Column("traceback", "text", nullable=True),
)


def wanted(since: When | None, level: str | None, operation: str | int | None) -> log_lines.WantedLines:
    """What the options ask for.

    Raises:
        UsageError: no such level, no time, or what can be no id.
    """
    if level is not None and level not in log_lines.LEVELS:
        raise UsageError(problem=f"unknown level {level!r}", field="level", remedy=f"{', '.join(log_lines.LEVELS)}.")
    if operation is not None and not str(operation).isdecimal():
        raise UsageError(
            problem=f"{operation!r} is no id of a call",
            field="operation",
            remedy="The log knows calls by their ids; `tundra calls` lists them, and the last digits will do.",
        )
    return log_lines.WantedLines(
        since=None if since in (None, "all") else resolve(since),
        level=level,
        operation=None if operation is None else str(operation),
    )


def logs(
    link: Link,
    *,
    since: When | None = None,
    level: str | None = None,
    operation: str | int | None = None,
    limit: int | None = None,
) -> pd.DataFrame:
    """The wanted lines of the log, or the last `limit` of them."""
    if link.paths is None:
        raise UsageError(problem="TUNDRA_URL is set: the log is on the Jupyter server's machine")
    asked = wanted(since, level, operation)
    if not link.paths.log.is_file():
        raise UsageError(problem=f"there is no log at {link.paths.log}", remedy="The daemon writes it when it starts.")
    lines = collections.deque(log_lines.read(link.paths.log, asked), maxlen=limit)
    return frames.from_rows([_row(line) for line in lines], COLUMNS, meta={"log": str(link.paths.log)})


def _row(line: log_lines.LogLine) -> dict[str, object]:
    fields = dict(line.fields)
    operation, attempt = fields.pop("operation_id", None), fields.pop("attempt_id", None)
    return {
        "at": line.at.isoformat() if line.at else None,
        "level": line.level or None,
        "logger": line.logger or None,
        "message": line.message,
        "operation_id": str(operation) if operation is not None else None,
        "attempt_id": str(attempt) if attempt is not None else None,
        "fields": json.dumps(fields) if fields else None,
        "traceback": line.traceback or None,
    }


def of_source(source: str, since: When | None, level: str | None, limit: int | None) -> Flow[pd.DataFrame]:
    """The lines of a log that was imported, in the same columns.

    Raises:
        UsageError: no such source, no such level, or no time.
    """
    wanted(since, level, None)
    bounded = limit if level is None else None
    rows: pd.DataFrame = yield api.history("imported_log", since, source=source, limit=bounded)
    if level is not None:
        graver = log_lines.LEVELS[log_lines.LEVELS.index(level) :]
        rows = rows[rows["severity"].isin(graver)]
    if limit is not None:
        rows = rows.tail(limit)
    parts = zip(rows["at"], rows["severity"], rows["logger"], rows["message"], strict=True)
    lines = [
        {"at": at.isoformat(), "level": severity, "logger": logger or None, "message": message}
        for at, severity, logger, message in parts
    ]
    return frames.from_rows(lines, COLUMNS, meta={"source": source})
