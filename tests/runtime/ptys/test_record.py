"""What a daemon and its guard left, when both were killed, is ended at the next start; and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from tundra_nb.runtime.ptys import processes, record
from tundra_nb.runtime.ptys.pool import PtyPool

SECONDS = str(800_000 + os.getpid())
DAEMON = """
import asyncio, os, sys
from pathlib import Path
from tundra_nb.runtime.clock import Ids, SystemClock
from tundra_nb.runtime.ptys.pool import PtyPool
from tundra_nb.settings import PtySettings

async def main():
    clock = SystemClock()
    pool = PtyPool(PtySettings(), Path(sys.argv[1]), ids=Ids(clock), clock=clock, on_event=lambda event: None,
        secrets=dict, key_variables=tuple, environ=os.environ, adopter=None)
    await pool.open()
    ids = [(await pool.spawn(command)).id for command in sys.argv[2:]]
    await asyncio.sleep(0.2)
    print(*ids, flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


def sleepers() -> set[int]:
    found = set()
    for pid in processes.all_pids():
        process = processes.look(pid)
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if words[:2] == [b"sleep", SECONDS.encode()] and process and process.is_alive:
            found.add(pid)
    return found


@pytest.fixture
def orphaned(tmp_path: Path) -> Iterator[list[str]]:
    """Sessions whose daemon was killed, with nobody watching."""
    commands = [
        f"sleep {SECONDS}",
        f"nohup sleep {SECONDS} & sleep {SECONDS}",
        f"setsid sleep {SECONDS} & sleep {SECONDS}",
        f"trap '' HUP; sleep {SECONDS}; sleep {SECONDS}",
    ]
    daemon = subprocess.Popen(
        [sys.executable, "-c", DAEMON, str(tmp_path / "ptys"), *commands], stdout=subprocess.PIPE, text=True
    )
    assert daemon.stdout
    ids = daemon.stdout.readline().split()
    daemon.kill()
    daemon.wait()
    daemon.stdout.close()
    yield ids
    left = record.read(tmp_path / "ptys" / "record.json")
    if left is not None and left.daemon == daemon.pid:
        # Also the shells: one whose sleep is killed begins the next.
        while found := record.strays(left):
            for stray in found:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(stray.pid, signal.SIGKILL)


@pytest.mark.anyio
async def test_the_next_start_ends_what_is_left_and_gives_each_session_its_end(
    orphaned: list[str], make_pool: Callable[..., PtyPool], events: list[object]
) -> None:
    deadline = time.monotonic() + 5
    while len(sleepers()) > 3:  # the hang-up ends the foreground jobs
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
    assert len(sleepers()) >= 2
    foreign = subprocess.Popen(  # noqa: ASYNC220 - instant
        ["sleep", SECONDS], env={**os.environ, processes.MARKER: "another/one"}
    )
    try:
        async with make_pool():
            assert sleepers() == {foreign.pid}
    finally:
        foreign.kill()
        foreign.wait()
    ended = {event.pty_id: event.event for event in events}  # type: ignore[attr-defined]
    assert list(ended) == orphaned
    assert set(ended.values()) == {"orphan_ended", "lost"}


@pytest.mark.parametrize(
    "change",
    [{"boot": "another"}, {"namespace": "pid:[1]"}, {"uid": 12345}, {"daemon": 1, "daemon_start": -1}],
    ids=str,
)
def test_nothing_is_touched_when_the_record_is_of_another_world(
    orphaned: list[str], tmp_path: Path, change: dict[str, object]
) -> None:
    left = record.read(tmp_path / "ptys" / "record.json")
    assert left is not None
    assert record.strays(left)
    if "daemon" in change:  # that daemon lives
        own = processes.look(os.getpid())
        assert own is not None
        change = {"daemon": own.pid, "daemon_start": own.start}
    assert record.strays(msgspec.structs.replace(left, **change)) == []


def test_a_reused_pid_is_not_mistaken_for_a_leader() -> None:
    child = subprocess.Popen(["sleep", "4711"], start_new_session=True)
    try:
        session = record.RecordedSession(pid=child.pid, start=-1, command="x", at_us=0)
        assert strays_of(session) == []
        process = processes.look(child.pid)
        assert process is not None
        assert [stray.pid for stray in strays_of(msgspec.structs.replace(session, start=process.start))] == [child.pid]
    finally:
        child.kill()
        child.wait()


def test_no_recorded_session_stands_for_the_processes_without_one() -> None:
    assert strays_of(record.RecordedSession(pid=0, start=0, command="x", at_us=0)) == []


def strays_of(session: record.RecordedSession) -> list[record.Stray]:
    dead = 2**22 + 1
    return record.strays(msgspec.structs.replace(record.describe("none", {"a": session}), daemon=dead))


def test_a_signal_never_hits_a_process_that_started_later() -> None:
    child = subprocess.Popen(["sleep", "4711"])
    try:
        process = processes.look(child.pid)
        assert process is not None
        assert not processes.send(process._replace(start=process.start - 1), 9)
        assert child.poll() is None
        assert processes.send(process, 9)
        assert child.wait() == -9
        assert not processes.send(process, 9)
    finally:
        child.kill()
        child.wait()


def test_a_damaged_record_is_no_record(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    assert record.read(path) is None
    for damaged in (b"", b"{half", b"[]\n"):
        path.write_bytes(damaged)
        assert record.read(path) is None


def test_the_record_is_private_and_replaced_in_one_step(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    file = record.RecordFile(path, "i")
    file.begin()
    assert path.stat().st_mode & 0o777 == 0o600
    assert record.read(path) == record.describe("i", {})
    assert list(tmp_path.iterdir()) == [path]
    file.close()


def test_the_record_names_at_each_moment_what_is_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "CHANGES", 5)
    path, sessions = tmp_path / "record.json", dict[str, record.RecordedSession]()
    file = record.RecordFile(path, "i")
    file.begin()
    for number in range(20):
        session = record.RecordedSession(pid=number + 2, start=1, command="x\ny", at_us=number)
        sessions[str(number)] = session
        file.opened(str(number), session)
        assert record.read(path) == record.describe("i", sessions)
        if number % 3:
            del sessions[str(number - 1)]
            file.closed(str(number - 1))
            assert record.read(path) == record.describe("i", sessions)
        assert len(path.read_bytes().splitlines()) <= 1 + record.CHANGES
    file.close()
    with path.open("ab") as torn:
        torn.write(b'{"pty_id":"20","sess')
    assert record.read(path) == record.describe("i", sessions)


def test_the_name_of_a_process_may_contain_anything() -> None:
    child = subprocess.Popen(["bash", "-c", "printf ') (x) 1 2' >/proc/$$/comm; echo; read"], stdin=-1, stdout=-1)
    try:
        assert child.stdout
        child.stdout.readline()
        process = processes.look(child.pid)
        assert process is not None
        assert (process.parent, process.is_alive) == (os.getpid(), True)
    finally:
        child.communicate()
