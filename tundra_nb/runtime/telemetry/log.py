"""Log lines: which are kept, how they look, where they go.

Every room logs through the standard library (`logging.getLogger("tundra.ptys")`), with `extra={…}` for fields. Plain
`logging` with two small formatters rather than structlog: no room needs a bound logger, and importing structlog (with
rich, which it pulls in) costs the daemon 50 to 70 ms of its start and 6 MB for good.

The redactor runs over each finished line, so that a secret in a message, a field or a traceback is masked alike.
"""

from __future__ import annotations

import datetime as dt
import json
import logging
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

from tundra_nb.settings import LogSettings
from tundra_nb.settings.log_filter import LEVELS, ROOT, Filter, parse_filter

from . import rust_log
from .problems import Problems
from .redact import Redactor
from .sinks import Journald, PrivateFile

_PLAIN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}


class TextFormatter(logging.Formatter):
    """`2026-11-24T16:00:25.123456Z info    tundra.daemon  message  field=value`; tracebacks follow, indented."""

    def __init__(self, redactor: Redactor) -> None:
        super().__init__()
        self._redactor = redactor

    def format(self, record: logging.LogRecord) -> str:
        line = f"{_time(record)} {record.levelname.lower():<8} {record.name}  {_one_line(record.getMessage())}"
        for name, value in _fields(record).items():
            line += f"  {name}={_quoted(value)}"
        if trace := _trace(self, record):
            line += "\n    " + trace.replace("\n", "\n    ")
        return self._redactor.text(line)


class JsonFormatter(logging.Formatter):
    """One JSON object per line: `at`, `level`, `logger`, `message`, fields, `traceback`."""

    def __init__(self, redactor: Redactor) -> None:
        super().__init__()
        self._redactor = redactor

    def format(self, record: logging.LogRecord) -> str:
        told = {
            "at": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_fields(record),
        }
        if trace := _trace(self, record):
            told["traceback"] = trace
        return json.dumps(self._redactor.data(told), default=lambda value: self._redactor.text(repr(value)))


class Logs:
    """The process's logging, set up. `close` puts back what was there before.

    Args:
        settings: what is kept, and how it looks.
        file: where it goes; a file that cannot be written is told to `problems`.
        redactor: goes over each line.
        problems: what is wrong with the daemon.
        on_stderr: also on stderr, unless that is the file.
        rust_log: directives in the form of `RUST_LOG`, instead of the settings' filter.
    """

    def __init__(
        self,
        settings: LogSettings,
        file: Path,
        redactor: Redactor,
        problems: Problems | None = None,
        *,
        on_stderr: bool = True,
        rust_log: str = "",
    ) -> None:
        self._rust_log = rust_log
        self._file = file
        self._redactor = redactor
        self._settings = settings
        self._problems = problems
        self._on_stderr = on_stderr
        self._handlers: list[logging.Handler] = []
        self._levels: dict[str, int] = {}
        self._filter = settings.filter
        self.ids: Callable[[], tuple[int | None, int | None]] = lambda: (None, None)
        """The operation and the attempt on whose behalf the running code acts; set by whoever knows."""

    def __enter__(self) -> Self:
        """Open the file and install handlers.

        Raises:
            ConfigError: the filter is not understood. Nothing is installed then.
        """
        chosen = self._chosen()
        self._handlers = list(self._sinks())
        for handler in self._handlers:
            handler.addFilter(self._with_ids)
            logging.getLogger().addHandler(handler)
        self._set("", logging.WARNING)
        self._apply(chosen)
        logging.captureWarnings(capture=True)
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def filter(self) -> str:
        """The filter in force, as it was written."""
        return self._filter

    def set_filter(self, text: str) -> None:
        """Keep other lines from now on, until the daemon ends.

        Raises:
            ConfigError: the filter is not understood; the one before stays.
        """
        chosen = parse_filter(text)
        for name in [name for name in self._levels if name]:
            logging.getLogger(name).setLevel(logging.NOTSET)
        self._apply(chosen)
        self._filter = text

    def _chosen(self) -> Filter:
        if not self._rust_log:
            return parse_filter(self._settings.filter)
        level, loggers = rust_log.parse(self._rust_log)
        names = {number: name for name, number in LEVELS.items()}
        self._filter = ",".join([names[level], *(f"{name}={names[number]}" for name, number in loggers.items())])
        return Filter(level, loggers)

    def _apply(self, chosen: Filter) -> None:
        self._set(ROOT, chosen.level)
        for name, level in chosen.loggers.items():
            self._set(name, level)

    def _sinks(self) -> Iterator[logging.Handler]:
        settings = self._settings
        formatter = (JsonFormatter if settings.format == "json" else TextFormatter)(self._redactor)
        takes_stderr = False
        if settings.file:
            size = int(settings.max_mb * 1_000_000)
            to_file = PrivateFile(self._file, rotate_bytes=size, keep=settings.keep, problems=self._problems)
            takes_stderr = to_file.takes_stderr
            to_file.setFormatter(formatter)
            yield to_file
        if settings.stdout or (self._on_stderr and not takes_stderr):
            to_terminal = logging.StreamHandler(sys.stdout if settings.stdout else sys.stderr)
            to_terminal.setFormatter(formatter)
            yield to_terminal
        if settings.journald:
            to_journal = Journald(self._problems)
            to_journal.setFormatter(JsonFormatter(self._redactor))
            yield to_journal

    def _with_ids(self, record: logging.LogRecord) -> bool:
        """Put the ids of the call into each of its lines."""
        operation_id, attempt_id = self.ids()
        if operation_id is not None and not hasattr(record, "operation_id"):
            record.operation_id = operation_id
            if attempt_id is not None and not hasattr(record, "attempt_id"):
                record.attempt_id = attempt_id
        return True

    def close(self) -> None:
        """Remove the handlers and close the file; again does nothing."""
        logging.captureWarnings(capture=False)
        while self._levels:
            name, level = self._levels.popitem()
            logging.getLogger(name).setLevel(level)
        while self._handlers:
            handler = self._handlers.pop()
            logging.getLogger().removeHandler(handler)
            handler.close()

    def _set(self, name: str, level: int) -> None:
        logger = logging.getLogger(name)
        self._levels.setdefault(name, logger.level)
        logger.setLevel(level)


def _time(record: logging.LogRecord) -> str:
    at = dt.datetime.fromtimestamp(record.created, dt.UTC)
    return at.isoformat(timespec="microseconds").replace("+00:00", "Z")


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    return {name: value for name, value in vars(record).items() if name not in _PLAIN}


def _trace(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    parts = []
    if record.exc_info and record.exc_info[0] is not None:
        parts.append(formatter.formatException(record.exc_info))
    if record.stack_info:
        parts.append(formatter.formatStack(record.stack_info))
    return "\n".join(parts)


def _one_line(text: str) -> str:
    """Text from outside must not be able to forge a line or steer a terminal."""
    return re.sub(
        r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]", lambda m: m.group().encode("unicode_escape").decode(), text
    )


def _quoted(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if re.fullmatch(r"[\w.:/+@%-]+", text) else json.dumps(text, ensure_ascii=False)
