"""`tundra bundle`: everything that a report needs, and no secret, whatever its shape and wherever it was planted."""

from __future__ import annotations

import base64
import json
import os
import signal
import sys
import urllib.parse
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.conftest import Home
from tundra_nb.doctor import bundle as bundles
from tundra_nb.errors import UsageError
from tundra_nb.paths import find
from tundra_nb.runtime.telemetry.redact import Redactor
from tundra_nb.testing.scripted_provider import ScriptedProcess, ScriptedStep, scripted_process
from tundra_nb.types import TABLES

pytestmark = [pytest.mark.part("doltlite"), pytest.mark.timeout(110)]

SETTINGS = """
[router]
retries = 0
[record]
content = "all"
[log]
filter = "debug"
[[profile]]
name = "primary"
kind = "openai"
base_url = "{url}/v1"
model = "scripted-1"
api_key_env = "PLANTED_0_API_KEY"
"""
CHAT = "/v1/chat/completions"
BODY = "canary{n:02d}q7Zx"
"""The heart of each planted value: nothing else looks like it."""


def planted() -> dict[str, str]:
    """Variables with values of every shape that keys, tokens and passwords come in."""
    n = iter(range(100))

    def heart() -> str:
        return BODY.format(n=next(n))

    shapes = [
        *(f"sk-{heart()}0123456789abcdef" for _ in range(2)),
        f"sk-ant-api03-{heart()}-ABCDEFGH_ijklmnop",
        f"sk-or-v1-{heart()}0123456789",
        f"sk-proj-{heart()}_with-dashes_and_underscores",
        f"ghp_{heart()}ABCDEFGHIJKLMNOPQRSTUVWX",
        f"github_pat_{heart()}_ABCDEFGHIJKLMNOP",
        f"hf_{heart()}ABCDEFGHIJ",
        f"gsk_{heart()}ABCDEFGHIJ",
        f"xai-{heart()}ABCDEFGHIJ",
        f"xoxb-{heart()}-ABCDEFGHIJ",
        f"glpat-{heart()}ABCDEFGHIJ",
        f"npm_{heart()}ABCDEFGHIJ",
        f"pypi-{heart()}ABCDEFGHIJ",
        f"AIza{heart()}ABCDEFGHIJKLMNOPQRSTUVWXYZ",
        f"AKIA{heart()}",
        f"eyJhbGciOi{heart()}.eyJzdWIiOiIx.c2lnbmF0dXJl",
        f"-----BEGIN PRIVATE KEY----- {heart()} -----END PRIVATE KEY-----",
        f'with "quotes" {heart()}',
        f"with 'single' {heart()}",
        f"with\\backslash\\{heart()}",
        f"with spaces {heart()} in it",
        f"with/slash+plus=={heart()}",
        f"with%percent%41{heart()}",
        f"with&amp;<html>{heart()}",
        f"ünïcödé-{heart()}-ß",
        f"日本語-{heart()}",
        f"emoji-🔑-{heart()}",
        f"with$dollar`tick`{heart()}",
        f"{heart()}-plain-one",
        f"{heart()}_{heart()}_{heart()}" * 4,
        f"{heart()}.dotted.{heart()}.value",
        f"tab\tinside {heart()}",
        f"{heart()}==",
        f"Basic {heart()}",
        f"Bearer {heart()}-abcdef",
        f"{heart()}",
        f"#{heart()}#",
        f"({heart()})",
        f"[{heart()}]",
        f"{{{heart()}}}",
        f"{heart()}:colon:{heart()}",
        f"{heart()},comma",
        f"{heart()};semi",
        f"{heart()}|pipe",
        f"~{heart()}~",
        f"^{heart()}$",
        f"*{heart()}*",
        f"?{heart()}!",
        f"0x{heart()}",
    ]
    assert len(shapes) == 50
    names = ("API_KEY", "TOKEN", "PASSWORD", "SECRET", "PASSWD")
    return {f"PLANTED_{index}_{names[index % 5] if index else 'API_KEY'}": value for index, value in enumerate(shapes)}


PLANTED = planted()


def forms(value: str) -> list[str]:
    """The spellings to search for: the value, and as JSON, a URL and Basic authentication write it."""
    raw = value.encode()
    return [
        value,
        json.dumps(value)[1:-1],
        json.dumps(value, ensure_ascii=False)[1:-1],
        urllib.parse.quote(value, safe=""),
        base64.b64encode(raw).decode().rstrip("="),
    ]


def leaks(where: str, text: str) -> list[str]:
    return [f"{name} in {where}" for name, value in PLANTED.items() if any(form in text for form in forms(value))]


