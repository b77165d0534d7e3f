"""Interrupting a cell while a magic waits for the daemon."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator


class Interrupted(KeyboardInterrupt):
    """The cell was interrupted; the daemon has cancelled the call, or ended the command. One line, no traceback."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else "the call was cancelled"

    def _render_traceback_(self) -> list[str]:
        return [f"Interrupted: {self}"]


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Let an interrupt end what blocks inside, and leave as `Interrupted`.

    In a cell with a top-level `await`, ipykernel's own SIGINT handler only cancels the task, which a blocking read
    never notices. So Python's handler is put in place while a magic blocks, where it can be: in the main thread.
    """
    before = signal.getsignal(signal.SIGINT) if threading.current_thread() is threading.main_thread() else None
    if before is not None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt as exc:
        raise Interrupted(*exc.args) from exc
    finally:
        if before is not None:
            signal.signal(signal.SIGINT, before)
