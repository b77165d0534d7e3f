"""A Dolt server on a disk that is full and then is not: the daemon starts its own anew, and nobody else's."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

import tundra_nb
from tests.conftest import Home, stop_processes, wait_until
from tests.wiring.test_bad_luck import SETTINGS, fill
from tests.wiring.test_versions import free_port, section
from tundra_nb.errors import StoreUnavailable
from tundra_nb.local import dolt_server
from tundra_nb.paths import find
from tundra_nb.settings import StoreSettings
from tundra_nb.testing.scripted_provider import scripted_process

pytestmark = [pytest.mark.part("dolt"), pytest.mark.part("mount")]

DISK = "size=160m"


@pytest.fixture
def store() -> StoreSettings:
    return StoreSettings(engine="dolt", port=free_port())


@pytest.fixture
def small_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: StoreSettings) -> Iterator[Home]:
    """A home on a small disk, with a server that runs there."""
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", DISK, "tmpfs", str(folder)], check=True)
    try:
        monkeypatch.setenv("TUNDRA_DATA_DIR", str(folder / "data"))
        monkeypatch.setenv("TUNDRA_CONFIG", str(tmp_path / "tundra.toml"))
        home = Home(tmp_path, dict(os.environ))
        dolt_server.start(find(home.data_dir), store)
        with scripted_process() as provider:
            home.write_settings(section(store) + SETTINGS.format(base_url=provider.base_url))
            yield home
            stop_processes(home)
    finally:
        dolt_server.stop(find(folder / "data"), force=True)
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_the_daemon_starts_a_server_anew_that_did_not_get_over_a_full_disk(
    small_disk: Home, store: StoreSettings
) -> None:
    """It mostly gives up, else says for good that the disk is full. The new one outlives the daemon that started it."""
    where = find(small_disk.data_dir)
    with tundra_nb.connect() as client:
        answered = [client.ask("before").operation_id]
        assert len(client.calls(since="all")) == 1
        filling = fill(small_disk.data_dir.parent)
        with contextlib.suppress(StoreUnavailable):  # the spool's last page may have room for one more
            answered.append(client.ask("while it is full").operation_id)
        if (pid := dolt_server.status(where, store).pid) is not None:
            psutil.Process(pid).kill()
        wait_until(lambda: client.status()["store"].get("error"), 30, "the server is missed")
        filling.unlink()
        answered.append(client.ask("after").operation_id)
        wait_until(lambda: dolt_server.status(where, store).running, 30, "it is started anew")
        wait_until(lambda: not client.status()["store"].get("error"), 30, "the history goes on")
        calls = client.calls(since="all", wait=30)
        assert sorted(map(str, calls[calls["outcome"] == "ok"]["operation_id"])) == sorted(answered)
        over = {row["what"]: row["message"] for row in client.status()["over"]}
    pid = dolt_server.status(where, store).pid
    assert f"the Dolt server was started anew (pid {pid}): its disk has room again" in over["dolt"]
    assert small_disk.run("daemon", "stop").returncode == 0
    assert dolt_server.status(where, store).pid == pid


def test_a_server_that_was_stopped_on_purpose_or_is_another_one_is_not_started_anew(
    small_disk: Home, store: StoreSettings
) -> None:
    where = find(small_disk.data_dir)
    pid = dolt_server.status(where, store).pid
    others = StoreSettings(engine="dolt", port=free_port())
    far = StoreSettings(engine="dolt", host="db.example", port=store.port)
    assert dolt_server.start_anew(where, others) is None
    assert dolt_server.start_anew(where, far) is None
    assert dolt_server.status(where, store).pid == pid
    dolt_server.stop(where)
    assert dolt_server.start_anew(where, store) is None
    assert not dolt_server.status(where, store).running
