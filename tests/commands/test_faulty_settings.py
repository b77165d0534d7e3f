"""A settings file that no daemon can start with is mended from the command line, and takes no running one away."""

from __future__ import annotations

import json
import re

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


def test_a_setting_that_is_unknown_is_never_offered_to_be_set(home: Home) -> None:
    text = "[breaker]\nfailure = 3\n"
    home.write_settings(text)
    told = home.run("status").stderr
    assert "Did you mean 'breaker.failures'? `tundra settings unset breaker.failure` mends the file." in told
    refused = home.run("settings", "set", "breaker.failure=3")
    assert refused.returncode == 2
    assert f"{home.config}, breaker.failure: unknown setting" in refused.stderr
    assert home.config.read_text() == text
    assert home.run("settings", "unset", "breaker.failure").returncode == 0
    assert home.run("status").returncode == 0


LOCAL = '[[profile]]\nname = "{name}"\nkind = "local"\nbase_url = "http://127.0.0.1:1/v1"\n'


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ('[profile]\nname = "local"\nkind = "local"\n', "`[[profile]]`, in two brackets"),
        (LOCAL.format(name="local") * 2, "Correct that `[[profile]]`"),
        (LOCAL.format(name="gpt-4.1") * 2, "Correct that `[[profile]]`"),
        ('[[profile]]\nkind = "local"\n', "Correct that `[[profile]]`"),
        (LOCAL.format(name=""), "Correct that `[[profile]]`"),
        ("router = 3\n", "→ `tundra settings unset router` mends the file."),
        ("[limits]\nglobal = 3\n", "→ `tundra settings unset limits.global` mends the file."),
        ("\x80", "Save it as UTF-8 text."),
    ],
)
def test_only_what_mends_a_faulty_file_is_offered(home: Home, text: str, hint: str) -> None:
    """`settings set profile=VALUE` never did, nor `unset` of a profile that is there twice."""
    home.config.write_bytes(text.encode("latin-1"))
    told = home.run("status").stderr
    assert hint in told
    assert "settings set" not in told
    for command in re.findall(r"`tundra (settings unset \S+)`", told):
        assert home.run(*command.split()).returncode == 0
        assert home.run("status").returncode == 0


def test_a_restart_with_a_faulty_file_leaves_the_daemon_running(home: Home) -> None:
    started = json.loads(home.run("daemon", "start", "--json").stdout)
    refused = home.run("settings", "set", "log.filter=garbage===")
    assert (refused.returncode, "unknown level" in refused.stderr) == (2, True)
    home.write_settings("[breaker\n")
    restarted = home.run("daemon", "restart")
    assert (restarted.returncode, "line 1" in restarted.stderr) == (1, True)
    assert json.loads(home.run("daemon", "status", "--json").stdout)["pid"] == started["pid"]


def test_a_setting_that_cannot_take_effect_is_told_when_it_is_set_and_by_doctor(home: Home) -> None:
    whole_disk = home.run("settings", "set", "store.reserve_mb=1e12")
    assert (whole_disk.returncode, "in all" in whole_disk.stderr) == (2, True)
    refused = home.run("settings", "set", "gateway.listen=0.0.0.0:1")
    assert (refused.returncode, "no TLS" in refused.stderr) == (2, True)
    home.write_settings('[store]\nreserve_mb = 1e11\n[gateway]\nlisten = "0.0.0.0:1"\n')
    home.run("daemon", "restart")
    run = home.run("run", "printf gone")
    assert "store.reserve_mb" in run.stdout
    checks = {check["id"]: check for check in json.loads(home.run("doctor", "--json").stdout)["checks"]}
    assert (checks["daemon.gateway"]["state"], checks["store.disk"]["state"]) == ("warn", "warn")
    assert "gateway" in [problem["what"] for problem in json.loads(home.run("status", "--json").stdout)["problems"]]
    assert "problem" not in json.loads(home.run("settings", "unset", "gateway.listen", "--json").stdout)
