"""The command line in a terminal of 80 columns, and in a pipe."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from typing import Any

import pexpect
import pytest

from tundra_nb.testing.scripted_provider import ScriptedProcess, ScriptedStep, scripted_process

CHAT = "/v1/chat/completions"
COLUMNS = 80
pytestmark = pytest.mark.timeout(240)
"""A terminal for each of a dozen commands: each is a process of its own."""


@pytest.fixture
def provider(home: Any) -> Iterator[ScriptedProcess]:
    with scripted_process(pieces=4) as made:
        home.write_settings(
            "[router]\nretries = 0\n[breaker]\nfailures = 1\nopen_seconds = 600\n"
            f'[[profile]]\nname = "scripted"\nkind = "local"\nbase_url = "{made.url}/v1"\nmodel = "tiny"\n'
        )
        yield made


def in_terminal(home: Any, *args: str, raw: bool = False, **env: str) -> str:
    """What `tundra ARGS` shows in a terminal, without colours; `raw`: with them."""
    env = {name: value for name, value in home.env.items() if name != "COLUMNS"} | {"PAGER": "cat"} | env
    child = pexpect.spawn(
        sys.executable,
        ["-m", "tundra_nb.cli", *args],
        env=env,
        dimensions=(24, COLUMNS),
        encoding="utf-8",
        timeout=60,
        cwd=str(home.folder),
    )
    child.expect(pexpect.EOF)
    child.close()
    shown = (child.before or "").replace("\r", "")
    return shown if raw else re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown)


def words(shown: str) -> str:
    return " ".join(shown.split())


def test_what_is_said_of_an_answer_that_broke_off_begins_a_line_of_its_own(
    home: Any, provider: ScriptedProcess
) -> None:
    piece = b'data: {"choices":[{"index":0,"delta":{"content":"hi"}}]}\n\n'
    provider.script(CHAT, ScriptedStep(headers=(("content-type", "text/event-stream"),), body=piece))
    assert "hi\nParseError: scripted: the stream was cut" in in_terminal(home, "ask", "--no-failover", "hi")


@pytest.mark.check
def test_a_terminal_of_80_columns_and_a_pipe(home: Any, provider: ScriptedProcess) -> None:
    provider.script(CHAT, ScriptedStep(text="hi"), ScriptedStep(status=503, text="down for maintenance"))
    for _ in range(3):
        home.run("ask", "--no-failover", "hi")
    for command in ("status", "calls", "errors", "attempts", "why last", "last", "providers", "settings", "commits"):
        shown = in_terminal(home, *command.split())
        assert shown.strip(), command
        assert max(map(len, shown.splitlines())) <= COLUMNS, command
    for command in ("calls", "attempts", "errors"):
        shown = in_terminal(home, command)
        assert "CircuitBreakerError::Open" in shown or command == "attempts"
        assert "scripted: the provider failed (503): down for maintenance" in shown, command  # whole, below its row
        assert "not shown for want of width" in shown, command
    for command in ("breaker-history", "errors"):
        shown = in_terminal(home, command, "--plot")
        assert " · " in shown.partition("\n\n")[0], command  # its headline
        assert max(map(len, shown.splitlines())) <= COLUMNS, command
    shown = in_terminal(home, "calls")
    assert re.match(r"\s+id\s+at \(\w+\)\s+outcome\s+code", shown)
    told = words(shown)
    assert "cost_usd" not in told  # nothing was paid
    assert re.search(r"\d+ empty columns left out", told)
    for told in (words(in_terminal(home, "why")), words(in_terminal(home, "why", "-3"))):
        assert "after took what profile outcome" in told
        assert "cost" not in told

    piped = home.run("calls")
    assert "not shown" not in piped.stdout
    assert "latency_ms" in piped.stdout
    assert "cost_usd" in piped.stdout
    assert len(piped.stdout.splitlines()) == 4
    assert home.run("calls", "--csv").stdout.startswith("operation_id,at,")
    assert "\t" in home.run("errors", "--tsv").stdout
    refused = home.run("status", "--csv")
    assert refused.returncode == 2
    assert "--json" in refused.stderr

    paged = in_terminal(home, "settings", PAGER="sed s/^/paged:/")
    assert paged.startswith("paged:")

    oldest = json.loads(home.run("commits", "--json").stdout)[-1]["commit"]
    shown = in_terminal(home, "diff", oldest, "HEAD", PAGER="sed s/^/paged:/")
    assert shown.startswith("paged:")
    assert shown.count("+  ") > 60  # each setting at the start, more than a notebook shows
    assert "more in the frame" not in shown


GREEN = "\x1b[32m"
RED = "\x1b[31m"
YELLOW = "\x1b[33m"


def test_rows_of_a_frame_have_the_colour_of_how_they_ended(home: Any, provider: ScriptedProcess) -> None:
    provider.script(CHAT, ScriptedStep(text="hi"), ScriptedStep(status=503, text="down for maintenance"))
    for _ in range(3):
        home.run("ask", "--no-failover", "hi")
    shown = in_terminal(home, "calls", raw=True)
    assert f"{GREEN}ok" in shown
    assert f"{RED}error" in shown
    assert f"{YELLOW}refused" in shown
    for off in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        assert "\x1b[3" not in in_terminal(home, "calls", raw=True, **off), off
    assert "\x1b" not in home.run("calls").stdout


@pytest.mark.check
def test_in_a_diff_what_people_changed_is_told_apart_from_events_and_no_failure_is_green(
    home: Any, provider: ScriptedProcess
) -> None:
    home.run("status")
    commits = home.run("commits", "--json")
    assert commits.returncode == 0, commits.stderr
    oldest = json.loads(commits.stdout)[-1]["commit"]
    provider.script(CHAT, ScriptedStep(status=503, text="down for maintenance"))
    home.run("ask", "hi")
    home.run("settings", "set", "breaker.failures=4", "--reason", "too nervous")
    shown = in_terminal(home, "diff", oldest, "HEAD", raw=True)
    lines = shown.splitlines()
    changed = next(line for line in lines if "breaker.failures" in line)
    assert "·" not in changed, changed
    assert all("·" in line for line in lines if "AllProvidersExhausted" in line), shown
    home.run("ask", "--no-failover", "hi")  # refused, with the time of the next probe
    home.run("incident", "new", "a bad hour")
    shown = " ".join(in_terminal(home, "diff", oldest, "HEAD", TZ="Asia/Tokyo").split())
    assert "incident: 1 added" in shown
    assert "+ a bad hour open" in shown
    assert "1 new events" not in shown
    assert re.search(r"next probe at [\d :-]+ JST", shown)
    failed = [line for line in lines if "AllProvidersExhausted" in line or "ApiError" in line]
    assert failed
    assert not any(GREEN in line for line in failed)
    assert any(RED in line for line in failed)


def test_what_doctor_finds_can_be_read_and_its_remedy_copied_on_80_columns(home: Any) -> None:
    home.write_settings(
        '[[profile]]\nname = "down"\nkind = "local"\nbase_url = "http://127.0.0.1:9/v1"\nmodel = "tiny"\n'
    )
    home.run("daemon", "start")
    lines = [line.strip() for line in in_terminal(home, "doctor").splitlines()]
    place = next(number for number, line in enumerate(lines) if line.endswith("✗ down: connect"))
    assert lines[place + 1].startswith("found")
    assert "nobody listens there" in lines[place + 1]
    assert lines[place + 2].startswith("do")
    assert "more   `tundra guide connection-refused`" in lines


@pytest.mark.parametrize("command", ["test", "recheck"])
def test_while_a_server_is_asked_for_its_models_a_terminal_says_so(
    home: Any, provider: ScriptedProcess, command: str
) -> None:
    del provider
    shown = in_terminal(home, "providers", command, "scripted")
    assert shown.startswith("asking scripted for its models …")
    assert "asking" not in home.run("providers", command, "scripted").stderr


def test_while_a_triage_waits_for_the_model_a_terminal_says_so(home: Any, provider: ScriptedProcess) -> None:
    provider.script(CHAT, ScriptedStep(status=503, text="down", repeat=9))
    home.run("ask", "hi")
    steps, waits, _ = in_terminal(home, "triage").partition("waiting for the model, 180 s at most")
    assert waits
    assert "rules" in steps
    assert "waiting" not in in_terminal(home, "triage", "--no-model")
