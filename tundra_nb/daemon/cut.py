"""uvicorn's HTTP protocol, whose answers can be broken off, and which tells when its client has left.

An answer that fails half-way must not look whole, and with chunked encoding the only way to say so is to close the
connection before its end. ASGI has no word for that, so the scope carries one. It also tells of a client that left
without a task that waits for it, which would cost as much as the rest of the server.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

CUT = "tundra.cut"
"""Key of the scope that holds a `Cut`."""


class Cut:
    """One connection. `gone` is set once it is closed."""

    def __init__(self, protocol: HttpToolsProtocol) -> None:
        self._protocol = protocol
        self._on_gone: Callable[[], None] | None = None
        self.gone = asyncio.Event()

    def close(self) -> None:
        """Close it: what has been written still goes out."""
        self._protocol.transport.close()

    def watch(self, on_gone: Callable[[], None] | None) -> None:
        """Have `on_gone` called, once, when the client leaves; at once, if it has. None: nobody wants to know any more.

        For when the request's body has been read.
        """
        self._on_gone = on_gone
        if on_gone is not None:
            if self.gone.is_set():
                self.lost()
            else:
                self._protocol.flow.resume_reading()  # a long body has stopped it, and then nothing is heard

    def lost(self) -> None:
        self.gone.set()
        on_gone, self._on_gone = self._on_gone, None
        if on_gone is not None:
            on_gone()


class Leaving:
    """A block that ends when the client leaves: its task is cancelled at once, and nothing is raised. For `with`."""

    def __init__(self, cut: Cut) -> None:
        self._cut = cut
        self._task: asyncio.Task[Any] | None = None
        self._is_gone = False

    def __enter__(self) -> Self:
        self._task = asyncio.current_task()
        self._cut.watch(self._leave)
        return self

    def stop(self) -> None:
        """Let the rest of the block run, whether the client leaves or not."""
        self._cut.watch(None)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self.stop()
        if not self._is_gone or kind is not asyncio.CancelledError or self._task is None:
            return False
        self._task.uncancel()
        return True

    def _leave(self) -> None:
        if self._task is not None:
            self._is_gone = True
            self._task.cancel()


class Cuttable(HttpToolsProtocol):
    """Puts a `Cut` into each scope."""

    _cut: Cut | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._cut = Cut(self)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope[CUT] = self._cut  # type: ignore[literal-required]

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._cut is not None:
            self._cut.lost()
