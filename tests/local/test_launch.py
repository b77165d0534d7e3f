"""Finding, starting and stopping a daemon from a client, with real processes."""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tundra_nb import paths as places
from tundra_nb._version import API, __version__
from tundra_nb.errors import ConfigError, IpcError, StoreUnavailable
from tundra_nb.local import launch
from tundra_nb.local import running as reach
from tundra_nb.paths import Paths
from tundra_nb.protocol.record import DaemonRecord

TINY = Path(__file__).parents[1] / "daemon" / "tiny.py"
COMMAND = (sys.executable, str(TINY))
ensure = functools.partial(launch.ensure, command=COMMAND)


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runtime_dir: Path) -> Iterator[Paths]:
    """The paths of a fresh data directory; its daemon is ended with the test."""
    monkeypatch.setenv("TUNDRA_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("TUNDRA_CONFIG", str(tmp_path / "tundra.toml"))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "jupyter"))
    found = places.find()
    yield found
    launch.stop(found, force=True)


def until(condition: Callable[[], Any], what: str, timeout: float = 10) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout} s: {what}"
        time.sleep(0.01)


def rewrite(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_a_daemon_is_started_on_demand_and_then_found(paths: Paths) -> None:
    assert launch.find(paths) is None
    started = ensure(paths, started_by="server")
    assert started.socket == str(paths.socket)
    assert started.version == __version__
    assert ensure(paths) == launch.find(paths) == started
    assert json.loads(paths.lock.read_text())["started_by"] == "server"


def test_without_start_its_absence_is_an_error_with_the_remedy(paths: Paths) -> None:
    with pytest.raises(IpcError) as caught:
        ensure(paths, start=False)
    assert caught.value.kind == "absent"
    assert "tundra daemon start" in caught.value.hint
    assert not paths.data_dir.exists(), "nothing is made by looking"


def test_an_url_in_the_environment_wins_and_nothing_is_started(paths: Paths) -> None:
    env = os.environ | {"TUNDRA_URL": "http://127.0.0.1:8888", "TUNDRA_TOKEN": "canary-token"}
    found = ensure(paths, environ=env)
    assert (found.url, found.token, found.socket) == ("http://127.0.0.1:8888", "canary-token", None)
    assert "canary" not in repr(found)
    assert not paths.data_dir.exists()


def test_the_daemon_outlives_a_working_directory_and_does_not_import_from_it(
    paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trap = tmp_path / "cloned"
    trap.mkdir()
    (trap / "uvicorn.py").write_text("raise SystemExit('imported from the working directory')")
    (trap / "tundra_nb").mkdir()
    (trap / "tundra_nb" / "__init__.py").write_text("raise SystemExit('imported from the working directory')")
    monkeypatch.chdir(trap)
    found = ensure(paths)
    assert launch.status(paths)["cwd"] == str(paths.data_dir)
    assert os.getsid(found.pid) != os.getsid(0), "it is not in our session, so that a closed terminal does not end it"


def test_variables_of_one_kernel_are_not_handed_on(paths: Paths) -> None:
    ensure(paths, environ=os.environ | {"TUNDRA_TOKEN": "x", "JPY_PARENT_PID": "1", "KEPT": "yes"})
    names = set(launch.status(paths)["variables"])
    assert "KEPT" in names
    assert not names & {"TUNDRA_TOKEN", "JPY_PARENT_PID"}


def _open_files(pid: int) -> list[str]:
    names = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            names.append(os.readlink(link))
    assert names
    return names


def test_what_others_may_read_of_a_process_names_places_and_no_key(paths: Paths) -> None:
    found = ensure(paths, environ=os.environ | {"MY_LLM": "canary-7f3d9a", "JUPYTER_TOKEN": "canary-7f3d9b"})
    environ = Path(f"/proc/{found.pid}/environ").read_bytes()
    assert b"TUNDRA_DATA_DIR=" in environ
    assert b"canary" not in environ
    assert {"MY_LLM", "JUPYTER_TOKEN", "PATH"} <= set(launch.status(paths)["variables"])
    assert not [name for name in _open_files(found.pid) if "memfd" in name]


ASK = """
import sys
from tundra_nb import paths
from tundra_nb.local import launch
print(launch.ensure(paths.find(), command=sys.argv[1:]).pid)
"""


def test_clients_that_start_at_once_end_up_with_one_daemon(paths: Paths) -> None:
    clients = [
        subprocess.Popen([sys.executable, "-c", ASK, *COMMAND], stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    told = [client.communicate(timeout=20)[0].strip() for client in clients]
    assert all(told)
    assert len(set(told)) == 1
    assert launch.find(paths) is not None


def test_of_many_clients_that_come_at_once_one_starts_a_daemon_and_the_others_wait(
    paths: Paths, tmp_path: Path
) -> None:
    starts = tmp_path / "starts"
    counted = f"""
import os, sys, time
with open({str(starts)!r}, "a") as file:
    file.write("x")
time.sleep(0.5)  # an interpreter that has much to load, and has not taken the daemon's lock yet
sys.argv = sys.argv[1:]
exec(open(sys.argv[0]).read())
"""
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        found = list(
            pool.map(
                lambda _: launch.ensure(paths, command=(sys.executable, "-c", counted, str(TINY))),
                range(8),
            )
        )
    assert len({connection.pid for connection in found}) == 1
    assert starts.read_text() == "x"


def test_whoever_had_the_turn_and_failed_lets_the_next_one_start(paths: Paths) -> None:
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        failing = pool.submit(ensure, paths, environ=os.environ | {"TINY_FAIL": "typed"})
        with pytest.raises(StoreUnavailable):
            failing.result()
        assert pool.submit(ensure, paths).result() == launch.find(paths)


def test_a_daemon_that_takes_its_time_is_waited_for_and_never_told_to_be_in_the_way(paths: Paths) -> None:
    slow = subprocess.Popen([*COMMAND], env=os.environ | {"TINY_FAIL": "hang"}, stderr=subprocess.DEVNULL)
    until(lambda: reach.is_starting(paths), "the slow one has the lock")
    rewrite(paths.lock, started_at=time.time() - 60)
    with pytest.raises(IpcError, match="does not answer") as caught:
        ensure(paths, timeout=3)
    assert caught.value.kind == "absent"
    assert "TUNDRA_DATA_DIR" not in caught.value.hint
    slow.kill()
    slow.wait()


def test_what_an_earlier_daemon_left_in_the_log_is_no_reason_why_this_one_is_slow(paths: Paths) -> None:
    with pytest.raises(StoreUnavailable):
        ensure(paths, environ=os.environ | {"TINY_FAIL": "typed"})
    slow = subprocess.Popen([*COMMAND], env=os.environ | {"TINY_FAIL": "hang"}, stderr=subprocess.DEVNULL)
    until(lambda: reach.is_starting(paths), "the slow one has the lock")
    with pytest.raises(IpcError, match="does not answer") as caught:
        ensure(paths, timeout=0.5)
    assert "the tiny store is down" not in caught.value.message
    slow.kill()
    slow.wait()


@pytest.mark.parametrize("how", ["socket", "folder", "renamed", "replaced", "closed"])
def test_a_deleted_socket_is_bound_anew_and_the_same_daemon_found(paths: Paths, how: str) -> None:
    running = ensure(paths)
    with attached(paths) as stream:
        if how == "folder":
            shutil.rmtree(paths.socket.parent)
        elif how == "replaced":
            paths.socket.unlink()
            paths.socket.touch()
        elif how == "closed":
            paths.socket.chmod(0)
            until(lambda: stat.S_IMODE(paths.socket.stat().st_mode), "bound anew")  # root may enter all the same
        else:
            paths.socket.unlink() if how == "socket" else paths.socket.rename(f"{paths.socket}.lost")
        assert ensure(paths) == running
        assert launch.status(paths)["state"] == "running"
        assert stat.S_IMODE(paths.socket.stat().st_mode) == 0o600
        assert stat.S_IMODE(paths.socket.parent.stat().st_mode) == 0o700
        assert launch.status(paths)["attached"] == 1, "what was connected stays so"
        assert stream.fileno() >= 0
    launch.stop(paths, hold=False)
    assert not paths.socket.exists()


@pytest.mark.parametrize("force", [False, True])
def test_a_daemon_that_cannot_bind_its_socket_anew_is_named_and_stopped_by_its_pid(
    paths: Paths, force: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "RENEW_SECONDS", 1.0)
    running = ensure(paths)
    folder = paths.socket.with_name("folder")
    (folder / "in the way").mkdir(parents=True)
    while not paths.socket.is_dir():
        paths.socket.unlink(missing_ok=True)
        with contextlib.suppress(NotADirectoryError):  # the daemon was faster: its socket is there again
            folder.rename(paths.socket)
    try:
        with pytest.raises(IpcError, match=f"pid {running.pid}. runs and does not listen") as caught:
            ensure(paths)
        assert caught.value.kind == "hung"
        told = launch.status(paths)
        assert (told["running"], told["state"], told["pid"]) == (True, "hung", running.pid)
        assert str(running.pid) in told["problem"]
        assert launch.stop(paths, force=force) == running
        assert launch.status(paths)["state"] == "held"
    finally:
        shutil.rmtree(paths.socket)


def test_a_deleted_connection_file_is_written_anew(paths: Paths) -> None:
    ensure(paths)
    paths.connection_file.unlink()
    until(paths.connection_file.exists, "written anew")


def test_a_daemon_whose_data_directory_was_deleted_is_found_and_stopped(paths: Paths) -> None:
    running = ensure(paths)
    shutil.rmtree(paths.data_dir)
    assert launch.status(paths)["pid"] == running.pid
    assert ensure(paths) == running, "no second one beside it"
    assert launch.stop(paths) == running
    assert launch.status(paths)["state"] == "stopped", "there is no place for the mark"
    assert ensure(paths).pid != running.pid


@pytest.mark.parametrize("socket_too", [False, True])
def test_a_daemon_stopped_by_a_signal_is_told_to_hang_within_5_seconds(paths: Paths, socket_too: bool) -> None:
    running = ensure(paths)
    if socket_too:
        paths.socket.unlink()
    os.kill(running.pid, signal.SIGSTOP)
    until(lambda: reach.is_stopped(running), "it is stopped")
    began = time.monotonic()
    with pytest.raises(IpcError, match=f"pid {running.pid}") as caught:
        ensure(paths)
    told = launch.status(paths)
    assert time.monotonic() - began < 5
    assert caught.value.kind == told["state"] == "hung"
    assert f"kill -CONT {running.pid}" in caught.value.hint
    assert "tundra daemon restart --force" in told["hint"]
    assert launch.stop(paths, force=True, hold=False) == running
    assert not reach.is_alive(running)


def test_a_client_that_comes_while_a_daemon_is_starting_waits_for_it(paths: Paths) -> None:
    slow = subprocess.Popen(
        [sys.executable, "-c", f"import time; time.sleep(0.3); exec(open({str(TINY)!r}).read())"], env=os.environ
    )
    paths.data_dir.mkdir()
    record = DaemonRecord(
        pid=slow.pid,
        socket=str(paths.socket),
        host=socket.gethostname(),
        api=API,
        version=__version__,
        started_at=time.time(),
    )
    paths.lock.write_bytes(record.to_json())
    assert launch.ensure(paths, command=("/nowhere/python",)).pid == slow.pid, "nothing else was started"
    launch.stop(paths, hold=False)
    slow.wait(5)


def test_threads_of_one_client_that_start_at_once_end_up_with_one_daemon(paths: Paths) -> None:
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda _: ensure(paths), range(3)))
    assert len({connection.pid for connection in found}) == 1


def test_after_kill_9_the_stale_files_are_seen_through_and_a_new_one_starts(paths: Paths) -> None:
    killed = ensure(paths)
    os.kill(killed.pid, signal.SIGKILL)
    until(lambda: launch.find(paths) is None, "the killed one is not found")
    assert paths.connection_file.exists()
    again = ensure(paths)
    assert again.pid != killed.pid
    assert launch.find(paths) == again


def test_a_stale_file_with_the_pid_of_a_living_process_is_seen_through(paths: Paths) -> None:
    killed = ensure(paths)
    os.kill(killed.pid, signal.SIGKILL)
    until(lambda: launch.find(paths) is None, "the killed one is not found")
    rewrite(paths.connection_file, pid=os.getpid())
    rewrite(paths.lock, pid=os.getpid())
    assert ensure(paths).pid not in (killed.pid, os.getpid())


@pytest.mark.parametrize("damaged", ["lock", "connection_file"])
def test_a_damaged_file_does_not_hide_the_daemon_nor_keep_it_from_stopping(paths: Paths, damaged: str) -> None:
    running = ensure(paths)
    whole = paths.lock.read_text()
    for content in ("", "{", "[]", "null", '{"pid": "x"}', '{"socket": null, "pid": 1}'):
        getattr(paths, damaged).write_text(content)
        assert ensure(paths) == running, "the other file holds the record too"
    launch.stop(paths, hold=False)
    assert launch.find(paths) is None
    assert whole != paths.lock.read_text()


def test_the_connection_file_of_an_older_daemon_is_not_taken_for_the_running_one(paths: Paths) -> None:
    running = ensure(paths)
    rewrite(paths.connection_file, pid=1, api=API + 1, version="0.0.1")
    assert ensure(paths) == running


def test_a_client_with_another_jupyter_runtime_directory_finds_it_by_the_lock_file(
    paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = ensure(paths)
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "elsewhere"))
    assert ensure(places.find()) == running


def test_a_daemon_on_another_host_is_named(paths: Paths) -> None:
    running = ensure(paths)
    os.kill(running.pid, signal.SIGKILL)
    until(lambda: launch.find(paths) is None, "the killed one is not found")
    rewrite(paths.connection_file, host="elsewhere")
    with pytest.raises(IpcError, match="elsewhere") as caught:
        ensure(paths, start=False)
    assert caught.value.kind == "host"


def test_the_old_files_of_a_host_that_was_renamed_do_not_keep_it_from_starting(paths: Paths) -> None:
    running = ensure(paths)
    os.kill(running.pid, signal.SIGKILL)
    until(lambda: launch.find(paths) is None, "the killed one is not found")
    for file in (paths.connection_file, paths.lock):
        rewrite(file, host="elsewhere")
    assert ensure(paths).host == socket.gethostname()


def test_a_lock_that_another_host_holds_is_named(paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    running = ensure(paths)
    rewrite(paths.lock, host="elsewhere", socket="/nowhere")
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "of another host"))
    with pytest.raises(IpcError) as caught:
        ensure(places.find())
    assert caught.value.kind == "host"
    assert "elsewhere" in caught.value.message
    # what `daemon status` says agrees: no call starts one here
    told = launch.status(places.find())
    assert (told["running"], told["state"], told["host"]) == (False, "elsewhere", "elsewhere")
    assert "TUNDRA_DATA_DIR" in told["hint"]
    rewrite(paths.lock, host=socket.gethostname(), socket=running.socket)


