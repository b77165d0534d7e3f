"""Damaged files of a Dolt server: a typed error, and the way back to every event."""

from __future__ import annotations

import contextlib
import random
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tundra_nb.errors import StoreDamaged, StoreUnavailable
from tundra_nb.local import dolt_server
from tundra_nb.paths import Paths, find
from tundra_nb.runtime.clock import Ids, SystemClock
from tundra_nb.runtime.history.service import History
from tundra_nb.settings import StoreSettings, store_login
from tundra_nb.types import Note

from .server import DoltServer, free_port
from .test_server_problems import DATABASE, ids, note, opened, until

pytestmark = [pytest.mark.anyio, pytest.mark.part("dolt")]

TEXTS = random.Random(7)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[DoltServer]:
    made = DoltServer(tmp_path / "server")
    yield made
    made.stop(signal.SIGKILL)


def long_note(n: int) -> Note:
    return Note(note_id=n, at=n, author="a", subject="s", body="".join(TEXTS.choices("abcdefgh ", k=300)))


def flip(file: Path, count: int = 64) -> None:
    """Turn over bytes in the middle."""
    data = bytearray(file.read_bytes())
    middle = len(data) // 2
    data[middle : middle + count] = bytes(byte ^ 0xFF for byte in data[middle : middle + count])
    file.write_bytes(data)


async def with_backup(folder: Path, server: DoltServer) -> str:
    """500 notes, a backup of them, and 100 notes that only the history and its spool have; all collected into files."""
    server.start()
    (folder / "backup").mkdir()
    target = f"file://{folder}/backup"
    async with opened(folder, server.port) as history:
        await history.call("create")
        history.append(*map(long_note, range(500)))
        assert await history.settled(10)
        await history.call("backup", target=target)
        history.append(*map(note, range(500, 600)))
        assert await history.settled(10)
        await history.call("commit", message="all", author="Ada <a@b>")
        await history.call("gc")
    server.stop()
    return target


def oldest(server: DoltServer) -> Path:
    """The file that holds what was committed before the gc."""
    files = (server.data / DATABASE / ".dolt" / "noms" / "oldgen").glob("*.darc")
    return max(files, key=lambda file: file.stat().st_size)


async def test_a_damaged_chunk_is_found_by_the_check_and_restore_brings_the_backup_and_what_came_since_back(
    tmp_path: Path, server: DoltServer
) -> None:
    """The server starts and answers what the damage does not touch; nobody is given wrong rows.

    What was stored after the backup and before the damage was noticed is gone from the spool, too.
    """
    target = await with_backup(tmp_path, server)
    flip(oldest(server), 2000)
    server.start()
    async with opened(tmp_path, server.port) as history:
        problems = await history.call("check")
        assert problems
        assert "are damaged" in problems[0]
        with pytest.raises(StoreDamaged) as caught:
            await ids(history)
        assert f"database '{DATABASE}' at 127.0.0.1:{server.port}" in caught.value.message
        assert "tundra restore" in caught.value.hint
        history.append(note(600))
        await history.call("restore", source=target)
        assert await history.settled(10)
        assert await ids(history) == [*range(500), 600]
        assert await history.call("check") == []
        assert history.stats().restarts == 0


async def test_a_lost_manifest_is_told_and_restore_brings_every_event_back(tmp_path: Path, server: DoltServer) -> None:
    target = await with_backup(tmp_path, server)
    (server.data / DATABASE / ".dolt" / "noms" / "manifest").unlink()
    server.start()
    async with opened(tmp_path, server.port) as history:
        history.append(note(600))
        with pytest.raises(StoreDamaged) as caught:
            await ids(history)
        assert "tundra restore" in caught.value.hint
        await until(lambda: "damaged" in (history.stats().error or ""))
        with pytest.raises(Exception, match="no-such-backup"):
            await history.call("restore", source=f"file://{tmp_path}/no-such-backup")
        await history.call("restore", source=target)
        assert await history.settled(10)
        assert await ids(history) == list(range(601))
        assert history.stats().error is None
        assert history.stats().restarts == 0


@pytest.mark.parametrize("what", ["manifest", "journal", "chunks"])
async def test_a_server_of_ours_that_does_not_start_for_damage_says_so_and_the_way_it_names_leads_back(
    tmp_path: Path, what: str
) -> None:
    """Move the database's folder away, start, restore: every event is there, those after the backup from the spool."""
    paths = find(tmp_path / "data")
    store = StoreSettings(engine="dolt", port=free_port())
    folder = paths.dolt / "data" / store.database
    try:
        dolt_server.start(paths, store)
        async with managed(paths, store) as history:
            history.append(*map(long_note, range(300)))
            assert await history.settled(10)
            await history.call("backup", target=f"file://{tmp_path}/backup")
            history.append(note(300))
            assert await history.settled(10)
            await history.call("commit", message="all", author="Ada <a@b>")
            if what == "chunks":
                await history.call("gc")
        dolt_server.stop(paths)
        noms = folder / ".dolt" / "noms"
        if what == "manifest":
            flip(noms / "manifest")
        elif what == "journal":
            flip(noms / ("v" * 32))
        else:
            for file in noms.rglob("*.darc"):
                file.unlink()
        with pytest.raises(StoreDamaged) as caught:
            dolt_server.start(paths, store)
        assert str(folder) in caught.value.hint
        assert "tundra restore" in caught.value.hint
        async with managed(paths, store) as history:
            history.append(note(301))
            with pytest.raises(StoreUnavailable):
                await ids(history)
            folder.rename(tmp_path / "damaged")
            dolt_server.start(paths, store)
            await history.call("restore", source=f"file://{tmp_path}/backup")
            assert await history.settled(10)
            assert await ids(history) == list(range(302))
            assert history.stats().restarts == 0
    finally:
        with contextlib.suppress(StoreUnavailable):
            dolt_server.stop(paths)


@contextlib.asynccontextmanager
async def managed(paths: Paths, store: StoreSettings) -> AsyncIterator[History]:
    """A history with the logins of the server that we manage."""
    login = store_login.load(paths.dolt)
    assert login is not None
    clock = SystemClock()
    reader = (login.reader, login.reader_password)
    history = History(paths, store, Ids(clock), clock, password=login.password, reader=reader)
    await history.open()
    try:
        yield history
    finally:
        await history.aclose()
