"""Clients that go away while the history answers, at the shipped daemon."""

from __future__ import annotations

import http.client
import json
import socket
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tundra_nb import paths as places
from tundra_nb.local import launch
from tundra_nb.paths import Paths

pytestmark = pytest.mark.part("doltlite")

ROWS = "with recursive n(i) as (select 1 union all select i + 1 from n where i < 400000) select i, hex(i) as t from n"
ENDLESS = "with recursive n(i) as (select 1 union all select i + 1 from n) select max(i) from n"


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Paths]:
    monkeypatch.setenv("TUNDRA_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("TUNDRA_CONFIG", str(tmp_path / "tundra.toml"))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "jupyter"))
    found = places.find()
    launch.ensure(found)
    yield found
    launch.stop(found, force=True)


def asked(paths: Paths, sql: str) -> http.client.HTTPConnection:
    """A connection on which the statement was sent."""
    connection = http.client.HTTPConnection("tundra", timeout=20)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(str(paths.socket))
    connection.request("POST", "/api/sql", json.dumps({"sql": sql}))
    return connection


def worker(paths: Paths) -> psutil.Process:
    running = launch.find(paths)
    assert running is not None
    (found,) = (p for p in psutil.Process(running.pid).children() if any("history.worker" in a for a in p.cmdline()))
    return found


def until_cpu(process: psutil.Process, *, busy: bool, timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        share = process.cpu_percent(0.2)
        if (share > 25) == busy:
            return
    pytest.fail(f"the worker is not {'busy' if busy else 'idle'} after {timeout} s")


def test_a_query_ends_when_its_client_leaves_before_the_first_row(paths: Paths) -> None:
    connection = asked(paths, ENDLESS)
    until_cpu(worker(paths), busy=True, timeout=10)
    connection.close()
    until_cpu(worker(paths), busy=False, timeout=2)


def test_a_stream_ends_when_its_client_leaves_in_the_middle(paths: Paths) -> None:
    connection = asked(paths, ROWS)
    answer = connection.getresponse()
    assert (answer.status, len(answer.read(1000))) == (200, 1000)
    before = worker(paths).num_fds()
    answer.close()
    connection.close()
    deadline = time.monotonic() + 2
    while worker(paths).num_fds() >= before:
        assert time.monotonic() < deadline, "the worker still holds the request"
        time.sleep(0.02)
    assert b"".join(iter(asked(paths, "select 1 as x").getresponse().readline, b""))


def test_a_limit_that_is_no_positive_number_is_refused(paths: Paths) -> None:
    connection = http.client.HTTPConnection("tundra", timeout=20)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(str(paths.socket))
    for path in ("/api/history/calls?", "/api/commits?", "/api/diff?from=HEAD&to=HEAD&table=note&"):
        for limit in ("0", "-1", "many", "²"):
            connection.request("GET", f"{path}limit={urllib.parse.quote(limit)}")
            answer = connection.getresponse()
            told = json.loads(answer.read())
            assert (answer.status, told["code"]) == (400, "UsageError"), path
            assert repr(limit) in told["message"]
    connection.close()
