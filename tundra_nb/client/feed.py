"""What happens in the daemon, as it happens: its live feed, held by a thread."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from tundra_nb.errors import TundraError
from tundra_nb.local.wire import Response
from tundra_nb.protocol.events import FeedQuery
from tundra_nb.sse import Parser

from .held import HeldStream
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
        self._take = take
        self._lost = lost
        self._stream = HeldStream(
            link, FeedQuery(kinds=",".join(kinds)), name="tundra-feed", read=self._read, lost=self._tell
        )

    def start(self) -> None:
        """Begin to follow; once."""
        self._stream.start()

    def close(self) -> None:
        """End it now; waits until the thread has ended."""
        self._stream.close()

    def _tell(self, exc: Exception) -> None:
        self._lost(exc if isinstance(exc, TundraError) else self._link.lost(exc))

    def _read(self, response: Response) -> None:
        parser = Parser()
        for piece in response.pieces():
            for kind, data in parser.feed(piece):
                if self._stream.is_closed:
                    return
                self._take(kind, msgspec.json.decode(data))
