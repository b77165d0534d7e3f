"""Version control of the history from a real kernel, on both engines; and Dolt servers that die, or are none."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pymysql
import pytest
from jupyter_client.manager import KernelManager

import tundra_nb
from tests.conftest import Home, wait_until
from tests.contract import server
from tests.kernel.conftest import Notebook, Ran
from tundra_nb.errors import RefNotFound, StoreUnavailable
from tundra_nb.local import dolt_server, launch
from tundra_nb.paths import find
from tundra_nb.protocol import greeting
from tundra_nb.settings import StoreSettings
from tundra_nb.testing.scripted_provider import ScriptedProcess, scripted_process
from tundra_nb.views import html

PROFILE = """
[[profile]]
name = "scripted"
kind = "local"
base_url = "{url}/v1"
model = "tiny"
"""
KILLS = 5
ANSWERED = 150
"""Answers between two kills of the server."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def provider() -> Iterator[ScriptedProcess]:
    with scripted_process(pieces=2) as running:
        yield running


@pytest.fixture
def dolt(home: Home) -> Iterator[StoreSettings]:
    """A Dolt server as `tundra dolt start` runs it."""
    store = StoreSettings(engine="dolt", port=free_port())
    dolt_server.start(find(home.data_dir), store)
    yield store
    dolt_server.stop(find(home.data_dir))


def section(store: StoreSettings) -> str:
    return f'[store]\nengine = "dolt"\nport = {store.port}\n'


ENGINES = [
    pytest.param("doltlite", marks=pytest.mark.part("doltlite")),
    pytest.param("dolt", marks=pytest.mark.part("dolt")),
]


@pytest.fixture(params=ENGINES)
def notebook(request: pytest.FixtureRequest, home: Home, provider: ScriptedProcess) -> Iterator[Notebook]:
    """A kernel whose history is on one engine."""
    store = section(request.getfixturevalue("dolt")) if request.param == "dolt" else ""
    home.write_settings(store + PROFILE.format(url=provider.url))
    manager = KernelManager(kernel_name="python3")
    manager.start_kernel(env=home.env, cwd=str(home.folder))
    made = Notebook(manager, provider, home.env)
    try:
        ok(made, "%load_ext tundra_nb")
        yield made
    finally:
        made.client.stop_channels()
        manager.shutdown_kernel(now=True)
        home.run("daemon", "stop", "--force")


def ok(notebook: Notebook, code: str) -> Ran:
    ran = notebook.run(code)
    assert ran.error is None, ran.traceback
    return ran


