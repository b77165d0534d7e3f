"""The thread behind a widget: looks again and again, from `start` until `close`."""

from __future__ import annotations

import atexit
import logging
import threading
from collections.abc import Callable

_log = logging.getLogger("tundra.kernel")

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
        self._thread: threading.Thread | None = None

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
        atexit.unregister(self.close)
        if thread is not None and thread is not threading.current_thread():
            thread.join(JOIN_SECONDS)

    def _run(self, stop: threading.Event) -> None:
        while not stop.is_set():
            try:
                self._look()
            except Exception:  # noqa: BLE001 - top of the thread; the next look may find it well again
                _log.exception("%s: a look failed", self._name)
            stop.wait(self._pause)