def test_a_typed_failure_of_the_start_arrives_as_the_same_class(paths: Paths) -> None:
    with pytest.raises(StoreUnavailable) as caught:
        ensure(paths, environ=os.environ | {"TINY_FAIL": "typed"})
    assert caught.value.message == "the tiny store is down"
    assert not paths.connection_file.exists()


def test_a_broken_settings_file_is_named_with_file_and_line(paths: Paths) -> None:
    Path(os.environ["TUNDRA_CONFIG"]).write_text("[store]\nport = = 1\n")
    with pytest.raises(ConfigError) as caught:
        ensure(paths)
    assert caught.value.where == f"{os.environ['TUNDRA_CONFIG']}, line 2"


@pytest.mark.parametrize(("how", "told"), [("exit", "exit code 77"), ("defect", "ZeroDivisionError")])
def test_a_daemon_that_dies_while_starting_is_told_with_the_end_of_its_log(paths: Paths, how: str, told: str) -> None:
    with pytest.raises(IpcError) as caught:
        ensure(paths, environ=os.environ | {"TINY_FAIL": how, "TINY_CANARY_KEY": "canary-7f3d9a"})
    assert caught.value.kind == "died"
    assert told in caught.value.message
    assert str(paths.log) in caught.value.message
    assert "tundra.daemon  starting" in caught.value.message or how == "defect", "a line of the log"
    assert "tundra daemon" in caught.value.hint
    assert "canary" not in caught.value.message


