"""The daemon's face of the history, with the real worker and the embedded engine."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import resource
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tundra_nb.errors import ConfigError, StoreDamaged, StoreUnavailable, TundraError
from tundra_nb.paths import Paths
from tundra_nb.runtime.caller import spent_in
from tundra_nb.runtime.clock import Ids, SystemClock
from tundra_nb.runtime.history import service
from tundra_nb.runtime.history.line import ArrowStream
from tundra_nb.runtime.history.query import FrameQuery
from tundra_nb.runtime.history.service import History
from tundra_nb.settings import StoreSettings
from tundra_nb.types import Note

pytestmark = [pytest.mark.anyio, pytest.mark.part("doltlite")]


def make(folder: Path, **changes: Any) -> History:
    clock = SystemClock()
    paths = Paths(data_dir=folder, socket=folder / "s", connection_file=folder / "c")
    return History(paths, StoreSettings(**changes), Ids(clock), clock)


@contextlib.asynccontextmanager
async def opened(folder: Path, **changes: Any) -> AsyncIterator[History]:
    history = make(folder, **changes)
    await history.open()
    try:
        yield history
    finally:
        await history.aclose()


def note(n: int) -> Note:
    return Note(note_id=n, at=n, author="a", subject="s", body="b")


async def rows(stream: ArrowStream) -> list[dict[str, Any]]:
    return list(pa.ipc.open_stream(b"".join([piece async for piece in stream])).read_all().to_pylist())


async def ids(history: History) -> list[int]:
    return [row["note_id"] for row in await rows(history.query(FrameQuery(table="note")))]


async def until(condition: Any, seconds: float = 10) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - what it waits for sends no event
            await asyncio.sleep(0.01)


async def test_you_read_what_you_wrote(tmp_path: Path) -> None:
    async with opened(tmp_path) as history:
        for n in range(20):
            history.append(note(n))
            assert await ids(history) == list(range(n + 1))


async def test_everything_is_there_after_a_restart(tmp_path: Path) -> None:
    async with opened(tmp_path) as history:
        history.append(note(1))
    async with opened(tmp_path) as history:
        history.append(note(2))
        assert await ids(history) == [1, 2]
        log = await history.call("log")
        assert log[0]["message"] == "note 1"


async def test_a_worker_killed_at_random_moments_stores_every_event_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "RESTART_SECONDS", (0.0,))
    async with opened(tmp_path) as history:
        count, kills = 0, 0
        await until(lambda: history.stats().state == "ready")
        while kills < 5:
            for _ in range(random.randrange(50, 400)):
                history.append(note(count))
                count += 1
            await asyncio.sleep(random.random() * 0.02)
            pid = history.stats().worker_pid
            if pid is not None and history.stats().state == "ready":
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    kills += 1
            await until(lambda pid=pid: history.stats().worker_pid not in (None, pid), 15)
            await until(lambda: history.stats().state == "ready", 15)
        assert await history.settled(5)
        assert await ids(history) == list(range(count))
        assert history.stats().restarts >= 5


async def test_a_read_does_not_notice_that_the_worker_died(tmp_path: Path) -> None:
    async with opened(tmp_path) as history:
        history.append(note(1))
        assert await ids(history) == [1]
        os.kill(history.stats().worker_pid or 0, signal.SIGKILL)
        assert await ids(history) == [1]


async def test_a_read_outlives_the_worker_also_when_its_end_is_noticed_late(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listen = History._listen

    async def late(self: History, reader: asyncio.StreamReader) -> TundraError | None:
        fatal = await listen(self, reader)
        await asyncio.sleep(0.5)
        return fatal

    monkeypatch.setattr(History, "_listen", late)
    async with opened(tmp_path) as history:
        history.append(note(1))
        assert await ids(history) == [1]
        os.kill(history.stats().worker_pid or 0, signal.SIGKILL)
        assert await ids(history) == [1]


async def test_a_killed_daemon_leaves_interrupted_rows_and_no_worker(tmp_path: Path) -> None:
    code = f"""
