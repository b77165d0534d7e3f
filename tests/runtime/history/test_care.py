"""Damage, a full disk and garbage: what goes on, what is told, and the way back."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tundra_nb.errors import StoreDamaged, StoreUnavailable, UsageError, from_wire
from tundra_nb.runtime.history.query import FrameQuery
from tundra_nb.runtime.history.spool import segments
from tundra_nb.types import Note

from .test_service import ids, note, opened, rows, until

pytestmark = [pytest.mark.anyio, pytest.mark.part("doltlite")]


def damage(path: Path) -> None:
    """Flip 64 bytes in the middle."""
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        bytes_there = file.read(64)
        file.seek(-64, os.SEEK_CUR)
        file.write(bytes(byte ^ 0xFF for byte in bytes_there))


async def test_a_damaged_history_is_told_and_restore_brings_backup_and_spool_back(tmp_path: Path) -> None:
    async with opened(tmp_path) as history:
        history.append(*(note(n) for n in range(500)))
        await history.call("backup", target=str(tmp_path / "backup.db"))
        history.append(note(500))
        assert await history.settled(5)
    damage(tmp_path / "history.db")
    async with opened(tmp_path) as history:
        history.append(note(501))
        with pytest.raises(StoreDamaged) as caught:
            await ids(history)
        assert "tundra restore" in caught.value.hint
        await until(lambda: "history.db" in (history.stats().error or ""))
        history.append(note(502))
        with pytest.raises(StoreDamaged):
            await history.call("commit", message="m", author="a <a@b>")
        (tmp_path / "notes.log").write_text("words\n" * 500)
        with pytest.raises(UsageError, match=r"notes\.log is damaged, or not a history"):
            await history.call("restore", source=str(tmp_path / "notes.log"))
        with pytest.raises(StoreDamaged, match=r"history\.db"):
            await history.call("push", remote=str(tmp_path / "backup.db"))
        with pytest.raises(Exception, match="no-such-backup"):
            await history.call("restore", source=str(tmp_path / "no-such-backup.db"))
        await history.call("restore", source=str(tmp_path / "backup.db"))
        assert await history.settled(5)
        assert await ids(history) == list(range(503))
        assert history.stats().error is None
        assert history.stats().restarts == 0
        await until(lambda: not history.stats().is_behind)
        history.append(note(503))
        assert (await ids(history))[-1] == 503
        kept = tmp_path / "history.db.before-restore"
        first = kept.read_bytes()
        assert await history.call("restore", source=str(tmp_path / "backup.db")) == f"{kept}-2"
        assert await history.call("restore", source=str(tmp_path / "backup.db")) == f"{kept}-3"
        assert kept.read_bytes() == first, "a kept file is never overwritten"
        assert not [name for name in os.listdir(tmp_path) if "restoring" in name]


@pytest.mark.parametrize("how", ["cut", "overwritten"])
async def test_a_history_damaged_while_it_is_open_is_not_shown_as_an_empty_one(tmp_path: Path, how: str) -> None:
    path = tmp_path / "history.db"
    async with opened(tmp_path) as history:
        history.append(*(note(n) for n in range(500)))
        await history.call("commit", message="m", author="a <a@b>")
        if how == "cut":
            os.truncate(path, path.stat().st_size // 2)
        else:
            with path.open("r+b") as file:
                file.seek(4096)
                file.write(random.Random(1).randbytes(path.stat().st_size - 4096))
        for query in (FrameQuery(table="note"), FrameQuery(table="operation"), FrameQuery(table="note", at="WORKING")):
            with pytest.raises(StoreDamaged):
                await rows(history.query(query))
            with pytest.raises(StoreDamaged):
                await history.rows(query)
        with pytest.raises(StoreDamaged):
            await rows(history.sql("SELECT count(*) FROM note"))


@pytest.mark.parametrize("left", [0, 5000, "all but a byte"])
async def test_a_history_that_was_cut_while_it_was_closed_is_damaged_and_kept(tmp_path: Path, left: int | str) -> None:
    path = tmp_path / "history.db"
    async with opened(tmp_path) as history:
        history.append(*(note(n) for n in range(500)))
        await history.call("backup", target=str(tmp_path / "backup.db"))
    async with opened(tmp_path) as history:
        assert await history.settled(5)
    size = path.stat().st_size
    os.truncate(path, now := size - 1 if isinstance(left, str) else left)
    cut = path.read_bytes()
    told = f"it was cut from {size:,} to {now:,} bytes"
    with pytest.raises(StoreDamaged, match=told):
        seen(path)
    for n in (500, 501):  # no daemon takes it for whole
        async with opened(tmp_path) as history:
            history.append(note(n))
            with pytest.raises(StoreDamaged, match=told):
                await ids(history)
            with pytest.raises(StoreDamaged, match=told):
                await history.call("commit", message="m", author="a <a@b>")
        assert path.read_bytes() == cut
    async with opened(tmp_path) as history:
        await history.call("restore", source=str(tmp_path / "backup.db"))
        assert await history.settled(5)
        assert await ids(history) == list(range(502))
        assert (tmp_path / "history.db.before-restore").read_bytes() == cut
    assert seen(path)["is_whole"]


def seen(path: Path) -> dict[str, Any]:
    """What is told of a history while no daemon has it."""
    command = [sys.executable, "-m", "tundra_nb.runtime.history.look", str(path)]
    told: dict[str, Any] = json.loads(subprocess.run(command, capture_output=True, check=True, timeout=30).stdout)
    if "error" in told:
        raise from_wire(told["error"])
    return told


async def test_an_older_copy_in_the_place_of_a_history_is_not_told_to_be_damaged(tmp_path: Path) -> None:
    """Whatever number it has as a file."""
    path = tmp_path / "history.db"
    copies: list[bytes] = []
    async with opened(tmp_path) as history:
        for n in range(3):
            history.append(*(note(m) for m in range(100 * n, 100 * n + 100)))
            assert await history.settled(5)
            copies.append(path.read_bytes())
            await history.call(
                "gc" if n == 1 else "commit", **({} if n == 1 else {"message": "m", "author": "a <a@b>"})
            )
            copies.append(path.read_bytes())
    copies.append(path.read_bytes())
    note_of_last = (tmp_path / "history.db.length").read_bytes()
    for copy in copies:
        path.write_bytes(copy)
        (tmp_path / "history.db.length").write_bytes(note_of_last)
        assert seen(path)["is_whole"]
    path.write_bytes(copies[0])
    async with opened(tmp_path) as history:
        assert await ids(history) == list(range(300))


async def test_the_length_is_noted_while_the_history_grows_and_where_it_cannot_be_all_goes_on(
    tmp_path: Path,
) -> None:
    noted = tmp_path / "history.db.length"
    async with opened(tmp_path) as history:
        history.append(note(0))
        assert await ids(history) == [0]
        before = noted.read_bytes()
        body = random.Random(1).randbytes(50_000).hex()
        for n in range(1, 121):
            history.append(Note(note_id=n, at=n, author="a", subject="s", body=body))
        assert await history.settled(20)
        await until(lambda: noted.read_bytes() != before)
        assert noted.stat().st_mode & 0o777 == 0o600
        noted.unlink()
        noted.mkdir()
    async with opened(tmp_path) as history:
        assert len(await ids(history)) == 121


async def test_a_history_that_gets_shorter_by_gc_and_restore_is_not_told_to_be_damaged(tmp_path: Path) -> None:
    async with opened(tmp_path) as history:
        for first in range(0, 2000, 200):
            history.append(*(note(n) for n in range(first, first + 200)))
            assert await history.settled(5)
        size = (tmp_path / "history.db").stat().st_size
        for _ in range(6):  # the number of a file may come back
            await history.call("gc")
        assert (tmp_path / "history.db").stat().st_size < size
        assert len(await ids(history)) == 2000
        history.append(note(2000))
        await history.call("backup", target=str(tmp_path / "backup.db"))
        await history.call("restore", source=str(tmp_path / "backup.db"))
        history.append(note(2001))
        assert await ids(history) == list(range(2002))
        assert history.stats().error is None


async def test_a_damaged_history_that_is_moved_away_is_begun_anew_without_a_restart(tmp_path: Path) -> None:
    async with opened(tmp_path) as history:
        history.append(note(1))
    damage(tmp_path / "history.db")
    async with opened(tmp_path) as history:
        history.append(note(2))
        with pytest.raises(StoreDamaged):
            await ids(history)
        (tmp_path / "history.db").rename(tmp_path / "damaged.db")
        async with asyncio.timeout(15):
            while True:
                with contextlib.suppress(StoreDamaged):  # until the writer has tried again
                    assert 2 in await ids(history)
                    break
                await asyncio.sleep(0.05)
        assert history.stats().error is None


async def test_a_pipe_in_place_of_the_history_is_told_and_holds_nobody_up(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    async with opened(tmp_path) as history:
        history.append(note(1))
        assert await ids(history) == [1]
        path.rename(tmp_path / "moved.db")
        os.mkfifo(path)
        history.append(note(2))
        async with asyncio.timeout(30):
            for _ in range(3):  # the first may still be answered of the file that was there
                with contextlib.suppress(StoreUnavailable):
                    await rows(history.query(FrameQuery(table="note"), wait=0.1))
            await until(lambda: "is a pipe" in (history.stats().error or ""))
            with pytest.raises(StoreUnavailable, match="is a pipe"):
                await ids(history)
            path.unlink()
            await until(lambda: history.stats().error is None)
            assert await ids(history) == [1, 2]
        assert history.stats().restarts == 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)], check=False, capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"no small disk can be mounted: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Leave not a byte."""
    filler = folder / "filler"
    with filler.open("ab", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 4096)
    return filler


