"""A notebook as the face of a command."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tundra_nb.client.live import Live, R
from tundra_nb.client.sync import Client, ReplyStream
from tundra_nb.commands.face import Face
from tundra_nb.types import Reply
from tundra_nb.views.blocks import clean

from .display import is_kernel, show_live
from .ipython import display_data

CELLS = 12
"""So many of the last cells go into a report; it shows fewer."""


class Notebook(Face):
    """The cell that a magic stands in."""

    name = "kernel"
    prefix = "%tundra "

    def __init__(self, shell: Any, connect: Callable[[], Client], body: str | None) -> None:
        super().__init__(body)
        self._shell = shell
        self._connect = connect
        self._progress: Any = None

    @property
    def client(self) -> Client:
        return self._connect()

    def show_answer(self, stream: ReplyStream, asked: str = "") -> Reply:
        return show_live(stream, self._shell, asked)

    @property
    def shows_live(self) -> bool:
        return is_kernel(self._shell)

    def widget(self, name: str, *given: Any) -> Any:
        if not self.shows_live:
            return super().widget(name)
        from . import widgets

        return widgets.make(name, self.client, *given)

    def show_output(self, live: Live[R]) -> R:
        from .output import show_output

        return show_output(live, self._shell)

    def show_lines(self, texts: Iterator[str]) -> None:
        from .growing import can_update
        from .output import show_lines

        if can_update(self._shell):
            show_lines(texts, self._shell)
        else:
            super().show_lines(texts)

    def terminal_widget(self, pty_id: str) -> Any:
        if not is_kernel(self._shell):
            return super().terminal_widget(pty_id)
        from .widgets.terminal import TerminalWidget

        return TerminalWidget(self.client, pty_id)

    def progress(self, text: str) -> None:
        if not is_kernel(self._shell):
            return
        from IPython.display import display

        shown = {"text/plain": clean(text)}
        if self._progress is None:
            self._progress = display(shown, raw=True, display_id=True) if text else None  # type: ignore[no-untyped-call]
        else:
            self._progress.update(shown, raw=True)

    def cells(self) -> Sequence[str]:
        return [str(cell) for cell in self._shell.user_ns.get("In", ())][-CELLS:]

    def confirm(self, question: str) -> bool:
        self.progress("")
        try:
            return input(f"{self.words(question)} [y/N] ").strip().lower() in ("y", "yes")
        except (EOFError, NotImplementedError, RuntimeError):  # nobody sits at this notebook
            return False

    def offer_cell(self, text: str) -> None:
        self._shell.set_next_input(text)

    def link_terminal(self, pty_id: str, *, opens: bool = False) -> None:
        if not is_kernel(self._shell):
            super().link_terminal(pty_id)
            return
        server = _server_url()
        place = f"also {server}terminals/tundra-{pty_id}" if server else "also in Jupyter's list of running terminals"
        from tundra_nb.views import html, text
        from tundra_nb.views.terminal import tab

        blocks, name = tab(pty_id, place), f"tundra-tab-{pty_id}"
        fragment = f'<div class="{name}">{html.render(blocks)}</div>'
        display_data({"text/plain": text.plain(blocks), "text/html": fragment}, raw=True)
        if opens:
            from IPython.display import display

            from .widgets.tab import TabOpener

            display(TabOpener(name))  # type: ignore[no-untyped-call]

    def write(self, text: str) -> None:
        sys.stdout.write(clean(text))
        sys.stdout.flush()


def _server_url() -> str:
    """Address of the Jupyter server that has started this kernel, without its token; empty when there is none."""
    from jupyter_core.paths import jupyter_runtime_dir

    try:
        found = json.loads((Path(jupyter_runtime_dir()) / f"jpserver-{os.getppid()}.json").read_bytes())
        return str(found["url"])
    except (OSError, ValueError, KeyError):
        return ""
