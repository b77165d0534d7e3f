"""The threads behind widgets: one looks again and again, the other does the latest thing that was asked for."""

from __future__ import annotations

import atexit
import logging
import threading
from collections.abc import Callable

_log = logging.getLogger("tundra.kernel")

ECHO_SECONDS = 0.015
"""What a program gets to answer a key before the next look."""
JOIN_SECONDS = 2.0
"""Longest wait for the thread's end; it may be in the middle of a call."""


class Watch:
    """Calls `look` every `pause` seconds in a thread of its own.

    May be started and closed any number of times, from any thread; there is never more than one thread.

    Args:
        look: must not block for long; what it raises is logged, and it is called again.
        pause: seconds between the end of one look and the next.
        name: of the thread.
    """

    def __init__(self, look: Callable[[], None], pause: float, name: str) -> None:
        self._look = look
        self._pause = pause
        self._name = name
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._soon = threading.Event()
        self._thread: threading.Thread | None = None

    def hurry(self) -> None:
        """Look again at once: something has been done whose effect somebody waits for."""
        self._soon.set()

    @property
    def is_running(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> None:
        with self._lock:
            if self._thread is not None:
                return
            self._stop = threading.Event()
            self._thread = threading.Thread(target=self._run, args=(self._stop,), name=self._name, daemon=True)
            self._thread.start()
            atexit.register(self.close)

    def close(self) -> None:
        """End the thread, and wait until it has ended."""
        with self._lock:
            thread, self._thread = self._thread, None
            self._stop.set()
            self._soon.set()
        atexit.unregister(self.close)
        if thread is not None and thread is not threading.current_thread():
            thread.join(JOIN_SECONDS)

    def _run(self, stop: threading.Event) -> None:
        while not stop.is_set():
            try:
                self._look()
            except Exception:  # noqa: BLE001 - top of the thread; the next look may find it well again
                _log.exception("%s: a look failed", self._name)
            if self._soon.wait(self._pause):
                self._soon.clear()
                stop.wait(ECHO_SECONDS)


class Latest:
    """Does what is asked for in a thread of its own, which is there only while there is something to do.

    Of what is asked for meanwhile only the last is done: the answers to the others would be stale when they came.

    Args:
        name: of the thread.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._next: Callable[[], None] | None = None
        self._thread: threading.Thread | None = None

    def ask(self, job: Callable[[], None]) -> None:
        """Do this as soon as what is being done is done; what it raises is logged."""
        with self._lock:
            self._next = job
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()

    def close(self) -> None:
        """Forget what has not begun, and wait until what has is done."""
        with self._lock:
            self._next, thread = None, self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(JOIN_SECONDS)

    def _run(self) -> None:
        while True:
            with self._lock:
                job, self._next = self._next, None
                if job is None:
                    self._thread = None
                    return
            try:
                job()
            except Exception:  # noqa: BLE001 - top of the thread; the next may go well
                _log.exception("%s failed", self._name)
