"""From a real browser session and a real kernel, through the Jupyter server, to the real daemon and a provider."""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from websockets.sync.client import ClientConnection, connect

from tundra_nb.protocol.table import ENDPOINTS
from tundra_nb.testing.scripted_provider import ScriptedProcess, ScriptedStep, scripted_process

from .conftest import JupyterServer, StartServer

VALUES = {"{id}": "nosuch", "{name}": "nosuch", "{frame}": "calls", "{owner}": "nobody"}
"""Nothing that exists: a shared profile that one route parked would stay so for the tests after it."""
ROUTES = [
    (endpoint.method, endpoint.path)
    for endpoint in ENDPOINTS.values()
    if endpoint.method != "WS" and endpoint.path not in ("/api/events", "/api/daemon/stop", "/metrics")
]


def filled(path: str) -> str:
    for name, value in VALUES.items():
        path = path.replace(name, value)
    return path


@pytest.fixture(scope="module")
def provider() -> Iterator[ScriptedProcess]:
    with scripted_process() as process:
        yield process


@pytest.fixture(scope="module")
def server(
    short_folder: Callable[[], Path], start_server: StartServer, provider: ScriptedProcess, wait_for: Callable[..., Any]
) -> JupyterServer:
    folder = short_folder()
    profile = f'[[profile]]\nname = "p"\nkind = "openai"\nmodel = "m"\nbase_url = "{provider.base_url}"\n'
    (folder / "tundra.toml").write_text(profile)
    started = start_server(folder)
    with started.client() as client:
        wait_for(lambda: client.get("/api/status").status_code == 200, what="the daemon answers through the bridge")
    return started


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_each_route_is_reached_with_a_token_and_refused_without(server: JupyterServer, method: str, path: str) -> None:
    body = None if method == "GET" else b"{}"

    with server.client() as known, server.client(auth=False) as stranger:
        allowed = known.request(method, filled(path), content=body)
        refused = stranger.request(method, filled(path), content=body)

    assert allowed.status_code not in (401, 403)
    assert allowed.status_code < 300 or "code" in allowed.json(), "it was answered by the daemon, not by Jupyter"
    assert refused.status_code == 403
    assert "facts" not in refused.text


@pytest.mark.parametrize(("method", "path", "action"), [("GET", "/api/status", "read"), ("POST", "/api/sql", "write")])
def test_each_verb_is_refused_when_the_authorizer_refuses_it(
    server: JupyterServer, method: str, path: str, action: str
) -> None:
    try:
        server.deny(action)
        with server.client() as client:
            assert client.request(method, path, content=b"{}").status_code == 403
    finally:
        server.deny()


def test_a_browser_session_reads_and_with_its_xsrf_header_writes(server: JupyterServer) -> None:
    with server.client(session=True) as browser:
        assert browser.get("/api/status").status_code == 200
        question = {"messages": [{"role": "user", "content": "hi"}]}
        assert browser.post("/api/operations", json=question).json()["profile"] == "p"
        del browser.headers["X-XSRFToken"]
        assert browser.post("/api/operations", json=question).status_code == 403


def test_the_event_stream_and_the_stop_are_refused_without_authentication(server: JupyterServer) -> None:
    with server.client(auth=False) as stranger:
        assert stranger.get("/api/events").status_code == 403
        assert stranger.post("/api/daemon/stop", json={"force": True}).status_code == 403
    with server.client() as known, known.stream("GET", "/api/events?attach=test") as events:
        lines = events.iter_lines()  # kept: the stream closes with its iterator
        assert next(lines) == "event: hello"
        busy = known.post("/api/daemon/stop", json={})
        assert (busy.status_code, busy.json().get("reason")) == (409, "busy"), busy.text


class Kernel:
    """A kernel of the Jupyter server, spoken to as a browser does: REST and WebSocket."""

    def __init__(self, server: JupyterServer) -> None:
        self._api = httpx.Client(
            base_url=server.url + "api", headers={"Authorization": f"token {server.token}"}, trust_env=False, timeout=30
        )
        self.id = self._api.post("/kernels", json={"name": "python3"}).json()["id"]
        url = f"{server.ws_url}api/kernels/{self.id}/channels?token={server.token}"
        self._socket: ClientConnection = connect(url, open_timeout=30, max_size=None)
        self._server = server

    def start(self, code: str) -> str:
        message_id = uuid.uuid4().hex
        header = {"msg_id": message_id, "msg_type": "execute_request", "username": "", "session": "s", "version": "5.3"}
        content = {"code": code, "silent": False, "store_history": False, "user_expressions": {}, "allow_stdin": False}
        message = {"header": header, "parent_header": {}, "metadata": {}, "content": content, "channel": "shell"}
        self._socket.send(json.dumps(message))
        return message_id

    def finish(self, message_id: str, timeout: float = 40) -> dict[str, Any]:
        """The reply to a cell."""
        while True:
            message = json.loads(self._socket.recv(timeout))
            if message["msg_type"] == "execute_reply" and message["parent_header"].get("msg_id") == message_id:
                return dict(message["content"])

    def run(self, code: str) -> dict[str, Any]:
        return self.finish(self.start(code))

    def interrupt(self) -> None:
        assert self._api.post(f"/kernels/{self.id}/interrupt").status_code == 204

    def process(self) -> psutil.Process:
        """The kernel's own process."""
        children = psutil.Process(self._server.process.pid).children()
        return next(child for child in children if any(self.id in word for word in child.cmdline()))

    def close(self) -> None:
        self._socket.close()
        self._api.delete(f"/kernels/{self.id}")
        self._api.close()


@pytest.fixture
def kernel(server: JupyterServer) -> Iterator[Kernel]:
    kernel = Kernel(server)
    assert kernel.run("%load_ext tundra_nb")["status"] == "ok"
    with contextlib.closing(kernel):
        yield kernel


def outcomes(server: JupyterServer) -> list[str]:
    with server.client() as client:
        rows = client.get("/api/history/calls", headers={"Accept": "application/json"}).json()["rows"]
    return [row["outcome"] for row in rows]


SLOW = ScriptedStep(delay=60)


def test_interrupting_a_cell_closes_the_upstream_connection_and_leaves_a_row(
    server: JupyterServer, kernel: Kernel, provider: ScriptedProcess, wait_for: Callable[..., Any]
) -> None:
    provider.reset()
    provider.script("*", SLOW)
    cell = kernel.start("%tundra ask hello")
    wait_for(lambda: provider.stats["served"] or provider.requests, what="the provider has been asked")

    kernel.interrupt()

    assert kernel.finish(cell)["ename"] == "Interrupted"
    wait_for(lambda: provider.stats["abandoned"] == 1, what="the upstream connection is closed")
    wait_for(lambda: outcomes(server)[-1] == "cancelled", what="the call is in the history")
    assert kernel.run("1 + 1")["status"] == "ok"


def test_a_kernel_killed_in_mid_call_leaves_a_row(
    server: JupyterServer, kernel: Kernel, provider: ScriptedProcess, wait_for: Callable[..., Any]
) -> None:
    provider.reset()
    provider.script("*", SLOW)
    before = len(outcomes(server))
    kernel.start("%tundra ask hello")
    wait_for(lambda: provider.requests, what="the provider has been asked")

    kernel.process().kill()

    wait_for(lambda: outcomes(server)[before:] == ["cancelled"], what="the call is in the history")
