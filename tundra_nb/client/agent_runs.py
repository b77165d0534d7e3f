"""A run of an agent, as its client holds it: begun, written down step by step, ended."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

import msgspec

from tundra_nb.protocol import agents as routes

from . import api
from .answer import Event, died
from .call import STREAM_TIMEOUT, Call, Step, call
from .results import Document

T = TypeVar("T")


class _Surface(Protocol):
    caller: str

    def _do(self, step: Step[T]) -> T: ...
    def _events(self, call: Call[Any]) -> Generator[Event, None, None]: ...


class HeldRun:
    """One run under way. While it is not ended, the connection that it holds is what keeps it: when this process dies,
    the daemon writes it down as interrupted.

    Use it as a context manager: left without `end`, it is interrupted.
    """

    def __init__(self, surface: _Surface, body: Mapping[str, Any]) -> None:
        self._surface = surface
        given = {name: value for name, value in body.items() if value is not None}
        begin = call(
            routes.BEGIN, decode=lambda _: None, body={"caller": surface.caller, **given}, timeout=STREAM_TIMEOUT
        )
        self._held = surface._events(begin)  # noqa: SLF001 - part of the client
        first = next(self._held, None)
        if first is None:
            raise died()
        self.run_id = str(msgspec.json.decode(first.data)["run_id"])

    def __repr__(self) -> str:
        return f"<run {self.run_id}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._held.close()

    def step(self, fields: Mapping[str, Any]) -> None:
        """Write a step down, as `agent_step` has it."""
        self._do(call(routes.STEP, decode=api.document, body=dict(fields), id=self.run_id))

    def end(self, fields: Mapping[str, Any]) -> None:
        """Write down how it ended, as `agent_run` has it."""
        self._do(call(routes.END, decode=api.document, body=dict(fields), id=self.run_id))

    def _do(self, what: Call[Document]) -> None:
        self._surface._do(what)  # noqa: SLF001 - part of the client
