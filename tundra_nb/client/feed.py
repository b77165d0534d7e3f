"""What happens in the daemon, as it happens: its live feed, held by a thread."""

from __future__ import annotations

import contextlib
import socket
import threading
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from tundra_nb.errors import TundraError
from tundra_nb.local.wire import GONE, Wire
from tundra_nb.protocol import events as routes
from tundra_nb.protocol.endpoint import params
from tundra_nb.protocol.words import EVENTS
from tundra_nb.sse import Parser

from .attach import BACKOFF_SECONDS, SILENCE_SECONDS
from .link import Link

HELLO, MISSED = "hello", "missed"
"""Kinds of their own: the feed was opened (again), and events were left out because they came too fast."""


class Feed:
    """Calls `take` with the kind and the row of each event, in a thread of its own, between `start` and `close`.

    It reconnects by itself and never starts a daemon. After `hello` and `missed` there may be a gap before: read again.

    Args:
        link: the way to the daemon.
        kinds: tables whose rows are wanted.
        take: must not block for long.
        lost: told what stands in the way while there is no feed.
    """

    def __init__(
        self,
        link: Link,
        kinds: Sequence[str],
        take: Callable[[str, Mapping[str, Any]], None],
        lost: Callable[[TundraError], None],
    ) -> None:
        self._link = link
        self._target = f"{routes.FEED.path}?{urllib.parse.urlencode(params(routes.FeedQuery(kinds=','.join(kinds))))}"
        self._take = take
        self._lost = lost
        self._stop = threading.Event()
        self._wire: Wire | None = None
        self._thread = threading.Thread(target=self._hold, name="tundra-feed", daemon=True)

    def start(self) -> None:
        """Begin to follow; once."""
        self._thread.start()

    def close(self) -> None:
        """End it now; waits until the thread has ended."""
        self._stop.set()
        wire = self._wire
        if wire is not None and wire.sock is not None:
            with contextlib.suppress(OSError):
                wire.sock.shutdown(socket.SHUT_RDWR)  # wakes the thread out of its read
        if self._thread is not threading.current_thread() and self._thread.is_alive():
            self._thread.join(2.0)

    def _hold(self) -> None:
        failures = 0
        while not self._stop.is_set():
            try:
                if self._listen():
                    failures = 0
            except TundraError as error:
                self._lost(error)
            except GONE as exc:
                self._lost(self._link.lost(exc))
            self._stop.wait(BACKOFF_SECONDS[min(failures, len(BACKOFF_SECONDS) - 1)])
            failures += 1

    def _listen(self) -> bool:
        """Pass on what comes until the stream ends; True when it was open."""
        wire = self._wire = Wire(self._link.find(start=False))
        try:
            wire.set_timeout(SILENCE_SECONDS)
            response = wire.exchange(routes.FEED.method, self._target, {"Accept": EVENTS})
            if response.status != 200:
                return False
            parser = Parser()
            for piece in response.pieces():
                for kind, data in parser.feed(piece):
                    if self._stop.is_set():
                        return True
                    self._take(kind, msgspec.json.decode(data))
            return True
        finally:
            self._wire = None
            wire.close()
