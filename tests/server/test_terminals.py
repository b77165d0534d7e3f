"""Terminals through a real Jupyter server, in real time with short settings: their rules, codes and refusals."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from tornado.iostream import StreamClosedError
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tundra_nb.client.link import Link
from tundra_nb.client.sync import Client
from tundra_nb.daemon.routes.terminal_ws import MAX_VIEWERS
from tundra_nb.errors import TransportError
from tundra_nb.server import terminals

from .conftest import JupyterServer, StartServer

pytestmark = pytest.mark.part("doltlite")

SETTINGS = """
[pty]
capacity = 30
grace_seconds = 0.5
lab_grace_seconds = 2.0
idle_seconds = 3.0
ping_seconds = 0.4
pong_seconds = 0.6
"""
LAB, OWN = "terminals/websocket/tundra-{}", "tundra/api/ptys/{}/ws?own=1"


@pytest.fixture(scope="module")
def server(
    short_folder: Callable[[], Any], start_server: StartServer, wait_for: Callable[..., Any]
) -> Iterator[JupyterServer]:
    folder = short_folder()
    (folder / "tundra.toml").write_text(SETTINGS)
    started = start_server(folder)
    with started.client() as client:
        wait_for(lambda: client.get("/api/status").status_code == 200, what="the daemon answers through the bridge")
    yield started
    started.deny()


@pytest.fixture
def client(server: JupyterServer) -> Iterator[httpx.Client]:
    with server.client() as made:
        yield made


def opened(client: httpx.Client, command: str, **more: Any) -> str:
    answer = client.post("/api/ptys", json={"command": command, "kind": "terminal", **more})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["pty_id"])


def info(client: httpx.Client, pty: str) -> dict[str, Any]:
    return dict(client.get(f"/api/ptys/{pty}").json())


def view(server: JupyterServer, path: str, token: str | None = None, **options: Any) -> ClientConnection:
    headers = {"Authorization": f"token {token or server.token}"}
    made: ClientConnection = connect(
        server.ws_url + path, additional_headers=headers, proxy=None, compression=None, open_timeout=20, **options
    )
    return made


def closing(socket: ClientConnection) -> tuple[int, str]:
    """Read to the end: the code and reason that the server closed with."""
    with contextlib.suppress(ConnectionClosed):
        while True:
            socket.recv(20)
    return socket.close_code or 0, socket.close_reason or ""


def refusal(server: JupyterServer, path: str, **options: Any) -> tuple[int, dict[str, Any]]:
    """Status and body that a handshake is refused with; Jupyter's own pages are no JSON."""
    with pytest.raises(InvalidStatus) as refused:
        view(server, path, **options)
    response, told = refused.value.response, {}
    with contextlib.suppress(ValueError):
        told = json.loads(response.body or b"{}")
    return response.status_code, told


def test_a_terminal_ends_when_its_grace_is_over_and_says_so(
    server: JupyterServer, client: httpx.Client, wait_for: Callable[..., Any]
) -> None:
    """Half a second after a lost viewer of our own, two after JupyterLab's tab; one that came back keeps it."""
    own, lab, kept = (opened(client, "echo here; sleep 600 & wait") for _ in range(3))
    for pty, path in ((own, OWN), (lab, LAB), (kept, OWN)):
        with view(server, path.format(pty)) as viewer:
            assert json.loads(viewer.recv(20)) == ["setup", {}]
            viewer.socket.shutdown(socket.SHUT_RDWR)
    with view(server, OWN.format(kept)):
        began = time.monotonic()
        assert "no viewer came back within 0.5 s" in wait_for(lambda: info(client, own)["ending"])
        assert info(client, lab)["state"] == "running"
        assert "no viewer came back within 2 s" in wait_for(lambda: info(client, lab)["ending"])
        assert time.monotonic() - began > 1.0
        assert info(client, kept)["state"] == "running"
    status, told = refusal(server, OWN.format(own))
    assert (status, told["code"]) == (410, "HandleNotFound")
    with view(server, LAB.format(lab)) as tab:  # its tab still shows the last screen, and why
        shown = ""
        while "has ended" not in shown:
            shown += str(json.loads(tab.recv(20))[1])
    assert "here" in shown
    assert "no viewer came back within 2 s" in shown


def test_a_terminal_in_which_nothing_happens_is_idle_and_ends(
    server: JupyterServer, client: httpx.Client, wait_for: Callable[..., Any]
) -> None:
    """Three seconds without output, input or work; the viewer who is there is told. Work alone keeps one."""
    idle, busy = opened(client, "cat"), opened(client, "while :; do :; done")
    with view(server, OWN.format(idle)) as viewer:
        began = time.monotonic()
        code, reason = closing(viewer)
        assert (code, "idle for 3 s" in reason) == (4410, True)
        assert time.monotonic() - began > 2.0
    assert info(client, busy)["state"] == "running"
    client.delete(f"/api/ptys/{busy}")


