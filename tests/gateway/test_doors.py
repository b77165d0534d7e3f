"""The gateway's door and tokens through a real daemon: kept across a kill, closed by hand, no secret anywhere."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import psutil
import pytest

import tundra_nb
from tests.conftest import wait_until
from tests.gateway.conftest import CHAT, TWO_KEY, Opened, opened
from tundra_nb.errors import UsageError
from tundra_nb.testing.scripted_provider import ScriptedStep

pytestmark = pytest.mark.part("doltlite")

ASKED: list[Any] = [{"role": "user", "content": "hi"}]


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Opened]:
    with opened(tmp_path_factory.mktemp("doors")) as made:
        yield made


@pytest.fixture(autouse=True)
def its_environment(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever starts the daemon anew has the environment of the first start."""
    if "own" in request.fixturenames:
        for name, value in request.getfixturevalue("own").home.env.items():
            monkeypatch.setenv(name, value)


def test_a_killed_daemon_comes_back_with_its_port_and_its_tokens(own: Opened) -> None:
    os.kill(own.t.status()["pid"], signal.SIGKILL)
    status = own.t.gateway.status()  # whoever asks starts it
    assert status["url"] == own.url
    own.t.set_setting("pty.capacity", 11)  # no setting of the gateway: its door stays where it is
    assert own.t.gateway.status()["url"] == own.url
    assert own.openai().chat.completions.create(model="one", messages=ASKED).choices


