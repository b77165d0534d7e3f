"""The clients through a Jupyter server's URL."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from starlette.responses import HTMLResponse, JSONResponse

from tundra_nb import errors
from tundra_nb.client.aio import AsyncClient
from tundra_nb.client.link import Link
from tundra_nb.client.sync import Client
from tundra_nb.local.place import place_of_url

from .conftest import REPLY, ScriptedDaemon, sse


@pytest.fixture
def server() -> Iterator[ScriptedDaemon]:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    scripted = ScriptedDaemon(port=port)
    scripted.start()
    yield scripted
    scripted.stop()


@pytest.fixture
def link(server: ScriptedDaemon, monkeypatch: pytest.MonkeyPatch) -> Link:
    monkeypatch.setenv("TUNDRA_URL", f"http://127.0.0.1:{server.port}/user/me/")
    monkeypatch.setenv("TUNDRA_TOKEN", "t0ken")
    return Link()


def test_calls_go_below_the_servers_base_url_with_its_token(server: ScriptedDaemon, link: Link) -> None:
    server.script["/user/me/tundra/api/operations"] = server.stream(sse("text", {"text": "a"}), sse("reply", REPLY))
    server.script["/user/me/tundra/api/status"] = {"pid": 9}
    with Client(link=link) as t:
        assert t.status().pid == 9
        assert list(t.ask("hi", stream=True)) == ["a"]
        assert "t0ken" not in repr(t) + repr(link.place)
    assert set(server.tokens) == {"token t0ken"}


@pytest.mark.anyio
async def test_the_awaited_client_does_the_same(server: ScriptedDaemon, link: Link) -> None:
    server.script["/user/me/tundra/api/status"] = {"pid": 9}
    async with AsyncClient(link=link) as t:
        assert (await t.status()).pid == 9
    assert server.tokens == ["token t0ken"]


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (JSONResponse({"message": "Forbidden", "reason": None}, 403), "TUNDRA_TOKEN"),
        (HTMLResponse("<h1>404</h1>", 404), "extension"),
        (HTMLResponse("<h1>a login page</h1>", 200), "cannot be read"),
    ],
)
def test_what_the_server_itself_answers_is_a_transport_error(
    server: ScriptedDaemon, link: Link, answer: JSONResponse, told: str
) -> None:
    server.script["/user/me/tundra/api/status"] = answer
    with Client(link=link) as t, pytest.raises(errors.TransportError) as caught:
        t.status()
    assert told in f"{caught.value} {caught.value.hint}"


def test_the_daemons_own_errors_pass_through_the_server(server: ScriptedDaemon, link: Link) -> None:
    server.script["/user/me/tundra/api/status"] = errors.IpcError(kind="absent", problem="no daemon")
    with Client(link=link) as t, pytest.raises(errors.IpcError, match="no daemon"):
        t.status()


def test_a_server_that_is_gone_is_a_transport_error(server: ScriptedDaemon, link: Link) -> None:
    server.stop()
    with Client(link=link) as t, pytest.raises(errors.TransportError):
        t.status()


@pytest.mark.parametrize("url", ["", "127.0.0.1:8888", "ftp://x/", "http://"])
def test_a_url_that_is_none_is_a_config_error(url: str) -> None:
    with pytest.raises(errors.ConfigError, match="TUNDRA_URL"):
        place_of_url(url, None)
