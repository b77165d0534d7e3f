"""The fixtures that watch every test see what they are there for."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = """
from tests import leaks
leaks.STRICT = ("",)
leaks.GRACE_SECONDS = 0.2
nothing_is_left = leaks.nothing_is_left
def pytest_configure(): leaks.watch_connections()
def pytest_collection_modifyitems(items):
    for item in items: leaks.watch_tasks(item)
"""
TESTS = """
import asyncio, os, socket, subprocess, threading, pytest
KEPT = []
def test_fine():
    with socket.socket() as one: one.bind(("127.0.0.1", 0))
def test_thread():
    KEPT.append(end := threading.Event())
    threading.Thread(target=end.wait, args=(1.0,), name="forgotten").start()
def test_descriptor():
    KEPT.append(os.pipe())
def test_child():
    KEPT.append(subprocess.Popen(["sleep", "1"]))
def test_stranger():
    with pytest.raises(OSError):
        socket.create_connection(("192.0.2.1", 9), timeout=1)
@pytest.mark.anyio
async def test_task():
    KEPT.append(asyncio.create_task(asyncio.sleep(60), name="forgotten"))
@pytest.fixture
def anyio_backend(): return "asyncio"
"""


@pytest.mark.skipif(sys.platform != "linux", reason="descriptors and children are read from /proc")
def test_each_kind_of_leak_fails_the_test_that_left_it(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_leaky.py").write_text(TESTS)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-rfE", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), "."],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert "1 failed, 5 passed, 4 errors" in done.stdout, done.stdout
    for words in ("thread forgotten", "descriptor ", "child ", "reached for 192.0.2.1:9", "tasks left behind"):
        assert words in done.stdout, words
