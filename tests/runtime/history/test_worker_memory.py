"""The store worker's memory, transaction after transaction: its caches are bounded."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from tests.runtime.history.test_service import opened
from tundra_nb.types import Attempt, Operation

pytestmark = [pytest.mark.anyio, pytest.mark.part("doltlite")]
CALLS_A_TRANSACTION = 25
WARM, FURTHER = 600, 1800
"""Transactions."""
MOST_GROWTH = 10_000_000
"""Bytes; unbounded caches grew by some 30 million in so many."""


async def test_the_worker_does_not_grow_with_what_it_writes(tmp_path: Path) -> None:
    async with opened(tmp_path) as history:
        at = 0

        async def write(transactions: int) -> int:
            nonlocal at
            for _ in range(transactions):
                for _ in range(CALLS_A_TRANSACTION):
                    at += 2
                    history.append(
                        Operation(operation_id=at, at=at, kind="chat", outcome="ok", profile="p", model="m"),
                        Attempt(attempt_id=at + 1, operation_id=at, seq=1, at=at, profile="p", outcome="ok"),
                    )
                await history.settled(30)
            pid = history.stats().worker_pid
            assert pid is not None
            return int(psutil.Process(pid).memory_info().rss)

        warm = await write(WARM)
        assert await write(FURTHER) - warm < MOST_GROWTH
