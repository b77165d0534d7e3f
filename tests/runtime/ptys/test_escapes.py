"""What tries to outlive its session, and what ends it: the table of the design, cell by cell.

    boundary            delegated control group · subreaper · neither
    event               release · kill -9 of the daemon (then its guard, and the next start) is in `test_guard`

Each shape marks its process by a number of seconds to sleep that nothing else has.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.conftest import ROOT, wait_until
from tests.runtime.ptys.conftest import until
from tundra_nb.runtime.ptys import cgroups, processes
from tundra_nb.runtime.ptys.pool import PtyPool

SHAPES = {
    "hup ignored": "(trap '' HUP; exec sleep {n}) & wait",
    "nohup": "nohup sleep {n} >/dev/null 2>&1 & wait",
    "setsid": "setsid sleep {n} & wait",
    "double fork": "( ( setsid sleep {n} & ) & ); sleep {n}",
    # the word alone: before `exec` the child has the whole line, and stopped then it would never sleep
    "stopped": "sleep {n} & until grep -qzx sleep /proc/$!/cmdline; do :; done; kill -STOP $!; wait",
    "empty environment": "env -i /bin/sleep {n} & wait",
    "empty environment, own session": "env -i setsid /bin/sleep {n} </dev/null >/dev/null 2>&1 & wait",
    "empty environment, own session, parent gone": "(env -i setsid /bin/sleep {n} </dev/null >&0 2>&0 &); exit 0",
    "hops from session to session": "env -i setsid /bin/sh -c 'for i in 1 2 3 4 5; do (setsid /bin/sleep {n} &); done'",
    "descriptors closed, other folder": "cd /; env -i setsid /bin/sleep {n} <&- >&- 2>&- & exit 0",
}
_numbers = itertools.count(100_000 + os.getpid() % 1000 * 100)


def sleepers(number: int) -> list[int]:
    """Living processes that sleep that long."""
    found = []
    for pid in processes.all_pids():
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        process = processes.look(pid)
        if str(number).encode() in words and b"sleep" in words[0] and process is not None and process.is_alive:
            found.append(pid)
    return found


@pytest.fixture(params=["cgroup", "subreaper", "neither"])
def boundary(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    kind: str = request.param
    if kind == "cgroup":
        if cgroups.delegated() is None:
            pytest.skip("no control group of version 2 is delegated to this user here")
    else:
        monkeypatch.setattr(cgroups, "delegated", lambda: None)
    return kind


@pytest.mark.anyio
@pytest.mark.parametrize("shape", SHAPES)
async def test_nothing_outlives_a_release(make_pool: Callable[..., PtyPool], boundary: str, shape: str) -> None:
    """With a control group and with a subreaper every shape ends; with neither too, by the session's number."""
    number = next(_numbers)
    async with make_pool(grace=0.3, adopter=None if boundary == "neither" else os.getpid()) as pool:
        pty = await pool.spawn(["bash", "-c", SHAPES[shape].format(n=number)])
        await until(lambda: sleepers(number) or pty.released.is_set())
        if pty.id in [one.id for one in pool.list()]:
            await pool.release(pty.id)
        await pty.released.wait()
        await until(lambda: not sleepers(number))


DAEMON = """
import asyncio, os, sys
from pathlib import Path
from tundra_nb.runtime.clock import Ids, SystemClock
from tundra_nb.runtime.ptys import cgroups
from tundra_nb.runtime.ptys.pool import PtyPool
from tundra_nb.settings import PtySettings

async def main(folder, boundary, *shells):
    if boundary != "cgroup":
        cgroups.delegated = lambda: None
    clock = SystemClock()
    pool = PtyPool(
        PtySettings(capacity=40), Path(folder), ids=Ids(clock), clock=clock, on_event=lambda _: None,
        secrets=dict, key_variables=tuple, environ=dict(os.environ), adopter=None,
    )
    await pool.open()
    for shell in shells:
        await pool.spawn(["bash", "-c", shell])
    print("ready", flush=True)
    if shells:
        await asyncio.sleep(60)
    await pool.aclose()

asyncio.run(main(*sys.argv[1:]))
"""


class Someone(NamedTuple):
    """A user, a folder of theirs, and an interpreter that they may run."""

    uid: int
    folder: Path
    python: str

    def daemon(self, boundary: str, *shells: str) -> subprocess.Popen[str]:
        """A pool in a process of its own, with nobody above it who would adopt orphans."""
        made = subprocess.Popen(
            [self.python, "-c", DAEMON, str(self.folder / "ptys"), boundary, *shells],
            user=self.uid if self.uid != os.getuid() else None,
            cwd="/",
            env=_environment(),
            stdout=subprocess.PIPE,
            text=True,
        )
        assert made.stdout is not None
        assert made.stdout.readline() == "ready\n"
        return made


@pytest.fixture(params=[os.getuid(), 65534], ids=["this user", "a normal user"])
def someone(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Someone]:
    """A user, who may be no more than that."""
    uid: int = request.param
    if uid != os.getuid() and os.getuid() != 0:
        pytest.skip("only root can become another user")
    folder = Path("/tmp" if uid != os.getuid() else tmp_path) / f"tundra-escapes-{os.getpid()}-{uid}"
    folder.mkdir()
    os.chown(folder, uid, -1)
    python = next((path for path in (sys.executable, "/usr/bin/python3") if _can_run(uid, path)), None)
    if python is None:
        folder.rmdir()
        pytest.skip("no interpreter of this version is in that user's reach")
    yield Someone(uid, folder, python)
    shutil.rmtree(folder)


def _can_run(uid: int, python: str) -> bool:
    try:
        command = [python, "-c", "import tundra_nb.runtime.ptys.pool"]
        done = subprocess.run(command, user=uid, cwd="/", env=_environment(), capture_output=True, check=False)
    except OSError:
        return False
    return done.returncode == 0


def _environment() -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "HOME": "/tmp",
        "PYTHONPATH": os.pathsep.join([str(ROOT), sysconfig.get_path("purelib")]),
        "PYTHONDONTWRITEBYTECODE": "1",
    }


@pytest.mark.check
def test_the_next_start_ends_what_a_killed_daemon_without_a_guard_left(someone: Someone, boundary: str) -> None:
    """`kill -9` with nobody to adopt: every shape lives on, and none after the next start."""
    if boundary == "cgroup" and someone.uid != os.getuid():
        pytest.skip("the control group here is delegated to this user only")
    numbers = dict(zip(SHAPES, _numbers, strict=False))
    shells = [SHAPES[shape].replace("exit 0", "true").format(n=n) + "; sleep 9999" for shape, n in numbers.items()]
    first = someone.daemon(boundary, *shells)
    try:
        wait_until(lambda: all(map(sleepers, numbers.values())), 30, "all sleep")
    finally:
        first.send_signal(signal.SIGKILL)
        first.communicate()
    assert [shape for shape, n in numbers.items() if sleepers(n)] != []
    second = someone.daemon(boundary)
    second.communicate(timeout=30)
    left = {shape: sleepers(n) for shape, n in numbers.items()}
    for pid in itertools.chain(*left.values()):
        os.kill(pid, signal.SIGKILL)
    assert {shape: pids for shape, pids in left.items() if pids} == {}