def test_ping_and_pong_go_to_the_browser_and_back(
    server: JupyterServer, client: httpx.Client, wait_for: Callable[..., Any]
) -> None:
    """A viewer whose browser answers stays; one that no longer does is let go, though the bridge is well."""
    pty = opened(client, "cat", persistent=True)
    address, _, path = server.url.removeprefix("http://").partition("/")
    host, _, port = address.partition(":")
    head = f"GET /{path}{OWN.format(pty)} HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    head += (
        f"Authorization: token {server.token}\r\nSec-WebSocket-Key: {'A' * 22}==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    with view(server, OWN.format(pty)) as alive, socket.create_connection((host, int(port)), 20) as dead:
        dead.sendall(head.encode())
        came = b""
        while piece := dead.recv(65536):  # pings come, and nobody answers them
            came += piece
        assert b"\x89" in came
        assert (1011).to_bytes(2, "big") in came[came.rindex(b"\x88") :]
        alive.send(json.dumps(["stdin", "still here\r"]))
        shown = ""
        while "still here\r\nstill here" not in shown:
            kind, *rest = json.loads(alive.recv(20))
            shown += str(rest[0]) if kind == "stdout" else ""
    wait_for(lambda: info(client, pty)["viewers"] == 0)
    rows = client.get("/api/history/connections", headers={"Accept": "application/json"}).json()["rows"]
    assert "ping_timeout" in {row["reason"] for row in rows if row["pty_id"] == pty}
    client.delete(f"/api/ptys/{pty}")


@pytest.mark.parametrize("path", [OWN, LAB], ids=["own", "lab"])
def test_a_handshake_is_refused_with_the_status_that_says_why(
    server: JupyterServer, client: httpx.Client, path: str
) -> None:
    """403 by Jupyter, 400, 404 and 503 by the daemon, each with its error, through the bridge."""
    pty = opened(client, "cat", persistent=True)
    try:
        assert refusal(server, path.format(pty), token="wrong")[0] == 403
        if path == OWN:
            status, told = refusal(server, f"{path.format(pty)}&since=999999")
            assert (status, told["code"]) == (400, "UsageError")
        status, told = refusal(server, path.format("zz0"))
        assert (status, told["code"]) == (404, "HandleNotFound")
    finally:
        client.delete(f"/api/ptys/{pty}")


def test_one_viewer_too_many_is_503_through_the_bridge(server: JupyterServer, client: httpx.Client) -> None:
    pty = opened(client, "cat", persistent=True)
    with contextlib.ExitStack() as crowd:
        for _ in range(MAX_VIEWERS):
            made = socket.socket(socket.AF_UNIX)
            made.connect(str(server.paths.socket))
            crowd.callback(made.close)
            head = f"GET /api/ptys/{pty}/ws HTTP/1.1\r\nHost: t\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            made.sendall(f"{head}Sec-WebSocket-Key: {'A' * 22}==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode())
            assert b"101" in made.recv(16)
        status, told = refusal(server, OWN.format(pty))
        assert (status, told["code"]) == (503, "AtCapacity")
    client.delete(f"/api/ptys/{pty}")


def test_codes_of_closing_reach_the_browser(server: JupyterServer, client: httpx.Client) -> None:
    """1000 with the program's exit, 4410 with who ended it, 1008 for what is no message, 1009 for too long a one."""
    ending = opened(client, "read x; exit 7")
    with view(server, OWN.format(ending)) as viewer:
        viewer.send(json.dumps(["stdin", "\r"]))
        assert closing(viewer) == (1000, "exit code 7")
    kept = opened(client, "cat", persistent=True)
    with view(server, OWN.format(kept)) as viewer:
        viewer.send("hello")
        assert closing(viewer)[0] == 1008
    with view(server, OWN.format(kept)) as viewer:
        with contextlib.suppress(ConnectionClosed):
            viewer.send(json.dumps(["stdin", "x" * (1 << 20)]))
        assert closing(viewer)[0] == 1009
    with view(server, OWN.format(kept)) as viewer:
        client.delete(f"/api/ptys/{kept}")
        code, reason = closing(viewer)
        assert (code, "ended by" in reason) == (4410, True)


def test_the_authorizer_is_asked_for_terminals_as_for_jupyters_own(server: JupyterServer, client: httpx.Client) -> None:
    """To look on a tab is `execute`, to ask for one `read`, to shut one down `write`, each on `terminals`."""
    pty = opened(client, "cat", persistent=True)
    one = f"{server.url}api/terminals/tundra-{pty}"
    try:
        server.deny("terminals:execute")
        assert refusal(server, LAB.format(pty))[0] == 403
        assert client.get(one).status_code == 200
        server.deny("terminals:read", "terminals:write")
        assert client.get(one).status_code == 403
        assert client.delete(one).status_code == 403
        assert client.get(f"{server.url}api/terminals").status_code == 403
        with view(server, LAB.format(pty)) as tab:
            assert json.loads(tab.recv(20)) == ["setup", {}]
    finally:
        server.deny()
    assert info(client, pty)["state"] == "running"
    assert client.delete(one).status_code == 204
    with httpx.Client(trust_env=False) as stranger:
        assert stranger.get(one).status_code == 403
        assert stranger.delete(one).status_code == 403


