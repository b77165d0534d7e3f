from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tundra_nb.errors import ConfigError, IpcError, TundraError
from tundra_nb.paths import Paths
from tundra_nb.server import supervisor as module
from tundra_nb.server.supervisor import RESTARTS, STEADY_AFTER, Restarts, State, Supervisor, dial

if TYPE_CHECKING:
    from tests.server.conftest import StartDaemon

LOG = logging.getLogger("test")


class Starter:
    """An `ensure` that starts scripted daemons: finds a running one first, fails while `error` is set."""

    def __init__(self, start: StartDaemon, folder: Path) -> None:
        self._start = start
        self.env = {
            "XDG_RUNTIME_DIR": str(folder / "run"),
            "TUNDRA_DATA_DIR": str(folder / "data"),
            "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
            "PATH": os.environ["PATH"],
        }
        (folder / "run").mkdir(mode=0o700)
        self.error: Exception | None = None
        self.calls = 0
        self.process: subprocess.Popen[bytes] | None = None

    def __call__(self, paths: Paths, start: bool, started_by: str) -> Any:
        self.calls += 1
        assert start
        if self.error is not None:
            raise self.error
        if self.process is None or self.process.poll() is not None:
            self.process = self._start(self.env, started_by)
        return SimpleNamespace(pid=self.process.pid, socket=str(paths.socket))

    @property
    def running(self) -> subprocess.Popen[bytes]:
        assert self.process is not None
        return self.process

    def crash(self) -> None:
        self.running.kill()
        self.running.wait()

    def leave(self) -> None:
        """End it as by its idle exit."""
        self.running.send_signal(signal.SIGTERM)
        self.running.wait(10)


@pytest.fixture
def starter(start_scripted_daemon: StartDaemon, short_folder: Callable[[], Path]) -> Starter:
    return Starter(start_scripted_daemon, short_folder())


@pytest.fixture
def where(starter: Starter, monkeypatch: pytest.MonkeyPatch) -> Paths:
    for name, value in starter.env.items():
        monkeypatch.setenv(name, value)
    from tundra_nb import paths

    return paths.find()


@contextlib.asynccontextmanager
async def watching(
    where: Paths, starter: Starter, *, now: bool = True, first: float = 0.02
) -> AsyncIterator[Supervisor]:
    supervisor = Supervisor(where, starter, LOG, Restarts(lambda: 0.5, first))
    supervisor.start(now=now)
    try:
        yield supervisor
    finally:
        await supervisor.stop()


async def reach(supervisor: Supervisor, state: State) -> None:
    async with asyncio.timeout(10):
        while supervisor.state is not state:  # noqa: ASYNC110 - the test looks from outside
            await asyncio.sleep(0.005)


@pytest.mark.anyio
async def test_the_daemon_is_started_in_the_background(where: Paths, starter: Starter) -> None:
    """`start` returns at once; a request that comes too early waits until the daemon serves."""
    async with watching(where, starter) as supervisor:
        assert starter.calls == 0
        await supervisor.wake()
        assert supervisor.state is State.RUNNING
        (await dial(supervisor.socket)).close()
        assert starter.calls == 1


@pytest.mark.anyio
async def test_without_an_early_start_the_first_request_starts_it_once(where: Paths, starter: Starter) -> None:
    """Any number of requests share one start."""
    async with watching(where, starter, now=False) as supervisor:
        await asyncio.sleep(0)
        assert starter.calls == 0
        await asyncio.gather(*(supervisor.wake() for _ in range(20)))
        assert starter.calls == 1


@pytest.mark.anyio
async def test_a_crashed_daemon_is_restarted_with_growing_pauses_until_the_restarts_are_used_up(
    where: Paths, starter: Starter
) -> None:
    """kill -9 brings it back five times, each pause twice the one before; then it stays down and says so."""
    pauses = []
    async with watching(where, starter) as supervisor:
        await supervisor.wake()
        for _ in range(RESTARTS):
            starter.crash()
            await reach(supervisor, State.WAITING)
            pauses.append(supervisor._resume_at - time.monotonic())
            with pytest.raises(IpcError, match="has crashed") as refused:
                await supervisor.wake()
            assert refused.value.retry_after is not None
            await reach(supervisor, State.RUNNING)
        starter.crash()
        await reach(supervisor, State.FAILED)
        with pytest.raises(IpcError, match="not started any more"):
            await supervisor.wake()
    assert all(later > 1.5 * sooner for sooner, later in itertools.pairwise(pauses))
    assert starter.calls == RESTARTS + 1


@pytest.mark.anyio
async def test_an_exit_on_purpose_is_not_a_crash(where: Paths, starter: Starter) -> None:
    """After an idle exit nothing happens until the next request."""
    async with watching(where, starter) as supervisor:
        await supervisor.wake()
        starter.leave()
        await reach(supervisor, State.ABSENT)
        assert starter.calls == 1
        await supervisor.wake()
        assert starter.calls == 2


