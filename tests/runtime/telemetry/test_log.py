"""Log lines: the filter's grammar, both formats, rotation, and no secret in any of them."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import stat
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tundra_nb.errors import ConfigError
from tundra_nb.runtime.telemetry import log, sinks
from tundra_nb.runtime.telemetry.problems import Problems
from tundra_nb.runtime.telemetry.redact import Redactor
from tundra_nb.settings import LogSettings, log_filter


def written(file: Path) -> str:
    return file.read_text(encoding="utf-8")


def test_the_default_filter_is_understood() -> None:
    assert log_filter.parse_filter(LogSettings().filter) == log_filter.Filter(
        logging.INFO, {"tundra.daemon": logging.DEBUG}
    )


@pytest.mark.parametrize(
    ("text", "level", "loggers"),
    [
        ("", logging.INFO, {}),
        ("WARN", logging.WARNING, {}),
        (" tundra.ptys = error , debug ", logging.DEBUG, {"tundra.ptys": logging.ERROR}),
        ("tundra.ptys.pool=off", logging.INFO, {"tundra.ptys.pool": logging.CRITICAL + 1}),
        ("tundra=trace,uvicorn=info", logging.INFO, {"tundra": logging.DEBUG, "uvicorn": logging.INFO}),
    ],
)
def test_a_filter_is_a_level_and_exceptions_by_logger(text: str, level: int, loggers: dict[str, int]) -> None:
    assert log_filter.parse_filter(text) == log_filter.Filter(level, loggers)


@pytest.mark.parametrize(
    ("text", "problem", "remedy"),
    [
        ("inof", "unknown level 'inof'", "'info'"),
        ("info,tundra.demon=debug", "unknown logger 'tundra.demon'", "'tundra.daemon'"),
        ("info,ptys=debug", "unknown logger 'ptys'", "'tundra.ptys'"),
        ("info,tundra.daemon=loud", "unknown level 'loud'", "Levels:"),
        ("info,debug", "second level", "tundra.daemon=debug"),
        ("tundra.nothing.like.it=info", "unknown logger", "tundra"),
    ],
)
def test_a_wrong_word_in_a_filter_is_named_with_its_nearest(text: str, problem: str, remedy: str) -> None:
    with pytest.raises(ConfigError) as caught:
        log_filter.parse_filter(text)
    assert problem in caught.value.message
    assert remedy in caught.value.hint


@given(st.text(max_size=60))
def test_any_text_is_a_filter_or_a_config_error(text: str) -> None:
    with contextlib.suppress(ConfigError):
        assert isinstance(log_filter.parse_filter(text), log_filter.Filter)


def failing(words: str) -> None:
    raise ValueError(words)


def test_lines_pass_by_the_level_of_their_logger(tmp_path: Path) -> None:
    file = tmp_path / "daemon.log"
    with log.Logs(LogSettings(filter="warning,tundra.ptys=debug"), file, Redactor()):
        logging.getLogger("tundra.ptys.pool").debug("kept-1")
        logging.getLogger("tundra.history").info("dropped")
        logging.getLogger("tundra.history").warning("kept-2")
        logging.getLogger("some.library").info("dropped")
        logging.getLogger("some.library").warning("kept-3")
    lines = written(file).splitlines()
    assert [line.rsplit(maxsplit=1)[-1] for line in lines] == ["kept-1", "kept-2", "kept-3"]


def test_a_text_line_has_time_level_logger_message_and_fields(tmp_path: Path) -> None:
    file = tmp_path / "daemon.log"
    with log.Logs(LogSettings(), file, Redactor()):
        logging.getLogger("tundra.daemon").info("ready in %d ms", 12, extra={"pid": 7, "why": "two words"})
    at, rest = written(file).split(" ", 1)
    assert at.endswith("Z")
    assert rest.rstrip() == 'info     tundra.daemon  ready in 12 ms  pid=7  why="two words"'


def test_text_from_outside_cannot_forge_a_line(tmp_path: Path) -> None:
    file = tmp_path / "daemon.log"
    with log.Logs(LogSettings(), file, Redactor()):
        logging.getLogger("tundra.daemon").info("peer said %s", "a\n2026 critical forged\x1b[2J", extra={"f": "x\ny"})
    assert len(written(file).splitlines()) == 1
    assert "\x1b" not in written(file)


def test_a_json_line_is_one_object_with_the_traceback_in_it(tmp_path: Path) -> None:
    file = tmp_path / "daemon.log"
    with log.Logs(LogSettings(format="json"), file, Redactor()):
        try:
            failing("broken\nin two")
        except ValueError:
            logging.getLogger("tundra.daemon").exception("failed", extra={"path": tmp_path})
    (line,) = written(file).splitlines()
    told = json.loads(line)
    assert told["level"] == "error"
    assert told["logger"] == "tundra.daemon"
    assert told["message"] == "failed"
    assert str(tmp_path) in told["path"]
    assert "ValueError: broken\nin two" in told["traceback"]


@pytest.mark.parametrize("form", ["text", "json"])
def test_no_secret_reaches_a_line_by_message_field_or_traceback(tmp_path: Path, form: str) -> None:
    file = tmp_path / "daemon.log"
    redactor = Redactor()
    redactor.register("MY_KEY", "canary-value-1")
    with log.Logs(LogSettings(format=form), file, redactor):  # type: ignore[arg-type]
        try:
            failing("canary-value-1 sk-ant-api03-0123456789abcdef")
        except ValueError:
            fields = {"a": "canary-value-1", "b": ["canary-value-1"], "c": {"k": b"canary-value-1"}}
            logging.getLogger("tundra.daemon").exception("key %s", "canary-value-1", extra=fields)
    assert "MY_KEY" in written(file)
    assert "canary" not in written(file)
    assert "0123456789abcdef" not in written(file)


def test_the_file_is_private_and_rotates_by_size(tmp_path: Path) -> None:
    file = tmp_path / "daemon.log"
    handler = sinks.PrivateFile(file, rotate_bytes=300, keep=2)
    for number in range(40):
        handler.emit(logging.makeLogRecord({"msg": f"line {number} {'x' * 50}"}))
    handler.close()
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == ["daemon.log", "daemon.log.1", "daemon.log.2"]
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in tmp_path.iterdir())
    assert "line 39" in written(file)


def test_old_rotated_files_are_deleted_at_start(tmp_path: Path) -> None:
    old, young = tmp_path / "daemon.log.2", tmp_path / "daemon.log.1"
    for path in (old, young):
        path.write_text("x")
    long_ago = time.time() - (sinks.KEEP_DAYS + 1) * 86400
    os.utime(old, (long_ago, long_ago))
    sinks.PrivateFile(tmp_path / "daemon.log").close()
    assert young.exists()
    assert not old.exists()


def test_rotation_takes_the_stderr_of_a_background_process_along(tmp_path: Path) -> None:
    file = tmp_path / "daemon.log"
    program = textwrap.dedent("""
        import logging, os, sys
        from pathlib import Path
        from tundra_nb.runtime.telemetry.sinks import PrivateFile
        handler = PrivateFile(Path(sys.argv[1]), rotate_bytes=200, keep=3)
        for number in range(5):
            handler.emit(logging.makeLogRecord({"msg": f"line {number} " + "x" * 80}))
        os.write(2, b"last words on stderr")
    """)
    with file.open("a") as stream:
        subprocess.run([sys.executable, "-c", program, str(file)], stdout=stream, stderr=stream, check=True, timeout=30)
    assert written(file).endswith("last words on stderr")


@pytest.mark.parametrize("how", ["folder", "folder that is a file", "fifo"])
def test_a_log_that_cannot_be_written_is_a_problem_and_comes_back_when_it_can(tmp_path: Path, how: str) -> None:
    file = tmp_path / "logs" / "daemon.log"
    blocker = file.parent if how == "folder that is a file" else file
    blocker.parent.mkdir(exist_ok=True)
    if how == "fifo":
        os.mkfifo(blocker)
    elif how == "folder":
        blocker.mkdir()
    else:
        blocker.touch()
    problems = Problems()
    with log.Logs(LogSettings(), file, Redactor(), problems, on_stderr=False):
        logging.getLogger("tundra.daemon").info("lost")
        (problem,) = problems.list()
        assert str(file) in problem.message
        assert problem.hint
        blocker.rename(tmp_path / "away")
        logging.getLogger("tundra.daemon").info("kept")
        assert problems.list() == []
    assert "1 lines before this one were lost" in written(file)
    assert written(file).endswith("kept\n")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.parametrize("how", ["deleted", "moved", "replaced", "folder deleted"])
def test_a_log_file_that_is_taken_away_is_opened_anew(tmp_path: Path, how: str) -> None:
    file = tmp_path / "logs" / "daemon.log"
    with log.Logs(LogSettings(), file, Redactor()):
        logging.getLogger("tundra.daemon").info("before")
        if how == "folder deleted":
            shutil.rmtree(file.parent)
        elif how == "replaced":
            (file.parent / "new").touch()
            (file.parent / "new").replace(file)
        else:
            file.rename(tmp_path / "moved") if how == "moved" else file.unlink()
        logging.getLogger("tundra.daemon").info("after")
    assert "after" in written(file)
    assert "before" not in written(file)


def test_closing_puts_logging_back_as_it_was(tmp_path: Path) -> None:
    before = (list(logging.getLogger().handlers), logging.getLogger().level, logging.getLogger("tundra.daemon").level)
    logs = log.Logs(LogSettings(), tmp_path / "daemon.log", Redactor())
    with logs:
        assert logging.getLogger("tundra.daemon").level == logging.DEBUG
    logs.close()
    after = (list(logging.getLogger().handlers), logging.getLogger().level, logging.getLogger("tundra.daemon").level)
    assert before == after
