"""Where a hub or a container starts the daemon: no name for the account, a home that cannot be written."""

from __future__ import annotations

import getpass
import json
import os

import pytest

from tests.conftest import Home
from tundra_nb.environment import account

doltlite = pytest.mark.part("doltlite")


def test_an_account_without_a_name_is_told_by_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenShift gives a container a number that no password file knows."""

    def unknown() -> str:
        raise KeyError("getpwuid(): uid not found: 1000650000")

    assert account({}) == getpass.getuser()
    assert account({"JUPYTERHUB_USER": "ada"}) == "ada"
    monkeypatch.setattr(getpass, "getuser", unknown)
    assert account({}) == f"uid-{os.getuid()}"


@pytest.mark.check
@doltlite
def test_under_a_hub_calls_by_the_socket_are_its_users(home: Home) -> None:
    home.write_settings('[[profile]]\nname = "p"\nkind = "local"\nbase_url = "http://127.0.0.1:9/v1"\nmodel = "m"\n')
    assert home.run("daemon", "start", JUPYTERHUB_USER="ada").returncode == 0
    assert home.run("ask", "hi").returncode != 0
    (call,) = json.loads(home.run("calls", "--json").stdout)
    assert call["user_name"] == "ada"


@doltlite
def test_a_home_that_cannot_be_written_is_told_and_the_daemon_runs(home: Home) -> None:
    """Only the data directory must be writable: the daemon is found by its lock file."""
    blocked = home.folder / "a-file"
    blocked.write_text("")
    home.env["JUPYTER_RUNTIME_DIR"] = str(blocked / "runtime")
    started = home.run("daemon", "start")
    assert started.returncode == 0, started.stderr
    status = json.loads(home.run("status", "--json").stdout)
    assert [problem["what"] for problem in status["problems"]] == ["connection_file"]
    assert "JUPYTER_RUNTIME_DIR" in status["problems"][0]["hint"]
    assert home.run("calls").returncode == 0
    assert home.run("daemon", "stop").returncode == 0
