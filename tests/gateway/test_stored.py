"""Responses that a provider keeps: gone on from, fetched, cancelled and deleted at the profile that made them."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from tests.conftest import wait_until
from tests.gateway.conftest import opened
from tundra_nb.daemon.gateway import stored
from tundra_nb.daemon.gateway.stored import Made, Stored
from tundra_nb.testing.scripted_provider import ScriptedStep

TOML = """
[gateway]
listen = "127.0.0.1:0"
[[profile]]
name = "one"
kind = "local"
base_url = "{one}"
model = "scripted-1"
[[profile]]
name = "two"
kind = "openai"
base_url = "{two}/v1"
model = "scripted-1"
api_key_env = "TWO_KEY"
priority = 1
"""
PATH = "/v1/responses"


def response(name: str, status: str = "completed") -> ScriptedStep:
    text = {"type": "output_text", "text": f"said by {name}", "annotations": []}
    item = {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": [text]}
    body = {"id": name, "object": "response", "created_at": 1, "model": "m", "status": status, "output": [item],
            "usage": {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}}  # fmt: skip
    return ScriptedStep(body=json.dumps(body).encode())


@pytest.mark.part("doltlite")
def test_a_response_stays_with_its_profile_and_its_asker_after_a_kill_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tmp_path, TOML) as made:
        for name in ("TUNDRA_DATA_DIR", "TUNDRA_CONFIG", "TWO_KEY"):
            monkeypatch.setenv(name, made.home.env[name])
        client = made.openai()
        made.two.script(PATH, response("resp_two"), response("resp_three"))
        assert client.responses.create(model="two", input="hi").output_text == "said by resp_two"
        os.kill(made.t.status()["pid"], signal.SIGKILL)
        assert made.t.gateway.status()["url"] == made.url  # whoever asks starts it

        # a name that both profiles know: the response's maker is asked, though the other comes first
        client.responses.create(model="scripted-1", input="go on", previous_response_id="resp_two")
        assert made.asked(made.two)[-1].json["previous_response_id"] == "resp_two"
        assert not made.asked(made.one)

        made.two.script(
            f"{PATH}/resp_two", ScriptedStep(pieces=(b"event: ping\ndata: {}\n\n", b"data: {}\n\n"), gap=60)
        )
        bearer = {"authorization": f"Bearer {made.token}"}
        with httpx.stream("GET", f"{made.url}/responses/resp_two", headers=bearer, params={"stream": "true"}) as answer:
            assert next(answer.iter_raw()).startswith(b"event: ping")
        wait_until(
            lambda: made.two.stats["abandoned"] == 1, what="the provider to be hung up on, as its caller has left"
        )
        made.two.script(
            f"{PATH}/resp_two", response("resp_two"), ScriptedStep(body=b'{"id":"resp_two","deleted":true}')
        )
        made.two.script(f"{PATH}/resp_two/cancel", response("resp_two", "cancelled"))
        made.two.script(
            f"{PATH}/resp_two/input_items", ScriptedStep(body=b'{"object":"list","data":[],"has_more":false}')
        )
        assert client.responses.retrieve("resp_two", include=["message.output_text.logprobs"]).id == "resp_two"
        assert client.responses.cancel("resp_two").status == "cancelled"
        assert list(client.responses.input_items.list("resp_two")) == []
        client.responses.delete("resp_two")
        seen = [(request.method, request.target) for request in made.two.requests if "resp_two" in request.target]
        assert [method for method, _ in seen] == ["GET", "GET", "POST", "GET", "DELETE"]
        assert "include" in seen[1][1]
        assert all(made.token not in str(request) for request in made.two.requests)

        made.two.script(f"{PATH}/resp_two", ScriptedStep(status=404, text="no such response"))
        with pytest.raises(openai.NotFoundError):
            client.responses.retrieve("resp_two")
        other = made.openai(api_key=made.new_token("other"))
        for name in ("resp_two", "resp_unknown"):
            with pytest.raises(openai.NotFoundError, match="knows no response"):
                other.responses.retrieve(name)
        with pytest.raises(openai.BadRequestError, match="knows no response"):
            other.responses.create(model="two", input="hi", previous_response_id="resp_two")
        for path in ("/responses/..%2f..%2ffiles", "/responses/a/b", "/responses/resp_two/other", "/responses/"):
            answer = httpx.get(made.url + path, headers={"x-api-key": made.token})
            assert answer.status_code in (404, 405), path
        assert not any("files" in request.target for request in made.two.requests)
        file = made.home.data_dir / "gateway" / "responses.jsonl"
        assert file.stat().st_mode & 0o777 == 0o600


@pytest.mark.part("doltlite")
def test_the_events_of_a_kept_response_are_passed_on(tmp_path: Path) -> None:
    with opened(tmp_path, TOML) as made:
        made.two.script(PATH, response("resp_two"))
        client = made.openai()
        client.responses.create(model="two", input="hi", background=True)
        frames = (
            b'event: response.created\ndata: {"type":"response.created","sequence_number":0}\n\n',
            b'event: response.completed\ndata: {"type":"response.completed","sequence_number":1}\n\n',
        )
        stream = (("content-type", "text/event-stream"),)
        made.two.script(f"{PATH}/resp_two", ScriptedStep(pieces=frames, headers=stream, gap=0.02))
        events: list[Any] = list(client.responses.retrieve("resp_two", stream=True, starting_after=0))
        assert [event.sequence_number for event in events] == [0, 1]


def test_the_file_is_kept_short_and_a_torn_line_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored, "MOST", 3)
    file = tmp_path / "gateway" / "responses.jsonl"
    kept = Stored(file)
    for number in range(20):
        kept.remember(Made(f"r{number}", "one", "me"))
    assert len(file.read_bytes().splitlines()) <= 6
    with file.open("ab") as torn:
        torn.write(b'["r99","o')
    again = Stored(file)
    assert again.find("r19", "me") == Made("r19", "one", "me")
    assert again.find("r19", "you") is None
    assert again.is_of_another("r19", "you")
    assert again.find("r1", "me") is None
    again.remember(Made("r20", "one", "me"))
    assert Stored(file).find("r20", "me") is not None