def long_note(n: int) -> Note:
    return Note(note_id=n, at=n, author="a", subject="s", body=f"{n} " * 2000)


async def test_a_full_disk_refuses_events_by_a_typed_error_and_goes_on_when_there_is_space(small_disk: Path) -> None:
    async with opened(small_disk) as history:
        history.append(note(0))
        assert await ids(history) == [0]
        filler = fill(small_disk)
        count = 1
        with contextlib.suppress(StoreUnavailable):
            while count < 1000:  # what is left of the last page
                history.append(long_note(count))
                count += 1
        with pytest.raises(StoreUnavailable) as caught:
            history.append(long_note(count))
        assert caught.value.reason == "disk_full"
        filler.unlink()
        history.append(long_note(count))
        assert await history.settled(10)
        assert await ids(history) == list(range(count + 1))
        assert history.stats().restarts == 0


async def test_a_disk_that_fills_under_the_database_keeps_events_waiting(small_disk: Path) -> None:
    async with opened(small_disk) as history:
        history.append(*(note(n) for n in range(10)))
        assert await ids(history) == list(range(10))
        history.append(*(long_note(n) for n in range(10, 40)))  # in the spool; the database has no room for them
        filler = fill(small_disk)
        await until(lambda: history.stats().error is not None or not history.stats().is_behind)
        if history.stats().error is not None:
            assert "no space left" in (history.stats().error or "")
            assert (await ids(history))[:10] == list(range(10))  # reading goes on
            with pytest.raises(StoreUnavailable, match="no space left"):
                await history.versions.commit("all of it", "a <a@example.org>")
        filler.unlink()
        await until(lambda: history.stats().error is None)
        assert await history.settled(10)
        assert await ids(history) == list(range(40))
        assert segments(small_disk / "spool")