def test_a_daemon_that_does_not_get_ready_is_given_up_in_time_with_progress_told(paths: Paths) -> None:
    waited: list[float] = []
    env = os.environ | {"TINY_FAIL": "hang"}
    with pytest.raises(IpcError, match=r"does not answer 3 s after its start") as caught:
        ensure(paths, environ=env, timeout=3, on_wait=waited.append)
    assert 1 <= waited[0] < 3
    assert "tundra daemon stop --force" in caught.value.hint
    assert launch.status(paths)["state"] == "starting"
    started = time.monotonic()
    launch.stop(paths, force=True, hold=False)
    assert launch.find(paths) is None
    assert time.monotonic() - started < 8


def test_an_interpreter_that_cannot_be_started_is_named(paths: Paths) -> None:
    with pytest.raises(IpcError, match="/nowhere/python"):
        launch.ensure(paths, command=("/nowhere/python",))


def test_a_data_directory_that_cannot_be_written_is_a_config_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot be written"):
        ensure(places.find(tmp_path / "file" / "data"))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    "name", ["daemon.lock", "redact.salt", "spool/owner.json", "logs/daemon.log", "ptys/record.json"]
)
def test_a_pipe_in_the_place_of_a_file_is_named_at_once(paths: Paths, name: str) -> None:
    """Whoever opens it waits for ever."""
    pipe = paths.data_dir / name
    pipe.parent.mkdir(parents=True)
    os.mkfifo(pipe)
    with pytest.raises(ConfigError, match="pipe") as refused:
        ensure(paths, timeout=5)
    assert refused.value.where == str(pipe)


