"""What a person reads after something went wrong: the cause and the remedy, everywhere, without contradictions."""

from __future__ import annotations

import datetime as dt
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tundra_nb.testing.scripted_provider import ScriptedProcess, ScriptedStep, scripted_process

pytestmark = pytest.mark.check

CHAT = "/v1/chat/completions"
PROFILE = '[[profile]]\nname = "{name}"\nkind = "{kind}"\nbase_url = "{url}/v1"\nmodel = "tiny"\n'


@pytest.fixture
def provider(home: Any) -> Iterator[ScriptedProcess]:
    with scripted_process(pieces=4) as made:
        home.write_settings(
            "[router]\nretries = 0\n"
            + PROFILE.format(name="scripted", kind="openai", url=made.url)
            + 'api_key_env = "SCRIPTED_KEY"\n'
        )
        home.env["SCRIPTED_KEY"] = "sk-test-0123456789abcdef"
        yield made


def words(text: str) -> str:
    return " ".join(text.split())


def test_a_server_that_is_not_there_is_named_with_its_remedy_wherever_one_looks(home: Any) -> None:
    home.write_settings("[router]\nretries = 0\n" + PROFILE.format(name="down", kind="local", url="http://127.0.0.1:9"))
    asked = home.run("ask", "hi")
    assert asked.stderr.count("cannot connect to 127.0.0.1:9") == 1
    assert "Is the server running?" in asked.stderr
    for command in ("why", "last", "explain last"):
        told = words(home.run(*command.split()).stdout)
        assert "cannot connect to 127.0.0.1:9" in told, command
        assert "tundra doctor" in told or "Is the server running?" in told, command
    status = words(home.run("status").stdout)
    assert "0 of 1 profile answered in the last 10 min" in status
    assert "Is the server running?" in status
    assert "tundra is ready" not in status
    assert "down" in home.run("calls", "--tsv").stdout.splitlines()[1]


def test_what_the_hint_of_an_error_says_is_the_first_advice_about_its_row_too(home: Any, provider: Any) -> None:
    """The row keeps the message alone; its words choose the remedy."""
    url = provider.url.replace("http:", "https:")
    home.write_settings("[router]\nretries = 0\n" + PROFILE.format(name="p", kind="local", url=url))
    assert "Nobody speaks TLS at that port" in home.run("ask", "hi").stderr
    for command in ("why", "last", "explain last"):
        told = words(home.run(*command.split()).stdout)
        assert "obody speaks TLS at that port" in told.partition("In the history")[0].partition("Remedies")[0], command


def test_advice_names_commands_as_they_are_typed_in_every_form_and_what_was_written_by_others_stays(home: Any) -> None:
    """Tables for people, for pipes and for programs, and JSON: what a magic is called is a notebook's word."""
    home.write_settings(
        "[router]\nretries = 0\n"
        + PROFILE.format(name="a", kind="openai", url="http://127.0.0.1:9")
        + 'api_key_env = "NOKEY"\n'
    )
    home.run("ask", "hi")
    home.run("note", "run `%tundra pin` then")
    for command in ("providers", "status", "daemon status", "explain last", "why", "last", "doctor", "errors"):
        for form in ("", "--json", "--tsv"):
            done = home.run(*command.split(), *filter(None, [form]))
            assert "%tundra" not in done.stdout + done.stderr, (command, form)
    assert "`tundra providers recheck a`" in home.run("providers", "--tsv").stdout
    assert "run `%tundra pin` then" in home.run("notes", "--json").stdout


def test_failed_calls_are_found_and_counted_under_whom_they_asked(home: Any, provider: ScriptedProcess) -> None:
    provider.script(CHAT, ScriptedStep(status=503, text="down for maintenance"))
    home.run("ask", "hi")
    home.run("ask", "hi")
    found = json.loads(home.run("calls", "-p", "scripted", "--json").stdout)
    assert [(row["outcome"], row["asked"]) for row in found] == [("error", "scripted"), ("ok", "scripted")]
    groups = json.loads(home.run("calls", "--by", "profile", "--json").stdout)
    assert [(row["profile"], row["count"], row["errors"]) for row in groups] == [("scripted", 2, 1)]


def test_a_rejected_key_is_no_key_that_is_not_needed(home: Any) -> None:
    with scripted_process(pieces=4) as made:
        home.write_settings("[router]\nretries = 0\n" + PROFILE.format(name="a", kind="local", url=made.url))
        made.script(CHAT, ScriptedStep(status=401, text="no such key"))
        home.run("ask", "hi")
        status = words(home.run("status").stdout)
        assert "rejected" in status
        assert "none needed" not in status
        rows = json.loads(home.run("providers", "--json").stdout)
        assert rows[0]["key_present"] is None


