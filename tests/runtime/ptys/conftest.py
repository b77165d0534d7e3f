"""A real pool over real terminals, in a process that adopts orphans as the guard would."""

from __future__ import annotations

import asyncio
import ctypes
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tundra_nb.runtime.clock import Ids, SystemClock
from tundra_nb.runtime.ptys import processes
from tundra_nb.runtime.ptys.pool import PtyPool
from tundra_nb.runtime.ptys.pty import Pty
from tundra_nb.settings import PtySettings
from tundra_nb.types import SessionEvent

ENVIRON = {"PATH": os.environ.get("PATH", os.defpath), "HOME": "/tmp", "LANG": "C.UTF-8"}


async def until(condition: Callable[[], Any], seconds: float = 20.0) -> None:
    """Wait for a condition; fails the test after so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s"
        await asyncio.sleep(0.01)


class Made(list[SessionEvent]):
    """The events of a pool, in order."""

    def of(self, pty_id: str) -> list[str]:
        return [event.event for event in self if event.pty_id == pty_id]


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """uvloop, as in the daemon."""
    return "asyncio", {"use_uvloop": True}


@pytest.fixture(scope="module", autouse=True)
def adopting() -> Iterator[None]:
    """Orphans come to this process instead of init; not longer than a module, since the orphans of others' tests would
    stay as zombies."""
    processes.become_subreaper()
    yield
    ctypes.CDLL(None).prctl(processes.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


@pytest.fixture
def events() -> Made:
    return Made()


@pytest.fixture
def make_pool(tmp_path: Path, events: Made) -> Callable[..., PtyPool]:
    def make(
        *,
        capacity: int = 10,
        environ: dict[str, str] | None = None,
        secrets: dict[str, str] | None = None,
        key_variables: tuple[str, ...] = (),
        grace: float = 2.0,
        adopter: int | None = os.getpid(),
        folder: Path = tmp_path / "ptys",
    ) -> PtyPool:
        clock = SystemClock()
        return PtyPool(
            PtySettings(capacity=capacity),
            folder,
            ids=Ids(clock),
            clock=clock,
            on_event=events.append,
            secrets=lambda: secrets or {},
            key_variables=lambda: key_variables,
            environ={**ENVIRON, **(environ or {})},
            adopter=adopter,
            grace=grace,
        )

    return make


@pytest.fixture
async def pool(make_pool: Callable[..., PtyPool]) -> AsyncIterator[PtyPool]:
    async with make_pool() as pool:
        yield pool
    assert pool.list() == []


@pytest.fixture
def output_of() -> Callable[[Pty], Awaitable[bytes]]:
    """Everything that a session puts out until its end."""

    async def read(pty: Pty) -> bytes:
        viewer, data = pty.viewer(), b""
        while (chunk := await viewer.read()) is not None:
            data += chunk.data
        return data

    return read
