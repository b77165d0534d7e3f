"""The output of a command in a notebook: one output that grows, at most 20 updates a second, its final form once.

While it runs, only the end of the output is drawn, so that a flood costs no more than a trickle.
"""

from __future__ import annotations

import sys
import time
from typing import Any

from tundra_nb.client.live import Live, R, Run

from .display import MIN_PAUSE_SECONDS, bundle, display_data, is_kernel, metadata_of, was_shown

TAIL_CHARACTERS = 16_000


def show_output(live: Live[R], shell: Any) -> R:
    """Show the output of a command while it comes; return how it ended."""
    if not is_kernel(shell):
        return _print_output(live)
    output = _Growing()
    try:
        run = live.drain(output.add, output.draw_rest)
    except BaseException as exc:
        if live.reader.is_done:
            output.finish(live.reader.result)
        else:
            output.break_off(live.reader.text, "interrupted" if isinstance(exc, KeyboardInterrupt) else str(exc))
        raise
    output.finish(run)
    was_shown(run)
    return run


def _print_output(live: Live[R]) -> R:
    from tundra_nb.terminal.ansi import Colours

    colours = Colours(are_kept=True)

    def show(piece: str) -> None:
        sys.stdout.write(colours.feed(piece))
        sys.stdout.flush()

    run = live.drain(show)
    if run.text and not run.text.endswith("\n"):
        sys.stdout.write("\n")
    was_shown(run)
    return run


class _Growing:
    """One output that is updated while the command runs."""

    def __init__(self) -> None:
        self._tail = ""
        self._is_cut = False
        self._is_drawn = True
        self._due = 0.0
        self._handle: Any = None

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
        text = self._tail.partition("\n")[2] if self._is_cut else self._tail
        self._draw(text, "running …")
        now = time.monotonic()
        self._due = now + max(MIN_PAUSE_SECONDS, 4 * (now - began))

    def finish(self, run: Run) -> None:
        data, metadata = bundle(run)
        self._show(data, metadata)

    def break_off(self, text: str, why: str) -> None:
        """It has no end of its own to show."""
        self._draw(text, why)

    def _draw(self, text: str, note: str) -> None:
        from tundra_nb.views import html
        from tundra_nb.views import text as plain
        from tundra_nb.views.blocks import Block, Output, Para, Styled
        from tundra_nb.views.terminal import SHOWN_CHARACTERS

        blocks: list[Block] = [Output(text[-SHOWN_CHARACTERS:].replace("\r\n", "\n")), Para(Styled(note, "dim"))]
        self._show({"text/plain": plain.plain(blocks), "text/html": html.render(blocks)}, metadata_of(None))

    def _show(self, data: dict[str, Any], metadata: dict[str, Any]) -> None:
        if self._handle is None:
            self._handle = display_data(data, raw=True, metadata=metadata, display_id=True)
        else:
            self._handle.update(data, raw=True, metadata=metadata)
