"""The shipped daemon while its files are taken away, its disk is full, or a process of it is stopped by a signal."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

import tundra_nb
from tests.conftest import Home, stop_processes, wait_until
from tests.wiring.test_crash import worker_of
from tundra_nb.errors import IpcError, StoreUnavailable, TundraError, UsageError
from tundra_nb.testing.scripted_provider import ScriptedProcess, ScriptedStep, scripted_process

pytestmark = [pytest.mark.check, pytest.mark.part("doltlite")]

SETTINGS = """
[[profile]]
name = "scripted"
kind = "openai"
base_url = "{base_url}"
model = "scripted-1"
"""
NO_OVERRIDE = "-dac_override,-dac_read_search"
"""Powers of root without which it minds permissions as everybody does."""
AT_ONCE_SECONDS = 5.0
"""So soon a hang has to be named."""


def remove(folder: Path) -> None:
    """Delete a folder in which somebody writes."""
    for _ in range(20):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
    raise AssertionError(f"{folder} is still there")


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


def status_of_store(home: Home) -> dict[str, Any]:
    """What `status` says of the store; empty values left out."""
    store: dict[str, Any] = json.loads(home.run("status", "--json").stdout)["store"]
    return {name: value for name, value in store.items() if value}


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
    wait_until(lambda: "error" not in status_of_store(home), what="status has it no longer")
    assert [row["message"] for row in told(home)["over"] if "no space left" in row["message"]], "but says that it was"
    kept = json.loads(home.run("errors", "--since", "all", "--code", "StoreUnavailable", "--json").stdout)
    assert "disk_full" in {row["reason"] for row in kept}, "a refusal is written once there is room"
    calls = json.loads(home.run("calls", "--since", "all", "--json").stdout)
    assert {str(row["operation_id"]) for row in kept if row["operation_id"]} <= {str(c["operation_id"]) for c in calls}
    assert "error" in {row["outcome"] for row in calls}, "and so is the call that it was of"
    fill(home.data_dir.parent)
    assert home.run("daemon", "stop").returncode == 0
    assert told(home)["running"] is False


@pytest.mark.parametrize("made_again", [False, True])
def test_when_the_data_directory_is_deleted_calls_are_refused_and_the_commands_work(
    running: Home, made_again: bool
) -> None:
    home = running
    pid = told(home)["pid"]
    remove(home.data_dir)
    if made_again:
        home.data_dir.mkdir()
    refused = home.run("ask", "hi")
    assert refused.returncode == 1
    assert "deleted while the daemon ran" in refused.stderr
    status = wait_until(
        lambda: (now := told(home)) and any(problem["what"] == "data_dir" for problem in now["problems"]) and now,
        what="it is told",
    )
    assert status["pid"] == pid
    assert "deleted while the daemon ran" in status["problems"][0]["message"]  # before that the log is not written
    shown = home.run("status").stdout
    assert "tundra daemon restart" in shown
    assert "tundra is ready" not in shown
    assert "Traceback" not in home.run("logs").stderr
    again = home.run("daemon", "restart")
    assert again.returncode == 0, again.stderr
    assert told(home)["pid"] != pid
    assert "word0" in home.run("ask", "hi").stdout
    remove(home.data_dir)
    assert home.run("daemon", "stop").returncode == 0
    assert told(home)["running"] is False


def test_status_says_how_the_daemon_before_ended(running: Home, provider: ScriptedProcess) -> None:
    assert told(running)["over"] == []
    provider.script("*", ScriptedStep(delay=30.0))
    asking = subprocess.Popen(
        [sys.executable, "-m", "tundra_nb.cli", "ask", "slow"],
        env=running.env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    first = wait_until(lambda: (now := told(running)).get("under_way") and now, what="a call is under way")["pid"]
    os.kill(first, signal.SIGKILL)
    asking.wait(20)
    assert running.run("daemon", "start").returncode == 0
    shown = running.run("status", COLUMNS="300").stdout
    assert f"the daemon before this one (pid {first}) did not stop in order: it was killed or crashed" in shown
    assert "1 call was under way when the daemon before this one ended" in shown

    second = told(running)["pid"]
    guard = psutil.Process(second).parent()
    assert guard is not None
    guard.kill()
    wait_until(lambda: not told(running)["running"], what="it stops without its guard")
    assert running.run("daemon", "start").returncode == 0
    assert f"(pid {second}) did not stop in order: its guard was killed" in running.run("status", COLUMNS="300").stdout
    assert running.run("daemon", "restart").returncode == 0
    assert told(running)["over"] == [], "a stop in order is nothing to tell"


def test_a_data_directory_that_others_may_look_into_is_told_until_it_is_closed(running: Home) -> None:
    def hints() -> dict[str, str]:
        return {one["message"]: one["hint"] for one in told(running)["problems"] if "others" in one["message"]}

    running.data_dir.chmod(0o777)
    wait_until(hints, what="it is told")
    ((message, hint),) = hints().items()
    assert f"{running.data_dir} (mode 0777)" in message
    assert f"chmod 700 {running.data_dir}" in hint
    running.data_dir.chmod(0o700)
    wait_until(lambda: not hints(), what="it is no longer told")


def test_when_the_data_directory_may_not_be_looked_into_that_is_told(home: Home, provider: ScriptedProcess) -> None:
    """Nothing was deleted, no check has a defect, and nobody gets a traceback, with and without a daemon."""
    home.write_settings(SETTINGS.format(base_url=provider.base_url))
    lesser = ["setpriv", f"--bounding-set={NO_OVERRIDE}", f"--inh-caps={NO_OVERRIDE}"] if os.geteuid() == 0 else []
    if lesser and subprocess.run([*lesser, "true"], capture_output=True, check=False).returncode:
        pytest.skip("root keeps its power here")

    def run(*args: str) -> str:
        command = [*lesser, sys.executable, "-m", "tundra_nb", *args]
        done = subprocess.run(command, env=home.env, capture_output=True, text=True, timeout=60, check=False)
        assert "Traceback" not in done.stdout + done.stderr, args
        return done.stdout + done.stderr

    assert "word0" in run("ask", "hi")
    home.data_dir.chmod(0)
    try:
        wait_until(lambda: "cannot use its data directory" in (shown := run("status")) and shown, what="it is told")
        shown = run("status")
        assert "permission denied" in shown
        assert "deleted" not in shown
        assert "A defect of this check" not in run("doctor")
        run("logs")
        home.data_dir.chmod(0o700)
        wait_until(lambda: "tundra is ready" in run("status"), what="it is over")
        assert "word0" in run("ask", "hi")
        run("daemon", "stop")
        home.data_dir.chmod(0)
        for command in (("run", "true"), ("ask", "hi"), ("logs",), ("daemon",), ("doctor",)):
            run(*command)
    finally:
        home.data_dir.chmod(0o700)


def test_a_faulty_settings_file_is_told_beside_the_values_of_before(running: Home) -> None:
    text = running.config.read_text()
    running.config.write_text(f"{text}[breaker]\nfailures = true\n")
    shown = wait_until(
        lambda: "settings stay as they were" in (told := running.run("settings", "--changed").stdout) and told,
        what="it is told",
    )
    assert "breaker.failures" in shown
    assert "scripted" in shown
    assert "settings stay as they were" in running.run("status").stdout
    assert json.loads(running.run("settings", "--json").stdout)
    running.config.write_text(text)
    wait_until(lambda: not told(running)["problems"], what="it is over")


def test_certificates_that_cannot_be_read_are_told_by_the_variable_that_names_them(home: Home) -> None:
    home.write_settings('[[profile]]\nname = "far"\nkind = "local"\nbase_url = "https://127.0.0.1:9/v1"\n')
    assert home.run("daemon", "start", SSL_CERT_FILE="/no/such/file").returncode == 0
    shown = home.run("providers", "test", "far").stdout
    assert "SSL_CERT_FILE" in shown
    assert "ca_file" not in shown


def test_a_history_that_is_deleted_under_the_worker_is_told_and_begins_anew(running: Home) -> None:
    """What is written from then on is in the new file, once, whatever becomes of the processes."""
    assert running.run("calls", "--wait", "10").returncode == 0
    (running.data_dir / "history.db").unlink()
    wait_until((running.data_dir / "history.db").exists, what="a new file")
    with tundra_nb.connect() as client:
        replies = [client.ask("after").operation_id for _ in range(3)]
        wait_until(lambda: "history.db was deleted" in str(client.status()["over"]), what="it is told")
    assert running.run("daemon", "restart").returncode == 0
    with tundra_nb.connect() as client:
        kept = [str(one) for one in client.calls(since="all", wait=10)["operation_id"]]
    assert [kept.count(one) for one in replies] == [1, 1, 1]


def test_a_history_that_is_replaced_under_the_worker_is_told_and_what_it_lacks_comes_from_the_spool(
    running: Home,
) -> None:
    history, older = running.data_dir / "history.db", running.data_dir / "older"
    with tundra_nb.connect() as client:
        client.calls(wait=10)
        shutil.copy(history, older)
        asked = [str(client.ask("after").operation_id) for _ in range(3)]
        client.calls(wait=10)
        older.replace(history)
        wait_until(lambda: "history.db was replaced" in str(client.status()["over"]), what="it is told")
        asked.append(str(client.ask("on the other").operation_id))
        kept = [str(one) for one in client.calls(since="all", wait=10)["operation_id"]]
        assert [kept.count(one) for one in asked] == [1, 1, 1, 1]


def test_a_text_that_no_commit_can_have_is_refused_before_anything_changes(running: Home) -> None:
    with tundra_nb.connect() as client:
        before = len(client.versions.log())
        for refused in (
            lambda: client.versions.commit("a\0b"),
            lambda: client.versions.commit("a" * 16_385),
            lambda: client.versions.tag("long", message="a" * 16_385),
            lambda: client.versions.branch("b" * 256),
            lambda: client.set_setting("breaker.failures", 8, reason="a\0b"),
        ):
            with pytest.raises(UsageError) as told:
                refused()
            assert len(told.value.message) < 200
        assert len(client.versions.log()) == before
        shown = client.settings().set_index("path")
        assert shown.loc["breaker.failures", "value"] == "5"


def test_a_data_directory_that_became_a_file_is_told_with_the_way_out(running: Home) -> None:
    remove(running.data_dir)
    running.data_dir.write_text("in its place")
    wait_until(lambda: told(running).get("problems"), what="it is told")
    done = running.run("daemon", "restart")
    assert done.returncode == 1
    assert "Move the file that stands in its place away" in done.stderr
    assert running.run("daemon", "stop").returncode == 0
    running.data_dir.unlink()
    assert running.run("daemon", "start").returncode == 0


def test_a_log_that_is_a_folder_is_one_line_on_status(home: Home) -> None:
    (home.data_dir / "logs" / "daemon.log").mkdir(parents=True)
    home.data_dir.chmod(0o700)
    assert home.run("daemon", "start").returncode == 0
    (problem,) = told(home)["problems"]
    assert str(home.data_dir / "logs" / "daemon.log") in problem["message"]
    assert problem["hint"] == "Move the folder that stands in its place away."
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
        recorded = ["ask", "--record", "hi"]
        for command in (
            ["ask", "hi"],
            recorded,
            ["run", "echo hi"],
            ["run", "umask"],
            ["backup"],
            ["commit", "-m", "x"],
        ):
            done = home.run(*command)
            assert done.returncode == 0, (command, done.stderr)
            if command[-1] == "umask":
                assert "0000" in done.stdout, "what a child makes is its own matter"
    finally:
        os.umask(before)
    assert (home.data_dir / "recordings").is_dir()
    wait_until(lambda: not [m for m in modes(home.data_dir).values() if m & 0o077], what="all closed")
    (problem,) = told(home)["problems"]
    assert "mode 0755" in problem["message"]
    assert f"chmod 700 {home.data_dir}" in problem["hint"]
    assert "private" in home.run("doctor", "--fix", "--yes").stdout
    assert stat.S_IMODE(home.data_dir.stat().st_mode) == 0o700
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
    provider.script("*", ScriptedStep(delay=6.0))
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


@pytest.mark.parametrize("how", ["start", "stop", "stop --force", "killed by stop"])
def test_what_a_dead_daemon_left_is_ended_though_its_guard_and_worker_were_stopped_by_a_signal(
    running: Home, how: str
) -> None:
    pid = told(running)["pid"]
    worker, guard = worker_of(pid), psutil.Process(pid).parent()
    assert worker is not None
    assert guard is not None
    left = [guard, worker, *(child for child in guard.children(recursive=True) if child.pid != pid)]
    for process in (guard, worker):
        process.suspend()
    os.kill(pid, signal.SIGSTOP if how == "killed by stop" else signal.SIGKILL)
    if how != "killed by stop":
        wait_until(lambda: not told(running)["running"], what="the daemon is dead")
        assert guard.status() == psutil.STATUS_STOPPED
        told_of = running.run("doctor", "--for", "processes", COLUMNS="300")
        assert f"{guard.pid} (its guard, stopped by a signal)" in told_of.stdout, told_of
    command = "stop --force" if how == "killed by stop" else how
    assert running.run("daemon", *command.split()).returncode == 0
    wait_until(lambda: all(map(has_ended, left)), 15, "all have ended")
    if how == "start":
        shown = running.run("status", COLUMNS="300").stdout
        assert f"its guard (pid {guard.pid}) was stopped by a signal, and now ends what it left" in shown


def test_a_stopped_worker_ends_with_its_daemon_and_guard(running: Home) -> None:
    pid = told(running)["pid"]
    worker, guard = worker_of(pid), psutil.Process(pid).parent()
    assert worker is not None
    assert guard is not None
    worker.suspend()
    guard.suspend()
    os.kill(pid, signal.SIGKILL)
    guard.kill()
    wait_until(lambda: has_ended(worker), what="the worker has ended")


def test_a_daemon_that_ends_in_order_does_not_leave_a_stopped_guard(running: Home) -> None:
    pid = told(running)["pid"]
    guard = psutil.Process(pid).parent()
    assert guard is not None
    guard.suspend()
    os.kill(pid, signal.SIGTERM)
    wait_until(lambda: has_ended(guard), 15, "the guard has ended")


def has_ended(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def test_what_a_deleted_spool_would_swallow_is_refused(running: Home) -> None:
    for segment in (running.data_dir / "spool").glob("*.spool"):
        segment.unlink()
    with tundra_nb.connect() as client, pytest.raises(StoreUnavailable, match="were deleted while the daemon ran"):
        client.ask("hi")


SECRET = "canary-not-for-neighbours-41"
OTHER = "canary-of-another-name-42"
LOOK = """
import pathlib, sys
for pid in sys.argv[1:]:
    for name in ("environ", "fd", "maps", "mem", "root"):
        file = pathlib.Path("/proc", pid, name)
        try:
            if name == "fd":
                (file / "0").readlink()
            elif name == "root":
                file.readlink()
            else:
                file.open("rb").read(64)
        except PermissionError:
            continue
        except OSError as error:
            print(pid, name, error)
            continue
        print(pid, name, "can be read")
