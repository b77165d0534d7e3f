"""Nobody's change comes before the settings at the start, however early it is, and however late the store."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.runtime.ptys.conftest import until
from tundra_nb import paths, settings
from tundra_nb.errors import TundraError
from tundra_nb.runtime.history import service
from tundra_nb.runtime.runtime import Runtime
from tundra_nb.runtime.telemetry.redact import Redactor

pytestmark = [pytest.mark.anyio, pytest.mark.part("doltlite")]

START = "settings at start"


@contextlib.asynccontextmanager
async def started(folder: Path) -> AsyncIterator[Runtime]:
    environ = {"TUNDRA_DATA_DIR": str(folder / "data")}
    loaded = settings.load(folder / "tundra.toml", environ)
    found = paths.find(folder / "data", environ)
    async with Runtime(loaded, found, environ, redactor=Redactor()) as runtime:
        yield runtime


async def messages(runtime: Runtime) -> list[str]:
    """Of the commits, oldest first; without those of events."""
    told = [str(commit["message"]) for commit in reversed(await runtime.history.call("log", limit=20))]
    return told[told.index(START) :]


async def test_a_change_in_the_first_moment_comes_after_the_settings_at_the_start(tmp_path: Path) -> None:
    async with started(tmp_path) as runtime:
        assert runtime.in_force.lock.locked()  # nothing has run since the runtime is there
        await runtime.versioning.commit("mine", author="me")
        assert await messages(runtime) == [START, "mine"]


async def test_a_store_that_was_late_gets_the_settings_at_the_start_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "START_SECONDS", 0.0)
    async with started(tmp_path) as runtime:
        with pytest.raises(TundraError, match="still starting"):
            await runtime.versioning.commit("too early", author="me")
        await until(lambda: runtime.history.stats().state == "ready")
        monkeypatch.undo()
        told = await runtime.versioning.set_setting("deadlines.total_seconds", 7, author="me", reason="")
        assert told["commit"]
        before, change = await messages(runtime)
        assert before == START
        assert change.startswith("deadlines.total_seconds: 600.0 → 7.0")
