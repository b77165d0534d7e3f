"""The output of a command, interrupted at the moments that are hard to hit from outside."""

from __future__ import annotations

import os
import queue
import signal
from collections.abc import Iterator

import msgspec
import pytest

from tundra_nb.client.answer import Event
from tundra_nb.client.live import CommandReader, Live, ResultReader, Run

EXIT = {"pty_id": "p1", "exit_code": 9, "seconds": 0.1}


def event(name: str, row: dict[str, object]) -> Event:
    return Event(name=name, data=msgspec.json.encode(row))


class Scripted:
    """A stream that interrupts this process at once, and ends when the interrupt was passed on."""

    def __init__(self, *first: Event, interrupts: int = 1) -> None:
        self.first = first
        self.interrupts = interrupts
        self.passed: list[str] = []
        self._told: queue.SimpleQueue[str] = queue.SimpleQueue()

    def events(self) -> Iterator[Event]:
        for _ in range(self.interrupts):
            os.kill(os.getpid(), signal.SIGINT)
        yield from self.first
        self.passed.append(self._told.get(timeout=10))
        yield event("exit", EXIT)

    def live(self, reader: ResultReader[Run]) -> Live[Run]:
        return Live(
            "make",
            reader,
            self.events,
            lambda pty: self._told.put(f"interrupt {pty}"),
            lambda pty: self._told.put(f"end {pty}"),
        )


def test_an_interrupt_before_the_thread_has_begun_is_passed_on() -> None:
    stream = Scripted(event("output", {"text": "armed\n"}))
    shown: list[str] = []
    with pytest.raises(KeyboardInterrupt, match="make: exit code 9"):
        stream.live(CommandReader("p1", None)).drain(shown.append)
    assert (stream.passed, shown) == (["interrupt p1"], ["armed\n"])


def test_an_interrupt_before_the_shell_has_begun_waits_for_it() -> None:
    class Reader(CommandReader):
        def _note(self, name: str, data: str | bytes) -> None:
            if name == "shell":
                self.pty_id = "p2"
            super()._note(name, data)

    stream = Scripted(event("shell", {"pty_id": "p2"}))
    with pytest.raises(KeyboardInterrupt, match="make: exit code 9"):
        stream.live(Reader("", None)).drain(lambda _: None)
    assert stream.passed == ["interrupt p2"]
