"""Being attached: a background thread that holds the daemon's event stream open.

While a stream is open the daemon does not stop for idleness. One stream per process and daemon is shared by all clients
that want it; it reconnects by itself, and never starts a daemon: who stopped it meant it.
"""

from __future__ import annotations

import atexit
import os
import threading
from typing import ClassVar

from tundra_nb.local.wire import Response
from tundra_nb.protocol.events import FeedQuery

from .held import HeldStream
from .link import Link


class Attachment:
    """One attached stream of this process; `share` and `release` count its users."""

    _shared: ClassVar[dict[tuple[int, str, str], Attachment]] = {}
    _lock: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, link: Link, who: str, owner: str) -> None:
        self._users = 0
        self.is_attached = threading.Event()
        """Set while the stream is open."""
        # `none` is no kind of event: the stream carries its hello and heartbeats, and nothing to throw away here
        query = FeedQuery(attach=who, owner=owner, kinds="none")
        self._stream = HeldStream(link, query, name="tundra-attached", read=self._read)

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
                found._stream.start()
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
        self._stream.close()

    def _read(self, response: Response) -> None:
        self.is_attached.set()
        try:
            for _ in response.pieces():
                pass
        finally:
            self.is_attached.clear()