def test_all_there_is_to_do_is_named_the_worst_first(home: Any) -> None:
    """A profile that is out of the game comes before one that only failed; nothing is left out."""
    with scripted_process(pieces=4) as made:
        made.script(CHAT, ScriptedStep(status=401, text="no such key"))
        home.write_settings(
            "[router]\nretries = 0\n[breaker]\nfailures = 1\nopen_seconds = 600\n"
            + PROFILE.format(name="down", kind="local", url="http://127.0.0.1:9")
            + PROFILE.format(name="rejected", kind="openai", url=made.url)
            + 'api_key_env = "SCRIPTED_KEY"\n'
        )
        home.env["SCRIPTED_KEY"] = "sk-test-0123456789abcdef"
        home.run("ask", "hi")
        steps = json.loads(home.run("status", "--json").stdout)["next_steps"]
        assert "SCRIPTED_KEY" in steps[0]
        assert "Is the server running?" in steps[1]
        assert "down is probed again" in steps[2]
        card = words(home.run("status").stdout)
        assert "0 of 2 profiles answered in the last 10 min" in card
        assert card.index("SCRIPTED_KEY", card.index("next")) < card.rindex("Is the server running?")


def test_a_call_under_way_is_seen_from_elsewhere(home: Any, provider: ScriptedProcess) -> None:
    home.run("daemon", "start")
    provider.script(CHAT, ScriptedStep(text="at last", delay=30))
    child = subprocess.Popen(
        [sys.executable, "-m", "tundra_nb.cli", "ask", "hi"],
        env=home.env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        from tests.conftest import wait_until

        wait_until(lambda: provider.requests, timeout=30, what="the call at the provider")
        status = words(home.run("status").stdout)
        assert "calls under way" in status
        assert "scripted asking for" in status
        last = words(home.run("last").stdout)
        assert "under way" in last
        assert re.search(r"under way by scripted, 1 attempt, [\d.]+ m?s", last), last
        card = json.loads(home.run("status", "--json").stdout)["under_way"][0]
        assert card["profile"] == "scripted"
        assert card["age_s"] > 0
        story = words(home.run("why", card["operation_id"][-5:]).stdout)
        assert "under way" in story
        assert re.search(r"under way by scripted, 1 attempt, [\d.]+ m?s", story), story
    finally:
        child.terminate()
        child.wait(20)


def test_what_is_kept_tells_times_and_not_spans(home: Any, provider: ScriptedProcess) -> None:
    provider.script(CHAT, ScriptedStep(status=429, text="slow down", headers=(("retry-after", "90"),)))
    home.run("ask", "hi")
    row = json.loads(home.run("attempts", "--json").stdout)[0]
    assert "again in" not in row["message"]
    assert "again at 20" in row["message"]
    for command in ("why", "last", "explain last", "status", "doctor"):
        told = home.run(*command.split(), TZ="Asia/Tokyo").stdout
        assert "gain in" not in told, command
        assert not re.search(r"T\d\d:\d\d:\d\dZ", told), command
        assert "JST" in told, command
    card = json.loads(home.run("providers", "--json").stdout)[0]
    assert card["state"] == "cooling"
    assert "again in" not in card["reason"]
    ahead = dt.datetime.fromisoformat(card["cooling_until"]) - dt.datetime.now(dt.UTC)
    assert dt.timedelta(0) < ahead <= dt.timedelta(seconds=90)


def test_a_breakers_next_probe_is_a_point_of_time_wherever_it_can_be_saved(
    home: Any, provider: ScriptedProcess
) -> None:
    home.write_settings(home.config.read_text() + "[breaker]\nfailures = 1\nopen_seconds = 120\n")
    provider.script(CHAT, ScriptedStep(status=503, repeat=9))
    home.run("ask", "hi")
    row = json.loads(home.run("breakers", "--json").stdout)[0]
    assert row["state"] == "open"
    ahead = dt.datetime.fromisoformat(row["probe_at"]) - dt.datetime.now(dt.UTC)
    assert dt.timedelta(seconds=60) < ahead <= dt.timedelta(seconds=120)
    for command in ("status", "doctor"):
        told = words(home.run(command, TZ="Asia/Tokyo").stdout)
        assert re.search(r"(probe|again) at (20\d\d-\d\d-\d\d )?\d\d:\d\d:\d\d JST", told), told
        assert not re.search(r"(probe|again) in \d", told), told
    assert "second profile" not in words(home.run("why").stderr + home.run("status").stdout)
    for _ in range(2):  # what says the same is said once
        home.run("ask", "--no-failover", "hi")
    assert "CircuitBreakerError::Open × 2" in home.run("status").stdout
    assert re.search(r"\(after \w+\) × \d", words(home.run("explain", "last").stdout))


def test_without_a_profile_each_answer_names_that_first_and_not_a_file_that_does_not_parse(
    home: Any, provider: ScriptedProcess
) -> None:
    for row in json.loads(home.run("providers", "--json").stdout):
        home.run("providers", "remove", row["profile"])
    assert home.run("ask", "hi").returncode == 1
    for command in ("why", "last", "explain last", "triage --no-model"):
        told = words(home.run(*command.split()).stdout)
        assert "no profile is set up" in told, command
        assert "providers add local" in told, command
        assert "does not parse" not in told, command


def test_profiles_are_tested_changed_put_in_order_and_removed(home: Any, provider: ScriptedProcess) -> None:
    added = home.run("providers", "add", "second", "--kind", "local", "--base-url", provider.url)
    assert "answered in" in added.stdout
    again = home.run("providers", "add", "second", "--kind", "local", "--base-url", provider.url, "--model", "other")
    assert again.returncode == 2
    assert f"tundra providers set second --base-url {provider.url} --model other" in words(again.stderr)
    assert "answered in" in home.run("providers", "set", "second", "--model", "other", "--rpm", "60").stdout
    home.run("providers", "reorder", "second")
    rows = json.loads(home.run("providers", "--json").stdout)
    assert {row["profile"]: row["model"] for row in rows}["second"] == "other"
    assert min(rows, key=lambda row: row["priority"])["profile"] == "second"
    home.run("providers", "set", "second", "--base-url", "http://127.0.0.1:9")
    tested = home.run("providers", "test")
    assert tested.returncode == 1
    assert "scripted: answered in" in tested.stdout
    assert "second: HttpError" in tested.stdout
    assert "removed" in home.run("providers", "remove", "second").stdout
    assert "second" not in home.run("providers").stdout
    assert home.run("providers", "remove", "secnd").returncode == 2


def test_prompt_and_answer_are_read_and_compared_when_they_are_kept(home: Any, provider: ScriptedProcess) -> None:
    provider.script(
        CHAT, ScriptedStep(text="hi"), ScriptedStep(text="first answer"), ScriptedStep(text="second answer")
    )
    home.run("ask", "unrecorded")
    assert "settings set record.content=all" in home.run("why").stdout
    home.run("settings", "set", "record.content=all")
    home.run("ask", "the first question")
    home.run("ask", "the second question")
    told = home.run("why").stdout
    assert "user: the second question" in told
    assert "second answer" in told
    compared = home.run("why", "-2", "--diff", "last").stdout
    assert "-user: the first question" in compared
    assert "+second answer" in compared


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_complete_by_clicks_own_mechanism(home: Any, shell: str) -> None:
    script = home.run("completion", shell).stdout
    assert "_TUNDRA_COMPLETE" in script
    assert "tundra is ready" not in script
    asked = home.run(_TUNDRA_COMPLETE=f"{shell}_source")
    assert asked.stdout.strip() == script.strip()


def test_completion_knows_values(home: Any, provider: ScriptedProcess) -> None:
    home.run("ask", "hi")

    def complete(line: str) -> str:
        count = len(line.split()) - (0 if line.endswith(" ") else 1)
        return str(home.run(_TUNDRA_COMPLETE="zsh_complete", COMP_WORDS=line, COMP_CWORD=str(count)).stdout)

    assert "breaker.failures=" in complete("tundra settings set breaker.fa")
    assert "operation" in complete("tundra sql oper")
    assert "scripted" in complete("tundra ask -p ")
    assert "HEAD" in complete("tundra diff ")
    last = json.loads(home.run("why", "--json").stdout)["operation"]["operation_id"][-5:]
    assert f"{last}\nok" in complete("tundra why ")


def test_a_mistyped_word_takes_over_nothing_and_commits_of_people_stand_apart(
    home: Any, provider: ScriptedProcess
) -> None:
    provider.script(CHAT, ScriptedStep(status=503, text="down for maintenance"))
    home.run("ask", "hi")
    home.run("providers", "add", "scripted", "--kind", "local", "--base-url", provider.url)  # there is one already
    assert "maintenance" in words(home.run("explain", "last").stdout)
    assert "UsageError" not in home.run("status").stdout
    home.run("settings", "set", "breaker.failures=4", "--reason", "too nervous")
    home.run("ask", "hi")
    everything = home.run("commits").stdout
    people = home.run("commits", "--people").stdout
    assert "too nervous" in people
    assert "tundra_nb" in everything
    assert "tundra_nb" not in people
    changed = words(home.run("diff", "HEAD~1", "HEAD", COLUMNS="100").stdout)
    assert changed
