"""Child processes that serve something on loopback, and never outlive their parent.

The parent holds the child's standard input open and never writes to it. When the parent closes it, or dies in whatever
way, the child reads the end and stops. The child's first line on standard output is a JSON object with its `url`: it is
ready then.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Final, Protocol, Self

CHILD_FLAG: Final = "--until-stdin-closes"
"""Given to a child by its parent. By hand, from a terminal, a server runs until it is interrupted."""
START_SECONDS: Final = 30.0
STOP_SECONDS: Final = 5.0
LOG_TAIL_BYTES: Final = 2000


class Child:
    """A running `python -m module` that serves `url`. A context manager; `close` may be called twice."""

    def __init__(
        self,
        module: str,
        arguments: Sequence[str] = (),
        *,
        timeout: float = START_SECONDS,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (closed in `close`)
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments, CHILD_FLAG],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=None if environ is None else dict(environ),
        )
        try:
            self.announced = self._read_announced(module, time.monotonic() + timeout)
        except BaseException:
            self.close()
            raise

    @property
    def url(self) -> str:
        """Without a trailing slash and without `/v1`."""
        return self.announced["url"]

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    @property
    def log(self) -> str:
        """The end of what the child wrote to standard error."""
        size = self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, size - LOG_TAIL_BYTES))
        return self._log.read().decode(errors="replace")

    def close(self) -> None:
        """End the child and wait until it is gone."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        for number in (None, signal.SIGTERM, signal.SIGKILL):
            if number is not None:
                self._process.send_signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_SECONDS)
                break
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _read_announced(self, module: str, deadline: float) -> dict[str, str]:
        stdout = self._process.stdout
        assert stdout is not None
        line = b""
        with selectors.DefaultSelector() as selector:
            selector.register(stdout, selectors.EVENT_READ)
            while not line.endswith(b"\n"):
                left = deadline - time.monotonic()
                if left <= 0 or not selector.select(left):
                    raise TimeoutError(f"{module} was not ready in time: {self.log}")
                piece = os.read(stdout.fileno(), 4096)
                if not piece:
                    raise RuntimeError(f"{module} ended while starting: {self.log}")
                line += piece
        announced: dict[str, str] = json.loads(line)
        return announced


def require_port(port: int, option: str = "--port") -> None:
    """End this program in one line where it cannot have this port: a server would end in a traceback of its own."""
    with socket.socket() as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind(("127.0.0.1", port))
        except OSError as exc:
            why = "is taken" if exc.errno == errno.EADDRINUSE else f"cannot be had ({exc.strerror})"
            sys.exit(f"port {port} {why}: choose another with {option}")


def announce(urls: Mapping[str, str]) -> None:
    """Tell the parent, or the person at the terminal, that the server is ready, and where."""
    print(json.dumps(dict(urls)), flush=True)


def when_parent_goes(then: Callable[[], Any]) -> None:
    """Call `then` in a thread of its own once standard input has ended."""

    def watch() -> None:
        while os.read(0, 4096):
            pass
        then()

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


class Served(Protocol):
    """A server of this room, once started."""

    @property
    def urls(self) -> Mapping[str, str]:
        """What to announce: `url` and whatever else it serves."""
        ...


def serve(server: AbstractAsyncContextManager[Served], *, until_stdin_closes: bool) -> None:
    """Run a server until SIGTERM, SIGINT or, as a child, the end of its parent."""

    async def run() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        if until_stdin_closes:
            when_parent_goes(lambda: loop.call_soon_threadsafe(stop.set))
        async with server as started:
            announce(started.urls)
            await stop.wait()

    with contextlib.suppress(ImportError):
        import uvloop  # faster; there is none for Windows

        uvloop.run(run())
        return
    asyncio.run(run())
