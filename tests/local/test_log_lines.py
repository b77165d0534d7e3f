"""The log read back: what the formatters write, the reader understands, in both formats."""

from __future__ import annotations

import datetime as dt
import logging
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tundra_nb.local import log_lines
from tundra_nb.runtime.telemetry.log import JsonFormatter, TextFormatter
from tundra_nb.runtime.telemetry.redact import Redactor


def record(message: str, **fields: object) -> logging.LogRecord:
    made = logging.LogRecord("tundra.ptys", logging.WARNING, "f.py", 1, message, None, None)
    made.__dict__.update(fields)
    return made


@pytest.mark.parametrize("formatter", [TextFormatter, JsonFormatter])
@given(
    message=st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp")), max_size=60).map(str.strip),
    value=st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
)
def test_a_line_comes_back_with_message_and_fields(
    formatter: type[TextFormatter | JsonFormatter], message: str, value: str
) -> None:
    text = formatter(Redactor()).format(record(f"said: {message}.", operation_id=12345, name_of_it=value))
    (line,) = log_lines.parsed(text.split("\n"))
    assert (line.level, line.logger) == ("warning", "tundra.ptys")
    assert line.fields["name_of_it"] == value
    assert str(line.fields["operation_id"]) == "12345"
    assert line.message == f"said: {message}."
    assert line.raw == text


def test_a_traceback_belongs_to_its_line_and_foreign_words_are_kept() -> None:
    texts = [
        "2026-11-24T16:00:25.000001Z error    tundra.daemon  failed",
        "    Traceback (most recent call last):",
        "    ValueError: x",
        "a library says this",
        '{"at": 3}',
    ]
    first, second, third = log_lines.parsed(texts)
    assert first.traceback == "Traceback (most recent call last):\nValueError: x"
    assert (second.level, second.message) == ("", "a library says this")
    assert third.message == '{"at": 3}'


def test_lines_are_chosen_by_time_level_and_call_over_rotated_files(tmp_path: Path) -> None:
    log = tmp_path / "daemon.log"
    (tmp_path / "daemon.log.2").write_text("2026-11-24T10:00:00Z info     tundra.a  oldest  operation_id=111\n")
    (tmp_path / "daemon.log.1").write_text("2026-11-24T11:00:00Z error    tundra.a  older  operation_id=222\n")
    log.write_text("2026-11-24T12:00:00Z warning  tundra.a  newest  operation_id=1222\n")

    def messages(**asked: object) -> list[str]:
        return [line.message for line in log_lines.read(log, log_lines.WantedLines(**asked))]  # type: ignore[arg-type]

    assert messages() == ["oldest", "older", "newest"]
    assert messages(level="warning") == ["older", "newest"]
    assert messages(operation="222") == ["older", "newest"]
    assert messages(since=dt.datetime(2026, 11, 24, 10, 30, tzinfo=dt.UTC)) == ["older", "newest"]
