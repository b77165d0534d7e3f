"""What a person reads when something odd comes: the cause as it is, and a remedy that fits it."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.gateway.conftest import TWO_KEY, Opened, opened
from tundra_nb import errors, paths
from tundra_nb.testing.scripted_provider import ScriptedStep

pytestmark = [pytest.mark.part("doltlite"), pytest.mark.timeout(120)]

CHAT = "/v1/chat/completions"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Opened]:
    with opened(tmp_path_factory.mktemp("words")) as made:
        yield made


def head(line: str, *headers: str) -> bytes:
    return "\r\n".join([f"HTTP/1.1 {line}", *headers, "", ""]).encode()


EMPTY = "content-length: 0"
ODD_ANSWERS: dict[str, tuple[ScriptedStep, str, str]] = {
    "302 to nowhere": (
        ScriptedStep(raw=head("302 Found", EMPTY)),
        "status 302 came instead",
        "the provider's own address",
    ),
    "304": (ScriptedStep(raw=head("304 Not Modified")), "status 304 came instead", "the provider's own address"),
    "302 to somewhere": (
        ScriptedStep(raw=head("302 Found", "location: http://other/x", EMPTY)),
        "redirects to http://other/x (302), which is not followed",
        "Correct base_url",
    ),
    "status 099": (ScriptedStep(raw=head("099 Odd", EMPTY)), "the answer has status 099", ""),
    "an unknown encoding": (
        ScriptedStep(raw=head("200 OK", "transfer-encoding: br2") + b"{}", end="close"),
        "the answer's Transfer-Encoding is 'br2', and only chunked is read",
        "",
    ),
    "429 that says nothing": (
        ScriptedStep(status=429, body=b"{}"),
        "rate limited by the provider (429)",
        "add a second profile",
    ),
    "429 with an empty error": (
        ScriptedStep(status=429, body=b'{"error":{}}'),
        "rate limited by the provider (429)",
        "",
    ),
}


@pytest.mark.parametrize("name", ODD_ANSWERS)
def test_an_odd_answer_of_a_provider_is_told_as_it_is(gateway: Opened, name: str) -> None:
    step, says, remedy = ODD_ANSWERS[name]
    gateway.one.reset()
    for _ in range(2):
        gateway.one.script(CHAT, step)
    with pytest.raises(errors.TundraError) as caught:
        gateway.t.ask("hi", profile="one", failover=False)
    assert says in str(caught.value)
    assert remedy in caught.value.hint
    if "429" in name:
        assert "{" not in str(caught.value)


def test_identity_is_no_encoding(gateway: Opened) -> None:
    gateway.one.reset()
    body = json.dumps({"choices": [{"message": {"content": "hi"}, "finish_reason": "stop"}]}).encode()
    gateway.one.script(CHAT, ScriptedStep(raw=head("200 OK", "transfer-encoding: identity") + body, end="close"))
    assert gateway.t.ask("hi", profile="one", stream=False).text == "hi"


def post(gateway: Opened, path: str, body: bytes, **headers: str) -> httpx.Response:
    url = gateway.url.removesuffix("/v1") + path
    return httpx.post(url, content=body, headers={"content-type": "application/json", **headers})


def test_a_token_in_the_address_is_told_which_headers_there_are(gateway: Opened) -> None:
    told = post(gateway, f"{CHAT}?api_key={gateway.token}", b"{}").text
    assert "`x-api-key`" in told
    assert "`Authorization`" in told


@pytest.mark.parametrize("half", ["\\ud83d", "\\ud83d and more", "\\ude00"])
def test_half_a_character_in_a_body_is_named(gateway: Opened, half: str) -> None:
    body = f'{{"model":"one","messages":[{{"role":"user","content":"{half}"}}]}}'
    answer = post(gateway, CHAT, body.encode(), **{"x-api-key": gateway.token})
    assert answer.status_code == 400
    assert "half a character is escaped at byte" in answer.text


@pytest.mark.parametrize("path", ["/chat/completions", "/messages", "/models"])
def test_a_path_without_its_version_is_told_with_it(gateway: Opened, path: str) -> None:
    """By the daemon's socket, and so below `/tundra` of a Jupyter server; the gateway's own address takes both."""
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(paths.find(None, gateway.home.env).socket))) as client:
        answer = client.post(f"http://daemon{path}", json={})
    assert answer.status_code == 404
    assert f"Add /v1: /v1{path}" in answer.json()["hint"]


def run(gateway: Opened, *words: str) -> Any:
    return gateway.home.run(*words, TWO_KEY=TWO_KEY)


def test_a_blank_in_the_name_of_a_variable_is_no_key(gateway: Opened) -> None:
    done = run(gateway, "run", "--env", "A B=1", "true")
    assert done.returncode != 0
    assert "A name has no blanks" in done.stderr
    assert "revoke" not in done.stderr
    assert "revoked" in run(gateway, "run", "--env", "sk-abcdefgh12345678=1", "true").stderr


def test_main_is_not_merged_into_itself(gateway: Opened) -> None:
    done = run(gateway, "merge", "main")
    assert done.returncode != 0
    assert "main is what branches are merged into" in done.stderr


@pytest.mark.parametrize("statement", ["show tables", "SHOW ALL TABLES", "select * from (show databases)"])
def test_the_tables_of_the_archive_are_told_where_duckdb_would_tell_of_none(gateway: Opened, statement: str) -> None:
    done = run(gateway, "sql", "--archive", statement)
    assert done.returncode != 0
    assert "whose tables are agent_run, " in done.stderr


@pytest.mark.skipif(not os.path.exists("/proc/self/mem"), reason="needs Linux")
def test_a_file_of_the_kernel_is_blamed_itself(gateway: Opened) -> None:
    assert stat.S_ISREG(os.stat("/proc/self/mem").st_mode)
    done = run(gateway, "import", "/proc/self/mem", "--name", "mem")
    assert done.returncode != 0
    assert "/proc/self/mem cannot be read: " in done.stderr
    assert "data directory" not in done.stderr


def test_one_number_that_is_none_costs_no_other_record(gateway: Opened, tmp_path: Path) -> None:
    record: dict[str, Any] = {
        "request_id": "r",
        "call_type": "acompletion",
        "startTime": "2026-01-01T00:00:00Z",
        "model": "m",
    }
    record |= {"endTime": "2026-01-01T00:00:01Z", "spend": 0.1, "total_tokens": 3, "status": "success"}
    records = [record | {"request_id": "a"}, record | {"request_id": "b", "spend": float("nan")}, record]
    (tmp_path / "spend.json").write_text(json.dumps(records, indent=1))
    gateway.t.sources.import_(tmp_path / "spend.json", name="spend")
    assert len(gateway.t.calls(since="all", source="spend")) == 3
