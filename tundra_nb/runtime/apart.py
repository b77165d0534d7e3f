"""Long work on one text or body, done in a thread so that the loop goes on. A leaf."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

LONG_BYTES = 64 * 1024
"""Reading, masking or writing so much takes some ms; a thread costs a tenth of one."""


async def apart(size: int, work: Callable[[], T]) -> T:
    """What `work` returns; done in a thread where it works on `size` bytes or characters that are many."""
    return await asyncio.to_thread(work) if size > LONG_BYTES else work()
