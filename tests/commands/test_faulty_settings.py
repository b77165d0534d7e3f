"""A settings file that no daemon can start with is mended from the command line, and takes no running one away."""

from __future__ import annotations

import json

import pytest

from tests.conftest import Home

pytestmark = pytest.mark.part("doltlite")


def test_a_faulty_file_is_told_by_doctor_and_mended_by_set_and_unset(home: Home) -> None:
    home.write_settings('[log]\nfilter = "garbage==="\n[breaker]\nopen_seconds = nan\n')
    told = json.loads(home.run("doctor", "--json").stdout)
    assert "nan" in next(check["evidence"] for check in told["checks"] if check["id"] == "settings.file")
    assert home.run("settings").returncode == 1
    first = home.run("settings", "set", "breaker.open_seconds=9")
    assert first.returncode == 0, first.stderr
    assert "line 2, log.filter" in " ".join(first.stdout.split())
    assert home.run("settings", "set", "log.filter=worse===").returncode == 2
    second = home.run("settings", "unset", "log.filter")
    assert second.returncode == 0, second.stderr
    assert home.config.read_text() == "[log]\n[breaker]\nopen_seconds = 9\n"


def test_a_restart_with_a_faulty_file_leaves_the_daemon_running(home: Home) -> None:
    started = json.loads(home.run("daemon", "start", "--json").stdout)
    refused = home.run("settings", "set", "log.filter=garbage===")
    assert (refused.returncode, "unknown level" in refused.stderr) == (2, True)
    home.write_settings("[breaker\n")
    restarted = home.run("daemon", "restart")
    assert (restarted.returncode, "line 1" in restarted.stderr) == (1, True)
    assert json.loads(home.run("daemon", "status", "--json").stdout)["pid"] == started["pid"]