@pytest.fixture(scope="module")
def provider() -> Iterator[ScriptedProcess]:
    with scripted_process() as made:
        yield made


def contents(file: Path) -> dict[str, str]:
    with zipfile.ZipFile(file) as packed:
        assert packed.testzip() is None
        return {name: packed.read(name).decode() for name in packed.namelist()}


def used(home: Home, provider: ScriptedProcess) -> list[str]:
    """Send every planted value through prompts, headers, bodies, URLs, logs and terminals; all that commands showed."""
    shown = []

    def run(*args: str, **env: Any) -> str:
        done = home.run(*args, **env)
        shown.append(done.stdout + done.stderr)
        return done.stdout

    values = list(PLANTED.values())
    run("status")
    for at in range(0, 50, 5):
        five = values[at : at + 5]
        echo = json.dumps({"error": {"message": " | ".join(five), "headers": {"authorization": f"Bearer {five[0]}"}}})
        headers = (("x-request-id", f"req-{urllib.parse.quote(five[1])}"), ("x-ratelimit-limit-requests", "60"))
        provider.script(CHAT, ScriptedStep(status=(400, 500, 429)[at % 3], headers=headers, body=echo.encode()))
        run("ask", "--no-failover", f"please keep {' and '.join(five)} to yourself")
        chunk = {
            "choices": [{"index": 0, "delta": {"content": f"they are {' and '.join(five)}"}, "finish_reason": "stop"}]
        }
        pieces = tuple(f"data: {event}\n\n".encode() for event in (json.dumps(chunk), "[DONE]"))
        provider.script(CHAT, ScriptedStep(pieces=pieces, headers=(("content-type", "text/event-stream"),)))
        assert "they are" in run("ask", "--no-failover", "what are they?")
    run("run", "--with-keys", "PLANTED_29_PASSWD", "env | grep PLANTED; printf '%s\\n' \"$PLANTED_29_PASSWD\"")
    run("run", "--env", f"MY_PASSWORD={values[35]}", "echo $MY_PASSWORD")
    run("calls", "--profile", values[3])
    run("sql", f"select '{values[29]}' from nowhere")
    run("note", f"the password was {values[36]}")
    for command in ("last", "why", "errors", "attempts", "keys", "settings", "logs"):
        run(command)
    log = home.data_dir / "logs" / "daemon.log"
    shown.append(log.read_text(errors="replace"))
    with log.open("a", encoding="utf-8") as stream:  # a program of somebody else's writes its keys into ours
        stream.writelines(
            f"somebody logged {value} at http://u:{urllib.parse.quote(value)}@host/\n" for value in values
        )
    return shown


@pytest.mark.check
def test_fifty_planted_secrets_are_in_no_bundle_no_row_and_no_output(home: Home, provider: ScriptedProcess) -> None:
    home.env.update(PLANTED)
    home.write_settings(SETTINGS.format(url=provider.url))
    shown = used(home, provider)
    file = home.folder / "report.zip"
    done = home.run("bundle", "--out", str(file), "--symptom", f"it says {PLANTED['PLANTED_5_API_KEY']}")
    assert done.returncode == 0, done.stderr
    found = leaks("the command's output", done.stdout + done.stderr)
    members = contents(file)
    for name, text in members.items():
        found += leaks(f"{name} of the bundle", text)
    for number, text in enumerate(shown):
        found += leaks(f"output {number}: {text[:80]!r}", text)
    for table in TABLES:
        rows = home.run("sql", "--json", f"select * from {table}").stdout
        found += leaks(f"table {table}", rows)
    kept = [file for file in home.data_dir.rglob("*") if file.is_file() and file.name != "daemon.log"]
    assert any(file.suffix == ".out" for file in kept), "a transcript is among them"
    for file_kept in kept:
        found += leaks(str(file_kept.relative_to(home.data_dir)), file_kept.read_text(errors="replace"))
    assert found == []
    assert "somebody logged <PLANTED_" in members["daemon.log"]
    assert len(json.loads(members["tables/operation.json"])) >= 10
    assert "PLANTED_0_API_KEY" in members["environment.txt"]
    report = members["REDACTIONS.md"]
    assert "## daemon.log" in report
    assert all(f"<{name}:" in members["daemon.log"] for name in ("PLANTED_0_API_KEY", "PLANTED_49_PASSWD"))


