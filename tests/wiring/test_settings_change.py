"""A change of settings rebuilds only what changed, seen through the real daemon and its providers."""

from __future__ import annotations

from pathlib import Path

import pytest

import tundra_nb
from tests.conftest import Home, wait_until
from tundra_nb.testing.scripted_provider import ScriptedProcess, scripted_process

pytestmark = pytest.mark.part("doltlite")

PROFILE = '[[profile]]\nname = "{}"\nkind = "local"\nbase_url = "{}"\npriority = {}\n'
MODELS = "/v1/models"


def listed(provider: ScriptedProcess) -> int:
    return sum(request.target == MODELS for request in provider.requests)


def connections(provider: ScriptedProcess) -> int:
    return provider.stats["connections"]


def test_a_change_of_one_thing_leaves_the_providers_of_all_others_alone(home: Home) -> None:
    with scripted_process() as first, scripted_process() as second:
        home.write_settings(PROFILE.format("first", first.base_url, 0) + PROFILE.format("second", second.base_url, 1))
        with tundra_nb.connect() as t:
            t.ask("hi")  # chooses a model from the list, and keeps the connection
            t.ask("hi", profile="second")
            assert (listed(first), listed(second)) == (1, 1)
            assert (connections(first), connections(second)) == (1, 1)

            t.set_setting("pty.capacity", 11)
            t.set_setting("breaker.failures", 7)
            t.set_setting("deadlines.idle_seconds", 41.0)
            t.set_setting("limits.global.rate", 77.0)
            t.set_setting("profile.second.priority", 5)
            t.set_setting("profile.first.rpm", 600.0)
            t.ask("hi")
            t.ask("hi", profile="second")
            assert (listed(first), listed(second)) == (1, 1)
            assert (connections(first), connections(second)) == (1, 1)
            limits = t.limits()
            assert limits.query("limit_key == 'first' and resource == 'requests'")["limit"].tolist() == [600.0]
            assert limits.query("tier == 'global'")["per_second"].tolist() == [77.0]
            assert set(t.models()["model"]) == {"scripted-1", "scripted-2"}
            assert (listed(first), listed(second)) == (1, 1)

            t.set_setting("profile.first.model", "scripted-2")
            assert t.ask("hi").model == "scripted-2"
            t.set_setting("profile.first.base_url", second.base_url)
            assert t.ask("hi").profile == "first"
            assert len(second.requests) == 4  # its list, two calls of its own, one that came over
            assert listed(second) == 1


def test_a_write_of_our_own_is_put_in_force_once_and_an_edit_by_hand_is_followed(home: Home) -> None:
    with scripted_process() as provider:
        home.write_settings(PROFILE.format("only", provider.base_url, 0))
        with tundra_nb.connect() as t:
            t.set_setting("pty.capacity", 12)
            file = Path(home.env["TUNDRA_CONFIG"])
            file.write_text(file.read_text() + "[breaker]\nfailures = 9\n")
            wait_until(lambda: _failures(t) == "9", what="the edit in force")
            messages = wait_until(lambda: _edited(t), what="the edit is written down")
            assert sum("edited" in message for message in messages) == 1
            assert sum(message.startswith("pty.capacity") for message in messages) == 1


def _failures(t: tundra_nb.Client) -> str:
    (value,) = t.settings().query("path == 'breaker.failures'")["value"]
    return str(value)


def _edited(t: tundra_nb.Client) -> list[str] | None:
    messages = [str(message) for message in t.versions.log()["message"]]
    return messages if any("edited" in message for message in messages) else None
