"""Being attached: a background thread that holds the daemon's event stream open.

While a stream is open the daemon does not stop for idleness. One stream per process and daemon is shared by all clients
that want it; it reconnects by itself, and never starts a daemon: who stopped it meant it.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import socket
import threading
import urllib.parse
from typing import ClassVar

from tundra_nb.errors import TundraError
from tundra_nb.local.place import Place
from tundra_nb.local.wire import GONE, Wire
from tundra_nb.protocol import events as routes
from tundra_nb.protocol.endpoint import params
from tundra_nb.protocol.words import EVENTS

from .link import Link

BACKOFF_SECONDS = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
"""Pauses between attempts to reconnect; the last repeats."""
SILENCE_SECONDS = 60.0
"""The stream has a heartbeat every 15 s; so much silence means that it is dead."""


class Attachment:
    """One attached stream of this process; `share` and `release` count its users."""

    _shared: ClassVar[dict[tuple[int, str, str], Attachment]] = {}
    _lock: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, link: Link, who: str, owner: str) -> None:
        self._link = link
        self._query = urllib.parse.urlencode(params(routes.FeedQuery(attach=who, owner=owner, kinds="none")))
        self._users = 0
        self._stop = threading.Event()
        self._wire: Wire | None = None
        self.is_attached = threading.Event()
        """Set while the stream is open."""
        self._thread = threading.Thread(target=self._hold, name="tundra-attached", daemon=True)

    @classmethod
    def share(cls, link: Link, who: str, owner: str) -> Attachment:
        """The attachment of this process to that daemon, made if there is none; `release` it.

        Args:
            link: the way to the daemon.
            who: kernel, cli, python.
            owner: whose persistent shell lives on while it is held.
        """
        key = (os.getpid(), link.key, owner)
        with cls._lock:
            found = cls._shared.get(key)
            if found is None:
                found = cls._shared[key] = cls(link, who, owner)
                found._thread.start()
                atexit.register(found.close)
            found._users += 1
            return found

    def release(self) -> None:
        """One user less; the last one closes it."""
        with self._lock:
            self._users -= 1
            if self._users > 0:
                return
            for key, held in list(self._shared.items()):
                if held is self:
                    del self._shared[key]
        self.close()

    def close(self) -> None:
        """Detach now; waits until the thread has ended."""
        atexit.unregister(self.close)
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
            with contextlib.suppress(TundraError, *GONE):
                place = self._link.find(start=False)
                if self._listen(place):
                    failures = 0
            self.is_attached.clear()
            self._stop.wait(BACKOFF_SECONDS[min(failures, len(BACKOFF_SECONDS) - 1)])
            failures += 1

    def _listen(self, place: Place) -> bool:
        """Hold the stream until it ends; True when it was open."""
        wire = self._wire = Wire(place)
        try:
            wire.set_timeout(SILENCE_SECONDS)
            # `none` is no kind of event: the stream carries its hello and heartbeats, and nothing to throw away here
            response = wire.exchange(routes.FEED.method, f"{routes.FEED.path}?{self._query}", {"Accept": EVENTS})
            if response.status != 200 or self._stop.is_set():
                return False
            self.is_attached.set()
            with contextlib.suppress(*GONE):
                for _ in response.pieces():
                    pass
            return True
        finally:
            self._wire = None
            wire.close()
