"""Each way in which a Dolt server cannot be used: one typed error with its remedy, and no event is lost or doubled.

Every case is provoked on a real server. Events that are appended meanwhile wait in the spool, the worker lives on,
and they arrive once when the cause is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import signal
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pymysql
import pytest

from tundra_nb.errors import QueryRefused, StoreBusy, StoreUnavailable
from tundra_nb.paths import Paths
from tundra_nb.runtime.clock import Ids, SystemClock
from tundra_nb.runtime.history.endpoint import DoltAddress
from tundra_nb.runtime.history.protocol import Config
from tundra_nb.runtime.history.query import FrameQuery
from tundra_nb.runtime.history.service import History
from tundra_nb.settings import StoreSettings
from tundra_nb.types import Note

from .conftest import rows_of
from .server import READ_ONLY, DoltServer, standby

pytestmark = [pytest.mark.anyio, pytest.mark.part("dolt")]

DATABASE = "kept"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[DoltServer]:
    made = DoltServer(tmp_path / "server")
    yield made
    made.stop(signal.SIGKILL)


@contextlib.asynccontextmanager
async def opened(
    folder: Path, port: int, *, user: str = "root", password: str = "", reader: tuple[str, str] = ("", "")
) -> AsyncIterator[History]:
    clock = SystemClock()
    paths = Paths(data_dir=folder, socket=folder / "s", connection_file=folder / "c")
    settings = StoreSettings(engine="dolt", port=port, database=DATABASE, user=user)
    history = History(paths, settings, Ids(clock), clock, password=password, reader=reader)
    await history.open()
    try:
        yield history
    finally:
        await history.aclose()


def note(n: int) -> Note:
    return Note(note_id=n, at=n, author="a", subject="s", body="b")


async def ids(history: History) -> list[int]:
    return [row["note_id"] for row in await rows_of(history.query(FrameQuery(table="note")))]


async def until(condition: Callable[[], Any], seconds: float = 15) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - of another process
            await asyncio.sleep(0.02)


async def refused(history: History, first: int) -> StoreUnavailable:
    """Append two notes; what a reader is told, which is also what `status` says."""
    history.append(note(first))
    with pytest.raises(StoreUnavailable) as caught:
        await ids(history)
    history.append(note(first + 1))
    await until(lambda: history.stats().error is not None)
    assert history.stats().error == caught.value.message
    return caught.value


async def delivered(history: History, expected: list[int]) -> None:
    """All events are there, each once, and it was the same worker all along."""
    await until(lambda: history.stats().error is None)
    assert await history.settled(10)
    assert await ids(history) == expected
    assert history.stats().restarts == 0


async def with_one_note(folder: Path, server: DoltServer) -> None:
    server.start()
    async with opened(folder, server.port) as history:
        await history.call("create")
        history.append(note(1))
        assert await ids(history) == [1]


@dataclasses.dataclass(frozen=True)
class Role:
    """A role of the server in which it takes no writes."""

    config: Callable[[], dict[str, Any]]
    kind: str
    says: str
    remedy: str


ROLES = {
    "read-only": Role(lambda: READ_ONLY, "read_only", "takes no writes", "read-only mode"),
    "standby": Role(standby, "standby", "is a standby", "primary"),
}


@pytest.mark.parametrize("role", ROLES.values(), ids=list(ROLES))
async def test_a_server_that_takes_no_writes_is_told_and_events_wait_for_one_that_does(
    tmp_path: Path, server: DoltServer, role: Role
) -> None:
    """From the start, and when the server comes back in that role under a history that is open."""
    await with_one_note(tmp_path, server)
    server.stop()
    server.start(role.config())
    async with opened(tmp_path, server.port) as history:
        error = await refused(history, 2)
        assert error.kind == role.kind
        assert f"127.0.0.1:{server.port} {role.says}" in error.message
        assert role.remedy in error.hint
        server.stop()
        server.start()
        await delivered(history, [1, 2, 3])
        server.stop()
        server.start(role.config())
        history.append(note(4))
        await until(lambda: role.says in (history.stats().error or ""))
        server.stop()
        server.start()
        await delivered(history, [1, 2, 3, 4])


LOGINS: dict[str, tuple[list[str], str, list[str]]] = {
    "wrong password": (
        ["CREATE USER 'ada'@'%' IDENTIFIED BY 'other'", "GRANT ALL ON *.* TO 'ada'@'%'"],
        "does not let user 'ada' in",
        ["DROP USER 'ada'@'%'", "CREATE USER 'ada'@'%' IDENTIFIED BY 'right'", "GRANT ALL ON *.* TO 'ada'@'%'"],
    ),
    "another host": (
        ["CREATE USER 'ada'@'10.1.1.1' IDENTIFIED BY 'right'"],
        "does not let user 'ada' in",
        ["CREATE USER 'ada'@'%' IDENTIFIED BY 'right'", "GRANT ALL ON *.* TO 'ada'@'%'"],
    ),
    "no such user": (
        [],
        "does not let user 'ada' in",
        ["CREATE USER 'ada'@'%' IDENTIFIED BY 'right'", "GRANT ALL ON *.* TO 'ada'@'%'"],
    ),
    "only SELECT": (
        ["CREATE USER 'ada'@'%' IDENTIFIED BY 'right'", f"GRANT SELECT ON `{DATABASE}`.* TO 'ada'@'%'"],
        "does not let user 'ada' write",
        ["GRANT ALL ON *.* TO 'ada'@'%'"],
    ),
}


@pytest.mark.parametrize("case", LOGINS.values(), ids=list(LOGINS))
async def test_a_login_that_is_refused_is_told_and_events_wait_for_the_right(
    tmp_path: Path, server: DoltServer, case: tuple[list[str], str, list[str]]
) -> None:
    before, says, cure = case
    await with_one_note(tmp_path, server)
    server.admin("SELECT 1", *before)
    async with opened(tmp_path, server.port, user="ada", password="right") as history:
        error = await refused(history, 2)
        assert error.kind == "access"
        assert f"127.0.0.1:{server.port} {says}" in error.message
        assert "right" not in error.message + error.hint.replace("the right", "")
        assert "store.user" in error.hint
        server.admin(*cure)
        await delivered(history, [1, 2, 3])


async def test_a_server_whose_disk_was_full_is_to_be_started_anew() -> None:
    told = pymysql.err.OperationalError(1105, "write /data/.dolt/noms/journal.idx: no space left on device")

    config = Config(
        engine="dolt", spool="", store="", owner="", node=0, host="db", port=3307, commit_rows=1, commit_seconds=1
    )
    address = DoltAddress(config)
    with pytest.raises(StoreUnavailable, match="no space left for the files of db:3307") as caught, address.seam():
        raise told
    assert caught.value.reason == "disk_full"
    assert "started anew" in caught.value.hint


async def test_an_unknown_database_is_offered_to_be_made_and_making_it_works(
    tmp_path: Path, server: DoltServer
) -> None:
    server.start()
    async with opened(tmp_path, server.port) as history:
        error = await refused(history, 1)
        assert error.kind == "unknown_database"
        assert f"no database '{DATABASE}'" in error.message
        assert "tundra versions create" in error.hint
        await history.call("create")
        await delivered(history, [1, 2])


async def test_the_user_of_free_sql_may_read_a_database_that_was_made_later(tmp_path: Path, server: DoltServer) -> None:
    """And nothing beyond it: not even the guard stands between this user and the server's own tables."""
    server.start()
    server.admin("CREATE USER 'eye'@'%' IDENTIFIED BY 'only'")
    async with opened(tmp_path, server.port, reader=("eye", "only")) as history:
        await history.call("create")
        history.append(note(1))
        assert await rows_of(history.sql("select note_id from note")) == [{"note_id": 1}]
    grants = server.admin("SHOW GRANTS FOR 'eye'@'%'")
    assert sorted(row[0].split(" TO ")[0] for row in grants) == [
        f"GRANT SELECT ON `{DATABASE}`.*",
        "GRANT USAGE ON *.*",
    ]


