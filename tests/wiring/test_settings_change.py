"""A change of settings rebuilds only what changed, seen through the real daemon and its providers."""

from __future__ import annotations

from pathlib import Path

import pytest

import tundra_nb
from tests.conftest import Home, wait_until
from tests.contract.server import free_port
from tundra_nb.client.sync import Client
from tundra_nb.dashboard import reading, story
from tundra_nb.dashboard.hour import Hour
from tundra_nb.errors import AllProvidersExhausted, ConfigError, ParseError
from tundra_nb.testing.scripted_provider import ScriptedProcess, ScriptedStep, scripted_process

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


def test_an_address_that_is_corrected_is_asked_at_once_and_a_profile_that_is_removed_is_not_open_for_ever(
    home: Home,
) -> None:
    """The newcomer's first minute: a wrong address opens the breaker, then it is corrected or the profile removed."""
    with scripted_process() as well:
        nobody = f"http://127.0.0.1:{free_port()}/v1"
        home.write_settings(
            "[router]\nretries = 0\n[breaker]\nfailures = 1\n"
            + PROFILE.format("first", nobody, 0)
            + PROFILE.format("second", nobody, 1)
        )
        with tundra_nb.connect() as t:
            with pytest.raises(AllProvidersExhausted):
                t.ask("hi")
            assert t.breakers().set_index("profile")["state"].to_dict() == {"first": "open", "second": "open"}
            t.set_setting("profile.first.base_url", well.base_url)
            assert t.ask("hi").profile == "first"
            t.remove_provider("second")
            moves = t.breaker_history()
            assert list(zip(moves["profile"], moves["new_state"], moves["reason"], strict=True))[-2:] == [
                ("first", "closed", "settings_changed"),
                ("second", "closed", "removed"),
            ]
            hour = resolve_and_read(t)
            told = story.tell(hour)
            assert [one.is_on for one in told.episodes] == [False] * len(told.episodes)
            second = next(one for one in told.episodes if one.profile == "second")
            assert "second open for" in second.words
            assert "when it was taken out" in second.words
            assert any(one.words == "profile second taken out of use" for one in hour.changes)
            findings = t.triage(model=False).findings
            assert {one.profile: one.is_over for one in findings} == {"first": True, "second": True}
            assert all("still so" not in one.claim for one in findings)


def test_a_profile_that_is_removed_while_no_daemon_runs_is_not_open_for_ever(home: Home) -> None:
    nobody = f"http://127.0.0.1:{free_port()}/v1"
    head = "[router]\nretries = 0\n[breaker]\nfailures = 1\n"
    home.write_settings(head + PROFILE.format("gone", nobody, 0))
    with tundra_nb.connect() as t, pytest.raises(AllProvidersExhausted):
        t.ask("hi")
    assert home.run("daemon", "stop").returncode == 0
    with scripted_process() as well:
        home.write_settings(head + PROFILE.format("well", well.base_url, 0))
        assert home.run("daemon", "start").returncode == 0
        with tundra_nb.connect() as t:
            t.ask("hi")
            hour = resolve_and_read(t)
            assert [(one.profile, one.is_on) for one in story.tell(hour).episodes] == [("gone", False)]
            assert all(one.is_over for one in t.triage(model=False).findings)


def resolve_and_read(t: Client) -> Hour:
    """The last hour, as the dashboard reads it."""
    return reading.read(t, reading.resolve(t, reading.Window()))


def test_what_to_do_about_no_profile_is_the_same_wherever_it_is_told(home: Home) -> None:
    """`ask` said how to make one, `why` and triage to correct a line that nobody had named."""
    home.write_settings("")
    with tundra_nb.connect() as t:
        with pytest.raises(ConfigError, match="no profile is set up"):
            t.ask("hi")
        add = "tundra providers add local --kind local --base-url http://127.0.0.1:8080/v1"
        for command in (("why", "last"), ("last",)):
            told = " ".join(home.run(*command).stdout.split())
            assert add in told
            assert "file and line" not in told
        found = t.triage()
        assert (found.stopped, found.note) == ("no_model", "no profile is set up, so no model was asked")
        assert len(t.errors()) == 1, "triage adds no error of its own to what it looks at"
        (finding,) = found.findings
        assert add in finding.remedy
        assert "does not parse" not in finding.cause
        assert not finding.is_over
        with scripted_process() as well:
            home.write_settings(PROFILE.format("first", well.base_url, 0))
            wait_until(lambda: t.profile_names() == ["first"])
            t.ask("hi")
            (finding,) = t.triage(model=False).findings
            assert finding.is_over
            assert "when a call was answered" in finding.claim


def test_what_to_do_about_a_stream_that_was_cut_is_the_same_wherever_it_is_told(home: Home) -> None:
    with scripted_process() as provider, tundra_nb.connect() as t:
        home.write_settings("[router]\nretries = 0\n" + PROFILE.format("first", provider.base_url, 0))
        wait_until(lambda: t.profile_names() == ["first"])
        provider.script("/v1/chat/completions", ScriptedStep(cut=500, gap=0.01))
        with pytest.raises(ParseError, match="was cut"):
            list(t.ask("hi", stream=True))
        (finding,) = t.triage(model=False).findings
    for told in (home.run("why", "last").stdout, home.run("last").stdout, finding.remedy):
        assert "tundra calls --by profile,code` shows it often" in " ".join(told.split())
        assert "base_url" not in told


def test_a_key_that_was_set_after_the_daemon_had_started_is_told_with_the_restart_that_finds_it(home: Home) -> None:
    assert "daemon restart" not in home.run("ask", "hi").stderr
    home.env |= {"OPENAI_API_KEY": "sk-late", "COLUMNS": "300"}
    for command in (("ask", "hi"), ("status",), ("keys", "offer")):
        done = home.run(*command)
        assert "without OPENAI_API_KEY: `tundra daemon restart` makes profiles" in done.stdout + done.stderr, command
    assert home.run("daemon", "restart").returncode == 0
    with tundra_nb.connect() as t:
        assert t.profile_names() == ["openai"]