@pytest.mark.anyio
async def test_a_daemon_that_was_stopped_stays_stopped(where: Paths, starter: Starter) -> None:
    """The mark of `tundra daemon stop` is respected; requests hear it at once and without a storm of starts."""
    async with watching(where, starter) as supervisor:
        await supervisor.wake()
        starter.leave()
        await reach(supervisor, State.ABSENT)
        starter.error = IpcError(kind="stopped", problem="the daemon was stopped")
        for _ in range(5):
            with pytest.raises(IpcError, match="was stopped"):
                await supervisor.wake()
        assert starter.calls == 2


@pytest.mark.anyio
@pytest.mark.parametrize("error", [ConfigError(problem="bad", where="tundra.toml:3"), RuntimeError("defect")])
async def test_a_start_that_fails_is_told_and_tried_again_later(
    where: Paths, starter: Starter, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The typed error reaches every waiting request; once the cause is gone the next request works."""
    monkeypatch.setattr(module, "START_PAUSE", 0.05)
    starter.error = error
    async with watching(where, starter) as supervisor:
        results = await asyncio.gather(*(supervisor.wake() for _ in range(10)), return_exceptions=True)
        assert all(isinstance(result, TundraError) for result in results)
        assert starter.calls <= 2
        starter.error = None
        async with asyncio.timeout(5):
            while True:
                with contextlib.suppress(TundraError):
                    await supervisor.wake()
                    break
                await asyncio.sleep(0.01)
        assert supervisor.state is State.RUNNING


@pytest.mark.anyio
async def test_a_daemon_that_somebody_else_has_started_is_adopted(where: Paths, starter: Starter) -> None:
    """After the restarts are used up, an explicit start is enough: the next request that gets through is noticed."""
    async with watching(where, starter) as supervisor:
        await supervisor.wake()
        for _ in range(RESTARTS + 1):
            starter.crash()
            async with asyncio.timeout(10):
                while supervisor.state not in (State.FAILED, State.RUNNING) or starter.running.poll() is not None:
                    if supervisor.state is State.FAILED:
                        break
                    await asyncio.sleep(0.005)
        await reach(supervisor, State.FAILED)
        starter.process = starter._start(starter.env, "cli")
        supervisor.noticed()
        await reach(supervisor, State.RUNNING)
        await supervisor.stop()
        assert starter.running.poll() is None


@pytest.mark.anyio
async def test_stop_ends_a_daemon_of_ours(where: Paths, starter: Starter) -> None:
    """The server's end is the daemon's."""
    async with watching(where, starter) as supervisor:
        await supervisor.wake()
        assert supervisor.name == f"jupyter-server:{os.getpid()}"
    starter.running.wait(5)


@pytest.mark.anyio
async def test_stop_leaves_a_daemon_of_ours_when_told_so(where: Paths, starter: Starter) -> None:
    """`stop_daemon = False` lets it go on."""
    supervisor = Supervisor(where, starter, LOG)
    supervisor.start()
    await supervisor.wake()
    await supervisor.stop(end=False)
    assert starter.running.poll() is None


@pytest.mark.anyio
async def test_without_process_descriptors_the_end_is_noticed_by_looking(
    where: Paths, starter: Starter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On systems without pidfd a crash is seen all the same."""
    monkeypatch.delattr(os, "pidfd_open")
    monkeypatch.setattr(module, "POLL", 0.01)
    async with watching(where, starter) as supervisor:
        await supervisor.wake()
        starter.crash()
        await reach(supervisor, State.WAITING)
        await reach(supervisor, State.RUNNING)


@pytest.mark.anyio
async def test_nobody_at_the_socket_is_an_os_error(where: Paths) -> None:
    """`dial` does not hide that nobody is there."""
    with pytest.raises(OSError, match="No such file"):
        await dial(str(where.socket))


@given(st.lists(st.tuples(st.floats(0, 2 * STEADY_AFTER), st.floats(0, 1)), max_size=40))
def test_restarts_are_bounded_until_the_daemon_was_steady(crashes: list[tuple[float, float]]) -> None:
    """Delays lie within 1 to 30 s, at most five come in a row, and a steady daemon starts the count again."""
    draws = iter([])  # type: ignore[var-annotated]
    restarts = Restarts(lambda: next(draws))
    in_a_row = 0
    for uptime, draw in crashes:
        draws = iter([draw])
        if uptime >= STEADY_AFTER:
            in_a_row = 0
        delay = restarts.crashed(uptime)
        if in_a_row >= RESTARTS:
            assert delay is None
        else:
            assert delay is not None
            assert 1 <= delay <= 30
            assert 0.75 * 2**in_a_row <= delay <= max(1, 1.25 * 2**in_a_row)
            in_a_row += 1