async def test_endless_recursion_is_ended_and_the_server_lives(tmp_path: Path, server: DoltServer) -> None:
    await with_one_note(tmp_path, server)
    async with opened(tmp_path, server.port) as history:
        for text in (
            "with recursive n(i) as (select 1 union all select i + 1 from n) select max(i) from n",
            "with recursive n(i) as (select 1 union select i + 1 from n) select i from n",
            "with recursive a(i) as (select 1 union all select x.i + y.i from a x, a y) select count(*) from a",
        ):
            with pytest.raises((QueryRefused, StoreBusy)):
                async with asyncio.timeout(40):
                    await rows_of(history.sql(text))
        assert await ids(history) == [1]


async def test_where_nobody_listens_events_wait_for_a_server(tmp_path: Path, server: DoltServer) -> None:
    await with_one_note(tmp_path, server)
    server.stop()
    async with opened(tmp_path, server.port) as history:
        error = await refused(history, 2)
        assert error.kind == "refused"
        assert f"no server answers at 127.0.0.1:{server.port}" in error.message
        assert "tundra dolt start" in error.hint
        server.start()
        await delivered(history, [1, 2, 3])


@contextlib.contextmanager
def listener(port: int, greeting: bytes | None) -> Iterator[None]:
    """Something that is no database: it says `greeting` and hangs up, or with None takes connections in silence."""
    with socket.create_server(("127.0.0.1", port)) as listening:
        taken: list[socket.socket] = []

        def take() -> None:
            with contextlib.suppress(OSError):
                while True:
                    sock, _ = listening.accept()
                    if greeting is None:
                        taken.append(sock)
                        continue
                    with sock:
                        sock.sendall(greeting)

        thread = threading.Thread(target=take, daemon=True)
        thread.start()
        try:
            yield
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join(5)
            for sock in taken:
                sock.close()


