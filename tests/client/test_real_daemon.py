"""The clients against a real daemon: what depends on its life."""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import Any

import pytest

import tundra_nb
from tundra_nb import errors
from tundra_nb.client.sync import Client
from tundra_nb.local import launch
from tundra_nb.testing.scripted_provider import ScriptedStep, scripted_process

CHAT = "/v1/chat/completions"


def test_an_absent_daemon_is_started_only_when_that_is_allowed(home: Any) -> None:
    with pytest.raises(errors.IpcError) as caught:
        tundra_nb.connect(start=False)
    assert caught.value.kind == "absent"
    with tundra_nb.connect() as t:
        assert t.status().pid > 0


def test_a_daemon_that_died_is_started_again_by_the_next_call(home: Any) -> None:
    with tundra_nb.connect() as t:
        first = t.status().pid
        os.kill(first, signal.SIGKILL)
        assert t.status().pid != first


def test_a_call_cut_short_by_the_daemons_death_is_an_ipc_error_and_a_row(home: Any) -> None:
    with scripted_process() as provider:
        home.write_settings(
            f'[[profile]]\nname = "scripted"\nkind = "local"\nbase_url = "{provider.url}/v1"\nmodel = "tiny"\n'
        )
        provider.script(CHAT, ScriptedStep(text="never", delay=20))
        with tundra_nb.connect() as t:
            pid = t.status().pid

            def kill() -> None:
                deadline = time.monotonic() + 10
                while not provider.requests and time.monotonic() < deadline:
                    time.sleep(0.02)
                os.kill(pid, signal.SIGKILL)

            killer = threading.Thread(target=kill)
            killer.start()
            with pytest.raises(errors.IpcError) as caught:
                t.ask("hi")
            killer.join()
            assert caught.value.kind == "died"
            assert t.calls()["outcome"].tolist() == ["interrupted"]
            assert t.why("last")["attempts"][0]["outcome"] == "interrupted"


def test_a_daemon_that_was_stopped_on_purpose_stays_away(home: Any) -> None:
    with tundra_nb.connect() as t:
        t.status()
        assert t.link.paths is not None
        launch.stop(t.link.paths)
        with pytest.raises(errors.IpcError) as caught:
            t.status()
        assert caught.value.kind == "stopped"


def test_being_attached_is_seen_by_the_daemon_and_ends_with_the_client(home: Any) -> None:
    with Client(caller="kernel") as watched, Client() as watcher:
        watched.open()
        assert watched._attachment is not None
        assert watched._attachment.is_attached.wait(5)
        assert "kernel" in watcher.status().attached
        watched.close()
        deadline = time.monotonic() + 5
        while "kernel" in watcher.status().attached:
            assert time.monotonic() < deadline
            time.sleep(0.02)


def test_a_command_is_run_with_its_output_exit_code_and_history(home: Any) -> None:
    with tundra_nb.connect() as t:
        run = t.run("echo hello; exit 3")
        assert (run.exit_code, run.text.strip()) == (3, "hello")
        assert run.pty_id in set(t.ptys.history()["pty_id"])
        with pytest.raises(errors.Timeout, match="command"):
            t.run("sleep 30", timeout=0.2)
        with pytest.raises(errors.HandleNotFound):
            _ = t.ptys["no-such"].text


@pytest.mark.anyio
async def test_the_awaited_client_does_the_same(home: Any) -> None:
    async with tundra_nb.connect_async() as t:
        assert (await t.run("echo hello")).text.strip() == "hello"
        assert len(await t.calls()) == 0
        with pytest.raises(errors.ConfigError, match="no profile is set up"):
            await t.ask("hi")
