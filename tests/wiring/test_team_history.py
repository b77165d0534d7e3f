"""Two daemons that write into one Dolt database: what a daemon restores and calls its last is its own."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pymysql
import pytest
import trustme

from tests.conftest import Home, stop_processes, wait_until
from tests.contract.server import DoltServer
from tests.wiring.test_shared_limits import daemon
from tundra_nb.client.sync import Client
from tundra_nb.errors import StoreBusy, StoreUnavailable, TundraError
from tundra_nb.runtime.history.dolt import DoltStore
from tundra_nb.runtime.history.protocol import Config
from tundra_nb.runtime.history.spool import SpoolPlace
from tundra_nb.testing.scripted_provider import ScriptedStep, scripted_process

pytestmark = [pytest.mark.part("dolt"), pytest.mark.timeout(240)]
WRITES, READS = "writes-7f3a-canary", "reads-7f3a-canary"
TOML = """
[store]
engine = "dolt"
port = {port}
database = "team"
[router]
retries = 0
[breaker]
failures = 2
open_seconds = 300
[[profile]]
name = "main"
kind = "local"
base_url = "{base}/v1"
model = "m"
"""


@pytest.fixture(scope="module")
def dolt(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DoltServer]:
    server = DoltServer(tmp_path_factory.mktemp("dolt"))
    server.start()
    server.admin("CREATE DATABASE team")
    try:
        yield server
    finally:
        server.stop()


def config(dolt: DoltServer, database: str, owner: str, life: int = 2, life_before: int = 1) -> Config:
    return Config(
        engine="dolt",
        spool="",
        store="",
        host="127.0.0.1",
        port=dolt.port,
        database=database,
        user="root",
        owner=owner,
        node=7,
        life=life,
        life_before=life_before,
        commit_rows=1000,
        commit_seconds=60,
    )


def test_breakers_parking_and_the_last_call_are_each_daemons_own(tmp_path: Path, dolt: DoltServer) -> None:
    with scripted_process() as well, scripted_process() as ill:
        of_a = TOML.format(port=dolt.port, base=well.base_url.removesuffix("/v1"))
        of_b = TOML.format(port=dolt.port, base=ill.base_url.removesuffix("/v1"))
        with daemon(tmp_path / "a", of_a) as (home, a), daemon(tmp_path / "b", of_b) as (_, b):
            mine = a.ask("mine").operation_id
            ill.script("/v1/chat/completions", ScriptedStep(status=500, repeat=3))
            for _ in range(2):
                with pytest.raises(TundraError):
                    b.ask("hi")
            assert b.breakers()["state"].iloc[0] == "open"
            theirs = b.last().operation_id
            # each sees its own rows, and with `all` the team's
            wait_until(lambda: {mine, theirs} <= set(a.calls("all", all=True)["operation_id"].astype(str)), 60)
            assert set(a.calls("all")["operation_id"].astype(str)) == {mine}
            assert set(a.calls("all", at="WORKING")["operation_id"].astype(str)) >= {mine, theirs}
            by = home.run("calls", "--all", "--by", "user_name,writer_id", "--json")
            assert sorted(row["count"] for row in json.loads(by.stdout)) == [1, 2]
            assert len({row["writer_id"] for row in json.loads(by.stdout)}) == 2
            assert len(a.errors("all")) == 0 < len(a.errors("all", all=True))
            assert a.status()["last_errors"] == []
            assert a.last(all=True).operation_id == a.why("last", all=True).operation_id != mine
            assert a.last().operation_id == mine
            assert a.why("-1").operation_id == mine
            assert a.why(theirs).operation_id == theirs
            with pytest.raises(TundraError, match="only 1 call"):
                a.why("-2")
            assert home.run("daemon", "restart", timeout=120).returncode == 0
            assert a.breakers()["state"].iloc[0] == "closed"
            assert a.ask("again").text
            assert b.breakers()["state"].iloc[0] == "open"


def test_settings_and_profiles_are_each_daemons_own(tmp_path: Path, dolt: DoltServer) -> None:
    """No start changes what another daemon has in force; a view of the history tells whose a row is."""
    dolt.admin("CREATE DATABASE IF NOT EXISTS own")
    toml = TOML.replace('"team"', '"own"').format(port=dolt.port, base="http://127.0.0.1:9")
    with daemon(tmp_path / "a", toml) as (home_a, a), daemon(tmp_path / "b", toml) as (home_b, b):
        assert b.set_setting("breaker.failures", 7, reason="slow provider")["commit"]
        b.add_provider("extra", "local", base_url="http://127.0.0.1:9/v1", model="m")
        a.versions.commit("so far")
        before = len(a.versions.log())
        for home in (home_a, home_b, home_a):
            assert home.run("daemon", "restart", timeout=120).returncode == 0
            assert home.run("calls").returncode == 0
        a.versions.commit("after restarts")
        made = a.versions.log()["message"].astype(str).to_list()[: len(a.versions.log()) - before]
        assert not [message for message in made if "settings at start" in message]
        rows = a.settings(all=True)
        of_all = rows[rows["path"] == "breaker.failures"]
        assert sorted(of_all["value"]) == ["2", "7"]
        assert of_all["writer_id"].nunique() == 2
        own = a.history("setting", "all")
        assert list(own.loc[own["path"] == "breaker.failures", "value"]) == ["2"]
        assert sorted(b.history("profile", "all")["name"]) == ["extra", "main"]
        assert list(a.history("profile", "all")["name"]) == ["main"]
        assert sorted(a.providers(all=True)["name"]) == ["extra", "main", "main"]
        assert list(a.versions.history("setting", "breaker.failures")["value"]) == ["2"]
        assert list(b.versions.history("setting", "breaker.failures")["value"]) == ["2", "7"]
        assert sorted(json.loads(home_a.run("settings", "--all", "--json").stdout)[0]) >= ["at", "author"]
        # a proposal of one is for itself
        b.set_setting("breaker.failures", 9, on="calmer")
        merged = a.versions.merge("calmer")
        assert merged["applied"] == []
        found = b.versions.history("setting", "breaker.failures")
        assert list(found["value"]) == ["2", "7", "9"]
        writers = a.history("writers", "all")
        assert set(writers["writer_id"]) == set(rows["writer_id"])
        assert set(writers["host"]) == {socket.gethostname()}
        assert writers["node"].nunique() == 2
        assert writers["user_name"].notna().all()


def test_a_copied_data_directory_is_another_daemon_and_nothing_is_lost_or_doubled(
    tmp_path: Path, dolt: DoltServer
) -> None:
    dolt.admin("CREATE DATABASE IF NOT EXISTS copies")
    with scripted_process() as provider:
        base = provider.base_url.removesuffix("/v1")
        toml = TOML.replace('"team"', '"copies"').format(port=dolt.port, base=base)
        with daemon(tmp_path / "a", toml) as (home, a):
            ids = [a.ask("one").operation_id]
            assert home.run("daemon", "stop").returncode == 0
            (tmp_path / "b").mkdir()
            shutil.copytree(home.data_dir, tmp_path / "b" / "data")
            copied = Home(tmp_path / "b", home.env | {"TUNDRA_DATA_DIR": str(tmp_path / "b" / "data")})
            try:
                assert home.run("daemon", "start").returncode == 0
                assert copied.run("daemon", "start").returncode == 0
                with Client(copied.data_dir) as b:
                    for n in range(5):
                        ids += [client.ask(f"{n}").operation_id for client in (a, b)]
                    assert "copied" in [one["what"] for one in b.status()["over"]]
                    rows = a.calls("all", all=True)
                    assert sorted(rows["operation_id"].astype(str)) == sorted(ids)
                    assert rows["writer_id"].nunique() == 2
                    assert len(a.errors("all", all=True)) == 0
            finally:
                stop_processes(copied)


def test_a_disk_that_was_cloned_is_noticed_when_both_write(dolt: DoltServer) -> None:
    """Nothing in the files tells the two apart: the one that began later goes on, the other one is told."""
    store, clone = (
        DoltStore(config(dolt, "clones", "a" * 32, life=5)),
        DoltStore(config(dolt, "clones", "a" * 32, 8, 1)),
    )
    note = (1, 1, "ada", "s", "b", None)
    dolt.admin("CREATE DATABASE IF NOT EXISTS clones")
    with contextlib.closing(store), contextlib.closing(clone):
        store.open("a" * 32, 1)
        store.write({"note": [note]}, SpoolPlace(1, 10))
        clone.open("a" * 32, 1)
        with pytest.raises(StoreUnavailable) as told:
            clone.write({"note": [(2, *note[1:])]}, SpoolPlace(1, 10))
        assert told.value.kind == "copied"
    # a restart of the first is none
    again = DoltStore(config(dolt, "clones", "a" * 32, life=9, life_before=5))
    with contextlib.closing(again):
        again.open("a" * 32, 1)
        again.write({"note": [(3, *note[1:])]}, SpoolPlace(1, 20))
        assert again.place() == SpoolPlace(1, 20)


def test_numbers_of_dead_daemons_are_given_anew_and_a_full_database_says_what_helps(dolt: DoltServer) -> None:
    dolt.admin("CREATE DATABASE IF NOT EXISTS crowd")
    first = DoltStore(config(dolt, "crowd", "first"))
    with contextlib.closing(first):
        first.open("first", 7)
        first.write({"note": [(1, 1, "ada", "s", "b", None)]}, SpoolPlace(1, 10))
        now = time.time_ns() // 1000
        spool = ", ".join(f"('owner{n:07}x', {n}, 1, 1, 0)" for n in range(1024) if n != 7)
        seen = ", ".join(f"('owner{n:07}', {now}, 'h', {n}, {now})" for n in range(1024) if n != 7)
        dolt.admin(
            "USE crowd",
            f"INSERT INTO spool_place VALUES {spool}",
            f"INSERT INTO writer (writer_id, at, host, node, seen_at) VALUES {seen}",
        )
        late = DoltStore(config(dolt, "crowd", "late"))
        with contextlib.closing(late):
            with pytest.raises(StoreUnavailable, match="1,024 daemons") as told:
                late.open("late", 7)
            assert "store.database" in told.value.hint
            old = now - 2 * 24 * 3600 * 1_000_000
            dolt.admin("USE crowd", f"UPDATE writer SET seen_at = {old} WHERE node IN (500, 7)")
            assert late.open("late", 7) in (7, 500)
        # whoever lost its number while it was away claims another one before it writes again
        if late._node == 7:
            with pytest.raises(StoreBusy):
                first.write({"note": [(2, 1, "ada", "s", "b", None)]}, SpoolPlace(1, 20))


def test_one_daemon_of_several_commits_what_all_of_them_store(dolt: DoltServer) -> None:
    dolt.admin("CREATE DATABASE IF NOT EXISTS led")
    stores = [DoltStore(config(dolt, "led", name)) for name in ("one", "two", "three")]
    for store in stores:
        store.open(store._owner, 7)
    try:
        assert [store.leads() for store in stores] == [True, False, False]
        assert [store.leads() for store in stores] == [True, False, False]
        stores[1].write({"note": [(1, 1, "ada", "s", "b", None)]}, SpoolPlace(1, 10))
        assert stores[0].commit_events() is not None
        stores[0].close()
        wait_until(lambda: any(store.leads() for store in stores[1:]), 10)
        assert sum(store.leads() for store in stores[1:]) == 1
    finally:
        for store in stores:
            store.close()


def test_daemons_that_start_together_get_different_numbers(dolt: DoltServer) -> None:
    """Also when all of them drew the same one."""
    dolt.admin("CREATE DATABASE IF NOT EXISTS numbers")

    def opened(owner: str) -> int:
        store = DoltStore(config(dolt, "numbers", owner))
        try:
            return store.open(owner, 7)
        finally:
            store.close()

    first = opened(uuid.uuid4().hex)  # makes the tables
    granted: list[int] = []
    start = threading.Barrier(10)

    def one() -> None:
        start.wait(30)
        granted.append(opened(uuid.uuid4().hex))

    threads = [threading.Thread(target=one) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert len(granted) == 10
    assert len({first, *granted}) == 11
    with (
        pymysql.connect(host="127.0.0.1", port=dolt.port, user="root", database="numbers") as db,
        db.cursor() as cursor,
    ):
        cursor.execute("SELECT COUNT(DISTINCT node), COUNT(*) FROM spool_place")
        assert cursor.fetchone() == (11, 11)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[DoltServer, Path]]:
    """A server that demands TLS, with a login that writes and one that reads; and who signed its certificate."""
    folder = tmp_path_factory.mktemp("guarded")
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    authority.cert_pem.write_to_path(folder / "ca.pem")
    certificate.private_key_pem.write_to_path(folder / "key.pem")
    (folder / "cert.pem").write_bytes(b"".join(blob.bytes() for blob in certificate.cert_chain_pems))
    server = DoltServer(folder / "dolt")
    listener = {"host": "127.0.0.1", "port": server.port}
    keys = {"tls_key": str(folder / "key.pem"), "tls_cert": str(folder / "cert.pem"), "require_secure_transport": True}
    server.start()
    server.admin(
        "CREATE DATABASE lab",
        f"CREATE USER writer@'%' IDENTIFIED BY '{WRITES}'",
        "GRANT ALL ON lab.* TO writer@'%'",
        f"CREATE USER reader@'%' IDENTIFIED BY '{READS}'",
        "GRANT SELECT ON lab.* TO reader@'%'",
    )
    server.stop()
    server.start({"listener": listener | keys})
    try:
        yield server, folder / "ca.pem"
    finally:
        server.stop()


def test_a_teams_server_is_joined_over_tls_with_a_login_that_only_reads(
    home: Home, guarded: tuple[DoltServer, Path]
) -> None:
    server, authority = guarded
    address = f"dolts://writer@localhost:{server.port}/lab"
    home.env |= {"LAB_PASSWORD": WRITES, "LAB_READER": READS, "WRONG": "no"}
    given = ("--password-env", "LAB_PASSWORD", "--reader", "reader", "--reader-password-env", "LAB_READER")
    for words, told in (
        ((address.replace("writer", f"writer:{WRITES}"), *given), "password in it"),
        (("dolts://localhost", *given), "is not a database"),
        ((address, *given), "is not trusted"),
        ((address, "--password-env", "WRONG", "--ca-file", str(authority)), "does not let user"),
        ((address.replace("dolts", "dolt"), *given), "secure"),
    ):
        refused = home.run("dolt", "join", *words)
        assert refused.returncode != 0
        assert told in refused.stderr
        assert WRITES not in refused.stdout + refused.stderr
        assert not home.config.exists()
    joined = home.run("dolt", "join", address, *given, "--ca-file", str(authority), "--json", timeout=120)
    assert joined.returncode == 0, joined.stderr
    assert json.loads(joined.stdout)["tls"] is True
    assert home.run("note", "seen").returncode == 0
    assert json.loads(home.run("notes", "--json").stdout)[0]["body"] == "seen"
    assert home.run("sql", "select count(*) from note").returncode == 0
    home.env["LAB_READER"] = "wrong"
    assert home.run("daemon", "restart", timeout=120).returncode == 0
    assert home.run("notes").returncode == 0
    refused = home.run("sql", "select count(*) from note")  # only this needs the reader
    assert refused.returncode != 0
    assert "does not let user 'reader' in" in refused.stderr
    text = home.config.read_text()
    assert "LAB_PASSWORD" in text
    assert WRITES not in text
    # a server whose certificate is another's is refused when the daemon connects, too
    assert home.run("settings", "set", "store.ca_file=").returncode == 0
    home.run("daemon", "restart", timeout=120)
    wait_until(lambda: "is not trusted" in home.run("status").stdout.replace("\n", " "), 60)
    # and one that demands encryption says so when settings stopped asking for it
    assert home.run("settings", "set", "store.tls=false").returncode == 0
    home.run("daemon", "restart", timeout=120)
    wait_until(lambda: "takes only connections that are encrypted" in " ".join(home.run("status").stdout.split()), 60)
