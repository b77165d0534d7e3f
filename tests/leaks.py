"""What a test may not leave behind: tasks, threads, descriptors, child processes; and whom it may not speak to."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import inspect
import ipaddress
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

GRACE_SECONDS = 5.0
"""What is on its way out when a test ends may take so long to go."""
STRICT = (
    *(
        f"tests/runtime/{part}"
        for part in ("test_operations", "history/", "providers/", "ptys/", "resilience/", "telemetry/")
    ),
    *("tests/contract/", "tests/terminal/"),
)
"""Where each test closes all that it opens. Elsewhere tests share servers, whose clients keep connections open, or
adopt the orphans of terminals."""
_reached: list[str] = []


def watch_connections() -> None:
    """From now on nothing of this process connects to anything but this machine."""
    sys.addaudithook(_refuse)


def _refuse(event: str, args: tuple[Any, ...]) -> None:
    if event != "socket.connect" or not isinstance(args[1], tuple):
        return
    host = str(args[1][0])
    if host in ("", "localhost"):
        return
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
        if address.is_loopback or address.is_unspecified:  # the latter is this machine too
            return
    except ValueError:
        pass  # a name, which the system would look up
    _reached.append(f"{host}:{args[1][1]}")
    raise ConnectionRefusedError(f"a test may not connect to {host}")


def descriptors() -> dict[int, str]:
    """The open descriptors of this process and what they are; pipes and sockets by number."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue  # the one that listed them
    return found


@functools.cache
def open_for_good() -> None:
    """Have libuv open the pipe that it keeps for signals as long as the process lives: its first loop does."""
    with contextlib.suppress(ImportError):
        import uvloop

        uvloop.new_event_loop().close()


def children() -> set[int]:
    """The child processes of this one that run; some tests have it adopt orphans, which nobody waits for."""
    found: set[int] = set()
    for task in Path("/proc/self/task").iterdir():
        try:
            found |= {int(pid) for pid in (task / "children").read_text().split() if _runs(pid)}
        except OSError:
            continue
    return found


def _runs(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] != b"Z"
    except OSError:
        return False


def threads() -> set[threading.Thread]:
    """Those that would keep the process from ending."""
    return {thread for thread in threading.enumerate() if not thread.daemon}


def left(look: Callable[[], list[str]]) -> list[str]:
    """What a look finds, after a moment's grace."""
    deadline = time.monotonic() + GRACE_SECONDS
    is_collected = False
    while more := look():
        if not is_collected:
            gc.collect()
            is_collected = True
        elif time.monotonic() > deadline:
            return more
        else:
            time.sleep(0.02)
    return []


@pytest.fixture(autouse=True)
def nothing_is_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """The test reaches nobody outside this machine; in the strict folders it leaves nothing behind."""
    _reached.clear()
    is_strict = request.node.nodeid.startswith(STRICT) and sys.platform == "linux"
    if is_strict:
        open_for_good()
    before = (threads(), descriptors(), children()) if is_strict else None
    yield
    assert not _reached, f"the test reached for {', '.join(_reached)}"
    if before is None:
        return
    was_threads, was_open, was_children = before
    leaks = left(lambda: [f"thread {thread.name}" for thread in threads() - was_threads])
    leaks += left(lambda: [f"descriptor {fd}: {to}" for fd, to in descriptors().items() if was_open.get(fd) != to])
    leaks += left(lambda: [f"child {pid}" for pid in children() - was_children])
    assert not leaks, f"left behind: {', '.join(leaks)}"


def watch_tasks(item: pytest.Item) -> None:
    """Have an async test fail that leaves a task of its own running."""
    if not isinstance(item, pytest.Function) or not inspect.iscoroutinefunction(item.obj):
        return
    test = item.obj

    @functools.wraps(test)
    async def watched(*args: Any, **kwargs: Any) -> None:
        before = asyncio.all_tasks()
        await test(*args, **kwargs)
        deadline = time.monotonic() + GRACE_SECONDS
        while more := {task for task in asyncio.all_tasks() - before if not task.done()}:
            assert time.monotonic() < deadline, f"tasks left behind: {sorted(task.get_name() for task in more)}"
            await asyncio.sleep(0.01)

    item.obj = watched
