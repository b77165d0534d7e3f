"""The breaker's rules once in real time, through the daemon, and across a `kill -9` of it."""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import tundra_nb
from tests.conftest import Home, wait_until
from tests.wiring.test_versions import free_port
from tundra_nb import errors
from tundra_nb.client.sync import Client
from tundra_nb.testing.scripted_provider import ScriptedProcess, ScriptedStep, scripted_process

pytestmark = pytest.mark.part("doltlite")

CHAT = "/v1/chat/completions"
OPEN_SECONDS = 3.0
"""Short, but longer than a few calls on a busy machine."""
TOML = """
[router]
retries = 0
[breaker]
failures = 3
successes = 2
open_seconds = {open_seconds}
[[profile]]
name = "only"
kind = "local"
base_url = "{base_url}"
model = "scripted-1"
"""


def breaker(t: Client) -> dict[Any, Any]:
    return dict(t.breakers().iloc[0])


def fail(t: Client, provider: ScriptedProcess, times: int) -> None:
    provider.script(CHAT, ScriptedStep(status=500, repeat=times))
    for _ in range(times):
        with pytest.raises(errors.AllProvidersExhausted):
            t.ask("hi")


def asked(provider: ScriptedProcess) -> int:
    return len(provider.requests)


def test_it_opens_refuses_probes_one_at_a_time_and_closes_again(home: Home) -> None:
    with scripted_process() as provider:
        home.write_settings(TOML.format(open_seconds=OPEN_SECONDS, base_url=provider.base_url))
        with tundra_nb.connect() as t:
            fail(t, provider, 2)
            assert t.ask("hi").text  # a success in between: two and three are not three in a row
            fail(t, provider, 3)
            opened = time.monotonic()
            state = breaker(t)
            assert (state["state"], state["failures"]) == ("open", 3)
            assert 0 < state["open_for_s"] <= OPEN_SECONDS

            with pytest.raises(errors.AllProvidersExhausted) as caught:
                t.ask("hi")
            assert caught.value.causes[0]["code"] == "CircuitBreakerError::Open"
            assert 0 < (caught.value.retry_after or 0) <= OPEN_SECONDS
            assert asked(provider) == 6
            assert "only" in t.status()["next_step"]

            wait_until(lambda: breaker(t)["state"] == "half_open", what="half open by time alone")
            assert time.monotonic() - opened >= OPEN_SECONDS - 1

            provider.script(CHAT, ScriptedStep(status=503))
            with pytest.raises(errors.AllProvidersExhausted):
                t.ask("hi")  # a bad probe opens it for another period
            assert breaker(t)["state"] == "open"
            wait_until(lambda: breaker(t)["state"] == "half_open")

            before = asked(provider)
            provider.script(CHAT, ScriptedStep(delay=0.5))
            with ThreadPoolExecutor(4) as pool:
                first = pool.submit(_ask)
                wait_until(lambda: asked(provider) == before + 1, what="the probe is under way")
                others = [pool.submit(_ask) for _ in range(3)]
                assert [other.result() for other in others] == ["AllProvidersExhausted"] * 3
                assert first.result() == "ok"
            assert asked(provider) == before + 1
            assert breaker(t)["state"] == "half_open"  # one good probe of two
            t.ask("hi")
            assert breaker(t)["state"] == "closed"

            moves = t.breaker_history(since="all")
            assert list(zip(moves["old_state"], moves["new_state"], moves["reason"], strict=True)) == [
                ("closed", "open", "api_error"),
                ("open", "half_open", "open_period_over"),
                ("half_open", "open", "api_error"),
                ("open", "half_open", "open_period_over"),
                ("half_open", "closed", "probes_succeeded"),
            ]
            probes = t.attempts(since="all").query("cause == 'probe'")
            assert list(probes["outcome"]) == ["error", "ok", "ok"]


def _ask() -> str:
    with tundra_nb.connect() as t:
        try:
            t.ask("hi")
        except errors.TundraError as error:
            return error.code
        return "ok"


def test_a_killed_daemon_comes_back_with_the_breaker_open_for_the_rest_of_its_time(home: Home) -> None:
    with scripted_process() as provider:
        home.write_settings(TOML.format(open_seconds=8.0, base_url=provider.base_url))
        with tundra_nb.connect() as t:
            fail(t, provider, 3)
            opened = time.monotonic()
            pid = t.status().pid
            os.kill(pid, signal.SIGKILL)
        with tundra_nb.connect() as t:
            assert t.status().pid != pid
            state = breaker(t)
            assert (state["state"], state["failures"]) == ("open", 3)
            assert state["open_for_s"] == pytest.approx(8.0 - (time.monotonic() - opened), abs=0.5)
            with pytest.raises(errors.AllProvidersExhausted):
                t.ask("hi")
            assert asked(provider) == 3
            wait_until(lambda: breaker(t)["state"] == "half_open", timeout=12)
            assert time.monotonic() - opened == pytest.approx(8.0, abs=0.7)
            assert t.ask("hi").text


def test_a_recheck_without_an_answer_says_that_the_profile_stays_parked(home: Home) -> None:
    """And a call that finds all parked is told how they are taken back in."""
    gone = f"http://127.0.0.1:{free_port()}/v1"
    profile = '[[profile]]\nname = "{name}"\nkind = "openai"\nbase_url = "{url}"\nmodel = "m"\n'
    home.write_settings("".join(profile.format(name=name, url=gone) for name in ("first", "second")))
    for name in ("first", "second"):
        assert home.run("providers", "park", name).returncode == 0
    asked = home.run("ask", "hi")
    assert "AllProvidersExhausted" in asked.stderr
    assert "`tundra providers recheck first` takes the first of them back in" in asked.stderr
    done = home.run("providers", "recheck", "first")
    assert (done.returncode, done.stdout) == (1, "first stays parked.\n")
    assert "HttpError: first: cannot connect" in done.stderr
    refused = home.run("providers", "recheck", "first", "--json")
    assert "first stays parked." in refused.stderr


def test_a_killed_daemon_comes_back_with_its_parked_profile_until_it_is_rechecked(home: Home) -> None:
    with scripted_process() as provider:
        home.write_settings(TOML.format(open_seconds=8.0, base_url=provider.base_url))
        with tundra_nb.connect() as t:
            provider.script(CHAT, ScriptedStep(status=401))
            with pytest.raises(errors.AllProvidersExhausted):
                t.ask("hi")
            os.kill(t.status().pid, signal.SIGKILL)
        with tundra_nb.connect() as t:
            (profile,) = t.providers().to_dict("records")
            assert profile["state"] == "parked"
            assert "401" in profile["reason"]
            with pytest.raises(errors.AllProvidersExhausted):
                t.ask("hi")
            assert asked(provider) == 1
            t.recheck_provider("only")
            assert t.ask("hi").text


def test_a_breaker_closed_by_hand_lets_calls_through_at_once(home: Home) -> None:
    with scripted_process() as provider:
        home.write_settings(TOML.format(open_seconds=60.0, base_url=provider.base_url))
        with tundra_nb.connect() as t:
            fail(t, provider, 3)
            done = home.run("breakers", "reset", "only")
            assert done.returncode == 0, done.stderr
            assert t.ask("hi").text
