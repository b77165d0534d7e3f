"""What people and models write is masked where it is kept and where it is shown: answers, commits, tags, columns."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

import tundra_nb
from tests.conftest import Home
from tests.dumps import dumped
from tundra_nb.client.sync import Client
from tundra_nb.errors import UsageError
from tundra_nb.testing.scripted_provider import ScriptedProcess, ScriptedStep, scripted_process

pytestmark = pytest.mark.part("doltlite")

KEY = "canary-key-Zq9x7e0123"
SETTINGS = """
[[profile]]
name = "scripted"
kind = "openai"
base_url = "{base_url}"
model = "scripted-1"
api_key_env = "SCRIPTED_API_KEY"
"""
BASIC = base64.b64encode(f"user:{KEY}".encode()).decode()
SPELLINGS = (
    KEY,
    BASIC,
    KEY.encode().hex(),
    "".join(f"&#{ord(c)};" for c in KEY),
    KEY[::-1],
    "\u200b".join(KEY),
    dumped(b"HOME=/root\nK=" + KEY.encode() + b"\n")["xxd"],
)


@pytest.fixture(scope="module")
def provider() -> Iterator[ScriptedProcess]:
    with scripted_process() as running:
        yield running


@pytest.fixture
def client(home: Home, provider: ScriptedProcess, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    monkeypatch.setenv("SCRIPTED_API_KEY", KEY)
    home.write_settings(SETTINGS.format(base_url=provider.base_url))
    with tundra_nb.connect() as made:
        yield made


def check(shown: object) -> None:
    text = shown if isinstance(shown, str) else repr(shown)
    assert "<SCRIPTED_API_KEY:" in text
    assert not [form for form in SPELLINGS if form in text], text
    assert "<secret>" not in text


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_an_answer_that_repeats_a_key_is_masked(
    client: Client, provider: ScriptedProcess, spelling: str, stream: bool
) -> None:
    text = f"the key is {spelling}, keep password = 'as-it-is-in-code'"
    if not stream:
        provider.script("*", ScriptedStep(text=text))
        reply = client.ask("hi")
        check(reply.text)
    else:
        cut = text.index(spelling) + 5
        parts = [text[:cut], text[cut : cut + 3], text[cut + 3 :]]
        chunks = [{"choices": [{"index": 0, "delta": {"content": part}}]} for part in parts]
        end = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
        events = [*(json.dumps(chunk) for chunk in [*chunks, end]), "[DONE]"]
        pieces = tuple(f"data: {event}\n\n".encode() for event in events)
        provider.script("*", ScriptedStep(pieces=pieces, headers=(("content-type", "text/event-stream"),)))
        answer = client.ask("hi", stream=True)
        check("".join(answer))
        check(answer.reply.text)
        reply = answer.reply
    assert "keep password = 'as-it-is-in-code'" in reply.text, "what only looks like a key stays in an answer"


def test_messages_of_commits_are_masked_and_no_name_holds_a_key(client: Client, home: Home) -> None:
    client.ask("hi")
    client.versions.commit(f"before I rotate {KEY} ({BASIC})")
    check(client.versions.log()["message"].tolist())
    for refused in (
        client.versions.branch,
        client.versions.tag,
        client.tokens.new,
        lambda name: client.add_provider(name, kind="local", base_url="http://127.0.0.1:9/v1"),
        lambda path: client.add_provider("p", kind="local", base_url=f"http://127.0.0.1:9/{path}/v1"),
        lambda path: client.set_setting("profile.scripted.base_url", f"http://127.0.0.1:9/{path}/v1"),
    ):
        with pytest.raises(UsageError, match="holds a key") as caught:
            refused(f"with-{KEY}")
        check(str(caught.value))
    check(client.ask("hi", model=f"gpt-{KEY}", failover=False))
    check(client.attempts()["model"].astype(str).tolist())
    check(client.calls()["requested_model"].astype(str).tolist())
    client.note(f"the key is {KEY}")
    check(client.notes().to_string())
    client.close()
    home.run("daemon", "stop")
    kept = [file for file in home.data_dir.rglob("*") if file.is_file()]
    assert kept
    for form in SPELLINGS:
        assert not [str(file) for file in kept if form.encode() in Path(file).read_bytes()], form
