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


def test_the_first_second_of_1970_is_a_time_as_any_other(paths: Paths) -> None:
    connection = http.client.HTTPConnection("tundra", timeout=20)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(str(paths.socket))
    for path in ("/api/diff?from=", "/api/stat?from=", "/api/commits?at=", "/api/history/calls?at="):
        for time_given in ("1970-01-01", "1970-01-02"):
            connection.request("GET", path + time_given)
            answer = connection.getresponse()
            told = json.loads(answer.read())
            assert (answer.status, told["code"]) == (404, "RefNotFound"), path
            assert "the history begins at" in told["message"]
    connection.close()


BIG = "9" * 20
HUGE = "9" * 5_000
ODD_GETS = (
    *(f"/api/history/calls?limit={odd}" for odd in (2**63, 2**63 - 1, BIG, HUGE, "-1", "0", "²", "x", "")),
    *(f"/api/history/calls?since={odd}" for odd in (BIG, HUGE, "-" + BIG, "²", "yesteryear", "2026-13-45", "9999-99")),
    *(f"/api/history/calls?until={odd}" for odd in (BIG, "0001-01-01T00:00:00+23:59x")),
    *(f"/api/history/calls?at={odd}" for odd in (BIG, HUGE, "²" * 20, "2026-99-99")),
    *(f"/api/history/calls?at={odd}" for odd in ("HEAD~99999999999999999999", "main^{tree}", "..", "-1", "a b", "%00")),
    *(f"/api/history/calls?wait={odd}" for odd in ("nan", "inf", "-1", "1e9", "x")),
    *(f"/api/history/calls?{name}" for name in ("operation_id.eq=" + BIG, "at.ge=" + BIG, "latency_ms.gt=nan")),
    *(f"/api/history/calls?{name}" for name in ("latency_ms.lt=inf", "outcome.like=x", "nope=1", "columns=nope")),
    "/api/history/calls?profile.in=" + ",".join(["x"] * 1_001),
    "/api/history/nope",
    *(f"/api/operations/{odd}" for odd in (BIG, HUGE[:3000], "-" + BIG, "-0", "²", "-²", "0x10", "%00", "9" * 19)),
    *(f"/api/history/note/rows/{odd}" for odd in (BIG, "²", "nope")),
    *(f"/api/commits?limit={odd}" for odd in (2**63, "x")),
    *(f"/api/commits?at={odd}" for odd in ("nope", BIG)),
    "/api/diff?from=nope&table=setting",
    f"/api/diff?from=HEAD&table=setting&limit={2**64}",
    "/api/stat?from=HEAD~99999999999999999999",
)
ODD_POSTS: tuple[tuple[str, bytes], ...] = (
    *(("/api/sql", json.dumps({"sql": "select 1", "limit": odd}).encode()) for odd in (2**63, 2**70, -1, 0, 1.5)),
    ("/api/sql", json.dumps({"sql": "select 1", "at": BIG}).encode()),
    ("/api/sql", json.dumps({"sql": "select 1", "wait": 1e9}).encode()),
    ("/api/sql", b'{"sql": "select \\ud800"}'),
    *((path, b"[" * 100_000) for path in ("/api/sql", "/api/commits", "/api/notes", "/api/operations")),
    *((path, b'{"x":' * 50_000) for path in ("/api/sql", "/api/tags")),
    ("/api/sql", b"\xff\xfe"),
    *(
        ("/api/push", json.dumps({"remote": odd}).encode())
        for odd in ("../x", "/tmp/../../x", "file:///a/../b", "", "\0/a")
    ),
    *(("/api/pull", json.dumps({"remote": odd}).encode()) for odd in ("../x", "file:///tmp/%2e%2e/x")),
    *(("/api/clone", json.dumps({"remote": "/tmp/x", "into": odd}).encode()) for odd in ("../x", "/tmp/../x", "/a\0b")),
    ("/api/backup", json.dumps({"folder": "/tmp/../etc/x"}).encode()),
    *(("/api/tags", json.dumps({"name": odd}).encode()) for odd in ("../x", "now", "Yesterday", "all")),
    *(("/api/branches", json.dumps({"name": odd}).encode()) for odd in ("today", "now", "last")),
    ("/api/branches", json.dumps({"name": "x", "at": HUGE}).encode()),
)


def test_odd_parameters_are_refused_with_the_field_and_nothing_breaks(paths: Paths, tmp_path: Path) -> None:
    before = set(tmp_path.iterdir())
    wrong = []
    for method, path, body in (
        *(("GET", path, None) for path in ODD_GETS),
        *(("POST", path, body) for path, body in ODD_POSTS),
    ):
        connection = http.client.HTTPConnection("tundra", timeout=20)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(str(paths.socket))
        connection.request(method, urllib.parse.quote(path, safe="/?=&%.:,-~^{}"), body)
        answer = connection.getresponse()
        told = answer.read()
        connection.close()
        if not 400 <= answer.status < 500 or not {"code", "message", "hint"} <= json.loads(told).keys():
            wrong.append(f"{method} {path[:100]} {(body or b'')[:60]!r}: {answer.status} {told[:200]!r}")
    assert wrong == []
    assert set(tmp_path.iterdir()) == before
