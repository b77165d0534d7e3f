"""The daemon's life as processes: one per data directory, for one user, ended cleanly, restarted at once."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

from tundra_nb.protocol.words import START_ERROR

TWO_UIDS = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become a second user")
NOBODY = 65534


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def left_behind(tiny: Any) -> list[Path]:
    return [path for path in (tiny.paths.socket, tiny.paths.connection_file) if path.exists()]


def test_a_daemon_answers_at_a_socket_that_only_its_user_may_open(tiny: Any) -> None:
    process = tiny.start()
    assert tiny.ask("GET", "/api/status").body["pid"] == process.pid
    assert mode(tiny.paths.socket) == 0o600
    assert mode(tiny.paths.socket.parent) == 0o700
    assert mode(tiny.paths.connection_file) == 0o600
    assert mode(tiny.paths.data_dir) == 0o700
    assert mode(tiny.paths.log) == 0o600
    assert mode(tiny.paths.lock) == 0o600
    assert mode(tiny.paths.salt) == 0o600


def test_the_connection_file_tells_what_a_client_needs(tiny: Any) -> None:
    process = tiny.start("--started-by", "server")
    told = tiny.record
    assert told["pid"] == process.pid
    assert told["socket"] == str(tiny.paths.socket)
    assert told["host"] == socket.gethostname()
    assert told["api"] == 1
    assert told["started_by"] == "server"
    assert told["data_dir"] == str(tiny.paths.data_dir)
    assert told == json.loads(tiny.paths.lock.read_text()), "the lock file holds it too, for diagnosis"


CONNECT = """
import os, socket, sys, time
os.setgroups([]); os.setgid(65534); os.setuid(65534)
end = time.monotonic() + float(sys.argv[2])
while True:
    s = socket.socket(socket.AF_UNIX); s.settimeout(10)
    try:
        s.connect(sys.argv[1])
        s.sendall(b"GET /api/status HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
        print("answer", s.recv(100))
    except OSError as exc:
        if isinstance(exc, (PermissionError, FileNotFoundError)) and time.monotonic() < end:
            continue
        print(type(exc).__name__)
    break
"""


def connecting_as_nobody(path: Path, seconds: float = 0) -> subprocess.Popen[str]:
    """Tries for so long, and prints what came of it."""
    return subprocess.Popen([sys.executable, "-c", CONNECT, path, str(seconds)], stdout=subprocess.PIPE, text=True)


@TWO_UIDS
def test_another_user_cannot_reach_the_socket(tiny: Any) -> None:
    tiny.start()
    with connecting_as_nobody(tiny.paths.socket) as other:
        assert other.communicate(timeout=20)[0].strip() == "PermissionError"


@TWO_UIDS
def test_another_user_who_reaches_the_socket_is_hung_up_on(runtime_dir: Path, tiny: Any) -> None:
    tiny.start()
    runtime_dir.chmod(0o755)
    with connecting_as_nobody(tiny.paths.socket, 20) as other:
        while other.poll() is None:  # the daemon closes a socket that is open to others, and its folder
            tiny.paths.socket.parent.chmod(0o755)
            with contextlib.suppress(FileNotFoundError):
                tiny.paths.socket.chmod(0o666)
            time.sleep(0.01)
        assert other.communicate()[0].strip() in ("answer b''", "ConnectionResetError", "BrokenPipeError")
    assert "refused a connection of uid 65534" in tiny.log
    assert tiny.ask("GET", "/api/status").status == 200


def test_a_second_daemon_is_refused_and_told_whose_pid_is_in_the_way(tiny: Any) -> None:
    first = tiny.start()
    code, told = tiny.fail()
    assert code == 1
    assert "IpcError" in told
    assert f"pid {first.pid}" in told
    assert tiny.ask("GET", "/api/status").body["pid"] == first.pid


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_it_cleanly_and_leaves_nothing(tiny: Any, number: signal.Signals) -> None:
    process = tiny.start()
    process.send_signal(number)
    assert process.wait(5) == 0
    assert left_behind(tiny) == []
    assert (tiny.paths.data_dir / "closed").exists()
    assert f"stopping: {number.name} received" in tiny.log


def test_open_event_streams_end_with_the_daemon_and_do_not_delay_it(tiny: Any) -> None:
    process = tiny.start()
    stream = tiny.attach()
    started = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(5) == 0
    assert time.monotonic() - started < 2
    assert b"event: end" in stream.recv(4096)
    stream.close()


def test_a_call_under_way_is_answered_before_the_stop(tiny: Any) -> None:
    process = tiny.start()
    caller = tiny.connect()
    caller.sendall(b"GET /slow?seconds=0.5 HTTP/1.1\r\nHost: tundra\r\n\r\n")
    tiny.until(lambda: tiny.ask("POST", "/api/daemon/stop", {"force": False, "hold": False}).status == 503, "in use")
    process.send_signal(signal.SIGTERM)
    with caller.makefile("rb") as answer:
        assert answer.read().endswith(b'{"slept":true}')
    assert process.wait(5) == 0
    caller.close()


def test_a_second_signal_does_not_wait_for_calls(tiny: Any) -> None:
    process = tiny.start()
    caller = tiny.connect()
    caller.sendall(b"GET /slow?seconds=60 HTTP/1.1\r\nHost: tundra\r\n\r\n")
    tiny.until(lambda: tiny.ask("POST", "/api/daemon/stop", {"force": False, "hold": False}).status == 503, "in use")
    started = time.monotonic()
    process.send_signal(signal.SIGTERM)
    tiny.until(lambda: "stopping" in tiny.log, "it stops")
    process.send_signal(signal.SIGTERM)
    assert process.wait(5) == 0
    assert time.monotonic() - started < 2.5
    assert (tiny.paths.data_dir / "cancelled").exists(), "the call was cancelled, not dropped"
    caller.close()


def test_a_start_that_hangs_can_be_stopped(tiny: Any) -> None:
    process = tiny.run(TINY_FAIL="hang")
    tiny.until(lambda: tiny.paths.log.exists() and "starting" in tiny.log, "it starts")
    tiny.until(tiny.paths.socket.exists, "it has got to its application")
    tiny.until(lambda: process.poll() is not None or process.send_signal(signal.SIGTERM), "it ends")
    assert left_behind(tiny) == []


def test_after_kill_9_a_restart_works_at_once(tiny: Any) -> None:
    for _ in range(3):
        process = tiny.start()
        process.kill()
        process.wait(5)
    assert left_behind(tiny), "the killed one has left its files, and the next start did not mind"
    process = tiny.start()
    assert tiny.ask("GET", "/api/status").body["pid"] == process.pid


def test_a_daemon_that_comes_while_another_one_stops_waits_for_it(tiny: Any) -> None:
    first = tiny.start(TINY_CLOSE_SECONDS="1")
    first.send_signal(signal.SIGTERM)
    tiny.until(lambda: json.loads(tiny.paths.lock.read_text())["state"] == "stopping", "the first one stops")
    second = tiny.start()
    assert first.wait(5) == 0
    assert tiny.record["pid"] == second.pid
    assert tiny.paths.socket.exists(), "the first one has not taken the second one's socket with it"


def test_it_exits_when_nobody_was_attached_for_the_set_time(tiny: Any) -> None:
    process = tiny.start(TUNDRA_DAEMON__IDLE_EXIT_SECONDS="0.3")
    assert process.wait(5) == 0
    assert "stopping: nobody used it" in tiny.log
    assert left_behind(tiny) == []


def test_it_stays_while_somebody_is_attached(tiny: Any) -> None:
    process = tiny.start(TUNDRA_DAEMON__IDLE_EXIT_SECONDS="0.3")
    stream = tiny.attach()
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.9)
    stream.close()
    assert process.wait(5) == 0


def test_it_stays_while_a_pty_lives(tiny: Any, tmp_path: Path) -> None:
    flag = tmp_path / "pty"
    flag.touch()
    process = tiny.start(TUNDRA_DAEMON__IDLE_EXIT_SECONDS="0.2", TINY_PTYS=str(flag))
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.8)
    flag.unlink()
    assert process.wait(5) == 0


def test_a_program_that_asks_for_the_stop_is_refused_while_others_use_it(tiny: Any) -> None:
    process = tiny.start()
    stream = tiny.attach("kernel")
    refused = tiny.ask("POST", "/api/daemon/stop", {"force": False, "hold": False})
    assert refused.status == 503
    assert refused.body["code"] == "IpcError"
    assert refused.body["reason"] == "busy"
    assert "1 kernel" in refused.body["message"]
    stream.close()
    tiny.until(lambda: tiny.ask("GET", "/api/status").body["attached"] == 0, "detached")
    assert tiny.ask("POST", "/api/daemon/stop", {"force": False, "hold": False}).status == 200
    assert process.wait(5) == 0
    assert not tiny.paths.held.exists()


def test_a_person_who_asks_for_the_stop_is_obeyed_and_it_stays_stopped(tiny: Any) -> None:
    process = tiny.start()
    stream = tiny.attach("kernel")
    assert tiny.ask("POST", "/api/daemon/stop", {"force": False, "hold": True}).status == 200
    assert process.wait(5) == 0
    stream.close()
    code, told = tiny.fail("--automatic")
    assert code == 1
    assert "tundra daemon start" in told
    tiny.start()
    assert not tiny.paths.held.exists(), "an explicit start ends the hold"


def test_a_stop_that_hangs_is_ended_by_the_limit(tiny: Any) -> None:
    process = tiny.start(TINY_CLOSE_SECONDS="3600")
    started = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(9) == 0
    assert time.monotonic() - started < 7
    assert "did not close within" in tiny.log


def test_a_broken_settings_file_is_named_with_its_line_and_nothing_is_left(tiny: Any) -> None:
    Path(os.environ["TUNDRA_CONFIG"]).write_text("[store]\nport = = 1\n")
    code, told = tiny.fail()
    assert code == 1
    assert "tundra.toml, line 2" in told
    assert left_behind(tiny) == []
    assert tiny.paths.lock.read_text() == ""


def test_an_unknown_logger_in_the_filter_stops_the_start(tiny: Any) -> None:
    code, told = tiny.fail(TUNDRA_LOG__FILTER="info,tundra.demon=debug")
    assert code == 1
    assert "tundra.daemon" in told
    assert left_behind(tiny) == []


def test_an_application_that_cannot_open_is_told_and_nothing_is_left(tiny: Any) -> None:
    code, told = tiny.fail("--background", TINY_FAIL="typed")
    assert code == 1
    body = json.loads(next(line for line in told.splitlines() if START_ERROR in line).removeprefix(START_ERROR))
    assert body["type"] == "StoreUnavailable"
    assert body["hint"] == "Lift it."
    assert left_behind(tiny) == []


def test_a_defect_at_the_start_leaks_no_key_into_log_or_stderr(tiny: Any) -> None:
    code, told = tiny.fail(TINY_FAIL="defect", TINY_CANARY_KEY="canary-7f3d9a")
    assert code == 1
    assert "InternalError" in told
    assert "ZeroDivisionError: a defect near <TINY_CANARY_KEY:" in tiny.log
    assert "canary-7f3d9a" not in tiny.log + told


def test_a_socket_path_that_is_too_long_is_refused_with_the_remedy(tiny: Any, tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    code, told = tiny.fail(XDG_RUNTIME_DIR=str(deep))
    assert code == 1
    assert "ConfigError" in told
    assert "XDG_RUNTIME_DIR" in told
    assert list(deep.iterdir()) == []


def test_a_data_directory_that_cannot_be_written_is_refused(tiny: Any, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    code, told = tiny.fail(TUNDRA_DATA_DIR=str(tmp_path / "file" / "data"))
    assert code == 1
    assert "cannot be written" in told
    assert "TUNDRA_DATA_DIR" in told


@TWO_UIDS
def test_a_socket_folder_of_somebody_else_is_taken_for_a_trap(tiny: Any) -> None:
    with tempfile.TemporaryDirectory() as runtime:  # its path is short enough for a socket's
        trap = Path(runtime) / "tundra-nb"
        trap.mkdir()
        os.chown(trap, NOBODY, NOBODY)
        code, told = tiny.fail(XDG_RUNTIME_DIR=runtime)
    assert code == 1
    assert "may be a trap" in told


def test_the_shipped_module_starts_its_daemon_under_a_guard(tiny: Any) -> None:
    Path(os.environ["TUNDRA_CONFIG"]).write_text("[daemon]\nwrong = 1\n")
    done = subprocess.run(
        [sys.executable, "-m", "tundra_nb.daemon", "run"], capture_output=True, text=True, timeout=20, check=False
    )
    assert done.returncode == 1
    assert "daemon.wrong" in done.stderr
