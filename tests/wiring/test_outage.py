"""An outage as the daemon's log tells it, and a limiter of which nothing is switched on."""

from __future__ import annotations

import re

import pytest

import tundra_nb
from tests.conftest import Home
from tundra_nb import errors
from tundra_nb.testing.scripted_provider import ScriptedStep, scripted_process

pytestmark = pytest.mark.part("doltlite")

CHAT = "/v1/chat/completions"
OFF = "[limits.global]\nenabled = false\n"
QUICK = "[router]\nretries = 0\n[breaker]\nfailures = 2\nopen_seconds = 60\n"
PROFILE = '[[profile]]\nname = "{}"\nkind = "local"\nbase_url = "{}"\nmodel = "scripted-1"\npriority = {}\n'


@pytest.mark.parametrize("tiers", [OFF, OFF + "[limits.user]\nenabled = true\n"], ids=["none", "users"])
def test_with_tiers_off_a_rate_limited_profile_fails_over_again_and_again(home: Home, tiers: str) -> None:
    with scripted_process() as limited, scripted_process() as well:
        home.write_settings(tiers + PROFILE.format("a", limited.base_url, 0) + PROFILE.format("b", well.base_url, 1))
        limited.script(CHAT, ScriptedStep(status=429, headers=(("retry-after", "30"),), repeat=0))
        with tundra_nb.connect() as t:
            assert [t.ask("hi").profile for _ in range(3)] == ["b", "b", "b"]
            t.recheck_provider("a")
            assert t.ask("hi").profile == "b"
            assert t.ask("hi", profile="b").profile == "b"
            assert set(t.calls(since="all")["outcome"]) == {"ok"}


def test_the_log_tells_an_outage_with_the_ids_of_its_operations_and_attempts(home: Home) -> None:
    with scripted_process() as bad, scripted_process() as well:
        home.write_settings(
            QUICK
            + PROFILE.format("down", "http://127.0.0.1:9/v1", 0)
            + PROFILE.format("locked", bad.base_url, 1)
            + PROFILE.format("well", well.base_url, 2)
        )
        bad.script(CHAT, ScriptedStep(status=401, repeat=0))
        with tundra_nb.connect() as t:
            first = t.ask("hi")
            second = t.ask("hi")
            assert (first.profile, second.profile) == ("well", "well")
            t.ask("hi")
            attempts = t.attempts(since="all")
            with pytest.raises(errors.BreakerOpen):
                t.ask("hi", profile="down", failover=False)
    log = (home.data_dir / "logs" / "daemon.log").read_text().splitlines()

    def lines(pattern: str) -> list[str]:
        return [line for line in log if re.search(pattern, line)]

    refused = lines(r"tundra\.providers  attempt failed: down: cannot connect")
    assert len(refused) == 2  # then its breaker is open
    failed = attempts[(attempts["profile"] == "down") & (attempts["outcome"] == "error")]
    for line, (_, row) in zip(refused, failed.iterrows(), strict=True):
        assert f"operation_id={row['operation_id']}" in line
        assert f"attempt_id={row['attempt_id']}" in line
    (parked,) = lines(r"tundra\.router  profile locked is parked")
    assert f"operation_id={first.operation_id}" in parked
    assert "attempt_id=" in parked
    (moved,) = lines(r"tundra\.breaker  breaker of down: closed → open")
    assert f"operation_id={second.operation_id}" in moved
    failovers = lines(rf"tundra\.router  failing over to .* operation_id={first.operation_id} ")
    assert [re.search(r"failing over to (\w+)", line)[1] for line in failovers] == ["locked", "well"]  # type: ignore[index]
