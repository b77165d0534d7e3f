"""The output of a command in a notebook: one output that grows, at most 20 updates a second, its final form once.

While it runs, only the end of the output is drawn, so that a flood costs no more than a trickle.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import Any

from tundra_nb.client.live import Live, R, Run

from .display import MIN_PAUSE_SECONDS, bundle, was_shown
from .growing import Growing, as_of_now, can_update

TAIL_CHARACTERS = 16_000


def show_output(live: Live[R], shell: Any) -> R:
    """Show the output of a command while it comes; return how it ended."""
    if not can_update(shell):
        return _print_output(live)
    output = _Output(shell)
    try:
        run = live.drain(output.add, output.draw_rest)
    except BaseException as exc:
        if live.reader.is_done:
            output.finish(live.reader.result)
        else:
            output.break_off(live.reader.raw, "interrupted" if isinstance(exc, KeyboardInterrupt) else str(exc))
        raise
    output.finish(run)
    was_shown(run)
    return run


def show_lines(texts: Iterator[str], shell: Any) -> None:
    """Show lines as they come, the last of them, until interrupted; an empty text says that nothing has come."""
    output = _Output(shell, "following")
    try:
        for text in texts:
            if text:
                output.add(text)
            else:
                output.draw_rest()
    finally:
        output.break_off(output.tail, "no longer followed")


def _print_output(live: Live[R]) -> R:
    from tundra_nb.terminal.ansi import Colours

    colours = Colours(are_kept=True)

    def show(piece: str) -> None:
        sys.stdout.write(colours.feed(piece))
        sys.stdout.flush()

    run = live.drain(show)
    if run.raw and not run.raw.endswith("\n"):
        sys.stdout.write("\n")
    was_shown(run)
    return run


class _Output:
    """One output that is updated while the command runs."""

    def __init__(self, shell: Any, state: str = "running") -> None:
        self._state = state
        self._tail = ""
        self._is_cut = False
        self._is_drawn = True
        self._due = 0.0
        self._output = Growing(shell)

    @property
    def tail(self) -> str:
        """The end of the output, from the beginning of a line on."""
        return self._tail.partition("\n")[2] if self._is_cut else self._tail

    def add(self, piece: str) -> None:
        text = self._tail + piece
        self._is_cut = self._is_cut or len(text) > TAIL_CHARACTERS
        self._tail = text[-TAIL_CHARACTERS:]
        self._is_drawn = False
        if time.monotonic() >= self._due:
            self.draw_rest()

    def draw_rest(self) -> None:
        """Draw what was held back for the pace's sake."""
        if self._is_drawn:
            return
        self._is_drawn = True
        began = time.monotonic()
        self._output.draw(self._bundle(self.tail, as_of_now(self._state)), {})
        now = time.monotonic()
        self._due = now + max(MIN_PAUSE_SECONDS, 4 * (now - began))

    def finish(self, run: Run) -> None:
        self._output.finish(*bundle(run))

    def break_off(self, text: str, why: str) -> None:
        """It has no end of its own to show."""
        self._output.finish(self._bundle(text, why), {})

    @staticmethod
    def _bundle(text: str, note: str) -> dict[str, Any]:
        from tundra_nb.views import html
        from tundra_nb.views import text as plain
        from tundra_nb.views.blocks import Block, Output, Para, Styled
        from tundra_nb.views.terminal import SHOWN_CHARACTERS

        blocks: list[Block] = [Output(text[-SHOWN_CHARACTERS:].replace("\r\n", "\n")), Para(Styled(note, "dim"))]
        return {"text/plain": plain.plain(blocks), "text/html": html.render(blocks)}
