"""The shipped daemon while its files are taken away, its disk is full, or a process of it is stopped by a signal."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

import tundra_nb
from tests.conftest import Home, stop_processes, wait_until
from tests.wiring.test_crash import worker_of
from tundra_nb.errors import IpcError, StoreUnavailable
from tundra_nb.testing.scripted_provider import ScriptedProcess, Step, scripted_process

pytestmark = pytest.mark.part("doltlite")

SETTINGS = """
[[profile]]
name = "scripted"
kind = "openai"
base_url = "{base_url}"
model = "scripted-1"
"""
AT_ONCE_SECONDS = 5.0
"""So soon a hang has to be named."""


@pytest.fixture(scope="module")
def provider() -> Iterator[ScriptedProcess]:
    with scripted_process() as running:
        yield running


@pytest.fixture
def running(home: Home, provider: ScriptedProcess) -> Home:
    home.write_settings(SETTINGS.format(base_url=provider.base_url))
    assert "word0" in home.run("ask", "hi").stdout
    return home


@pytest.fixture
def small_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, provider: ScriptedProcess) -> Iterator[Home]:
    """A running home whose data directory is a file system of a few megabytes."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(folder)], check=False)
    if mounted.returncode:
        pytest.skip("needs the right to mount a file system")
    try:
        monkeypatch.setenv("TUNDRA_DATA_DIR", str(folder / "data"))
        monkeypatch.setenv("TUNDRA_CONFIG", str(tmp_path / "tundra.toml"))
        made = Home(tmp_path, dict(os.environ))
        made.write_settings(SETTINGS.format(base_url=provider.base_url))
        assert "word0" in made.run("ask", "hi").stdout
        yield made
        stop_processes(made)
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def told(home: Home) -> dict[str, Any]:
    done = home.run("daemon", "status", "--json")
    status: dict[str, Any] = json.loads(done.stdout)
    return status


def fill(folder: Path) -> Path:
    file = folder / "fill"
    with file.open("wb", buffering=0) as stream:
        try:
            while stream.write(b"x" * 4096):
                pass
        except OSError:
            return file
    raise AssertionError("a full disk takes nothing")


def test_on_a_full_disk_calls_are_refused_and_every_command_about_the_daemon_works(small_disk: Home) -> None:
    home = small_disk
    filling = fill(home.data_dir.parent)
    refused = wait_until(lambda: (done := home.run("ask", "hi")).returncode and done, what="a call is refused")
    assert "no space left" in refused.stderr
    assert "Traceback" not in refused.stderr
    for command in (["status"], ["daemon", "status"], ["logs", "-n", "5"]):
        done = home.run(*command)
        assert done.returncode == 0, (command, done.stderr)
        assert "InternalError" not in done.stdout + done.stderr
    assert "no space left" in home.run("status").stdout
    pid = told(home)["pid"]
    again = home.run("daemon", "restart")
    assert "Free disk space" in again.stderr
    assert told(home)["pid"] == pid, "where none could start, the one that runs goes on"
    filling.unlink()
    assert wait_until(lambda: home.run("ask", "hi").returncode == 0, what="it goes on by itself")
    wait_until(lambda: "no space left" not in home.run("status").stdout, what="status forgets it")
    fill(home.data_dir.parent)
    assert home.run("daemon", "stop").returncode == 0
    assert told(home)["running"] is False


@pytest.mark.parametrize("made_again", [False, True])
def test_when_the_data_directory_is_deleted_calls_are_refused_and_the_commands_work(
    running: Home, made_again: bool
) -> None:
    home = running
    pid = told(home)["pid"]
    shutil.rmtree(home.data_dir)
    if made_again:
        home.data_dir.mkdir()
    refused = home.run("ask", "hi")
    assert refused.returncode == 1
    assert "deleted while the daemon ran" in refused.stderr
    status = wait_until(lambda: (now := told(home))["problems"] and now, what="it is told")
    assert status["pid"] == pid
    assert "deleted while the daemon ran" in status["problems"][0]["message"]
    assert "tundra daemon restart" in home.run("status").stdout
    assert "Traceback" not in home.run("logs").stderr
    again = home.run("daemon", "restart")
    assert again.returncode == 0, again.stderr
    assert told(home)["pid"] != pid
    assert "word0" in home.run("ask", "hi").stdout
    shutil.rmtree(home.data_dir)
    assert home.run("daemon", "stop").returncode == 0
    assert told(home)["running"] is False


def test_a_log_that_is_a_folder_is_one_line_on_status(home: Home) -> None:
    (home.data_dir / "logs" / "daemon.log").mkdir(parents=True)
    home.data_dir.chmod(0o700)
    assert home.run("daemon", "start").returncode == 0
    (problem,) = told(home)["problems"]
    assert str(home.data_dir / "logs" / "daemon.log") in problem["message"]
    done = home.run("logs")
    assert done.returncode == 2
    assert "is no file" in done.stderr
    (home.data_dir / "logs" / "daemon.log").rmdir()
    os.kill(told(home)["pid"], signal.SIGTERM)  # says so in the log
    wait_until(lambda: "SIGTERM" in home.run("logs").stdout, what="the log is there again")