import asyncio, os, signal
from pathlib import Path
from tests_history_helper import make
from tundra_nb.types import AttemptOpened, Operation, OperationOpened
async def main():
    history = make(Path({str(tmp_path)!r}))
    await history.open()
    history.append(OperationOpened(operation_id=1, at=5, caller="gateway", user_name="bot"))
    history.append(AttemptOpened(attempt_id=2, operation_id=1, seq=1, at=6, profile="p", most_usd=0.5))
    history.append(OperationOpened(operation_id=3, at=7), Operation(operation_id=3, at=7, outcome="ok"))
    await history.settled(5)
    print(history.stats().worker_pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""
    helper = tmp_path / "path"
    helper.mkdir()
    (helper / "tests_history_helper.py").write_text(Path(__file__).read_text())  # noqa: ASYNC240 - nothing else runs meanwhile
    done = subprocess.run(  # noqa: ASYNC221 - nothing else runs meanwhile
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(helper)},
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    await until(lambda: not _is_alive(int(done.stdout)))
    async with opened(tmp_path) as history:
        calls = await rows(history.query(FrameQuery(table="calls")))
        told = [(row["operation_id"], row["outcome"], row["attempts"], row["caller"]) for row in calls]
        assert told == [(1, "interrupted", 1, "gateway"), (3, "ok", 0, None)]
        (attempt,) = await rows(history.query(FrameQuery(table="attempts")))
        assert (attempt["attempt_id"], attempt["outcome"], attempt["profile"]) == (2, "interrupted", "p")
        assert await spent_in(history, "bot", 0) == 0.5, "what a budget had reserved for it stays spent"


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return not Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].startswith(" Z")


async def test_passed_segments_are_deleted(tmp_path: Path) -> None:
    async with opened(tmp_path) as history:
        history._spool._segment_bytes = 2_000
        for n in range(300):
            history.append(note(n))
        assert await ids(history) == list(range(300))
        history.append(note(300))
        assert await history.settled(3)
        await until(lambda: len(list((tmp_path / "spool").glob("*.spool"))) <= 2)


async def test_commits_are_made_on_cadence(tmp_path: Path) -> None:
    async with opened(tmp_path, commit_rows=10) as history:
        history.append(*(note(n) for n in range(25)))
        await history.settled(3)
        await until(lambda: history.stats().commits == 1)
        history.append(note(99))
        await history.settled(3)
        assert [t["uncommitted"] for t in await history.call("tables") if t["table"] == "note"] == [True]


async def test_a_query_that_runs_too_long_is_broken_off_when_its_reader_leaves(tmp_path: Path) -> None:
    endless = "with recursive n(i) as (select 1 union all select i + 1 from n) select max(i) from n"
    async with opened(tmp_path) as history:
        task = asyncio.create_task(rows(history.sql(endless)))
        await until(lambda: history.stats().state == "ready")
        await asyncio.sleep(0)
        for _ in range(12):  # more than there are reader threads: none of them stays occupied
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.1):
                    await history.call("sql", text=endless, at=None, limit=None)
        task.cancel()
        history.append(note(1))
        async with asyncio.timeout(5):
            assert await ids(history) == [1]


async def test_a_slow_reader_holds_the_worker_back_and_others_go_on(tmp_path: Path) -> None:
    async with opened(tmp_path) as history:
        history.append(*(Note(note_id=n, at=n, author="a", subject="s", body="x" * 500) for n in range(20_000)))
        stream = history.query(FrameQuery(table="note"))
        first = await anext(stream)
        assert len(first) <= 256 * 1024
        assert len(await rows(history.query(FrameQuery(table="note", limit=5)))) == 5
        await stream.aclose()
        with pytest.raises(StopAsyncIteration):
            await anext(stream)


