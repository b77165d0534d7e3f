"""Two daemons that write into one Dolt database: what a daemon restores and calls its last is its own."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import pymysql
import pytest

from tests.conftest import wait_until
from tests.contract.server import DoltServer
from tests.wiring.test_shared_limits import daemon
from tundra_nb.errors import TundraError
from tundra_nb.runtime.history.dolt import DoltStore
from tundra_nb.runtime.history.protocol import Config
from tundra_nb.testing.scripted_provider import ScriptedStep, scripted_process

pytestmark = [pytest.mark.part("dolt"), pytest.mark.timeout(240)]
TOML = """
[store]
engine = "dolt"
port = {port}
database = "team"
[router]
retries = 0
[breaker]
failures = 2
open_seconds = 300
[[profile]]
name = "main"
kind = "local"
base_url = "{base}/v1"
model = "m"
"""


@pytest.fixture(scope="module")
def dolt(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DoltServer]:
    server = DoltServer(tmp_path_factory.mktemp("dolt"))
    server.start()
    server.admin("CREATE DATABASE team")
    try:
        yield server
    finally:
        server.stop()


def test_breakers_parking_and_the_last_call_are_each_daemons_own(tmp_path: Path, dolt: DoltServer) -> None:
    with scripted_process() as well, scripted_process() as ill:
        of_a = TOML.format(port=dolt.port, base=well.base_url.removesuffix("/v1"))
        of_b = TOML.format(port=dolt.port, base=ill.base_url.removesuffix("/v1"))
        with daemon(tmp_path / "a", of_a) as (home, a), daemon(tmp_path / "b", of_b) as (_, b):
            mine = a.ask("mine").operation_id
            ill.script("/v1/chat/completions", ScriptedStep(status=500, repeat=3))
            for _ in range(2):
                with pytest.raises(TundraError):
                    b.ask("hi")
            assert b.breakers()["state"].iloc[0] == "open"
            theirs = b.last().operation_id
            # each sees the whole team's rows, and its own last call
            wait_until(lambda: {mine, theirs} <= set(a.calls("all")["operation_id"].astype(str)), 60)
            assert a.last().operation_id == mine
            assert a.why("-1").operation_id == mine
            assert a.why(theirs).operation_id == theirs
            with pytest.raises(TundraError, match="only 1 call"):
                a.why("-2")
            assert home.run("daemon", "restart", timeout=120).returncode == 0
            assert a.breakers()["state"].iloc[0] == "closed"
            assert a.ask("again").text
            assert b.breakers()["state"].iloc[0] == "open"


def test_daemons_that_start_together_get_different_numbers(dolt: DoltServer) -> None:
    """Also when all of them drew the same one."""
    dolt.admin("CREATE DATABASE IF NOT EXISTS numbers")

    def config(owner: str) -> Config:
        return Config(
            engine="dolt",
            spool="",
            store="",
            host="127.0.0.1",
            port=dolt.port,
            database="numbers",
            user="root",
            owner=owner,
            node=7,
            commit_rows=1000,
            commit_seconds=60,
        )

    def opened(owner: str) -> int:
        store = DoltStore(config(owner))
        try:
            return store.open(owner, 7)
        finally:
            store.close()

    first = opened(uuid.uuid4().hex)  # makes the tables
    granted: list[int] = []
    start = threading.Barrier(10)

    def one() -> None:
        start.wait(30)
        granted.append(opened(uuid.uuid4().hex))

    threads = [threading.Thread(target=one) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert len(granted) == 10
    assert len({first, *granted}) == 11
    with (
        pymysql.connect(host="127.0.0.1", port=dolt.port, user="root", database="numbers") as db,
        db.cursor() as cursor,
    ):
        cursor.execute("SELECT COUNT(DISTINCT node), COUNT(*) FROM spool_place")
        assert cursor.fetchone() == (11, 11)