def test_a_broken_settings_file_is_told_when_the_log_takes_nothing(home: Home) -> None:
    (home.data_dir / "logs").mkdir(parents=True)
    (home.data_dir / "logs" / "daemon.log").mkdir()
    home.write_settings("[store]\nport = = 1\n")
    done = home.run("daemon", "start")
    assert done.returncode == 1
    assert "line 2" in done.stderr


def modes(folder: Path) -> dict[str, int]:
    return {str(f): stat.S_IMODE(f.lstat().st_mode) for f in folder.rglob("*") if not f.is_symlink()}


def test_nobody_else_can_read_a_file_of_ours_whatever_the_folder_and_the_umask(
    home: Home, provider: ScriptedProcess
) -> None:
    home.write_settings(SETTINGS.format(base_url=provider.base_url))
    home.data_dir.mkdir(mode=0o755)
    home.data_dir.chmod(0o755)
    old = home.data_dir / "history.db.bak"
    old.write_text("of a version that was careless")
    old.chmod(0o644)
    before = os.umask(0)
    try:
        for command in (["ask", "hi"], ["run", "echo hi"], ["run", "umask"], ["backup"], ["commit", "-m", "x"]):
            done = home.run(*command)
            assert done.returncode == 0, (command, done.stderr)
            if command[-1] == "umask":
                assert "0000" in done.stdout, "what a child makes is its own matter"
    finally:
        os.umask(before)
    wait_until(lambda: not [m for m in modes(home.data_dir).values() if m & 0o077], what="all closed")
    (problem,) = told(home)["problems"]
    assert "mode 0755" in problem["message"]
    assert f"chmod 700 {home.data_dir}" in problem["hint"]
    home.data_dir.chmod(0o700)
    wait_until(lambda: not told(home)["problems"], what="a folder that was closed is no problem")


def test_a_stopped_daemon_is_named_to_every_caller_within_5_seconds(running: Home) -> None:
    pid = told(running)["pid"]
    with tundra_nb.connect() as client:
        client.ask("hi")
        os.kill(pid, signal.SIGSTOP)
        for ask in (lambda: client.ask("hi"), lambda: list(client.ask("hi", stream=True)), client.status, client.calls):
            assert_named(ask, pid)
    assert_named(tundra_nb.connect, pid)
    began = time.monotonic()
    done = running.run("status")
    assert f"pid {pid}" in done.stderr
    assert time.monotonic() - began < AT_ONCE_SECONDS + 2  # the interpreter's start
    assert running.run("daemon", "restart", "--force").returncode == 0, "the remedy works"
    assert "word0" in running.run("ask", "hi").stdout


def assert_named(ask: Callable[[], object], pid: int) -> None:
    began = time.monotonic()
    with pytest.raises(IpcError, match=f"pid {pid}") as caught:
        ask()
    assert caught.value.kind == "hung"
    assert time.monotonic() - began < AT_ONCE_SECONDS


@pytest.mark.anyio
async def test_a_daemon_that_stops_under_async_callers_is_named_to_all_of_them(
    home: Home, provider: ScriptedProcess
) -> None:
    home.write_settings(SETTINGS.format(base_url=provider.base_url))
    async with tundra_nb.connect_async() as client:
        pid = int((await client.status())["pid"])
        await client.ask("hi")
        os.kill(pid, signal.SIGSTOP)
        began = time.monotonic()
        for _ in range(3):
            with pytest.raises(IpcError, match=f"pid {pid}") as caught:
                await client.ask("hi")
            assert caught.value.kind == "hung"
        assert time.monotonic() - began < 3 * AT_ONCE_SECONDS
        os.kill(pid, signal.SIGCONT)
        assert (await client.ask("hi")).text, "it goes on as before"


def test_a_long_answer_of_a_daemon_that_lives_is_waited_for(running: Home, provider: ScriptedProcess) -> None:
    provider.script("*", Step(delay=6.0))
    with tundra_nb.connect() as client:
        assert client.ask("hi").text


def test_a_stopped_store_worker_is_replaced_and_the_read_answered(running: Home) -> None:
    pid = told(running)["pid"]
    worker = worker_of(pid)
    assert worker is not None
    with tundra_nb.connect() as client:
        client.ask("hi")
        worker.suspend()
        began = time.monotonic()
        assert len(client.calls()) == 2
        assert time.monotonic() - began < 2 * AT_ONCE_SECONDS
        store = client.status()["store"]
    assert store["restarts"] == 1
    assert "was stopped by a signal, and was replaced" in store["last_end"]
    assert not psutil.pid_exists(worker.pid) or worker.status() == psutil.STATUS_ZOMBIE


def test_what_a_deleted_spool_would_swallow_is_refused(running: Home) -> None:
    for segment in (running.data_dir / "spool").glob("*.spool"):
        segment.unlink()
    with tundra_nb.connect() as client, pytest.raises(StoreUnavailable, match="were deleted while the daemon ran"):
        client.ask("hi")