async def test_slow_readers_do_not_keep_small_queries_waiting(tmp_path: Path) -> None:
    async with opened(tmp_path) as history:
        history.append(*(Note(note_id=n, at=n, author="a", subject="s", body="x" * 500) for n in range(20_000)))
        assert await history.settled(10)
        slow = [history.query(FrameQuery(table="note")) for _ in range(8)]
        for stream in slow:
            await anext(stream)
        async with asyncio.timeout(2):
            assert len(await rows(history.query(FrameQuery(table="note", limit=5)))) == 5
        for stream in slow:
            await stream.aclose()


async def test_an_engine_that_cannot_load_is_a_config_error_with_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "path"
    broken.mkdir()
    (broken / "doltlite.py").write_text("raise ImportError('sqlite3 is linked statically')")
    monkeypatch.setenv("PYTHONPATH", str(broken))
    async with opened(tmp_path) as history:
        history.append(note(1))
        with pytest.raises(ConfigError, match="linked statically") as caught:
            await ids(history)
        assert "dolt" in caught.value.hint
        history.append(note(2))


async def test_a_worker_that_dies_on_each_start_is_a_typed_error_with_its_last_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "MODULE", "tundra_nb.no_such_worker")
    async with opened(tmp_path) as history:
        with pytest.raises(StoreUnavailable, match="no_such_worker"):
            await ids(history)
        await until(lambda: history.stats().state == "failing")
        history.append(note(1))
        monkeypatch.undo()
        await until(lambda: history.stats().state == "ready", 15)
        assert await ids(history) == [1]


@pytest.mark.parametrize("anyio_backend", [("asyncio", {"use_uvloop": one}) for one in (False, True)], ids=["", "uv"])
async def test_a_worker_for_which_no_descriptor_is_left_names_the_limit(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with opened(tmp_path) as history:
        history.append(note(1))
        assert await ids(history) == [1]
        worker = history.stats().worker_pid
        assert worker is not None
        there = set(map(int, os.listdir("/proc/self/fd")))
        fillers = [os.dup(0) for _ in range(max(there) + 2 - len(there))]
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(there) + 1, hard))
        try:
            os.kill(worker, signal.SIGKILL)
            await until(lambda: "RLIMIT_NOFILE" in (history.stats().error or ""))
            assert history.problem is not None
            assert "ulimit -n" in history.problem.hint
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for filler in fillers:
                os.close(filler)
        await until(lambda: history.stats().state == "ready", 15)
        assert await ids(history) == [1]


@pytest.mark.parametrize("content", [b"garbage" * 1000, "sqlite"])
async def test_a_file_that_is_no_history_is_a_typed_error(tmp_path: Path, content: bytes | str) -> None:
    if isinstance(content, bytes):
        (tmp_path / "history.db").write_bytes(content)
    else:
        with contextlib.closing(sqlite3.connect(tmp_path / "history.db")) as db:
            db.execute("create table other (a int)")
            db.commit()
    async with opened(tmp_path) as history:
        history.append(note(1))
        with pytest.raises(StoreDamaged) as caught:
            await ids(history)
        assert "history.db" in caught.value.message


async def test_no_server_is_a_typed_error_and_events_wait(tmp_path: Path) -> None:
    async with opened(tmp_path, engine="dolt", port=1) as history:
        history.append(note(1))
        with pytest.raises(StoreUnavailable, match="no server answers") as caught:
            await ids(history)
        assert "3307" not in caught.value.message
        assert history.stats().is_behind
        with pytest.raises(TundraError):
            await history.call("commit", message="m", author="a <a@b>")


async def test_the_worker_inherits_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "canary-7f3a")
    async with opened(tmp_path) as history:
        assert await ids(history) == []
        pid = history.stats().worker_pid
        for name in ("environ", "cmdline"):
            assert b"canary-7f3a" not in Path(f"/proc/{pid}/{name}").read_bytes()  # noqa: ASYNC240 - a moment


async def test_closing_twice_and_before_opening_is_harmless(tmp_path: Path) -> None:
    history = make(tmp_path)
    await history.aclose()
    await history.open()
    await history.aclose()
    await history.aclose()
    assert history.stats().worker_pid is None
