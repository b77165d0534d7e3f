"""Input: all of it arrives, however fast or slowly the other side reads."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from tundra_nb.runtime.ptys.keyboard import QUEUE_BYTES, KeyFeed

DATA = bytes(range(256)) * (QUEUE_BYTES // 64)


@pytest.mark.anyio
async def test_a_reader_that_never_makes_us_wait_gets_all_of_it(tmp_path: Path) -> None:
    with (tmp_path / "taken").open("wb") as file:
        async with asyncio.timeout(10):
            await KeyFeed(file.fileno()).write(DATA)
    assert (tmp_path / "taken").read_bytes() == DATA


@pytest.mark.anyio
async def test_a_reader_that_pauses_gets_all_of_it_in_order() -> None:
    theirs, ours = os.pipe()
    os.set_blocking(ours, False)
    feed, taken = KeyFeed(ours), bytearray()
    try:
        async with asyncio.timeout(10):
            writing = asyncio.create_task(feed.write(DATA))
            while len(taken) < len(DATA):
                await asyncio.sleep(0)
                taken += await asyncio.to_thread(os.read, theirs, 50_000)
            await writing
    finally:
        feed.close()
        os.close(ours)
        os.close(theirs)
    assert taken == DATA