def test_a_pipe_in_the_place_of_the_mark_of_a_stop_is_a_mark(paths: Paths) -> None:
    paths.data_dir.mkdir(parents=True)
    os.mkfifo(paths.held)
    with pytest.raises(IpcError, match="stopped"):
        ensure(paths, timeout=5)


def test_a_socket_path_that_is_too_long_is_a_config_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, paths: Paths
) -> None:
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(deep))
    with pytest.raises(ConfigError, match="socket's path has"):
        ensure(places.find())
    assert list(deep.iterdir()) == []
    assert not paths.connection_file.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give a socket away")
def test_a_socket_of_somebody_else_is_not_talked_to(paths: Paths) -> None:
    ensure(paths)
    os.chown(paths.socket, 65534, 65534)
    with pytest.raises(IpcError, match="belongs to uid 65534"):
        ensure(paths)
    os.chown(paths.socket, 0, 0)


def test_after_a_stop_by_a_person_only_an_explicit_start_brings_it_back(paths: Paths) -> None:
    running = ensure(paths)
    assert launch.stop(paths) == running
    assert launch.find(paths) is None
    with pytest.raises(IpcError) as caught:
        ensure(paths)
    assert caught.value.kind == "stopped"
    assert "tundra daemon start" in caught.value.hint
    assert launch.status(paths)["state"] == "held"
    ensure(paths, explicit=True)
    assert launch.status(paths)["state"] == "running"
    launch.stop(paths, hold=False)
    ensure(paths)


