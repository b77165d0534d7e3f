"""A coroutine that code which blocks waits for."""

from __future__ import annotations

import asyncio
import signal
import threading

import pytest

from tests.conftest import wait_until
from tundra_nb.client.own_loop import on_own_loop


def test_it_gives_what_the_coroutine_gives_also_where_a_loop_runs() -> None:
    async def two() -> int:
        return 2

    async def fails() -> None:
        raise LookupError

    async def outer() -> int:
        return on_own_loop(two(), "test")

    assert asyncio.run(outer()) == 2
    with pytest.raises(LookupError):
        on_own_loop(fails(), "test")


def test_the_first_interrupt_cancels_it_and_waits_for_its_end() -> None:
    ended = threading.Event()

    async def long() -> None:
        threading.Timer(0.05, signal.pthread_kill, [threading.main_thread().ident, signal.SIGINT]).start()
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    with pytest.raises(KeyboardInterrupt):
        on_own_loop(long(), "test")
    assert ended.is_set()


def test_an_interrupt_while_its_thread_starts_leaves_nothing_working() -> None:
    """The process would wait for it at its end, for ever perhaps."""

    def working() -> bool:
        return any(thread.name.startswith("test-start") for thread in threading.enumerate())

    def interrupt() -> None:
        while not working():
            pass
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        on_own_loop(asyncio.sleep(60), "test-start")
    wait_until(lambda: not working(), 10, "its end")


def test_what_fails_in_looking_at_it_ends_it_too() -> None:
    def look() -> None:
        raise LookupError

    with pytest.raises(LookupError):
        on_own_loop(asyncio.sleep(60), "test", look)