def test_every_version_magic_works_from_a_kernel(notebook: Notebook, home: Home, tmp_path: Path) -> None:
    """Commit, look back, propose, conflict, merge, revert, share, back up and restore, as a person would."""
    is_dolt = 'engine = "dolt"' in home.config.read_text()
    ok(notebook, "%tundra ask one")
    ok(notebook, "pin = %tundra commit -m 'one call'")
    ok(notebook, "%tundra tag before -m 'for good'")
    ok(notebook, "%tundra settings set breaker.failures=3 --reason 'fail sooner'")
    ok(notebook, "%tundra ask two")

    shown = ok(notebook, "%tundra diff before now")
    assert shown.text.index("setting: 1 modified") < shown.text.index("operation: 1 new event")
    assert "value 5 → 3 · fail sooner" in shown.text
    assert html.STYLES["warn"] in shown.html
    assert "<script" not in shown.html
    ok(notebook, "frame = %tundra diff {{pin}} now operation")
    assert notebook.value("list(frame.columns[:5])") == (
        "['table', 'diff_type', 'from_commit', 'to_commit', 'from_operation_id']"
    )
    ok(notebook, "both = %tundra diff {{pin}} now")
    assert notebook.value("(str(both.to_operation_id.dtype), str(both.from_at.dtype))") == (
        "('Int64', 'datetime64[us, UTC]')"
    )
    ok(notebook, "many = %tundra stat before now")
    assert notebook.value("dict(zip(many['table'], many.rows_added + many.rows_modified))['operation']") == "1"

    ok(notebook, "%tundra commit -m 'two calls'")
    for ref, count in (("before", 1), ("{{pin}}", 1), ("main", 2), ("HEAD", 2), ("now", 2)):
        ok(notebook, f"then = %tundra calls --since all --at {ref}")
        assert (ref, notebook.value("len(then)")) == (ref, str(count))
    log = ok(notebook, "%tundra commits")
    assert "two calls" in log.text
    assert "fail sooner" in log.html

    assert "shows the history as of before" in ok(notebook, "%tundra checkout before").text
    past = ok(notebook, "%tundra calls --since all")
    assert "as of before" in past.html
    assert "1 row" in past.text
    ok(notebook, "rows = %tundra sql select count(*) as n from operation")
    assert notebook.value("rows.n.iloc[0]") == "1"
    ok(notebook, "%tundra checkout main")
    ok(notebook, "here = %tundra calls --since all")
    assert notebook.value("len(here)") == "2"

    ok(notebook, "%tundra settings set breaker.failures=9 --on patience --reason 'bear more'")
    assert "failures = 3" in home.config.read_text()
    ok(notebook, "%tundra settings set breaker.failures=4 --reason meanwhile")
    conflict = ok(notebook, "merged = %tundra merge patience\nmerged")
    assert "nothing was changed" in conflict.text
    assert notebook.value("merged.conflicts.set_index('column').loc['value', ['base', 'ours', 'theirs']].tolist()") == (
        "['3', '4', '9']"
    )
    assert "4 → 9" in ok(notebook, "%tundra merge patience --theirs").text
    assert "failures = 9" in home.config.read_text()
    ok(notebook, "%tundra settings set breaker.open_seconds=7")
    assert "failures" in ok(notebook, "%tundra history setting breaker.failures").text
    ok(notebook, "told = %tundra history setting breaker.failures")
    assert notebook.value("told['value'].tolist()") == "['5', '3', '4', '9']"
    ok(notebook, "who = %tundra blame")
    assert notebook.value("who.set_index('path').reason['breaker.failures']") == "bear more"
    ok(notebook, "%tundra revert HEAD")
    assert "open_seconds = 30" in home.config.read_text()

    ok(notebook, "%tundra note --on Timeout it's the deadline")
    ok(notebook, "notes = %tundra notes")
    assert notebook.value("(notes.body.tolist(), notes.subject.tolist())") == "([\"it's the deadline\"], ['Timeout'])"
    ok(notebook, "%tundra commit -m noted")

    remote = tmp_path / "remote"
    remote.mkdir()
    where = remote if is_dolt else remote / "history.db"
    ok(notebook, f"%tundra push {where}")
    ok(notebook, f"%tundra pull {where}")
    into = "copied" if is_dolt else str(tmp_path / "copy")
    ok(notebook, f"%tundra clone {where} {into}")
    ok(notebook, f"%tundra backup {tmp_path / 'backup'}")
    ok(notebook, "%tundra ask three")
    ok(notebook, "%tundra restore {}".format(tmp_path / "backup"))
    ok(notebook, "problems = %tundra versions check")
    assert notebook.value("len(problems)") == "0"
    ok(notebook, "state = %tundra versions status")
    assert notebook.value("(state.engine, sorted(state.branches), state.tags)") == (
        f"('{'dolt' if is_dolt else 'doltlite'}', ['main', 'patience'], ['before'])"
    )
    ok(notebook, "%tundra branch side --at before")
    ok(notebook, "%tundra branch -d side")
    refused = notebook.run("%tundra calls --at befor")
    assert refused.traceback.splitlines()[0] == "RefNotFound: no commit, branch, tag or time 'befor'"
    assert "Did you mean 'before'?" in refused.traceback


RESTORING = """
import os, signal, sys, threading, time
from tundra_nb.cli import run
from tundra_nb.commands import restore
seconds, *args = sys.argv[1:]
restore.LEFT_SECONDS = float(seconds)
def interrupt():
    while not any(thread.name == "tundra-restore" for thread in threading.enumerate()):
        time.sleep(0.001)
    os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=interrupt, daemon=True).start()
sys.exit(run(["restore", *args]))
"""