"""


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs setpriv, to be a user without root's rights")
@pytest.mark.parametrize("how", ["in the background", "in the foreground"])
def test_guard_daemon_and_worker_show_neighbours_neither_memory_nor_a_key(home: Home, how: str) -> None:
    env = home.env | {"SOME_API_KEY": SECRET, "MY_LLM": OTHER}
    command = [sys.executable, "-m", "tundra_nb.cli", "daemon"]
    if how == "in the background":
        subprocess.run([*command, "start"], env=env, check=True, capture_output=True)
    else:
        subprocess.Popen([*command, "run"], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    pid = wait_until(lambda: told(home)["state"] == "running" and told(home)["pid"], 30, "it runs")
    home.run("calls")  # answered by the worker, which has begun by then
    worker = wait_until(lambda: worker_of(pid), what="a worker lives")
    guard = psutil.Process(pid).parent()
    assert guard is not None
    pids = [str(process) for process in (guard.pid, pid, worker.pid)]
    for each in pids:
        environ = Path(f"/proc/{each}/environ").read_bytes()
        assert SECRET.encode() not in environ, "not even for root"
        assert OTHER.encode() not in environ, "what is named like no key may be one"
    without_rights = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.geteuid() == 0 else []
    looked = subprocess.run(
        [*without_rights, sys.executable, "-c", LOOK, *pids], capture_output=True, text=True, check=True
    )
    assert looked.stdout == ""
    shown = home.run("run", "env; env | rev").stdout
    assert "PATH=" in shown, "what is no key is handed on"
    assert SECRET not in shown
    assert SECRET[::-1] not in shown


@pytest.mark.anyio
@pytest.mark.parametrize("limit", [60, 90])
async def test_few_descriptors_are_refused_by_name_and_nobody_fails_otherwise(
    home: Home, provider: ScriptedProcess, limit: int
) -> None:
    home.write_settings(SETTINGS.format(base_url=provider.base_url))
    start = f"ulimit -n {limit}; exec {sys.executable} -m tundra_nb.cli daemon start"
    started = await asyncio.to_thread(
        subprocess.run, ["bash", "-c", start], env=home.env, capture_output=True, check=False
    )
    assert started.returncode == 0, started.stderr
    answered: list[str] = []
    refused: list[TundraError] = []

    async def caller(turns: int) -> None:
        for turn in range(turns):
            try:
                async with tundra_nb.connect_async(start=False) as client:
                    if turn % 3:
                        answered.append((await client.ask("hi")).operation_id)
                    else:
                        await client.calls()
            except TundraError as error:
                refused.append(error)

    async with asyncio.TaskGroup() as group:
        for _ in range(64):
            group.create_task(caller(3))
    assert answered
    assert {(error.code, error.reason) for error in refused} <= {("IpcError", "descriptors")}, refused
    assert all(f"it may open {limit}" in str(error) and "ulimit -n" in error.hint for error in refused)
    async with tundra_nb.connect_async(start=False) as client:
        kept = set((await client.calls()).operation_id.astype(str))
        assert set(answered) <= kept
        assert (await client.status())["breakers"][0]["state"] == "closed", "it is no failure of the provider"


CALLERS_WITHOUT = """
import asyncio, tundra_nb
async def caller():
    try:
        async with tundra_nb.connect_async() as client:
            await client.ask("hi")
            return "answered"
    except tundra_nb.TundraError as error:
        return f"{error.code} {error.reason}: {error}"
async def main():
    print(*sorted(set(await asyncio.gather(*(caller() for _ in range(64))))), sep=chr(10))
asyncio.run(main())
"""


def test_a_client_without_descriptors_says_so_and_starts_no_second_daemon(running: Home) -> None:
    pid = told(running)["pid"]
    line = f"ulimit -n 20; exec {sys.executable} -c '{CALLERS_WITHOUT}'"
    done = subprocess.run(["bash", "-c", line], env=running.env, capture_output=True, text=True, check=False)
    refusal = "IpcError descriptors: this process has no file descriptor left to reach the daemon: it may open 20"
    assert done.stdout.splitlines() == [refusal, "answered"], done.stderr
    assert told(running)["pid"] == pid
