"""A worker process that starts when it is first asked, and ends by itself when nobody asks for a while."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from collections.abc import Mapping, Sequence

from tundra_nb.errors import StoreUnavailable

from .line import close, hand_over, not_started
from .protocol import WorkerRequest, read_frame

ENVIRONMENT = (
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "TZ",
    "TMPDIR",
    "PYTHONPATH",
    "LD_LIBRARY_PATH",
    "COVERAGE_PROCESS_START",
)
"""All that a worker inherits: no keys of providers, no LD_PRELOAD, no mark of doltlite."""
START_SECONDS = 20.0
STOP_SECONDS = 5.0


class OnDemand:
    """The way to such a worker (`line.Line`). Nothing starts before the first request; `aclose` ends it.

    Args:
        module: run as `python -m MODULE FD ARGUMENTS…`; it says Hello on FD and serves it (`serving.Server`).
        arguments: of it.
        environ: where its few variables come from.
        what: what it is the worker of, for people.
    """

    def __init__(self, module: str, arguments: Sequence[str], environ: Mapping[str, str], what: str) -> None:
        self._module = module
        self._arguments = tuple(arguments)
        self._environ = environ
        self._what = what
        self._process: asyncio.subprocess.Process | None = None
        self._control: socket.socket | None = None
        self._starting = asyncio.Lock()
        self.lives = 0

    async def ask(
        self, request: WorkerRequest, *inputs: socket.socket
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Send one request to the worker, which is started when it is not there."""
        async with self._starting:
            if self._process is None or self._process.returncode is not None or self._control is None:
                await self._start()
            assert self._control is not None
            try:
                return await hand_over(self._control, request, *inputs)
            except ConnectionResetError:
                await self._start()  # it was ending just then
                return await hand_over(self._control, request, *inputs)

    async def notice_end(self, life: int) -> None:
        """After a request was lost: the next one gets another worker."""
        async with self._starting:
            if self.lives == life:
                await self._forget()

    async def aclose(self) -> None:
        """End the worker. May be called twice."""
        await self._forget()

    async def _start(self) -> None:
        await self._forget()
        ours, theirs = socket.socketpair()
        try:
            ours.setblocking(False)
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", self._module, str(theirs.fileno()), *self._arguments),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=None,  # the daemon's log
                pass_fds=(theirs.fileno(),),
                env={name: self._environ[name] for name in ENVIRONMENT if name in self._environ},
                start_new_session=True,
            )
        except OSError as exc:
            ours.close()
            raise not_started(f"the worker of {self._what}", exc) from exc
        finally:
            theirs.close()
        self._control = ours
        self.lives += 1
        reader, writer = await asyncio.open_unix_connection(sock=ours.dup())
        try:
            async with asyncio.timeout(START_SECONDS):
                await read_frame(reader)  # its hello
        except (TimeoutError, asyncio.IncompleteReadError, ConnectionError):
            await self._forget()
            raise StoreUnavailable(
                problem=f"the worker of {self._what} does not start",
                remedy="`tundra logs` has its last words.",
                kind="worker",
            ) from None
        finally:
            await close(writer)

    async def _forget(self) -> None:
        """End a worker, or what is left of one."""
        control, self._control = self._control, None
        process, self._process = self._process, None
        if control is not None:
            with contextlib.suppress(OSError):
                control.shutdown(socket.SHUT_RDWR)
            control.close()
        if process is not None:
            await ended(process, STOP_SECONDS)


async def ended(process: asyncio.subprocess.Process, timeout: float) -> None:  # noqa: ASYNC109 - it kills at the end
    """Wait for a worker whose line is closed, so that it ends by itself; or not."""
    try:
        async with asyncio.timeout(timeout):
            await process.wait()
    except (TimeoutError, asyncio.CancelledError):
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