def test_a_bundle_has_what_a_report_needs_and_says_what_is_missing(home: Home, provider: ScriptedProcess) -> None:
    home.env["PLANTED_0_API_KEY"] = PLANTED["PLANTED_0_API_KEY"]
    home.write_settings(SETTINGS.format(url=provider.url))
    provider.script(CHAT, ScriptedStep(status=503, text="overloaded"))
    home.run("ask", "--no-failover", "hello")
    done = home.run("bundle", "--json", "--out", "report.zip")
    told = json.loads(done.stdout)
    members = contents(Path(told["file"]))
    assert set(members) >= {
        *("doctor.json", "settings.json", "versions.json", "daemon.log", "errors.json", "processes.json"),
        *("environment.txt", "ISSUE.md", "REDACTIONS.md", "tables/operation.json", "tables/attempt.json"),
    }
    assert told["missing"] == []
    assert json.loads(members["errors.json"])[0]["code"] == "ApiError"
    assert {"symptom", "steps", "expected", "versions"} <= {
        line.removeprefix("## ").lower() for line in members["ISSUE.md"].splitlines() if line.startswith("## ")
    }
    assert "ApiError" in members["ISSUE.md"]
    assert any("tundra_nb.daemon" in " ".join(row["command"]) for row in json.loads(members["processes.json"]))
    assert "=" not in members["environment.txt"]
    assert Path(told["file"]).stat().st_mode & 0o077 == 0


def test_a_bundle_is_made_with_the_daemon_dead(home: Home) -> None:
    done = home.run("bundle", "--json", "--out", "dead.zip")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert any("no daemon runs" in line for line in told["missing"])
    assert "no daemon runs" in contents(Path(told["file"]))["REDACTIONS.md"]
    assert not home.data_dir.exists()


def test_a_bundle_is_made_while_the_daemon_hangs(home: Home) -> None:
    pid = json.loads(home.run("daemon", "start", "--json").stdout)["pid"]
    os.kill(pid, signal.SIGSTOP)
    done = home.run("bundle", "--json", "--out", "hung.zip", timeout=40)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert "tables: the daemon was stopped by a signal" in told["missing"]
    members = contents(Path(told["file"]))
    assert f"pid {pid} is stopped by a signal" in members["ISSUE.md"]
    assert psutil.STATUS_STOPPED in members["processes.json"]
    assert home.run("daemon", "stop", "--force").returncode == 0


def test_a_file_that_is_there_is_kept_unless_force_says_so(home: Home) -> None:
    file = home.folder / "mine.zip"
    file.write_text("mine")
    done = home.run("bundle", "--out", str(file))
    assert done.returncode == 2
    assert file.read_text() == "mine"
    assert home.run("bundle", "--out", str(file), "--force").returncode == 0
    assert zipfile.is_zipfile(file)


def test_it_is_not_written_while_a_known_secret_is_in_it(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """The masking is made blind; the last search, which is apart from it, refuses."""
    monkeypatch.setattr(Redactor, "text", lambda _, text: text)
    monkeypatch.setattr(Redactor, "data", lambda _, value: value)
    secret = "canary-that-must-not-leave-51"
    file = home.folder / "refused.zip"
    for spelt in (
        secret,
        base64.b64encode(secret.encode()).decode(),
        secret.encode().hex(),
        urllib.parse.quote(secret),
    ):
        with pytest.raises(UsageError, match=r"MY_PASSWORD would be in ISSUE\.md") as refused:
            bundles.bundle(
                file,
                symptom=f"it says {spelt}",
                where=find(home.data_dir),
                environ=home.env | {"MY_PASSWORD": secret},
            )
        assert secret not in str(refused.value) + refused.value.hint
        assert not file.exists()
    assert list(home.folder.glob(".refused*")) == []


def test_a_short_secret_is_searched_for_as_a_whole() -> None:
    """Of `mytoken` base64 behind other letters shows `token` alone, which is in every file with a column of tokens."""
    assert base64.b64encode(b"token").decode()[:6] not in bundles.spellings("mytoken")
    behind = base64.b64encode(b"ab:mytoken-of-nine").decode()
    assert any(form in behind for form in bundles.spellings("mytoken-of-nine"))


def test_the_steps_of_a_report_are_the_last_cells(home: Home) -> None:
    made = bundles.bundle(
        home.folder / "cells.zip",
        cells=["import os", "key = 'sk-canary0123456789abcdef'", "%tundra ask hello"],
        where=find(home.data_dir),
        environ=home.env,
    )
    told = contents(Path(made.file))["ISSUE.md"]
    assert "%tundra ask hello" in told
    assert "sk-canary0123456789abcdef" not in told
    assert made.masked["ISSUE.md"] == {"<key>": 1}
    assert sys.version.split()[0] in told
