"""The terminal widget: the live screen of a PTY that takes every key, a line to type into, its size, and its end.

No terminal emulator in the page: anywidget keeps a widget's script in its state, so it would be saved with every view.
The screen is drawn here, by pyte, from the end of the output; a terminal tab is faster where a program draws much.
"""

from __future__ import annotations

import datetime as dt
import threading
import time
from typing import Any

import msgspec

from tundra_nb.client import times
from tundra_nb.client.sync import Client
from tundra_nb.errors import HandleNotFound, TundraError
from tundra_nb.terminal import ansi
from tundra_nb.terminal.screen import Modes, Screen
from tundra_nb.views import html
from tundra_nb.views.blocks import Block, Para, Shot, Styled

from . import messages
from .live import Watch
from .view import LiveView, part, problem

LOOK_SECONDS = 0.1
"""Between two looks at the daemon; the screen is drawn again only when there was output."""
ABOVE_ROWS = 500
"""Most rows shown of what has left the screen."""
STILL_SECONDS = 2.0
"""Least time between two updates of the static picture: each is written into the notebook."""


class TerminalWidget(LiveView):
    """The screen of a PTY, live while a view of it is open.

        TerminalWidget(client, pty_id)      # `%tundra pty open CMD --widget`, `%tundra pty show ID --widget`

    `close` ends its thread and its connection, not the PTY.

    Raises:
        HandleNotFound: no such PTY is open, and no transcript of one is kept.
    """

    _esm = part("terminal.js")
    _css = part("terminal.css")
    from_script = messages.FromTerminal
    without_kernel = "the live screen of a PTY needs a kernel; the picture above is the last one"

    def __init__(self, client: Client, pty_id: str) -> None:
        self._screen = client.ptys[pty_id].screen
        super().__init__(client)
        self._pty = self._client.ptys[pty_id]
        self._watch = Watch(self.look, LOOK_SECONDS, "tundra-terminal-widget")
        self._looking = threading.Lock()
        self._still_due = 0.0
        self._still_shows: Screen | None = None
        self._seen: Any = None
        self._seen_at = dt.datetime.now(dt.UTC)
        self._trouble = ""
        self._modes = Modes()
        self._is_scrolled = False
        self._above: list[list[tuple[str, str]]] = []
        self._row: dict[str, Any] = {}
        self.look()

    def look(self) -> None:
        """Fetch the state once, draw the screen if there was output, and show what has changed."""
        with self._looking:
            trouble = ""
            try:
                self._row = dict(self._pty.info)
                self._seen_at = dt.datetime.now(dt.UTC)
                seen = tuple(self._row[name] for name in ("bytes_out", "columns", "rows"))
                if seen != self._seen:
                    tail = self._pty.tail
                    self._screen, self._seen = tail.screen, seen
                    self._modes = self._modes.after(tail.output)
                    self._above = ansi.pieces(tail.above(ABOVE_ROWS), ansi.SCREEN) if self._is_scrolled else []
            except HandleNotFound:  # of an earlier daemon: its transcript is all there is
                self._row["state"] = "ended"
            except TundraError as error:
                trouble = problem(error)
            self._tell_screen(trouble)
            is_news, self._trouble = trouble != self._trouble, trouble
            self._keep_still(is_news=is_news)

    def _tell_screen(self, trouble: str) -> None:
        screen, state = self._screen, str(self._row.get("state"))
        self._tell(
            messages.Terminal(
                lines=ansi.pieces(screen.lines, ansi.SCREEN, screen.cursor if state == "running" else None),
                columns=screen.columns,
                rows=screen.rows,
                title=screen.title or str(self._row.get("command") or ""),
                state=_ending(self._row),
                is_open=state == "running",
                above=self._above,
                is_application=self._modes.is_application,
                is_bracketed=self._modes.is_bracketed,
                is_secret=state == "running" and bool(self._row.get("is_secret")),
                problem=trouble,
            )
        )

    def _shown(self) -> None:
        self._watch.start()

    def _hidden(self) -> None:
        self._watch.close()

    def _act(self, told: messages.KeysTyped | messages.Scrolled | messages.Resized | messages.Killed) -> None:
        trouble = ""
        try:
            match told:
                case messages.KeysTyped(text=text):
                    trouble = self._pty.send(text)
                    self._watch.hurry()
                case messages.Scrolled(is_on=is_on):
                    with self._looking:
                        self._is_scrolled, self._seen = is_on, None
                        self._above = []
                    self.look()
                case messages.Resized(columns=columns, rows=rows):
                    self._pty.resize(rows, columns)
                case messages.Killed():
                    self._pty.close()
        except TundraError as error:
            trouble = problem(error)
        finally:
            if isinstance(told, messages.KeysTyped):
                self.send(msgspec.to_builtins(messages.Heard()))
        if trouble:
            with self._looking:
                self._tell_screen(trouble)

    def _keep_still(self, *, is_news: bool) -> None:
        """Bring the static picture up to date, at once when the PTY has ended, or the daemon has gone or is back."""
        now = time.monotonic()
        is_due = now >= self._still_due or self._row.get("state") != "running"
        if not is_news and (self._screen is self._still_shows or not is_due):
            return
        self._still_shows, self._still_due = self._screen, now + STILL_SECONDS
        self._update_stills()

    def _picture(self) -> tuple[str, str]:
        at = f"{times.local(self._seen_at)} {times.zone(self._seen_at)}"
        told = [str(self._row.get("command") or ""), _ending(self._row), at, self._trouble]
        foot = " · ".join(filter(None, told))
        blocks: list[Block] = [Shot(self._screen), Para(Styled(foot, "dim"))]
        return html.render(blocks), f"{self._screen.text}\n\n{foot}"


def _ending(row: dict[str, Any]) -> str:
    if row.get("exit_signal"):
        return f"ended by {row['exit_signal']}"
    return str(row.get("state")) if row.get("exit_code") is None else f"exit code {row['exit_code']}"