@pytest.mark.part("doltlite")
@pytest.mark.parametrize("args", [["20"], ["0"], ["20", "no-such-backup"]], ids=["ends", "takes longer", "is refused"])
def test_an_interrupted_restore_tells_how_it_ended(home: Home, args: list[str]) -> None:
    kept = home.data_dir / "history.db.before-restore"
    assert home.run("backup").returncode == 0
    command = [sys.executable, "-c", RESTORING, *args]
    done = subprocess.run(command, env=home.env, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 130, done.stderr
    if args == ["0"]:  # whoever interrupts does not wait for it
        assert "interrupted: the daemon carries the restore to its end, if it has begun" in done.stderr
        return
    if len(args) == 2:
        assert "interrupted: the restore failed: there is no backup" in done.stderr
        assert not kept.exists()
        return
    assert f"interrupted: the history is replaced by the backup; what was there is {kept}" in done.stderr
    assert json.loads(home.run("restore", "--json").stdout)["kept"] == f"{kept}-2"
    assert not [place.name for place in home.data_dir.iterdir() if "restoring" in place.name]


@pytest.mark.part("dolt")
@pytest.mark.anyio
async def test_no_row_is_lost_when_the_dolt_server_is_killed_again_and_again(
    home: Home, dolt: StoreSettings, provider: ScriptedProcess
) -> None:
    """Calls never notice; what they leave waits in the spool and arrives once."""
    limits = "[limits.global]\nenabled = false\n"
    home.write_settings(section(dolt) + limits + PROFILE.format(url=provider.url))
    paths = find(home.data_dir)
    answered: list[str] = []
    is_over = asyncio.Event()
    async with tundra_nb.connect_async() as client:

        async def caller() -> None:
            while not is_over.is_set():
                answered.append((await client.ask("hi")).operation_id)

        await client.ask("first")
        async with asyncio.TaskGroup() as group:
            for _ in range(8):
                group.create_task(caller())
            for _ in range(KILLS):
                goal = len(answered) + ANSWERED
                await until(lambda goal=goal: len(answered) >= goal)
                pid = dolt_server.status(paths, dolt).pid
                assert pid is not None
                os.kill(pid, signal.SIGKILL)
                goal = len(answered) + ANSWERED // 3
                await until(lambda goal=goal: len(answered) >= goal)
                await asyncio.to_thread(dolt_server.start, paths, dolt)
            is_over.set()

        async def stored() -> bool:
            with contextlib.suppress(StoreUnavailable):
                return len(await client.calls(since="all")) >= len(answered)
            return False

        async with asyncio.timeout(30):
            while not await stored():  # noqa: ASYNC110 - the store tells nobody that it is back
                await asyncio.sleep(0.1)
        calls = await client.calls(since="all")
    ids = calls["operation_id"].astype(str).tolist()
    assert len(ids) == len(set(ids)) == len(answered) + 1
    assert set(answered) <= set(ids)
    assert set(calls["outcome"]) == {"ok"}


async def until(condition: Any, timeout: float = 20) -> None:  # noqa: ASYNC109 - the deadline of a test
    async with asyncio.timeout(timeout):
        while not condition():  # noqa: ASYNC110 - of another process
            await asyncio.sleep(0.005)


@pytest.fixture
def mariadb(tmp_path: Path) -> Iterator[int]:
    """MariaDB on a port of its own."""
    port = free_port()
    with server.mariadb(tmp_path / "maria", port):
        wait_until(lambda: greeting.ask("127.0.0.1", port), 30, "MariaDB answers")
        yield port


@pytest.mark.part("mariadb", "doltlite")
def test_mariadb_in_the_place_of_dolt_is_named_and_nothing_is_lost(
    home: Home, mariadb: int, provider: ScriptedProcess
) -> None:
    """One typed error with the port and the remedy; the rows arrive once when the setting is corrected."""
    profile = PROFILE.format(url=provider.url)
    home.write_settings(f'[store]\nengine = "dolt"\nport = {mariadb}\n' + profile)
    with tundra_nb.connect() as t:
        replies = [t.ask(f"question {n}") for n in range(3)]
        with pytest.raises(StoreUnavailable) as caught:
            t.calls()
        assert caught.value.kind == "not_dolt"
        assert f"127.0.0.1:{mariadb} is MariaDB" in caught.value.message
        assert "store.port" in caught.value.hint
    started = home.run("dolt", "start")
    assert started.returncode == 1
    assert f"port {mariadb} is taken by MariaDB" in started.stderr
    assert home.run("daemon", "stop").returncode == 0
    home.write_settings(profile)
    assert home.run("daemon", "start").returncode == 0
    with tundra_nb.connect() as t:
        stored = t.calls(since="all")["operation_id"].astype(str).tolist()
    assert sorted(stored) == sorted(reply.operation_id for reply in replies)


@pytest.mark.part("dolt")
def test_two_daemons_on_one_dolt_database_keep_their_numbers_apart(
    home: Home, dolt: StoreSettings, provider: ScriptedProcess, tmp_path: Path
) -> None:
    home.write_settings(section(dolt) + PROFILE.format(url=provider.url))
    other = tmp_path / "other"
    (other / "dolt").mkdir(parents=True)
    shutil.copy(find(home.data_dir).dolt / "login.json", other / "dolt")
    try:
        with tundra_nb.connect() as one, tundra_nb.connect(data_dir=str(other)) as two:
            ids = [int(t.ask("hi").operation_id) for t in (one, two, one, two)]
            for t, own in ((one, ids[::2]), (two, ids[1::2])):
                assert set(t.calls(since="all")["operation_id"]) == set(own)

            def is_all_seen() -> bool:
                return all(set(t.calls(since="all", all=True)["operation_id"]) == set(ids) for t in (one, two))

            wait_until(is_all_seen, 10, "both see all")
            with pytest.raises(RefNotFound):
                one.calls(at="nowhere")
        nodes = {(number >> 12) & 1023 for number in ids}
        assert len(nodes) == 2
    finally:
        home.run("daemon", "stop", "--force", TUNDRA_DATA_DIR=str(other))


@pytest.mark.parametrize("engine", ENGINES)
def test_a_second_daemon_on_one_data_directory_is_refused_with_the_pid_of_the_first(
    home: Home, engine: str, request: pytest.FixtureRequest
) -> None:
    """By `daemon run` with an error; `daemon start` finds the one that runs, and starts no other."""
    if engine == "dolt":
        home.write_settings(section(request.getfixturevalue("dolt")))
    assert home.run("daemon", "start").returncode == 0
    first = json.loads(home.run("daemon", "status", "--json").stdout)
    assert (first["state"], first["engine"]) == ("running", engine)
    second = home.run("daemon", "run")
    assert second.returncode != 0
    assert f"pid {first['pid']}" in second.stderr
    assert str(home.data_dir) in second.stderr
    assert home.run("daemon", "start").returncode == 0
    again = json.loads(home.run("daemon", "status", "--json").stdout)
    assert again["pid"] == first["pid"]


@pytest.mark.part("doltlite", "dolt")
def test_a_history_moves_to_dolt_with_messages_authors_dates_and_equal_frames(
    home: Home, provider: ScriptedProcess
) -> None:
    """Every commit has its twin, every view at it is equal, and events go on where they stopped."""
    port = free_port()
    home.write_settings(f"[store]\nport = {port}\n" + PROFILE.format(url=provider.url))
    with tundra_nb.connect() as t:
        t.ask("one")
        pin = t.versions.commit("one call")
        t.versions.tag("pinned")
        t.set_setting("breaker.failures", 3, reason="why not", on="side")
        t.set_setting("router.retries", 1, reason="fewer")
        t.versions.merge("side")
        t.set_setting("breaker.failures", 8, on="open")
        t.ask("two")
        t.versions.commit("two calls")
        log, calls, past = t.versions.log(), t.calls(since="all"), t.calls(since="all", at=pin)
        blame = t.versions.blame()
    try:
        assert home.run("dolt", "start").returncode == 0
        moved = home.run("migrate-store")
        assert moved.returncode == 0, moved.stderr
        mapped = json.loads((home.data_dir / "migrated-commits.json").read_text())
        with tundra_nb.connect() as t:
            assert t.status()["engine"] == "dolt"
            pd.testing.assert_frame_equal(t.calls(since="all"), calls)
            pd.testing.assert_frame_equal(t.calls(since="all", at=mapped[pin]), past)
            pd.testing.assert_frame_equal(t.calls(since="all", at="pinned"), past)
            kept = ["at", "author", "message"]
            twins = t.versions.log().set_index("commit")
            on_main = [row for row in log.to_dict("records") if mapped.get(row["commit"]) in twins.index]
            assert len(on_main) >= len(log) - 1, "the commit of the merged branch is part of the merge"
            for row in on_main[:-2]:  # without those that make an empty history
                twin = twins.loc[mapped[row["commit"]]]
                assert [twin[name] for name in kept] == [row[name] for name in kept]
            changed = ["path", "value", "author", "reason"]
            now, then = (
                frame[frame["path"] != "store.engine"][changed].sort_values("path", ignore_index=True)
                for frame in (t.versions.blame(), blame)  # the move itself is a change of a setting
            )
            pd.testing.assert_frame_equal(now, then)
            assert t.versions.merge("open")["applied"][0]["value"] == 8
            t.ask("three")
            assert len(t.calls(since="all")) == 3
        again = home.run("migrate-store")
        assert again.returncode == 2
        assert "on Dolt already" in again.stderr
    finally:
        home.run("daemon", "stop", "--force")
        home.run("dolt", "stop")


@pytest.mark.part("doltlite")
@pytest.mark.part("dolt")
@pytest.mark.parametrize("how", ["interrupted", "killed"])
@pytest.mark.parametrize("is_ours", [True, False])
def test_a_move_that_is_broken_off_is_begun_anew_unless_others_use_what_it_left(
    home: Home, provider: ScriptedProcess, how: str, is_ours: bool
) -> None:
    """An interrupt is told in one line, and another one beside it does nothing."""
    port = free_port()
    home.write_settings(f"[store]\nport = {port}\n" + PROFILE.format(url=provider.url))
    with tundra_nb.connect() as t:
        t.ask("one")
        for number in range(40):
            t.versions.commit(f"commit {number}")
    try:
        assert home.run("dolt", "start").returncode == 0
        login = json.loads((home.data_dir / "dolt" / "login.json").read_text())
        whose = {"user": login["user"], "password": login["password"]}

        def ask(text: str) -> Any:
            try:
                with (
                    pymysql.connect(host="127.0.0.1", port=port, database="tundra", autocommit=True, **whose) as db,
                    db.cursor() as cursor,
                ):
                    cursor.execute(text)
                    return cursor.fetchall()
            except pymysql.MySQLError:  # it is not there yet
                return ()

        command = [sys.executable, "-m", "tundra_nb.cli", "migrate-store"]
        with subprocess.Popen(
            command, env=home.env, stderr=subprocess.PIPE, cwd=home.folder, process_group=0
        ) as moving:
            wait_until(lambda: ask("SELECT 1 FROM dolt_log LIMIT 3 OFFSET 3"), 30, "commits are copied")
            (child,) = psutil.Process(moving.pid).children()
            child.suspend()
            second = home.run("migrate-store")
            assert (second.returncode, "a migration is under way" in second.stderr) == (1, True), second.stderr
            if how == "killed":
                moving.kill()
                child.kill()
            else:
                os.killpg(moving.pid, signal.SIGINT)  # as a terminal does
                child.resume()
            said = moving.communicate(timeout=60)[1].decode()
        assert (how == "killed") or (moving.returncode, said.splitlines()) == (130, ["interrupted"])
        child.wait(30)
        if not is_ours:
            ask("INSERT INTO spool_place VALUES ('another daemon', 9, 1, 1, 0)")
        before = ask("SELECT commit_hash FROM dolt_log")
        moved = home.run("migrate-store")
        if is_ours:
            assert moved.returncode == 0, moved.stderr
            assert not (home.data_dir / "migrating-to").exists()
            with tundra_nb.connect() as t:
                assert t.status()["engine"] == "dolt"
                assert len(t.calls(since="all")) == 1
        else:
            assert (moved.returncode, "holds a history already" in moved.stderr) == (2, True), moved.stderr
            assert ask("SELECT commit_hash FROM dolt_log") == before
    finally:
        home.run("daemon", "stop", "--force")
        home.run("dolt", "stop")


@pytest.mark.part("doltlite")
def test_a_move_that_fails_keeps_no_daemon_from_starting_later(home: Home) -> None:
    """Also where it cannot be started again at once, as on a disk that the move has filled."""
    home.write_settings(f"[store]\nport = {free_port()}\n")
    assert home.run("note", "one").returncode == 0
    in_its_way = home.data_dir / "pipe"
    os.mkfifo(in_its_way)
    moved = home.run("migrate-store")
    assert (moved.returncode, "no server answers" in moved.stderr) == (1, True), moved.stderr
    assert "this is a pipe" in home.run("note", "two").stderr
    in_its_way.unlink()
    assert home.run("note", "three").returncode == 0
    assert home.run("daemon", "stop").returncode == 0
    launch.mark_held(find(home.data_dir), "tundra migrate-store")  # of one that was killed
    assert home.run("migrate-store").returncode == 1
    assert "stopped for `tundra migrate-store`" in home.run("note", "four").stderr


@pytest.mark.part("dolt")
def test_the_server_of_ours_is_private_and_starts_once(home: Home, dolt: StoreSettings) -> None:
    """Random passwords in a file for its owner, the loopback only, no second server."""
    paths = find(home.data_dir)
    again = dolt_server.start(paths, dolt)
    assert again.running
    assert (paths.dolt / "login.json").stat().st_mode & 0o777 == 0o600
    assert paths.data_dir.stat().st_mode & 0o777 == 0o700, "it may be the first that needs the folder"
    assert again.pid is not None
    process = psutil.Process(again.pid)
    addresses = {connection.laddr[0] for connection in process.net_connections() if connection.status == "LISTEN"}
    assert addresses == {"127.0.0.1"}
    assert dolt_server.stop(paths) == again.pid
    assert dolt_server.stop(paths) is None
    assert not dolt_server.status(paths, dolt).running
    deadline = time.monotonic() + 5
    while process.is_running() and time.monotonic() < deadline:
        time.sleep(0.02)


@pytest.mark.part("doltlite")
def test_after_a_broken_off_migration_it_is_said_what_stopped_the_daemon(home: Home) -> None:
    home.data_dir.mkdir(mode=0o700)
    launch.mark_held(find(home.data_dir), "tundra migrate-store")  # as one that was killed leaves it
    refused = home.run("ask", "hi")
    assert refused.returncode == 1
    assert "stopped for `tundra migrate-store`, which has not come to its end" in refused.stderr
    assert "`tundra daemon start` goes on without" in refused.stderr
    assert home.run("daemon", "stop").returncode == 0
    assert "stopped with `tundra daemon stop`" in home.run("ask", "hi").stderr


@pytest.mark.part("doltlite")
@pytest.mark.parametrize("before", ["running", "stopped", "held"])
@pytest.mark.check
def test_a_refused_step_back_leaves_the_daemon_as_it_was(home: Home, before: str) -> None:
    assert home.run("daemon", "start").returncode == 0
    if before != "running":
        assert home.run("daemon", "stop").returncode == 0
    if before == "stopped":
        (home.data_dir / "daemon.held").unlink()
    told = json.loads(home.run("daemon", "status", "--json").stdout)["state"]
    assert told == before
    refused = home.run("migrate-store", "--back")
    assert refused.returncode == 2
    assert "there is none before it" in refused.stderr
    assert json.loads(home.run("daemon", "status", "--json").stdout)["state"] == before


@pytest.mark.part("dolt")
@pytest.mark.parametrize("deleted", ["data", "data/tundra", "."])
def test_data_of_a_dolt_server_that_are_deleted_under_it_are_told_and_what_was_asked_is_there_after_the_remedy(
    home: Home, provider: ScriptedProcess, dolt: StoreSettings, deleted: str
) -> None:
    """The server goes on taking what comes on an open connection, into files without a name: nobody believes it."""
    home.write_settings(section(dolt) + PROFILE.format(url=provider.url))
    with tundra_nb.connect() as client:
        asked = [client.ask("before").operation_id]
        client.calls(wait=10)
        client.versions.backup()
        shutil.rmtree(home.data_dir / "dolt" / deleted)
        asked += [client.ask("after").operation_id for _ in range(3)]
        for doing in (
            client.calls,
            lambda: client.versions.commit("kept?"),
            client.versions.restore,
            client.versions.create,
        ):
            with pytest.raises(StoreUnavailable) as caught:
                doing()
            assert "were deleted under the running server" in caught.value.message
            assert "`tundra dolt stop --force`, then `tundra dolt start`" in caught.value.hint
        status = home.run("status", COLUMNS="300").stdout
        assert "were deleted under the running server" in status
        assert home.run("dolt", "stop", "--force").returncode == 0
        asked.append(client.ask("without it").operation_id)
        started = home.run("dolt", "start")
        assert started.returncode == 0, started.stderr
    if deleted == ".":  # its logins are new ones, which a daemon reads when it starts
        wait_until(lambda: "tundra daemon restart" in home.run("status", COLUMNS="300").stdout, 20, "it is said")
        assert home.run("daemon", "restart").returncode == 0
    with tundra_nb.connect() as client:
        client.versions.restore()
        kept = [str(one) for one in client.calls(since="all", wait=20)["operation_id"]]
        assert [kept.count(one) for one in asked] == [1] * len(asked)
        assert client.versions.commit("kept")
