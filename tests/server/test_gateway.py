"""`/v1` under a real Jupyter server: its own token, or a gateway token, and what such a token does not open."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anthropic
import httpx
import openai
import pytest

from tests.server.conftest import JupyterServer, StartServer
from tundra_nb.testing.scripted_provider import ScriptedProcess, scripted_process

pytestmark = pytest.mark.part("doltlite")

TOML = """
[[profile]]
name = "one"
kind = "local"
base_url = "{one}"
model = "scripted-1"
"""
ASKED: list[Any] = [{"role": "user", "content": "hi"}]


@pytest.fixture(scope="module")
def provider() -> Iterator[ScriptedProcess]:
    with scripted_process() as made:
        yield made


def started(start_server: StartServer, folder: Path, provider: ScriptedProcess, *options: str) -> JupyterServer:
    (folder / "tundra.toml").write_text(TOML.format(one=provider.base_url))
    return start_server(folder, *options, env={"TUNDRA_CONFIG": str(folder / "tundra.toml")})


def test_sdks_come_by_the_jupyter_server_with_its_token_or_one_of_the_gateway(
    start_server: StartServer, short_folder: Callable[[], Path], provider: ScriptedProcess
) -> None:
    server = started(start_server, short_folder(), provider)
    with server.client() as admin:
        token = admin.post("/api/tokens", json={"name": "agent"}).json()["token"]
    url = server.url + "tundra/v1"
    for key in (server.token, token):
        client = openai.OpenAI(api_key=key, base_url=url)
        assert client.chat.completions.create(model="one", messages=ASKED).choices[0].message.content
        stream = client.chat.completions.create(model="one", messages=ASKED, stream=True)
        assert "".join(each.choices[0].delta.content or "" for each in stream) == "word0 word1 word2 word3 word4 "
        other = anthropic.Anthropic(api_key=key, base_url=url.removesuffix("/v1"))
        assert other.messages.create(model="one", max_tokens=5, messages=ASKED).content
        old = httpx.get(f"{url}/models", headers={"x-api-key": key})
        assert old.status_code == 200
    with server.client() as admin:
        rows = admin.get("/api/history/calls", headers={"accept": "application/json"}).json()["rows"]
    assert {row["user_name"] for row in rows} >= {"agent"}
    assert all(key not in str(request) for request in provider.requests for key in (server.token, token))
    assert token not in server.log

    # what it does not open
    for path in ("/api/status", "/api/tokens", "/api/gateway", "/metrics", "/api/ptys"):
        for headers in ({"authorization": f"Bearer {token}"}, {"x-api-key": token}):
            answer = httpx.get(server.url + "tundra" + path, headers=headers)
            assert answer.status_code == 403, path
    assert httpx.get(server.url + "api/contents", headers={"authorization": f"Bearer {token}"}).status_code == 403
    for headers in ({}, {"authorization": "Bearer tnd-" + "x" * 43}, {"x-api-key": "nonsense"}):
        with pytest.raises(openai.AuthenticationError):
            openai.OpenAI(api_key="none", base_url=url, default_headers=headers).models.list()
    answer = httpx.get(f"{url}/models?api_key={token}", headers={"authorization": f"Bearer {token}"})
    assert answer.status_code == 401
    assert "TokenRefused" in answer.text
    assert token not in server.log


def test_where_jupyter_wants_no_request_that_it_has_not_authenticated_a_gateway_token_opens_nothing(
    start_server: StartServer, short_folder: Callable[[], Path], provider: ScriptedProcess
) -> None:
    server = started(start_server, short_folder(), provider, "--ServerApp.allow_unauthenticated_access=False")
    with server.client() as admin:
        token = admin.post("/api/tokens", json={"name": "agent"}).json()["token"]
    answer = httpx.get(server.url + "tundra/v1/models", headers={"authorization": f"Bearer {token}"})
    assert answer.status_code in (401, 403)
    assert httpx.get(server.url + "tundra/v1/models", headers={"authorization": f"token {server.token}"}).is_success
