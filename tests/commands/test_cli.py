"""The command line, against a real daemon."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import wait_until
from tundra_nb._version import __version__
from tundra_nb.testing.scripted_provider import ScriptedProcess, ScriptedStep, scripted_process

ROOT = Path(__file__).parents[2]
CHAT = "/v1/chat/completions"


@pytest.fixture
def provider(home: Any) -> Iterator[ScriptedProcess]:
    with scripted_process(pieces=4) as made:
        home.write_settings(
            "[router]\nretries = 0\n"
            f'[[profile]]\nname = "scripted"\nkind = "local"\nbase_url = "{made.url}/v1"\nmodel = "tiny"\n'
        )
        yield made


def test_without_a_profile_status_and_ask_show_lines_that_make_one(home: Any) -> None:
    status = home.run("status")
    assert status.returncode == 0, status.stderr
    ask = home.run("ask", "hi")
    assert ask.returncode == 1
    for told in (status.stdout, ask.stderr):
        lines = [line.strip() for line in told.splitlines() if line.startswith("    tundra ")]
        assert len(lines) == 3
    added = home.run(*lines[0].split()[1:])
    assert added.returncode == 0, added.stderr
    assert "local" in home.run("providers").stdout


def test_ask_prints_the_answer_and_tells_the_rest_on_stderr(home: Any, provider: ScriptedProcess) -> None:
    provider.script(CHAT, ScriptedStep(text="one \x1b[31mtwo"))
    done = home.run("ask", "Say", "hi")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "one two\n"
    assert "scripted · tiny" in done.stderr
    assert provider.requests[-1].json["messages"][-1]["content"] == "Say hi"


def test_json_is_json_with_ids_as_text_and_times_as_iso(home: Any, provider: ScriptedProcess) -> None:
    provider.script(CHAT, ScriptedStep(text="hi"))
    reply = json.loads(home.run("ask", "--json", "hi").stdout)
    calls = json.loads(home.run("calls", "--json").stdout)
    assert calls[0]["operation_id"] == reply["operation_id"]
    assert calls[0]["at"].endswith("Z")
    assert calls[0]["cost_usd"] is None or isinstance(calls[0]["cost_usd"], float)
    told = json.loads(home.run("daemon", "status", "--json").stdout)
    assert {"running", "pid", "socket", "version", "engine"} <= told.keys()
    assert told["running"] is True
    for command in ("status", "why", "last", "providers", "models", "limits", "breakers", "settings", "keys", "errors"):
        done = home.run(command, "--json")
        assert done.returncode == 0, done.stderr
        json.loads(done.stdout)


def test_what_a_command_says_meanwhile_is_not_in_what_programs_read(home: Any) -> None:
    pty_id = json.loads(home.run("pty", "open", "--json", "echo ready; cat").stdout)["pty_id"]
    done = home.run("pty", "expect", pty_id, "ready", "--send", "x" * 5000, "--json")
    assert json.loads(done.stdout)["after"] == "ready"
    assert "drops all beyond 4,095" in done.stderr
    assert home.run("pty", "kill", pty_id).returncode == 0


@pytest.mark.check
def test_every_command_shows_its_result_in_a_narrow_terminal(home: Any, provider: ScriptedProcess) -> None:
    provider.script(CHAT, ScriptedStep(text="hi"), ScriptedStep(status=500, text="broken"))
    home.run("ask", "hi")
    home.run("ask", "hi")
    for command in (
        "status",
        "calls",
        "attempts",
        "errors",
        "why",
        "last",
        "providers",
        "limits",
        "breakers",
        "explain",
    ):
        done = home.run(command, COLUMNS="60")
        assert done.returncode == 0, done.stderr
        assert "%tundra" not in done.stdout
        assert max(map(len, done.stdout.splitlines())) <= 120


def test_the_daemon_is_started_stopped_and_stays_stopped(home: Any, provider: ScriptedProcess) -> None:
    assert home.run("daemon", "status").returncode == 1
    assert home.run("daemon", "start").returncode == 0
    assert home.run("daemon", "status").returncode == 0
    assert "has stopped" in home.run("daemon", "stop").stdout
    refused = home.run("ask", "hi")
    assert refused.returncode == 1
    assert "tundra daemon start" in refused.stderr
    assert home.run("daemon", "start").returncode == 0
    assert home.run("daemon", "restart").returncode == 0
    assert "ready in" in home.run("logs", "-n", "20").stdout


def test_a_restart_that_is_interrupted_leaves_no_mark_of_a_stop(home: Any) -> None:
    started = json.loads(home.run("daemon", "start", "--json").stdout)
    command = [sys.executable, "-m", "tundra_nb.cli", "daemon", "restart", "--force"]
    with subprocess.Popen(command, env=home.env, stderr=subprocess.PIPE, text=True) as restarting:
        wait_until((home.data_dir / "daemon.held").exists, what="the daemon is told to stop")
        restarting.send_signal(signal.SIGINT)
        told = restarting.communicate(timeout=30)[1]
    assert (restarting.returncode, told) == (130, "interrupted\n")
    assert not (home.data_dir / "daemon.held").exists()
    assert home.run("calls").returncode == 0, "the next call starts the daemon by itself"
    assert json.loads(home.run("daemon", "status", "--json").stdout)["pid"] != started["pid"]


def test_a_key_that_the_daemon_lacks_is_offered_and_never_shown(home: Any, provider: ScriptedProcess) -> None:
    home.write_settings(home.config.read_text() + 'api_key_env = "MY_API_KEY"\n')
    secret = "sk-canary-0123456789abcdef"
    assert home.run("daemon", "start").returncode == 0
    missing = home.run("ask", "hi")
    assert "MY_API_KEY is not set" in missing.stderr
    offered = home.run("keys", "offer", MY_API_KEY=secret)
    assert offered.returncode == 0, offered.stderr
    provider.script(CHAT, ScriptedStep(text="hi"))
    answered = home.run("ask", "hi")
    assert answered.returncode == 0, answered.stderr
    shown = "".join(home.run(*c.split()).stdout for c in ("keys", "status --json", "logs", "settings"))
    assert secret not in shown + offered.stdout + offered.stderr


def test_sql_and_prompts_are_read_from_standard_input(home: Any, provider: ScriptedProcess) -> None:
    command = [sys.executable, "-m", "tundra_nb.cli", "sql", "--json"]
    done = subprocess.run(
        command, input="select 1 as one", env=home.env, capture_output=True, text=True, check=False, timeout=60
    )
    assert json.loads(done.stdout) == [{"one": 1}]


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["stauts"], "Did you mean 'status'?"),
        (["calls", "--limit", "many"], "--limit"),
        (["daemon", "strat"], "Did you mean 'start'?"),
        (["incident", "verify"], "`tundra verify` is a command of its own."),
        (["providers", "add", "x"], "--kind"),
        (["calls", "--as", "x"], "binds a variable of a notebook"),
    ],
)
def test_wrong_usage_exits_with_2_and_starts_nothing(home: Any, args: list[str], told: str) -> None:
    done = home.run(*args)
    assert done.returncode == 2
    assert told in done.stderr
    assert done.stdout == ""
    assert not home.data_dir.exists()


@pytest.mark.parametrize("args", [["settings", "set", "store.password_env"], ["calls", "--limit"], ["providers"], []])
def test_a_key_where_a_command_wants_something_else_is_not_repeated(home: Any, args: list[str]) -> None:
    key = "sk-ant-api03-Zq9x7e0123AbCdEf"
    done = home.run(*args, key)
    assert done.returncode == 2
    assert "<key>" in done.stderr
    assert key not in done.stdout + done.stderr


@pytest.mark.parametrize("args", [["incident", "new", "a bad hour"], ["run", "true"], ["sh", "true"]])
def test_in_a_folder_that_was_removed_a_command_says_that(home: Any, args: list[str]) -> None:
    quoted = shlex.join([sys.executable, "-m", "tundra_nb.cli", *args])
    done = subprocess.run(
        [
            "bash",
            "-c",
            f'mkdir "$1" && cd "$1" && rmdir "$1" && PYTHONPATH={ROOT} {quoted}',
            "bash",
            str(home.data_dir) + "-gone",
        ],
        env=home.env,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 2, done.stderr
    assert "the folder in which this runs was removed" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_history_of_settings_needs_no_table(home: Any) -> None:
    home.run("settings", "set", "router.retries=1")
    assert "router.retries" in home.run("history", "--tsv").stdout


def test_what_nothing_is_known_of_exits_with_1_and_starts_nothing(home: Any) -> None:
    done = home.run("explain", "Zzyzx")
    assert done.returncode == 1
    assert "nothing is known of 'Zzyzx'" in done.stderr
    assert "`tundra explain` lists everything" in done.stderr
    assert not home.data_dir.exists()


def test_the_guide_needs_no_daemon(home: Any) -> None:
    assert "BreakerOpen" in home.run("guide").stdout
    page = home.run("guide", "disk full")
    assert page.returncode == 0
    assert "Disk full" in page.stdout
    assert not home.data_dir.exists()


def test_the_version_is_told(home: Any) -> None:
    assert home.run("--version").stdout == f"tundra {__version__}\n"


def run_bytes(home: Any, args: list[bytes], stdin: bytes = b"") -> tuple[int, str, str]:
    command = [sys.executable.encode(), b"-m", b"tundra_nb.cli", *args]
    done = subprocess.run(command, env=home.env, input=stdin, capture_output=True, timeout=60, check=False)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def test_text_that_is_not_utf8_is_refused_in_a_line(home: Any, provider: ScriptedProcess) -> None:
    for args, stdin in (([b"ask"], b"caf\xe9"), ([b"ask", b"caf\xe9"], b""), ([b"sql"], b"select '\xff'")):
        code, _, told = run_bytes(home, args, stdin)
        assert code == 2
        assert "is not UTF-8" in told
        assert len(told.splitlines()) == 2
    assert not provider.requests


def test_a_known_option_behind_the_prompt_is_an_option(home: Any, provider: ScriptedProcess) -> None:
    provider.script(CHAT, ScriptedStep(text="hi"))
    reply = json.loads(home.run("ask", "hi", "there", "--json").stdout)
    assert reply["text"] == "hi"
    assert provider.requests[-1].json["messages"][-1]["content"] == "hi there"
    refused = home.run("ask", "hi", "--no-failover", "there")
    assert refused.returncode == 2
    assert "stands in the middle of the text" in refused.stderr
    assert len(provider.requests) == 1


def test_a_program_gets_its_own_options(home: Any, provider: ScriptedProcess) -> None:
    done = home.run("run", "echo", "-h", "-x", "--", "--json")
    assert done.stdout == "-h -x -- --json\n"


def test_a_pasted_key_is_refused_and_not_repeated(home: Any) -> None:
    key = "sk-ant-api03-0123456789abcdefABCDEF"
    for args in (
        ["providers", "add", "x", "--kind", "openai", "--api-key-env", key],
        ["run", "--with-keys", key, "true"],
        ["run", "--env", key, "true"],
        ["keys", "offer", key],
        ["settings", "set", f"store.password_env={key}"],
    ):
        done = home.run(*args)
        assert done.returncode in (1, 2), args
        assert key not in done.stdout + done.stderr
    assert not home.config.exists() or key not in home.config.read_text()


def test_calls_are_grouped_where_they_are_and_unknown_filters_are_refused(home: Any, provider: ScriptedProcess) -> None:
    provider.script(CHAT, ScriptedStep(text="hi"), ScriptedStep(text="x", status=500), ScriptedStep(text="ho"))
    for prompt in ("one", "two", "three"):
        home.run("ask", prompt)
    rows = json.loads(home.run("calls", "--by", "profile,hour", "--json").stdout)
    assert [(row["profile"], row["count"], row["errors"]) for row in rows] == [("scripted", 3, 1)]
    assert len(json.loads(home.run("calls", "-p", "scripted", "--json").stdout)) == 3
    for asked, nearest in (
        (("-p", "scriptd"), "scripted"),
        (("--code", "Timeoot"), "Timeout"),
        (("--by", "profil"), "profile"),
    ):
        done = home.run("calls", *asked)
        assert done.returncode == 2, done.stdout
        assert nearest in done.stderr, done.stderr
    empty = home.run("calls", "--code", "Timeout")
    assert empty.returncode == 0
    assert "no rows for code.eq=Timeout" in empty.stderr