def test_stopping_what_does_not_run_holds_it_too(paths: Paths) -> None:
    assert launch.stop(paths) is None
    assert not paths.data_dir.exists()
    paths.data_dir.mkdir()
    assert launch.stop(paths) is None
    with pytest.raises(IpcError, match="was stopped"):
        ensure(paths)


def test_the_process_has_gone_when_stop_returns_and_leaves_no_zombie(paths: Paths) -> None:
    running = ensure(paths)
    launch.stop(paths, hold=False)
    assert not Path(f"/proc/{running.pid}").exists()
    assert not paths.socket.exists()
    assert not paths.connection_file.exists()


def test_force_kills_a_daemon_that_does_not_answer(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reach, "ANSWER_SECONDS", 0.5)
    monkeypatch.setattr(reach, "CONNECT_SECONDS", 0.5)
    running = ensure(paths)
    os.kill(running.pid, signal.SIGSTOP)
    with pytest.raises(IpcError, match="does not answer") as caught:
        launch.stop(paths, timeout=0.5)
    assert "--force" in caught.value.hint
    assert launch.status(paths)["state"] == "hung"
    launch.stop(paths, force=True)
    assert not Path(f"/proc/{running.pid}").exists()


def test_a_start_while_another_one_stops_waits_for_its_end(paths: Paths) -> None:
    first = ensure(paths, environ=os.environ | {"TINY_CLOSE_SECONDS": "0.7"})
    os.kill(first.pid, signal.SIGTERM)
    until(lambda: launch.find(paths) is None, "the first one stops")
    second = ensure(paths)
    assert second.pid != first.pid


