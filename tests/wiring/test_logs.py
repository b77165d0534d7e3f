"""The log of the shipped daemon: ids on every line of a call, levels changed live, sinks, read as a frame."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import tundra_nb
from tests.conftest import Home, wait_until
from tundra_nb.commands.logs import followed, tail, whole_until
from tundra_nb.errors import TundraError, UsageError
from tundra_nb.runtime.telemetry import rust_log
from tundra_nb.testing.scripted_provider import ScriptedProcess, ScriptedStep, scripted_process

SETTINGS = """
[router]
backoff_seconds = 0.01
[[profile]]
name = "scripted"
kind = "openai"
base_url = "{base_url}"
model = "scripted-1"
api_key_env = "SCRIPTED_API_KEY"
"""
KEY = "canary-log-Zq9x7e0123"


@pytest.fixture(scope="module")
def provider() -> Iterator[ScriptedProcess]:
    with scripted_process() as running:
        yield running


@pytest.fixture
def ready(home: Home, provider: ScriptedProcess, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setenv("SCRIPTED_API_KEY", KEY)
    home.env["SCRIPTED_API_KEY"] = KEY
    home.write_settings(SETTINGS.format(base_url=provider.base_url))
    return home


@pytest.mark.part("doltlite")
@pytest.mark.parametrize("form", ["text", "json"])
def test_every_line_of_a_call_carries_its_ids_and_the_frame_finds_them(
    ready: Home, provider: ScriptedProcess, form: str
) -> None:
    ready.write_settings(ready.config.read_text() + f'\n[log]\nformat = "{form}"\nfilter = "debug"\n')
    provider.script("*", *[ScriptedStep(status=500, text=f"no {KEY}")] * 3)
    with tundra_nb.connect() as client:
        with pytest.raises(TundraError):
            client.ask("hi")
        call = str(client.calls()["operation_id"].iloc[0])
        frame = client.logs(operation=call)
        assert len(frame) >= 3
        assert set(frame["operation_id"].astype(str)) == {call}
        assert frame["attempt_id"].notna().sum() >= 3
        assert list(client.logs(operation=call[-5:], level="error")["level"].unique()) in ([], ["error"])
        assert [str(kind) for kind in frame.dtypes] == [str(kind) for kind in client.logs(operation="0").dtypes]
        assert not frame.to_string().count(KEY)
        with pytest.raises(UsageError, match="unknown level"):
            client.logs(level="loud")
    told = ready.run("logs", "--operation", call, "--level", "warning")
    assert told.returncode == 0
    assert told.stdout.count(call) == told.stdout.count("attempt failed")
    assert KEY not in told.stdout


@pytest.mark.part("doltlite")
def test_levels_change_while_it_runs_and_a_wrong_word_changes_nothing(ready: Home) -> None:
    assert "info,tundra.daemon=debug" in ready.run("log-level").stdout
    assert "warning" in ready.run("log-level", "warning,tundra.history=debug").stdout
    for nothing in ("", " ", ",,"):
        assert "no level is given" in ready.run("log-level", nothing).stderr
    for no_id in ("last", "x1", "-3"):
        assert "is no id of a call" in ready.run("logs", f"--operation={no_id}").stderr
    wrong = ready.run("log-level", "warning,tundra.histroy=debug")
    assert wrong.returncode == 2
    assert "tundra.history" in wrong.stderr
    with tundra_nb.connect() as client:
        assert client.log_level().filter == "warning,tundra.history=debug"
    ready.run("log-level", "off")
    before = ready.run("logs", "-n", "1000").stdout
    ready.run("ask", "hi")
    assert ready.run("logs", "-n", "1000").stdout == before


@pytest.mark.part("doltlite")
def test_directives_of_the_original_hold_where_no_filter_is_set(ready: Home) -> None:
    started = ready.run("daemon", "start", RUST_LOG="warn,at_session::pty_pool=trace,hyper=debug")
    assert started.returncode == 0, started.stderr
    assert "warning,tundra.ptys=debug" in ready.run("log-level").stdout
    ready.run("daemon", "stop")
    ready.write_settings(ready.config.read_text() + '\n[log]\nfilter = "error"\n')
    ready.run("daemon", "start", RUST_LOG="trace")
    assert "keeps error" in ready.run("log-level").stdout


@pytest.mark.parametrize(
    ("text", "level", "loggers"),
    [
        ("info,at_daemon=debug", 20, {"tundra.daemon": 10}),
        ("at_harness=warn", 40, {"tundra.limiter": 30, "tundra.breaker": 30, "tundra.router": 30}),
        ("at_sessions[span{id=1}]=off", 40, {"tundra.ptys": 51}),
        ("at_intelligence", 40, {"tundra.providers": 10}),
        ("WARN,nobody=info,,=x", 30, {}),
        ("", 20, {}),
    ],
)
def test_rust_directives_are_read_as_rust_reads_them(text: str, level: int, loggers: dict[str, int]) -> None:
    assert rust_log.parse(text) == (level, loggers)


@pytest.mark.part("doltlite")
def test_the_file_is_rotated_and_kept_as_the_settings_say(ready: Home) -> None:
    ready.write_settings(ready.config.read_text() + "\n[log]\nmax_mb = 0.0008\nkeep = 2\n")
    for _ in range(6):
        ready.run("daemon", "start")
        ready.run("daemon", "stop")
    files = sorted(file.name for file in (ready.data_dir / "logs").iterdir())
    assert files == ["daemon.log", "daemon.log.1", "daemon.log.2"]


@pytest.mark.part("doltlite")
def test_standard_output_takes_the_lines_and_no_file_is_made(ready: Home) -> None:
    ready.write_settings(ready.config.read_text() + '\n[log]\nstdout = true\nfile = false\nformat = "json"\n')
    command = [sys.executable, "-m", "tundra_nb.cli", "daemon", "run"]
    with subprocess.Popen(command, env=ready.env, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        told = [json.loads(process.stdout.readline()) for _ in range(2)]
        process.terminate()
    assert told[0]["message"].startswith("starting")
    assert not (ready.data_dir / "logs" / "daemon.log").exists()


JOURNAL = """
import logging, sys
from tundra_nb.runtime.telemetry import log, sinks
from tundra_nb.runtime.telemetry.problems import Problems
from tundra_nb.runtime.telemetry.redact import Redactor
problems = Problems()
handler = sinks.Journald(problems, *sys.argv[1:])
handler.setFormatter(log.JsonFormatter(Redactor()))
logger = logging.getLogger("tundra.ptys")
logger.addHandler(handler)
logger.warning("two\\nlines %s", "x" * 100_000, extra={"operation_id": 12345, "pty_id": "a"})
print([problem.message for problem in problems.list()])
"""


def test_a_line_reaches_the_journal_with_its_fields(tmp_path: Path) -> None:
    path = str(tmp_path / "journal")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(path)
        listening.settimeout(20)
        done = subprocess.run([sys.executable, "-c", JOURNAL, path], capture_output=True, text=True, check=True)
        data = listening.recv(200_000)
    assert done.stdout.strip() == "[]"
    assert b"TUNDRA_OPERATION_ID=12345\n" in data
    assert b"PRIORITY=4\n" in data
    assert b"SYSLOG_IDENTIFIER=tundra\n" in data
    assert data.startswith(b"MESSAGE\n"), "a message of several lines has its length before it"
    gone = subprocess.run([sys.executable, "-c", JOURNAL, path + "x"], capture_output=True, text=True, check=True)
    assert "takes no lines" in gone.stdout


JOURNALD = "/lib/systemd/systemd-journald"
IN_A_NAMESPACE = """
set -e
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/journal /run/log/journal
{journald} >/dev/null 2>&1 &
for i in $(seq 100); do [ -S /run/systemd/journal/socket ] && break; sleep 0.1; done
{python} -c "$PROGRAM"
for i in $(seq 100); do
  journalctl -o json --no-pager TUNDRA_OPERATION_ID=12345 2>/dev/null | grep -q MESSAGE && break; sleep 0.1
