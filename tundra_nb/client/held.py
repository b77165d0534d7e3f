"""An event stream of the daemon that is held open: the thread, the reconnecting and the end that all of them share."""

from __future__ import annotations

import contextlib
import socket
import threading
import urllib.parse
from collections.abc import Callable

from tundra_nb.errors import TundraError
from tundra_nb.local.wire import GONE, Response, Wire
from tundra_nb.protocol import events as routes
from tundra_nb.protocol.endpoint import params
from tundra_nb.protocol.words import EVENTS

from .link import Link

BACKOFF_SECONDS = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
"""Pauses between attempts to reconnect; the last repeats."""
SILENCE_SECONDS = 60.0
"""The stream has a heartbeat every 15 s; so much silence means that it is dead."""
END_SECONDS = 2.0
"""Longest wait for the thread to end."""


class HeldStream:
    """Holds the stream in a thread of its own between `start` and `close`; it never starts a daemon.

    Args:
        link: the way to the daemon.
        query: what the stream is to carry.
        name: of the thread.
        read: reads an open stream to its end, or until `is_closed`.
        lost: told why there is no stream, each time.
    """

    def __init__(
        self,
        link: Link,
        query: routes.FeedQuery,
        *,
        name: str,
        read: Callable[[Response], None],
        lost: Callable[[Exception], None] = lambda _: None,
    ) -> None:
        self._link = link
        self._target = f"{routes.FEED.path}?{urllib.parse.urlencode(params(query))}"
        self._read = read
        self._lost = lost
        self._closed = threading.Event()
        self._wire: Wire | None = None
        self._failures = 0
        self._thread = threading.Thread(target=self._hold, name=name, daemon=True)

    @property
    def is_closed(self) -> bool:
        return self._closed.is_set()

    def start(self) -> None:
        """Begin to hold it; once."""
        self._thread.start()

    def close(self) -> None:
        """End it now; waits until the thread has ended."""
        self._closed.set()
        wire = self._wire
        if wire is not None and wire.sock is not None:
            with contextlib.suppress(OSError):
                wire.sock.shutdown(socket.SHUT_RDWR)  # wakes the thread out of its read
        if self._thread is not threading.current_thread() and self._thread.is_alive():
            self._thread.join(END_SECONDS)

    def _hold(self) -> None:
        while not self._closed.is_set():
            try:
                self._listen()
            except (TundraError, *GONE) as exc:
                self._lost(exc)
            self._closed.wait(BACKOFF_SECONDS[min(self._failures, len(BACKOFF_SECONDS) - 1)])
            self._failures += 1

    def _listen(self) -> None:
        wire = self._wire = Wire(self._link.find(start=False))
        try:
            wire.set_timeout(SILENCE_SECONDS)
            response = wire.exchange(routes.FEED.method, self._target, {"Accept": EVENTS})
            if response.status == 200 and not self._closed.is_set():
                self._failures = 0
                self._read(response)
        finally:
            self._wire = None
            wire.close()