COLLECTS = """
import sys, threading
from pathlib import Path
from tundra_nb.runtime.history import loading
loading.load()
from tundra_nb.runtime.history import arrow, contract, doltlite, protocol, query, writer
from tundra_nb.runtime.history.spool import Spool
from tundra_nb.types import Note
folder = Path(sys.argv[1])
doltlite.GC_FROM_BYTES, doltlite.GC_MORE_BYTES = 1 << 20, 1 << 20
runs = []
plain = doltlite.DoltliteStore.gc
def counted(self):
    before = self.size()
    plain(self)
    runs.append((before, self.size()))
doltlite.DoltliteStore.gc = counted
spool = Spool(folder / "spool")
spool.open()
config = protocol.Config(engine="doltlite", spool=str(folder / "spool"), store=str(folder / "history.db"), owner="o",
                         node=1, commit_rows=10_000, commit_seconds=60)
store = doltlite.DoltliteStore(folder / "history.db")
thread = writer.Writer(store, config, lambda _: None, print)
thread.start()
thread.wait_open(10)
count = 0
while len(runs) < 3 and count < 20_000:
    for _ in range(20):
        spool.append(Note(note_id=count, at=count, author="a", subject="s", body="b"))
        count += 1
    assert thread.wait_passed(spool.end, 10)
frame = store.frame(query.FrameQuery(table="note"), contract.Stop())
found = [row["note_id"] for row in arrow.rows(frame.batches)]
assert found == list(range(count)), (len(found), count)
assert store.check() == []
thread.stop(); thread.join()
assert len(runs) >= 3, (runs, count)
assert all(after < before for before, after in runs), runs
"""


def test_garbage_is_collected_on_the_size_trigger_under_writes_and_no_row_is_lost(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", COLLECTS, str(tmp_path)], check=False, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr


REPAIRED = """
import logging, sys
from pathlib import Path
from tundra_nb.runtime.history import loading
loading.load()
from tundra_nb.errors import StoreUnavailable
from tundra_nb.runtime.history import doltlite, protocol, writer
from tundra_nb.runtime.history.spool import Spool
folder = Path(sys.argv[1])
class Absent(doltlite.DoltliteStore):
    tries = 0
    def open(self, owner, node):
        self.tries += 1
        if self.tries == 1:
            raise StoreUnavailable(problem="there is no database")
        return super().open(owner, node)
class Maker(logging.Handler):
    def emit(self, record):  # somebody makes it while the writer tells that it is not there
        thread.retry()
logging.getLogger("tundra.history").addHandler(Maker())
Spool(folder / "spool").open()
config = protocol.Config(engine="doltlite", spool=str(folder / "spool"), store=str(folder / "history.db"), owner="o",
                         node=1, commit_rows=10_000, commit_seconds=60)
store = Absent(folder / "history.db")
thread = writer.Writer(store, config, lambda _: None, print)
thread.start()
thread.wait_open(10)
thread.stop(); thread.join()
print(store.tries)
"""


@pytest.mark.part("doltlite")
def test_a_database_made_while_the_writer_finds_none_is_open_for_whoever_made_it(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", REPAIRED, str(tmp_path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.split() == ["2"], done.stderr
