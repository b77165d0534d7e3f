"""A coroutine for code that blocks, on a loop of its own."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, TypeVar, cast

R = TypeVar("R")

LOOK_SECONDS = 0.3
"""Between two looks at how far it is."""
BEGIN_SECONDS = 5.0
"""Longest that what is interrupted is waited for to begin."""


def on_own_loop(work: Coroutine[Any, Any, R], thread: str, look: Callable[[], None] | None = None) -> R:
    """Run it to its end, also where a loop runs already, as in a kernel.

    It runs in a thread of this name: in the main one asyncio takes Ctrl-C for itself. An interrupt cancels it, and is
    raised when it has ended. `look` is called now and then while it runs, in the caller's thread.
    """
    begun: Future[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]]] = Future()

    async def begin() -> R:
        begun.set_result((asyncio.get_running_loop(), cast("asyncio.Task[Any]", asyncio.current_task())))
        return await work

    with ThreadPoolExecutor(1, thread) as pool:
        try:
            done = pool.submit(asyncio.run, begin())
            while not wait([done], LOOK_SECONDS).done:
                if look is not None:
                    look()
            return done.result()
        except BaseException:
            # an interrupt while the thread starts leaves it working, and the process would wait for it at its end
            with contextlib.suppress(RuntimeError, TimeoutError):  # it has ended, or never begins
                loop, task = begun.result(BEGIN_SECONDS)
                loop.call_soon_threadsafe(task.cancel)
            raise