done
journalctl -o json --no-pager TUNDRA_OPERATION_ID=12345
kill %1
"""


@pytest.mark.check
@pytest.mark.skipif(not Path(JOURNALD).exists() or shutil.which("unshare") is None, reason="needs systemd-journald")
def test_a_real_journal_finds_a_record_by_the_id_of_its_operation() -> None:
    script = IN_A_NAMESPACE.format(journald=JOURNALD, python=sys.executable)
    done = subprocess.run(
        ["unshare", "-m", "bash", "-c", script],
        env={"PROGRAM": JOURNAL, "PATH": "/usr/bin:/bin:/usr/sbin:/sbin"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    if "Operation not permitted" in done.stderr:
        pytest.skip("needs the right to make a mount namespace")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["TUNDRA_LOGGER"] == "tundra.ptys"


@pytest.mark.part("doltlite")
def test_following_shows_only_the_lines_that_are_asked_for(ready: Home) -> None:
    ready.run("daemon", "start")
    command = [sys.executable, "-m", "tundra_nb.cli", "logs", "-f", "--level", "warning"]
    with subprocess.Popen(command, env=ready.env, stdout=subprocess.PIPE, text=True) as process:
        log = ready.data_dir / "logs" / "daemon.log"
        wait_until(lambda: process.poll() is None and Path(f"/proc/{process.pid}/fd").exists(), what="it follows")

        def reads() -> bool:
            return any(str(log) == str(fd.resolve()) for fd in Path(f"/proc/{process.pid}/fd").iterdir())

        wait_until(reads, what="it has the log open")
        with log.open("a") as stream:
            stream.write(
                "2026-11-24T12:00:00Z info     tundra.a  small\n2026-11-24T12:00:00Z error    tundra.a  grave\n"
            )
        assert process.stdout is not None
        assert process.stdout.readline().endswith("grave\n")
        process.terminate()


def test_a_line_that_comes_between_the_last_lines_and_those_that_follow_is_shown_once_and_whole(tmp_path: Path) -> None:
    log = tmp_path / "daemon.log"
    log.write_text("first\nsecond\nthi")
    end = whole_until(log)
    assert tail(log, 2, end) == ["first", "second"]
    following = followed(log, end)
    assert next(following) == ""
    with log.open("a") as stream:
        stream.write("rd\nfourth\n")
    texts = [next(following) for _ in range(2)]
    assert "".join(texts) == "third\nfourth\n"
