"""One output of a cell that grows: at most 20 updates a second, its final form saved once.

Not every front end knows updates. Terminal consoles (`jupyter console`, `jupyter run`) show only what came first, so
there everything is written as in a terminal. An `ipywidgets.Output` ignores updates as well; what is shown inside one
is shown once more when it is whole.

While nothing comes, a thread of its own brings the output up to date once a second: who is asked, and for how long.
Several threads may draw, so what they share is locked.
"""

from __future__ import annotations

import contextvars
import datetime as dt
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from .ipython import display_data

TICK_SECONDS = 1.0
FIRST_TICK_SECONDS = 0.6
"""Quick answers show no waiting line at all."""
CONSOLES = ("jupyter-console", "jupyter_console", "jupyter-run", "jupyter-qtconsole", "qtconsole", "runapp")
"""Programs that start kernels and know no updates, as their command lines name them."""


def can_update(shell: Any) -> bool:
    """Whether outputs can be updated: in a kernel, unless a terminal console has started it."""
    return getattr(shell, "kernel", None) is not None and not _is_of_console()


def _is_of_console() -> bool:
    """By the command line of the process that started the kernel; a notebook server's is none of `CONSOLES`."""
    global _console  # noqa: PLW0603 - asked once: the parent does not change
    if _console is None:
        _console = any(name in _parent_command() for name in CONSOLES)
    return _console


_console: bool | None = None


def _parent_command() -> str:
    import psutil

    try:
        words = psutil.Process(os.getppid()).cmdline()
    except psutil.Error:
        return ""
    return " ".join(os.path.basename(word) for word in words[:4])


def is_captured(shell: Any) -> bool:
    """Whether the running cell's output goes into an `ipywidgets.Output`."""
    widgets = sys.modules.get("ipywidgets")
    if widgets is None:
        return False
    message = shell.kernel.get_parent("shell").get("header", {}).get("msg_id")
    known = getattr(sys.modules.get("ipywidgets.widgets.widget"), "_instances", {})
    return bool(message) and any(
        isinstance(one, widgets.Output) and one.msg_id == message for one in list(known.values())
    )


def as_of_now(state: str) -> str:
    """A state with its time: it stays true where a kernel ends before it can say how it went on."""
    from tundra_nb.client import times

    return f"{state} · {times.clock(dt.datetime.now(dt.UTC))}"


class Growing:
    """The output. `draw` shows a state, `finish` the last one.

    Args:
        shell: the kernel's.
        waiting: draws while nothing has come, with the seconds since the beginning; None draws nothing.
    """

    def __init__(self, shell: Any, waiting: Callable[[float], None] | None = None) -> None:
        self._captured = is_captured(shell)
        self._lock = threading.RLock()
        self._handle: Any = None
        self._began = time.monotonic()
        self._waiting = waiting
        self._over = threading.Event()
        if waiting is not None:
            context = contextvars.copy_context()  # output of a thread belongs to the cell whose context it has
            self._thread = threading.Thread(target=context.run, args=(self._tick,), name="tundra-wait", daemon=True)
            self._thread.start()

    @property
    def lock(self) -> threading.RLock:
        """Held while something is drawn."""
        return self._lock

    @property
    def is_shown(self) -> bool:
        return self._handle is not None

    def draw(self, data: dict[str, Any], metadata: dict[str, Any]) -> None:
        with self._lock:
            if self._handle is None:
                self._handle = display_data(data, raw=True, metadata=metadata, display_id=True)
            else:
                self._handle.update(data, raw=True, metadata=metadata)

    def finish(self, data: dict[str, Any], metadata: dict[str, Any]) -> None:
        """Show the final form; nothing may be drawn after it."""
        self.settle()
        with self._lock:
            was_shown = self.is_shown
            self.draw(data, metadata)
            if was_shown and self._captured:
                display_data(data, raw=True, metadata=metadata)

    def settle(self) -> None:
        """No waiting line any more."""
        self._over.set()

    def _tick(self) -> None:
        assert self._waiting is not None
        pause = FIRST_TICK_SECONDS
        while not self._over.wait(pause):
            with self._lock:
                if self._over.is_set():
                    return
                self._waiting(time.monotonic() - self._began)
            pause = TICK_SECONDS
