"""A daemon in a home of its own, for benchmarks; and one that tells how late its loop is."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from tundra_nb.client.sync import Client
from tundra_nb.errors import TundraError

if TYPE_CHECKING:
    from tundra_nb.daemon.serve import AppParts

LAG_PATH = "/bench/lag"
LAG_SECONDS = 0.005
"""A timer so often in the daemon's loop; how late it fires is the lag."""
START_SECONDS = 30.0


class Lag(msgspec.Struct):
    """How late timers of the daemon's loop fired since the last time this was asked for."""

    count: int
    p50_ms: float
    p99_ms: float
    max_ms: float
    own_p99_ms: float
    """CPU time that the loop's thread itself took between two timers: what is left of the lag on an idle machine."""


@contextlib.contextmanager
def home(settings: str) -> Iterator[dict[str, str]]:
    """A folder with settings; the environment of whoever works there."""
    folder = Path(tempfile.mkdtemp(prefix="tnb-"))
    (folder / "run").mkdir(mode=0o700)
    (folder / "tundra.toml").write_text(settings)
    names = {"TUNDRA_DATA_DIR": "data", "TUNDRA_CONFIG": "tundra.toml", "JUPYTER_RUNTIME_DIR": "runtime"}
    names |= {"XDG_RUNTIME_DIR": "run", "IPYTHONDIR": "ipython"}
    try:
        yield dict(os.environ) | {name: str(folder / file) for name, file in names.items()}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def lagging_daemon(env: dict[str, str]) -> Iterator[Client]:
    """A daemon that answers at `LAG_PATH`, and a client of it."""
    with contextlib.ExitStack() as stack:
        log = stack.enter_context(tempfile.TemporaryFile())
        process = subprocess.Popen([sys.executable, "-m", __name__, "run"], env=env, stderr=log)
        stack.callback(_end, process)
        client = stack.enter_context(_in(env))
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                client.status()
                break
            except TundraError:
                if process.poll() is not None or time.monotonic() > deadline:
                    log.seek(0)
                    sys.stderr.write(log.read().decode())
                    raise
                time.sleep(0.05)
        yield client


@contextlib.contextmanager
def _in(env: dict[str, str]) -> Iterator[Client]:
    """A client that finds the daemon of another environment, without starting one."""
    before = dict(os.environ)
    os.environ.update(env)
    try:
        with Client(env["TUNDRA_DATA_DIR"], start=False) as client:
            yield client
    finally:
        os.environ.clear()
        os.environ.update(before)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextlib.asynccontextmanager
async def open_lagging(start: AppParts) -> AsyncIterator[Any]:
    """The shipped application, with a timer beside it."""
    from tundra_nb.daemon.serve import open_runtime

    late: list[tuple[float, float]] = []

    async def watch() -> None:
        while True:
            due, worked = time.perf_counter() + LAG_SECONDS, time.thread_time()
            await asyncio.sleep(LAG_SECONDS)
            late.append(((time.perf_counter() - due) * 1000, (time.thread_time() - worked) * 1000))

    async with open_runtime(start) as app:

        async def with_lag(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] != "http" or scope["path"] != LAG_PATH:
                await app(scope, receive, send)
                return
            body = msgspec.json.encode(summary(late))
            late.clear()
            head = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
            await send({"type": "http.response.start", "status": 200, "headers": head})
            await send({"type": "http.response.body", "body": body})

        watcher = asyncio.create_task(watch())
        try:
            yield with_lag
        finally:
            watcher.cancel()


def summary(late: list[tuple[float, float]]) -> Lag:
    """The figures of some lags and the CPU times beside them."""
    if len(late) < 2:
        return Lag(len(late), 0.0, 0.0, 0.0, 0.0)
    lags, own = zip(*late, strict=True)
    p99 = statistics.quantiles(lags, n=100)[98]
    return Lag(len(late), statistics.median(lags), p99, max(lags), statistics.quantiles(own, n=100)[98])


if __name__ == "__main__":
    from tundra_nb.daemon.serve import main

    sys.exit(main(sys.argv[2:], open_lagging))
