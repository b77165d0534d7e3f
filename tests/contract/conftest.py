"""A history on each engine: the embedded one, and a real `dolt sql-server` with a database per test."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import random
import shutil
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tundra_nb.paths import Paths
from tundra_nb.runtime.clock import Ids, SystemClock
from tundra_nb.runtime.history.line import ArrowStream
from tundra_nb.runtime.history.query import FrameQuery
from tundra_nb.runtime.history.service import History
from tundra_nb.runtime.id_layout import id_floor
from tundra_nb.settings import StoreSettings
from tundra_nb.types import Operation


@pytest.fixture(scope="session")
def dolt_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    binary = shutil.which("dolt")
    if binary is None:
        pytest.skip("dolt is not installed")
    folder = tmp_path_factory.mktemp("dolt")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    env = {"PATH": os.environ["PATH"], "HOME": str(folder), "DOLT_ROOT_PATH": str(folder)}
    for name, value in (("user.name", "t"), ("user.email", "t@localhost"), ("metrics.disabled", "true")):
        subprocess.run([binary, "config", "--global", "--add", name, value], env=env, check=True, capture_output=True)
    data = folder / "data"
    data.mkdir()
    command = [binary, "sql-server", "-H", "127.0.0.1", "-P", str(port), "--data-dir", str(data), "--loglevel", "error"]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(command, env=env, stdout=log, stderr=log, cwd=data)
        try:
            _wait_for_port(port, server)
            yield port
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(10)


def _wait_for_port(port: int, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline and server.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    pytest.fail("dolt sql-server did not start")


@pytest.fixture(scope="session", autouse=True)
def server_before_the_first_test(request: pytest.FixtureRequest) -> None:
    """A shared server that began inside a test would count among what that test leaves behind."""
    wants = any(
        "[dolt" in item.name or "dolt_port" in getattr(item, "fixturenames", ()) for item in request.session.items
    )
    if wants and shutil.which("dolt") is not None:
        request.getfixturevalue("dolt_port")


@dataclasses.dataclass
class Store:
    """A history under test, with shorthands."""

    history: History
    ids: Ids
    paths: Paths
    settings: StoreSettings

    @property
    def engine(self) -> str:
        return self.settings.engine

    async def rows(self, table: str, **query: Any) -> list[dict[str, Any]]:
        return await rows_of(self.history.query(FrameQuery(table=table, **query)))

    async def sql(self, text: str, **options: Any) -> list[dict[str, Any]]:
        return await rows_of(self.history.sql(text, **options))

    async def commit(self, message: str = "m", author: str = "Ada <ada@example.org>") -> str:
        return str(await self.history.call("commit", message=message, author=author))


async def table_of(stream: ArrowStream) -> pa.Table:
    data = b"".join([piece async for piece in stream])
    return pa.ipc.open_stream(data).read_all()


async def rows_of(stream: ArrowStream) -> list[dict[str, Any]]:
    return list((await table_of(stream)).to_pylist())


@pytest.fixture(
    params=[
        pytest.param("doltlite", marks=pytest.mark.part("doltlite")),
        pytest.param("dolt", marks=pytest.mark.part("dolt")),
    ]
)
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    settings = StoreSettings(engine=request.param)
    if request.param == "dolt":
        port = request.getfixturevalue("dolt_port")
        settings = StoreSettings(engine="dolt", port=port, database=f"t{uuid.uuid4().hex[:10]}")
    paths = Paths(data_dir=tmp_path, socket=tmp_path / "s", connection_file=tmp_path / "c")
    clock = SystemClock()
    ids = Ids(clock)
    history = History(paths, settings, ids, clock)
    await history.open()
    try:
        await history.call("create")
        yield Store(history, ids, paths, settings)
    finally:
        await history.aclose()


def random_operation(at: int, number: int, chance: random.Random) -> Operation:
    """A call of which everything that may be missing sometimes is."""
    is_ok = chance.random() < 0.7
    return Operation(
        operation_id=id_floor(at) + number % 4096,
        at=at,
        outcome="ok" if is_ok else "error",
        profile=chance.choice(["alpha", "beta"]) if is_ok else None,
        asked=chance.choice(["alpha", "beta,alpha", "gamma", None]),
        code=None if is_ok else "Timeout",
        latency_ms=chance.choice([None, chance.random() * 1e4, float(chance.randrange(5))]),
        input_tokens=chance.choice([None, chance.randrange(1_000)]),
        cost_usd=chance.choice([None, chance.random()]),
        streamed=chance.random() < 0.5,
        message=chance.choice([None, 'it\'s 50 % of "é"\n']),
    )
