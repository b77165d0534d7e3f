"""Whatever happens to the daemon, nothing that it started lives on."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tundra_nb.runtime.ptys import processes
from tundra_nb.runtime.ptys.pool import PtyPool

GUARD = "import sys; from tundra_nb.daemon import guard; sys.exit(guard.run([sys.executable, *sys.argv[1:]]))"
DAEMON = """
import asyncio, json, os, sys
from pathlib import Path
from tundra_nb.daemon import guard
from tundra_nb.runtime.clock import Ids, SystemClock
from tundra_nb.runtime.ptys.pool import PtyPool
from tundra_nb.settings import PtySettings

async def main():
    parent = guard.find(os.environ)
    assert parent and guard.VARIABLE not in os.environ
    clock = SystemClock()
    pool = PtyPool(PtySettings(), Path(sys.argv[1]), ids=Ids(clock), clock=clock, on_event=lambda event: None,
        secrets=dict, key_variables=tuple, environ=os.environ, adopter=parent.pid)
    await pool.open()
    ids = [(await pool.spawn(command)).id for command in json.loads(sys.argv[2])]
    await asyncio.sleep(0.3)
    print(json.dumps({"pid": os.getpid(), "ids": ids, "instance": pool._instance}), flush=True)
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_reader(parent.pipe, stopped.set)
    await stopped.wait()
    await pool.aclose()
    print("in order", flush=True)

asyncio.run(main())
"""
SECONDS = str(900_000 + os.getpid())
"""Tells the sleepers of this run from all others."""
SESSIONS = [
    command.replace("{N}", SECONDS)
    for command in (
        "sleep {N}",
        "nohup sleep {N} & sleep {N}",
        "setsid sleep {N} & sleep {N}",
        "trap '' HUP; sleep {N}; sleep {N}",
        "trap '' HUP TERM; env -i setsid sh -c \"trap '' HUP; sleep {N}; sleep {N}\" & sleep {N}",
        "(setsid nohup sleep {N} &); exit 0",
    )
]


class Guarded:
    """A guard with a daemon under it."""

    def __init__(self, *argv: str) -> None:
        self.process = subprocess.Popen([sys.executable, "-c", GUARD, *argv], stdout=subprocess.PIPE, text=True)

    def line(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline().strip()


@pytest.fixture
def guarded() -> Iterator[Callable[..., Guarded]]:
    made: list[Guarded] = []

    def make(*argv: str) -> Guarded:
        made.append(Guarded(*argv))
        return made[-1]

    yield make
    for one in made:
        with contextlib.suppress(ProcessLookupError):
            one.process.terminate()
        assert one.process.stdout
        one.process.stdout.close()
        one.process.wait(10)


def sleepers() -> set[int]:
    """Pids of everything that looks like a session's process."""
    found = set()
    for pid in processes.all_pids():
        process = processes.look(pid)
        with contextlib.suppress(OSError):
            line = Path(f"/proc/{pid}/cmdline").read_bytes()
            if b"sleep" in line and SECONDS.encode() in line and b"-c" not in line and process and process.is_alive:
                found.add(pid)
    return found


@pytest.mark.anyio
async def test_kill_9_of_the_daemon_leaves_nothing_after_3_seconds_and_each_session_gets_its_end_event(
    guarded: Callable[..., Guarded], tmp_path: Path, make_pool: Callable[..., PtyPool], events: list[object]
) -> None:
    foreign = subprocess.Popen(  # noqa: ASYNC220 - instant
        ["sleep", SECONDS], env={**os.environ, "TUNDRA_PTY_ID": "another/one"}
    )
    try:
        guard = guarded("-c", DAEMON, str(tmp_path / "ptys"), json.dumps(SESSIONS))
        told = json.loads(guard.line())
        assert len(sleepers() - {foreign.pid}) >= len(SESSIONS)
        os.kill(told["pid"], signal.SIGKILL)
        killed = time.monotonic()
        assert guard.process.wait(10) == 128 + signal.SIGKILL
        assert time.monotonic() - killed < 3.0
        assert sleepers() == {foreign.pid}
        assert foreign.poll() is None
    finally:
        foreign.kill()
        foreign.wait()
    async with make_pool():
        assert {event.pty_id for event in events} >= set(told["ids"][:5])  # type: ignore[attr-defined]
        assert {(event.event, event.state) for event in events} == {("lost", "lost")}  # type: ignore[attr-defined]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 143)])
def test_the_guard_forwards_signals_and_exits_as_the_daemon_does(
    guarded: Callable[..., Guarded], number: signal.Signals, code: int
) -> None:
    guard = guarded(
        "-c", "import signal, time; signal.signal(2, signal.SIG_DFL); print('up', flush=True); time.sleep(60)"
    )
    assert guard.line() == "up"
    guard.process.send_signal(number)
    assert guard.process.wait(10) == code


def test_the_guard_returns_the_exit_code_of_the_daemon(guarded: Callable[..., Guarded]) -> None:
    assert guarded("-c", "raise SystemExit(7)").process.wait(10) == 7


def test_a_daemon_whose_guard_is_killed_notices_and_stops_in_order(
    guarded: Callable[..., Guarded], tmp_path: Path
) -> None:
    guard = guarded("-c", DAEMON, str(tmp_path / "ptys"), json.dumps(SESSIONS[:4]))
    told = json.loads(guard.line())
    guard.process.kill()
    assert guard.line() == "in order"
    deadline = time.monotonic() + 5
    while (daemon := processes.look(told["pid"])) is not None and daemon.is_alive:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.waitpid(told["pid"], 0)  # its new parent is this process
    assert sleepers() == set()


def test_the_guard_loads_the_standard_library_only() -> None:
    script = (
        "import sys; before = set(sys.modules); import tundra_nb.daemon.guard; "
        "print(*sorted({m.split('.')[0] for m in set(sys.modules) - before} - set(sys.stdlib_module_names)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["tundra_nb"]


def test_a_variable_of_somebody_elses_guard_is_not_believed() -> None:
    from tundra_nb.daemon import guard

    environ = {guard.VARIABLE: "1:0"}
    assert guard.find(environ) is None
    assert environ == {}
    assert guard.find({guard.VARIABLE: "nonsense"}) is None
    assert guard.find({}) is None
