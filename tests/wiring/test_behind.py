"""A read while the store is behind says so, at the outermost door; what would pin a part for the whole is refused."""

from __future__ import annotations

import contextlib
import fcntl
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tundra_nb.testing.scripted_provider import ScriptedStep, scripted_process

pytestmark = [pytest.mark.part("doltlite"), pytest.mark.timeout(120)]

CHAT = "/v1/chat/completions"


@contextlib.contextmanager
def writing_stopped(home: Any) -> Iterator[Any]:
    """Hold the lock of the database's file, as another program's long transaction would; ends when it is closed."""
    with next(home.data_dir.glob(".*.db-lock")).open("r+b") as lock:
        fcntl.lockf(lock, fcntl.LOCK_EX)
        yield lock


def test_a_frame_of_a_store_that_is_behind_is_cut_and_says_until_when(home: Any) -> None:
    with scripted_process(pieces=1) as provider:
        home.write_settings(
            f'[[profile]]\nname = "scripted"\nkind = "local"\nbase_url = "{provider.url}/v1"\nmodel = "tiny"\n'
        )
        provider.script(CHAT, ScriptedStep(text="one"), ScriptedStep(text="two"))
        assert home.run("ask", "first").returncode == 0
        whole = home.run("calls", "--json")
        assert len(json.loads(whole.stdout)) == 1
        assert "behind" not in whole.stderr
        with writing_stopped(home) as lock:
            assert home.run("ask", "second").returncode == 0
            cut = home.run("calls", "--json")
            assert cut.returncode == 0, cut.stderr
            assert len(json.loads(cut.stdout)) == 1
            assert "warning: cut, the store is behind: rows end at " in cut.stderr
            assert "--wait" in cut.stderr
            for refused in (("commit", "-m", "a pin"), ("tag", "pinned")):
                done = home.run(*refused)
                assert done.returncode == 1
                assert "StoreBusy" in done.stderr, done.stderr
                assert "not all events are in the store yet" in done.stderr
            threading.Timer(2, lambda: fcntl.lockf(lock, fcntl.LOCK_UN)).start()
            waited = home.run("calls", "--json", "--wait")
        assert len(json.loads(waited.stdout)) == 2
        assert waited.stderr == ""
        assert home.run("tag", "pinned").returncode == 0
