"""The shipped daemon, with its guard, runtime and store worker: started and found as a kernel does it."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tundra_nb import paths as places
from tundra_nb.local import launch
from tundra_nb.paths import Paths

pytestmark = pytest.mark.part("doltlite")
CANARY = "canary-4c1b8f-0123456789"


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Paths]:
    monkeypatch.setenv("TUNDRA_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("TUNDRA_CONFIG", str(tmp_path / "tundra.toml"))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "jupyter"))
    monkeypatch.setenv("CANARY_API_KEY", CANARY)
    found = places.find()
    yield found
    launch.stop(found, force=True)


def until(condition: Callable[[], Any], what: str, timeout: float = 10) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout} s: {what}"
        time.sleep(0.02)


def family(connection: launch.Connection) -> tuple[psutil.Process, list[psutil.Process]]:
    """The guard, and everything below it."""
    guard = psutil.Process(connection.pid).parent()
    assert guard is not None
    return guard, guard.children(recursive=True)


def gone(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def ask(paths: Paths, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("tundra", timeout=10)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(str(paths.socket))
    try:
        connection.request(method, path, None if body is None else json.dumps(body))
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def test_it_is_started_under_a_guard_and_stop_leaves_no_process(paths: Paths) -> None:
    running = launch.ensure(paths)
    guard, below = family(running)
    assert "tundra_nb.daemon" in guard.cmdline()
    assert any("tundra_nb.runtime.history.worker" in process.cmdline() for process in below)
    launch.stop(paths, hold=False)
    until(lambda: all(map(gone, [guard, *below])), "all of them have gone")


def test_after_kill_9_of_the_daemon_nothing_is_left_and_a_new_one_starts_at_once(paths: Paths) -> None:
    running = launch.ensure(paths)
    guard, below = family(running)
    os.kill(running.pid, signal.SIGKILL)
    until(lambda: launch.find(paths) is None, "the killed one has gone")
    again = launch.ensure(paths)
    assert again.pid != running.pid
    until(lambda: all(map(gone, [guard, *below])), "the old ones have gone", timeout=15)
    assert launch.find(paths) == again


def test_after_kill_9_of_the_guard_the_daemon_stops_in_order(paths: Paths) -> None:
    running = launch.ensure(paths)
    guard, below = family(running)
    guard.kill()
    until(lambda: all(map(gone, below)), "all of them have gone", timeout=15)
    assert not paths.connection_file.exists()
    assert "its guard was killed" in paths.log.read_text()


def test_a_signal_to_the_guard_ends_the_foreground_daemon_with_exit_code_0(paths: Paths) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "tundra_nb.daemon", "run"], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    until(lambda: launch.status(paths)["state"] == "running", "it runs", timeout=15)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=15)
    assert process.returncode == 0
    assert "ready in" in told, "in the foreground its log is shown"


def test_a_start_loads_nothing_that_it_does_not_need(paths: Paths, tmp_path: Path) -> None:
    """Each module costs about a millisecond, at each start."""
    with (tmp_path / "imports").open("w+") as told:
        command = [sys.executable, "-m", "tundra_nb.daemon", "run"]
        process = subprocess.Popen(command, stderr=told, env=os.environ | {"PYTHONPROFILEIMPORTTIME": "1"})
        until(lambda: launch.status(paths)["state"] == "running", "it runs", timeout=15)
        process.send_signal(signal.SIGINT)
        process.wait(15)
        told.seek(0)
        loaded = {line.rpartition("|")[2].strip() for line in told if line.startswith("import time:")}
    assert "tundra_nb.daemon.routes.status" in loaded
    assert not loaded & {"click", "rich", "multiprocessing", "psutil", "genai_prices", "pyarrow"}


def test_a_store_worker_loads_arrow_only_for_frames(tmp_path: Path) -> None:
    program = (
        "import sys\nfrom pathlib import Path\nfrom tundra_nb.runtime.history import worker, loading\nloading.load()\n"
        "from tundra_nb.runtime.history.doltlite import DoltliteStore\n"
        "from tundra_nb.runtime.history.contract import Stop\nfrom tundra_nb.protocol.query import FrameQuery\n"
        f"store = DoltliteStore(Path({str(tmp_path / 'history.db')!r}))\nstore.open('owner', 1)\n"
        "assert store.rows(FrameQuery(table='breaker_event'), Stop()) == []\nprint(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    unneeded = {"asyncio", "numpy", "pandas", "pyarrow", "httpx", "tundra_nb.runtime.telemetry.sender"}
    assert not set(done.stdout.split()) & unneeded


def test_a_living_pty_keeps_a_program_from_stopping_it_but_not_a_person(paths: Paths) -> None:
    launch.ensure(paths)
    status, pty = ask(paths, "POST", "/api/ptys", {"command": "sleep 600"})
    assert status < 300, pty
    status, refused = ask(paths, "POST", "/api/daemon/stop", {"force": False, "hold": False})
    assert status == 409
    assert "1 PTYs" in refused["message"]
    found = launch.find(paths)
    assert found is not None
    _, below = family(found)
    launch.stop(paths)
    until(lambda: all(map(gone, below)), "the PTY has ended too")


def test_a_key_is_in_no_file_no_log_and_no_process_listing(paths: Paths) -> None:
    running = launch.ensure(paths)
    guard, below = family(running)
    assert all(CANARY not in " ".join(process.cmdline()) for process in (guard, *below))
    status, told = ask(paths, "GET", f"/api/history/{CANARY}")
    assert status >= 400
    assert CANARY not in json.dumps(told)
    launch.stop(paths, hold=False)
    for file in (*paths.data_dir.rglob("*"), *paths.connection_file.parent.rglob("*")):
        if file.is_file():
            assert CANARY.encode() not in file.read_bytes(), file
