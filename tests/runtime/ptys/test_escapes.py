"""What tries to outlive its session, and what ends it: the table of the design, cell by cell.

    boundary    delegated control group · subreaper · neither
    event       release · kill -9 of the daemon · kill -9 of daemon and guard, and the next start
    who         root · a normal user

The first test is quick and runs each shape by itself; `test_each_cell_of_the_table` runs them together, in processes
like the real ones. Each shape marks its process by a number of seconds to sleep that nothing else has.
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


START = """
import os, sys
os.read(0, len("go\\n"))
from tundra_nb.daemon import guard
argv = [sys.executable, "-c", *sys.argv[2:]]
if sys.argv[1] == "guarded":
    sys.exit(guard.run(argv))
os.execv(sys.executable, argv)
"""
DAEMON = """
import asyncio, os, sys
from pathlib import Path
from tundra_nb.daemon import guard
from tundra_nb.runtime.clock import Ids, SystemClock
from tundra_nb.runtime.ptys import cgroups
from tundra_nb.runtime.ptys.pool import PtyPool
from tundra_nb.settings import PtySettings

async def main(folder, boundary, *shells):
    if boundary != "cgroup":
        cgroups.delegated = lambda: None
    clock, parent = SystemClock(), guard.find(os.environ)
    pool = PtyPool(
        PtySettings(capacity=40, grace_seconds=0.3), Path(folder), ids=Ids(clock), clock=clock,
        on_event=lambda _: None, secrets=dict, key_variables=tuple, environ=dict(os.environ),
        adopter=parent.pid if parent else None,
    )
    await pool.open()
    ptys = [await pool.spawn(["bash", "-c", shell]) for shell in shells]
    print(pool.boundary, os.getpid(), flush=True)
    if shells:
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
        for pty in ptys:
            await pool.release(pty.id)
        print("released", flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    await pool.aclose()

asyncio.run(main(*sys.argv[1:]))
"""


class Someone(NamedTuple):
    """A user, a folder of theirs, and an interpreter that they may run."""

    uid: int
    folder: Path
    python: str

    @property
    def is_other(self) -> bool:
        return self.uid != os.getuid()

    def start(self, boundary: str, *shells: str) -> tuple[subprocess.Popen[str], int]:
        """A daemon's pool in a process of its own, which has a guard unless nobody is to adopt; and its pid."""
        process = subprocess.Popen(
            [
                *(self.python, "-c", START, "alone" if boundary == "neither" else "guarded"),
                *(DAEMON, str(self.folder / "ptys"), boundary, *shells),
            ],
            user=self.uid if self.is_other else None,
            cwd="/",
            env=_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        if boundary == "cgroup" and self.is_other:
            (self.group() / "cgroup.procs").write_text(str(process.pid))
        self.tell(process, "go")
        kind, pid = self.line(process).split()
        assert kind == boundary
        return process, int(pid)

    def group(self) -> Path:
        """A control group that is delegated to this user, as a service manager does it."""
        above = cgroups.delegated()
        assert above is not None
        group = above / self.folder.name
        if not group.exists():
            group.mkdir()
            for path in (group, *(group / f"cgroup.{name}" for name in ("procs", "threads", "subtree_control"))):
                os.chown(path, self.uid, -1)
        return group

    @staticmethod
    def tell(process: subprocess.Popen[str], word: str) -> None:
        assert process.stdin is not None
        process.stdin.write(f"{word}\n")
        process.stdin.flush()

    @staticmethod
    def line(process: subprocess.Popen[str]) -> str:
        assert process.stdout is not None
        return process.stdout.readline().strip()


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
    above = cgroups.delegated()
    if above is not None and (above / folder.name).exists():
        wait_until(lambda: cgroups.Cgroup(above / folder.name).remove(), 10, "the group is empty")


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
@pytest.mark.parametrize("event", ["release", "kill -9 of the daemon", "kill -9 of both"])
def test_each_cell_of_the_table(someone: Someone, boundary: str, event: str) -> None:
    """All shapes at once. Without anybody to adopt what a killed daemon leaves, the next start ends it."""
    numbers = dict(zip(SHAPES, _numbers, strict=False))
    shells = [SHAPES[shape].replace("exit 0", "true").format(n=n) + "; sleep 9999" for shape, n in numbers.items()]
    first, pid = someone.start(boundary, *shells)
    try:
        wait_until(lambda: all(map(sleepers, numbers.values())), 30, "all sleep")
        if event == "release":
            someone.tell(first, "release")
            assert someone.line(first) == "released"
        else:
            if event == "kill -9 of both":
                first.kill()
            os.kill(pid, signal.SIGKILL)
            first.wait(15)
            if boundary == "neither":
                assert [shape for shape, n in numbers.items() if sleepers(n)] != []
            if boundary == "neither" or event == "kill -9 of both":
                someone.start(boundary)[0].communicate(timeout=30)
        left = {shape: pids for shape, n in numbers.items() if (pids := sleepers(n))}
    finally:
        first.kill()
        first.communicate()
        for pid in itertools.chain(*map(sleepers, numbers.values())):
            os.kill(pid, signal.SIGKILL)
    assert left == {}