def attached(paths: Paths) -> socket.socket:
    stream = socket.socket(socket.AF_UNIX)
    stream.connect(str(paths.socket))
    stream.sendall(b"GET /api/events?attach=kernel HTTP/1.1\r\nHost: tundra\r\n\r\n")
    until(lambda: launch.status(paths).get("attached") == 1, "attached")
    return stream


def of_another_api(paths: Paths) -> launch.Connection:
    running = ensure(paths)
    for file in (paths.connection_file, paths.lock):
        rewrite(file, api=API + 1, version="99.0")
    return running


def test_an_idle_daemon_of_another_api_is_replaced(paths: Paths) -> None:
    old = of_another_api(paths)
    new = ensure(paths)
    assert new.pid != old.pid
    assert new.api == API


def test_a_busy_daemon_of_another_api_is_left_alone_and_both_versions_are_named(paths: Paths) -> None:
    old = of_another_api(paths)
    stream = attached(paths)
    with pytest.raises(IpcError) as caught:
        ensure(paths)
    assert caught.value.kind == "version"
    assert "99.0" in caught.value.message
    assert __version__ in caught.value.message
    assert launch.status(paths)["pid"] == old.pid
    stream.close()


def test_a_daemon_of_another_api_is_not_replaced_without_leave(paths: Paths) -> None:
    of_another_api(paths)
    with pytest.raises(IpcError) as caught:
        ensure(paths, start=False)
    assert caught.value.kind == "version"


def test_status_tells_the_same_keys_whether_it_runs_or_not(paths: Paths) -> None:
    stopped = launch.status(paths)
    assert (stopped["running"], stopped["state"], stopped["pid"]) == (False, "stopped", None)
    running = ensure(paths)
    told = launch.status(paths)
    assert (told["running"], told["state"], told["pid"]) == (True, "running", running.pid)
    assert told["engine"] == "tiny"
    assert set(stopped) <= set(told)


def test_looking_for_a_daemon_imports_nothing_that_takes_long() -> None:
    program = textwrap.dedent("""
        import sys
        from tundra_nb.local import launch
        print(*sorted({name.partition(".")[0] for name in sys.modules} - set(sys.stdlib_module_names)))
        print(*sorted(name for name in sys.modules if name.startswith("tundra_nb.")))
    """)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    others, ours = done.stdout.splitlines()
    compiled = {"msgspec", "httptools", "typing_extensions", "cython_runtime"}  # 10 ms in all
    assert {name for name in others.split() if not name.startswith(("_", "sitecustomize"))} <= {"tundra_nb", *compiled}
    assert "tundra_nb.daemon" not in ours
    assert "tundra_nb.runtime" not in ours