def test_the_end_of_the_daemon_is_1001_and_then_503(
    server: JupyterServer, client: httpx.Client, wait_for: Callable[..., Any]
) -> None:
    """Last in this module but one: a stopped daemon is not started by a look at a terminal of it."""
    pty = opened(client, "cat", persistent=True)
    with view(server, OWN.format(pty)) as viewer:
        assert client.post("/api/daemon/stop", json={"hold": True, "force": True}).status_code < 300
        assert closing(viewer) == (1001, "the daemon stops")
    wait_for(lambda: not server.paths.socket.exists(), what="the daemon has gone")
    for path in (OWN, LAB):
        status, told = refusal(server, path.format(pty))
        assert (status, told["code"]) == (503, "IpcError")
    assert client.get(f"{server.url}api/terminals").json() == []


def test_nothing_of_it_leaves_a_trace_of_an_error_in_the_servers_log(server: JupyterServer) -> None:
    """Refusals and viewers that vanish are ordinary events."""
    assert "Traceback" not in server.log
    assert "Uncaught exception" not in server.log


@pytest.mark.check
def test_a_server_without_terminals_has_none_of_ours(
    short_folder: Callable[[], Any], start_server: StartServer, wait_for: Callable[..., Any]
) -> None:
    """`terminals_enabled=False` takes tab and list away; the daemon's own API, which has its own right, stays."""
    started = start_server(short_folder(), "--ServerApp.terminals_enabled=False")
    with started.client() as client:
        wait_for(lambda: client.get("/api/status").status_code == 200, what="the daemon answers through the bridge")
        pty = opened(client, "cat", persistent=True)
        assert client.get(f"{started.url}api/terminals/tundra-{pty}").status_code == 404
        assert client.delete(f"{started.url}api/terminals/tundra-{pty}").status_code == 404
        assert refusal(started, LAB.format(pty))[0] == 404
        with view(started, OWN.format(pty)) as viewer:
            assert json.loads(viewer.recv(20)) == ["setup", {}]
        client.delete(f"/api/ptys/{pty}")
    os.kill(started.process.pid, signal.SIGTERM)
    started.process.wait(20)


@pytest.mark.check
def test_a_line_through_jupyter_that_broke_and_is_back_leaves_rows(
    short_folder: Callable[[], Any], start_server: StartServer, wait_for: Callable[..., Any]
) -> None:
    """Jupyter killed in mid-call: TransportError says what may be repeated; the next call writes down the break."""
    folder = short_folder()
    started = start_server(folder)
    port = int(started.url.rstrip("/").rpartition(":")[2].partition("/")[0])
    with Client(link=Link(environ={"TUNDRA_URL": started.url, "TUNDRA_TOKEN": started.token})) as client:
        wait_for(lambda: started.client().get("/api/status").status_code == 200, what="the daemon answers")
        pty = client.ptys.open("sleep 600", persistent=True)
        with ThreadPoolExecutor() as pool:
            waiting = pool.submit(pty.expect, "never", 60)
            wait_for(waiting.running)
            time.sleep(0.5)  # it is under way
            os.kill(started.process.pid, signal.SIGKILL)
            started.process.wait()
            with pytest.raises(TransportError, match="no answer from the Jupyter server") as lost:
                waiting.result(30)
        assert "Reading can be repeated" in lost.value.hint
        again = start_server(folder, f"--ServerApp.port={port}", "--ServerApp.port_retries=0")
        assert again.url == started.url
        wait_for(lambda: again.client().get("/api/status").status_code == 200, what="the daemon answers again")
        client.status()
        rows = client.connections()
        kept = [(row.new_state, row.code) for row in rows.itertuples() if not isinstance(row.pty_id, str)]
        assert kept == [("lost", "TransportError"), ("active", "TransportError")]
        assert pty.info["state"] == "running"
        pty.close()


@pytest.mark.anyio
async def test_the_list_of_terminals_ends_with_the_server_though_the_daemon_goes_at_that_moment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A request that fails while it is cancelled puts its error in the place of that: it was followed for ever."""
    asked = asyncio.Event()

    async def ask(*_: Any, **__: Any) -> None:
        is_first = not asked.is_set()
        asked.set()
        try:
            await asyncio.Event().wait()
        finally:
            if is_first:
                raise StreamClosedError

    async def is_there() -> bool:
        return True

    monkeypatch.setattr(terminals, "ask", ask)
    mirror = terminals.Mirror(SimpleNamespace(socket="", is_there=is_there), logging.getLogger("test"))  # type: ignore[arg-type]
    mirror.start()
    await asked.wait()
    async with asyncio.timeout(10):
        await mirror.stop()