def test_a_closed_door_stays_closed_until_it_is_opened_and_the_daemon_counts_it(own: Opened) -> None:
    assert own.t.status()["attached"].get("gateway") == 1
    assert own.t.gateway.stop()["listening"] is False
    assert "gateway" not in own.t.status()["attached"]
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{own.url}/models")
    os.kill(own.t.status()["pid"], signal.SIGKILL)
    assert own.t.gateway.status()["listening"] is False
    done = own.home.run("gateway", "start", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["url"] == own.url
    shown = own.home.run("gateway").stdout
    assert f"OPENAI_BASE_URL={own.url}" in shown
    assert f"ANTHROPIC_BASE_URL={own.url.removesuffix('/v1')}" in shown


def test_a_taken_port_names_who_holds_it_and_an_open_address_needs_tls(own: Opened) -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        done = own.home.run("gateway", "start", "--port", str(held.getsockname()[1]))
    assert done.returncode == 1
    assert str(os.getpid()) in done.stdout + done.stderr
    assert own.t.gateway.status()["problem"] is None, "it listens where it did, and who asked was told"
    with pytest.raises(UsageError, match="no TLS"):
        own.t.set_setting("gateway.listen", "0.0.0.0:0")


def test_an_address_that_cannot_be_had_leaves_the_listener_that_there_is(own: Opened) -> None:
    """Also where it has the same port, so that the listener had to make room; undone, nothing is wrong any more."""
    url, before = str(own.t.gateway.status()["url"]), own.t.gateway.status()["listen"]
    port = before.rpartition(":")[2]
    with socket.create_server(("127.0.0.1", 0)) as held, socket.create_server(("127.0.0.2", int(port))):
        for refused in (f"127.0.0.1:{held.getsockname()[1]}", f"127.0.0.2:{port}"):
            told = own.t.set_setting("gateway.listen", refused)
            assert f"still listens at {before}" in told["problem"]
            assert own.openai().with_options(base_url=url).chat.completions.create(model="one", messages=ASKED).choices
            problems = {problem["what"]: problem["message"] for problem in own.t.status()["problems"]}
            assert problems["gateway"] == told["problem"]
        own.t.set_setting("pty.capacity", 12)  # no setting of the gateway: what was refused is not tried again
        log = (own.home.data_dir / "logs" / "daemon.log").read_text()
        assert log.count(f"still listens at {before}") == 2
        assert "problem" not in own.t.set_setting("gateway.listen", None)
    status = own.t.gateway.status()
    assert (status["url"], status["problem"]) == (url, None)
    assert "gateway" not in [problem["what"] for problem in own.t.status()["problems"]]
    moved = own.t.set_setting("gateway.listen", f"127.0.0.2:{port}")
    assert "problem" not in moved
    assert own.t.gateway.status()["listen"] == f"127.0.0.2:{port}"
    own.t.gateway.stop()
    own.t.set_setting("gateway.hold_seconds", 0.5)
    assert not own.t.gateway.status()["listening"], "closed by hand"
    own.t.set_setting("gateway.listen", "127.0.0.1:0")
    assert own.t.gateway.status()["listening"]


def test_no_key_or_token_is_in_a_row_a_log_or_a_process_listing(own: Opened) -> None:
    url = str(own.t.gateway.status()["url"])
    tokens = [own.new_token(f"canary-{number}") for number in range(30)]
    own.one.script(CHAT, ScriptedStep(status=400, text=f"bad: {tokens[0]} {TWO_KEY}"))
    with pytest.raises(openai.BadRequestError) as caught:
        openai.OpenAI(api_key=tokens[0], base_url=url).chat.completions.create(model="one", messages=ASKED)
    client = openai.OpenAI(api_key=tokens[0], base_url=url)  # making one takes longer than a call
    for token in tokens:
        client.with_options(api_key=token).chat.completions.create(model="one", messages=ASKED)
        httpx.get(f"{url}/models?key={token}")
        httpx.get(f"{url}/{token}")
    told = str(caught.value) + own.t.tokens.list().to_csv() + str(own.t.gateway.status())
    for table in ("operation", "attempt", "error_event", "setting"):
        told += own.t.sql(f"select * from {table}").to_csv()
    told += (own.home.data_dir / "logs" / "daemon.log").read_text()
    told += str(own.one.requests)
    own.t.set_setting("record.content", "all")
    for token in tokens:  # pasted into a prompt, it goes where the prompt goes, and into no record
        pasted: list[Any] = [{"role": "user", "content": f"my token is {token}, my key {TWO_KEY}"}]
        own_client = client.with_options(api_key=token)
        list(own_client.chat.completions.create(model="one", messages=pasted, stream=True))
    told += str(own.t.why("last"))
    own.t.set_setting("record.content", "off")
    for process in psutil.process_iter():
        try:
            told += " ".join(process.cmdline())
        except psutil.Error:
            continue
    for file in own.home.data_dir.rglob("*"):
        if file.is_file():
            told += file.read_bytes().decode("latin-1")
    assert [secret for secret in (*tokens, TWO_KEY) if secret in told] == []
    file = own.home.data_dir / "gateway" / "tokens.json"
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700


def test_a_token_with_a_budget_is_refused_where_there_is_no_price_and_served_where_it_is_local(own: Opened) -> None:
    url = str(own.t.gateway.status()["url"])
    made = own.home.run("token", "new", "poor", "--usd-per-day", "0.5", "--expires", "30d", "--json")
    told = json.loads(made.stdout)
    assert told.keys() >= {"name", "token", "profiles", "rpm", "tpm", "usd_per_day", "expires_at", "urls"}
    client = openai.OpenAI(api_key=told["token"], base_url=url)
    assert client.chat.completions.create(model="one", messages=ASKED).choices
    with pytest.raises(openai.RateLimitError, match="no known price") as caught:
        client.chat.completions.create(model="two", messages=ASKED, extra_headers={"x-tundra-failover": "off"})
    assert caught.value.code == "BudgetSpent"
    assert caught.value.response.headers["x-should-retry"] == "false"
    assert own.home.run("token", "revoke", "poor").returncode == 0
    assert own.home.run("token", "revoke", "por").returncode != 0


def test_who_revokes_a_token_is_told_how_many_calls_go_on(own: Opened) -> None:
    client = openai.OpenAI(api_key=own.new_token("leaked"), base_url=str(own.t.gateway.status()["url"]))
    own.one.script(CHAT, ScriptedStep(gap=0.2, delay=0.2))
    stream = client.chat.completions.create(model="one", messages=ASKED, stream=True)
    assert next(iter(stream)).choices is not None
    told = own.t.tokens.revoke("leaked")
    assert told["note"] == "calls under way that go on to their end: 1"
    assert [piece for piece in stream if piece.choices and piece.choices[0].finish_reason], "whole to its end"
    own.new_token("idle")
    assert "note" not in own.t.tokens.revoke("idle")


def rounds(own: Opened, count: int) -> None:
    """Kill the daemon again and again under 32 SDK callers: every call that was answered is in the history once."""
    answered: list[str] = []
    url = str(own.t.gateway.status()["url"])
    is_over = False

    def call(_: int) -> None:
        with openai.OpenAI(api_key=own.token, base_url=url, max_retries=0, timeout=20) as client:
            while not is_over:
                try:
                    done = client.chat.completions.create(model="one", messages=ASKED)
                except openai.OpenAIError:
                    continue
                answered.append(str(done._request_id))

    with ThreadPoolExecutor(32) as pool:
        callers = [pool.submit(call, number) for number in range(32)]
        try:
            for _ in range(count):
                before = len(answered)
                wait_until(lambda before=before: len(answered) > before + 50, timeout=60)  # type: ignore[misc]
                os.kill(own.t.status()["pid"], signal.SIGKILL)
                wait_until(lambda: own.t.gateway.status()["listening"], timeout=30)
        finally:
            is_over = True
    for caller in callers:
        caller.result()
    with tundra_nb.connect() as t:
        rows = t.calls(since="all")
    kept = rows[rows["outcome"] == "ok"]["operation_id"].astype(str).tolist()
    assert len(kept) == len(set(kept))
    assert set(answered) <= set(kept)
    assert len(answered) == len(set(answered))


@pytest.mark.check
@pytest.mark.timeout(300)
def test_three_kills_under_thirty_two_callers_lose_no_answered_call(tmp_path: Path) -> None:
    with opened(tmp_path) as made:
        rounds(made, 3)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_twenty_kills_under_thirty_two_callers_lose_no_answered_call(tmp_path: Path) -> None:
    with opened(tmp_path) as made:
        rounds(made, 20)
