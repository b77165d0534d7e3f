"""Sources through the shipped daemon: imported, read by every view, forgotten; also while the own history is away."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import tundra_nb
from tests.conftest import Home
from tests.runtime.sources.test_importing import KEY, TEXT
from tundra_nb.errors import QueryRefused, UsageError
from tundra_nb.views.show import blocks_of
from tundra_nb.views.text import plain


@pytest.mark.part("doltlite")
def test_every_view_of_the_history_shows_a_source_too(home: Home, tmp_path: Path) -> None:
    """`source=` on each method, the default window is all of it, and nothing of it is in the own history."""
    file = tmp_path / "daemon.log"
    file.write_text(TEXT)
    with tundra_nb.connect() as t:
        told: list[str] = []
        source = t.sources.import_(file, about={"title": "x"}, on_progress=lambda step: told.append(step["doing"]))
        assert (source["name"], source["kind"], source["again"]) == ("daemon", "tracing", False)
        assert told
        assert "not understood" in plain(blocks_of(source))
        assert t.sources.import_(file)["again"] is True
        frame = t.sources()
        assert list(frame["source"]) == ["daemon"]
        assert str(frame["since"].dt.tz) == "UTC"
        assert (frame["lines"].iloc[0], frame["left"].iloc[0]) == (7, 0)
        calls = t.calls(source="daemon")
        assert list(calls["code"]) == ["AllProvidersExhausted"]
        assert calls.attrs["source"] == "daemon"
        assert "`%tundra why --in daemon " in plain(blocks_of(calls))
        assert len(calls.attrs["digest"]) == 64
        assert calls.dtypes.equals(t.calls().dtypes) or list(calls.columns) == list(t.calls().columns)
        assert t.calls(since="all").empty
        assert len(t.attempts(source="daemon")) == 2
        assert len(t.errors(source="daemon", code="RateLimitError::Exceeded")) == 1
        assert len(t.limit_history(source="daemon")) == 1
        assert len(t.breaker_history(source="daemon")) == 1
        assert t.notes(source="daemon").empty
        assert t.ptys.history(source="daemon").empty
        assert len(t.history("imported_log", source="daemon", severity="error")) == 2
        lines = t.logs(source="daemon")
        assert list(lines.columns) == list(t.logs().columns)
        assert list(lines["level"]) == ["info", *["warning"] * 2, "error", *["warning"] * 2, "error"]
        assert len(t.logs(source="daemon", level="error")) == 2
        assert list(t.logs(source="daemon", level="warning", limit=1)["level"]) == ["error"]
        assert len(t.logs(source="daemon", since="2026-03-01T10:30:48Z")) == 3
        by = t.calls(source="daemon", by="profile,hour")
        assert (by["count"].iloc[0], by["errors"].iloc[0]) == (1, 1)
        why = t.why(source="daemon")
        assert [attempt["profile"] for attempt in why["attempts"]] == ["local-runtime", "anthropic"]
        assert t.last("daemon").operation_id == why.operation_id
        assert t.why(why.operation_id[-6:], source="daemon").operation_id == why.operation_id
        explained = t.explain("CircuitBreakerError::Open", source="daemon")
        assert (explained.count, explained.evidence.source) == (2, "daemon")
        assert t.explain("last", source="daemon").code == "Timeout"
        assert t.explain("StoreDamaged", source="daemon").count == 0
        assert t.sql("select count(*) as n from attempt", source="daemon")["n"].iloc[0] == 2
        with pytest.raises(QueryRefused):
            t.sql("drop table attempt", source="daemon")
        with pytest.raises(UsageError, match="no commits"):
            t.calls(source="daemon", at="HEAD")
        with pytest.raises(UsageError, match="no source 'deamon'") as refused:
            t.calls(source="deamon")
        assert refused.value.nearest == "daemon"
        shown = plain(t.dashboard(source="daemon").blocks)
        assert shown.startswith("no lasting failure · 1 call, 100 % not answered"), shown
        assert "source daemon" in shown
        with pytest.raises(UsageError, match="no pins"):
            t.dashboard(source="daemon", at="HEAD")
        t.sources.look("daemon")
        assert len(t.calls()) == 1
        assert "source daemon" in plain(t.dashboard().blocks)
        assert t.why().operation_id == why.operation_id
        assert len(t.sql("select * from attempt")) == 2
        t.sources.look(None)
        assert t.calls(since="all").empty
        for path in (home.data_dir / "sources").rglob("*"):
            assert path.stat().st_mode & 0o077 == 0
        t.sources.remove("daemon")
        assert t.sources().empty
        with pytest.raises(UsageError):
            t.sources.remove("daemon")
        with pytest.raises(UsageError, match="cannot be read"):
            t.sources.import_(tmp_path / "absent.log")


@pytest.mark.check
@pytest.mark.part("doltlite")
def test_the_command_line_imports_and_reads(home: Home, tmp_path: Path) -> None:
    """`import`, `sources`, `--in` on each command, JSON where asked for; a key in the log is nowhere."""
    file = tmp_path / "their.log"
    file.write_text(TEXT.replace("LlmError::Timeout", f"{KEY} LlmError::Timeout"))
    made = home.run("import", str(file), "--name", "theirs", ANTHROPIC_API_KEY=KEY)
    assert "source theirs" in made.stdout, made.stderr
    assert home.run("sources").stdout.count("theirs") >= 1
    assert json.loads(home.run("calls", "--in", "theirs", "--json").stdout)[0]["code"] == "AllProvidersExhausted"
    for args in (("errors",), ("attempts",), ("limit-history",), ("breaker-history",), ("why",), ("last",)):
        shown = home.run(*args, "--in", "theirs")
        assert shown.returncode == 0, (args, shown.stderr)
        assert shown.stdout.strip()
        assert KEY not in shown.stdout + shown.stderr
    lines = home.run("logs", "--in", "theirs", "--level", "error").stdout
    assert [line.split()[1] for line in lines.splitlines()] == ["error", "error"]
    assert "phase failed" in lines
    assert home.run("logs", "--in", "theirs", "--follow").returncode == 2
    assert "in source theirs" in home.run("explain", "last", "--in", "theirs").stdout
    assert "Timeout" in home.run("explain", "last", "--in", "theirs").stdout
    assert home.run("sql", "--in", "theirs", "select count(*) from error_event").stdout.strip().endswith("6")
    story = " ".join(home.run("last", "--in", "theirs").stdout.split())
    steps = re.search(r"`(tundra why --in theirs \d+)` shows each step", story)
    assert steps is not None, story
    assert home.run(*steps[1].split()[1:]).returncode == 0
    meaning = re.search(r"`(tundra explain --in theirs \S+)`", story)
    assert meaning is not None, story
    assert "in source theirs" in home.run(*meaning[1].split()[1:]).stdout
    assert "`tundra calls --in theirs" in home.run("why", "999999999", "--in", "theirs").stderr
    assert "source theirs" in home.run("notes", "--in", "theirs").stderr
    wrong = home.run("errors", "--in", "their")
    assert wrong.returncode == 2
    assert "theirs" in wrong.stderr
    assert home.run("sources", "remove", "theirs").returncode == 0
