"""Two daemons of different homes that share a limit on a real Valkey, and what each tells of it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Home, stop_processes, wait_until
from tests.runtime.limits_shared.valkey import ValkeyServer
from tundra_nb.client.sync import Client
from tundra_nb.errors import LimitExceeded
from tundra_nb.testing.scripted_provider import scripted_process

pytestmark = [pytest.mark.part("doltlite"), pytest.mark.part("valkey"), pytest.mark.timeout(120)]
TOML = """
[router]
retries = 0
max_wait_seconds = 0
[limits.global]
rate = 0.05
burst = 2
[limits.shared]
url = "{url}"
budget = "team"
password_env = "LIMITS_PASSWORD"
daemons = 4
[[profile]]
name = "main"
kind = "local"
base_url = "{base}/v1"
model = "m"
"""
PASSWORD = "team-secret-0123"


@contextlib.contextmanager
def daemon(folder: Path, toml: str) -> Iterator[tuple[Home, Client]]:
    folder.mkdir()
    env = dict(os.environ) | {
        "TUNDRA_DATA_DIR": str(folder / "data"),
        "TUNDRA_CONFIG": str(folder / "tundra.toml"),
        "LIMITS_PASSWORD": PASSWORD,
    }
    home = Home(folder, env)
    home.write_settings(toml)
    try:
        wait_until(lambda: home.run("daemon", "start").returncode == 0, 90)  # on a busy machine the first may give up
        with Client(home.data_dir) as client:
            yield home, client
    finally:
        stop_processes(home)


@pytest.mark.check
def test_two_daemons_share_a_limit_and_say_so(tmp_path: Path) -> None:
    with ValkeyServer("--requirepass", PASSWORD) as server, scripted_process() as provider:
        from valkey import Valkey

        with Valkey(port=server.port, password=PASSWORD) as line:
            line.set("tundra:1:{team}:since", "1")  # a data set that is old: its buckets are full
        toml = TOML.format(url=server.url, base=provider.url)
        with daemon(tmp_path / "a", toml) as (home, a), daemon(tmp_path / "b", toml) as (_, b):
            a.ask("hi")
            b.ask("hi")
            for client in (a, b):
                with pytest.raises(LimitExceeded) as refused:
                    client.ask("hi", failover=False)
                assert refused.value.retry_after == pytest.approx(20, abs=12)
            (row,) = a.limits().to_dict("records")
            assert (row["scope"], row["tier"], row["limit"]) == ("team", "global", 2)
            shared = a.status()["shared_limits"]
            assert (shared["scope"], shared["daemons"], shared["budget"]) == ("team", 2, "team")
            assert b.limit_history()["decision"].iloc[-1] == "refused"

            server.kill()
            for _ in range(3):
                with pytest.raises(LimitExceeded):  # the share begins empty
                    a.ask("hi", failover=False)
            shared = a.status()["shared_limits"]
            assert (shared["scope"], shared["daemons"]) == ("share", 2)
            assert "been away for" in a.status()["next_step"]
            told = home.run("status").stdout
            assert "shared limits" in told
            assert "been away" in " ".join(told.split())
            assert PASSWORD not in told
            (row,) = a.limits().to_dict("records")
            assert (row["scope"], row["per_second"]) == ("share", 0.025)
            decisions = list(a.limit_history()["decision"])
            assert "away" in decisions

            server.start()
            wait_until(lambda: a.status()["shared_limits"]["scope"] == "team", 30, "nobody calls meanwhile")
            assert "back" in list(a.limit_history()["decision"])


@pytest.mark.parametrize(
    ("url", "word"), [("valkey://u:secret@h:1", "must hold no secret"), ("http://h:1", "not the address")]
)
def test_an_address_that_cannot_be_is_refused_without_being_repeated(home: Home, url: str, word: str) -> None:
    home.write_settings(f'[limits.shared]\nurl = "{url}"\n')
    done = home.run("daemon", "start")
    assert done.returncode != 0
    assert word in done.stderr
    assert "u:secret" not in done.stderr
