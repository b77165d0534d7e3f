"""The terminal widget: the live screen of a PTY, a line to type into, its size, and its end.

No terminal emulator in the page: anywidget keeps a widget's script in its state, so it would be saved with every view.
The screen is drawn here, by pyte, from the end of the output; people who need every key open a terminal tab.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import anywidget
import msgspec
import traitlets
from IPython.display import DisplayHandle, display

from tundra_nb.client.screen import Screen
from tundra_nb.client.sync import Client
from tundra_nb.commands.views import ansi, html
from tundra_nb.errors import HandleNotFound, TundraError

from . import messages
from .live import Watch

LOOK_SECONDS = 0.1
"""Between two looks at the daemon; the screen is drawn again only when there was output."""
STILL_SECONDS = 2.0
"""Least time between two updates of the static picture: each is written into the notebook."""


class TerminalWidget(anywidget.AnyWidget):
    """The screen of a PTY, live while a view of it is open.

        TerminalWidget(client, pty_id)      # `%tundra pty open CMD --widget`, `%tundra pty show ID --widget`

    It looks and types through a connection of its own, which never starts a daemon. `close` ends its thread and that
    connection, not the PTY.

    Raises:
        HandleNotFound: no such PTY is open, and no transcript of one is kept.
    """

    _esm = Path(__file__).with_suffix(".js")
    _css = Path(__file__).with_suffix(".css")
    state = traitlets.Dict().tag(sync=True)
    """A `messages.Terminal`, as plain values."""
    still = traitlets.Unicode().tag(sync=True)
    """Class of the static pictures, by which the script finds them."""

    def __init__(self, client: Client, pty_id: str) -> None:
        self._client = Client(link=client.link.quiet(), caller=client.caller)
        self._pty = self._client.ptys[pty_id]
        self._screen = self._pty.screen
        super().__init__()
        self.still = f"tundra-still-{self.model_id}"
        self._looking = threading.Lock()
        self._watch = Watch(self.look, LOOK_SECONDS, "tundra-terminal-widget")
        self._views: set[str] = set()
        self._stills: list[DisplayHandle] = []
        self._still_due = 0.0
        self._still_shows: Screen | None = None
        self._seen: Any = None
        self._row: dict[str, Any] = {}
        self.on_msg(self._heard)
        self.look()

    def look(self) -> None:
        """Fetch the state once, draw the screen if there was output, and show what has changed."""
        with self._looking:
            problem = ""
            try:
                self._row = dict(self._pty.info)
                seen = tuple(self._row[name] for name in ("bytes_out", "columns", "rows"))
                if seen != self._seen:
                    self._screen, self._seen = self._pty.screen, seen
            except HandleNotFound:  # of an earlier daemon: its transcript is all there is
                self._row["state"] = "ended"
            except TundraError as error:
                problem = f"{error.message}. {error.hint}".strip()
            self._tell(problem)
            self._keep_still()

    def close(self) -> None:
        """End the thread and the connection, and take the widget off every page; its static picture stays."""
        if hasattr(self, "_watch"):  # the base class closes what failed to be made, too
            self._watch.close()
            self._client.close()
        super().close()

    def _tell(self, problem: str) -> None:
        screen, state = self._screen, str(self._row.get("state"))
        told = messages.Terminal(
            lines=ansi.pieces(screen.lines, ansi.SCREEN, screen.cursor if state == "running" else None),
            columns=screen.columns,
            rows=screen.rows,
            title=screen.title or str(self._row.get("command") or ""),
            state=_ending(self._row),
            is_open=state == "running",
            problem=problem,
        )
        plain = msgspec.to_builtins(told)
        if plain != self.state:
            self.state = plain

    def _ipython_display_(self) -> None:
        self.look()
        still = display(self._still(), raw=True, display_id=True)  # type: ignore[no-untyped-call]
        if still is not None:
            self._stills.append(still)
        bundle = super()._repr_mimebundle_()
        data, metadata = bundle if isinstance(bundle, tuple) else (bundle or {}, {})
        data["text/plain"] = f"the live screen of PTY {self._pty.id} needs a kernel; the picture above is the last one"
        display(data, raw=True, metadata=metadata)  # type: ignore[no-untyped-call]
        self._watch.start()

    def _heard(self, _: Any, content: Any, __: Any) -> None:
        try:
            told = msgspec.convert(content, messages.FromTerminal)
        except msgspec.ValidationError:
            return  # a newer or older script than this kernel's
        match told:
            case messages.ViewOpened(view=view):
                self._views.add(view)
                self._watch.start()
            case messages.ViewClosed(view=view):
                self._views.discard(view)
                if not self._views:
                    self._watch.close()
            case _:
                self._act(told)

    def _act(self, told: messages.Typed | messages.Resized | messages.Killed) -> None:
        problem = ""
        try:
            match told:
                case messages.Typed(text=text):
                    problem = self._pty.send(text)
                case messages.Resized(columns=columns, rows=rows):
                    self._pty.resize(rows, columns)
                case messages.Killed():
                    self._pty.close()
        except TundraError as error:
            problem = f"{error.message}. {error.hint}".strip()
        if problem:
            with self._looking:
                self._tell(problem)

    def _keep_still(self) -> None:
        """Bring the static picture up to date, at once when the PTY has ended."""
        now = time.monotonic()
        is_due = now >= self._still_due or self._row.get("state") != "running"
        if self._screen is self._still_shows or not is_due or not self._stills:
            return
        self._still_shows, self._still_due = self._screen, now + STILL_SECONDS
        data = self._still()
        for still in self._stills:
            still.update(data, raw=True)  # type: ignore[no-untyped-call]

    def _still(self) -> dict[str, str]:
        # the script hides this class while the widget lives
        marked = f'<div class="{self.still}">{html.shot(self._screen)}</div>'
        return {"text/html": marked, "text/plain": self._screen.text}


def _ending(row: dict[str, Any]) -> str:
    if row.get("exit_signal"):
        return f"ended by {row['exit_signal']}"
    return str(row.get("state")) if row.get("exit_code") is None else f"exit code {row['exit_code']}"
