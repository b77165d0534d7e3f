"""uvicorn's HTTP protocol, whose answers can be broken off.

An answer that fails half-way must not look whole, and with chunked encoding the only way to say so is to close the
connection before its end. ASGI has no word for that, so the scope carries one.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

CUT = "tundra.cut"
"""Key of the scope that holds a `Cut`."""


@dataclasses.dataclass(frozen=True)
class Cut:
    """How to close a connection: what has been written still goes out. `gone` is set once it is closed."""

    close: Callable[[], None]
    gone: asyncio.Event


class Cuttable(HttpToolsProtocol):
    """Puts a `Cut` into each scope."""

    _cut: Cut | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._cut = Cut(transport.close, asyncio.Event())

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope[CUT] = self._cut  # type: ignore[literal-required]

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._cut is not None:
            self._cut.gone.set()