OTHERS: dict[str, tuple[bytes | None, str, str]] = {
    "ssh": (b"SSH-2.0-OpenSSH_9.2\r\n", "not_dolt", "is no database (it says 'SSH-2.0-OpenSSH_9.2'), not Dolt"),
    "binary": (b"\x80\x05\x01\x00\x02\x03" * 5, "not_dolt", "is no database"),
    "hangs up": (b"", "lost", "hangs up at once"),
    "silent": (None, "silent", "says nothing within 5 s"),
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=list(OTHERS))
async def test_another_program_in_the_place_of_dolt_is_told_and_events_wait(
    tmp_path: Path, server: DoltServer, other: tuple[bytes | None, str, str]
) -> None:
    greeting, kind, says = other
    await with_one_note(tmp_path, server)
    server.stop()
    async with opened(tmp_path, server.port) as history:
        with listener(server.port, greeting):
            await until(lambda: says in (history.stats().error or ""))
            error = await refused(history, 2)
            assert error.kind == kind
            assert f"127.0.0.1:{server.port}" in error.message
            assert "store.port" in error.message + error.hint
        server.start()
        await delivered(history, [1, 2, 3])


async def test_a_server_that_hangs_keeps_nobody_waiting_and_events_arrive_when_it_goes_on(
    tmp_path: Path, server: DoltServer
) -> None:
    await with_one_note(tmp_path, server)
    async with opened(tmp_path, server.port) as history:
        assert await ids(history) == [1]
        server.send(signal.SIGSTOP)
        history.append(note(2))
        async with asyncio.timeout(12):
            with pytest.raises(StoreUnavailable) as caught:
                await ids(history)
        assert caught.value.kind == "silent"
        history.append(note(3))
        server.send(signal.SIGCONT)
        await delivered(history, [1, 2, 3])


async def test_a_server_killed_in_the_middle_of_a_read_is_told_and_the_read_works_when_it_is_back(
    tmp_path: Path, server: DoltServer
) -> None:
    await with_one_note(tmp_path, server)
    async with opened(tmp_path, server.port) as history:
        await until(lambda: history.stats().state == "ready")
        reading = asyncio.create_task(rows_of(history.sql(SLOW)))
        await until(lambda: any("cross" in str(row) or "w0" in str(row) for row in server.admin("SHOW PROCESSLIST")))
        server.stop(signal.SIGKILL)
        with pytest.raises(StoreUnavailable) as caught:
            await reading
        assert caught.value.kind in ("lost", "refused")
        history.append(note(2))
        server.start()
        await delivered(history, [1, 2])


SLOW = (
    "with recursive w0(n) as (select 1 union all select n + 1 from w0 where n < 900)"
    " select count(*) as n from w0 a, w0 b, w0 c"
)
