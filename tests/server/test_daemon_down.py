from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosedError, InvalidStatus
from websockets.sync.client import connect

from tundra_nb.errors import IpcError, from_wire

if TYPE_CHECKING:
    from tests.server.conftest import JupyterServer, StartDaemon, StartServer


@pytest.fixture(scope="module")
def server(short_folder: Callable[[], Any], start_server: StartServer) -> JupyterServer:
    """A server whose daemon was stopped on purpose: whatever runs was started by the test."""
    folder = short_folder()
    made = start_server(
        folder, "--TundraExtension.start_daemon=False", env={"TUNDRA_URL": "http://127.0.0.1:1/", "TUNDRA_TOKEN": "x"}
    )
    made.paths.data_dir.mkdir(mode=0o700)
    made.paths.held.write_text(json.dumps({"at": 0, "by": "test"}))
    return made


@pytest.fixture
def daemon(server: JupyterServer, start_scripted_daemon: StartDaemon) -> Iterator[subprocess.Popen[bytes]]:
    process = start_scripted_daemon(server.env)
    yield process
    process.kill()
    process.wait()


@pytest.fixture
def client(server: JupyterServer) -> Iterator[httpx.Client]:
    with server.client() as made:
        yield made


def test_without_a_daemon_the_answer_is_a_typed_503(client: httpx.Client, wait_for: Callable[..., Any]) -> None:
    """A stopped daemon stays stopped, and the answer is the error that a kernel would see."""
    answer = wait_for(lambda: (a := client.get("/api/status")).json()["reason"] == "stopped" and a, what="held")
    assert answer.status_code == 503
    error = from_wire(answer.json())
    assert isinstance(error, IpcError)
    assert "tundra daemon start" in error.hint


def test_an_upload_without_a_daemon_gets_its_503_too(client: httpx.Client) -> None:
    """The body is taken before the refusal is spoken."""
    assert client.post("/api/upload", content=(b"x" * (1 << 20) for _ in range(10))).status_code == 503


def test_a_websocket_without_a_daemon_is_refused(server: JupyterServer) -> None:
    """The handshake fails with the same status."""
    headers = {"Authorization": f"token {server.token}"}
    with pytest.raises(InvalidStatus) as refused:
        connect(server.ws_url + "tundra/api/ws", additional_headers=headers, proxy=None).close()
    assert refused.value.response.status_code == 503


def test_refusals_of_the_bridge_come_before_the_daemons_absence(server: JupyterServer) -> None:
    """Nobody learns without authentication whether a daemon runs."""
    with server.client(auth=False) as nobody:
        assert nobody.get("/api/status").status_code == 403


@pytest.mark.parametrize("query", ["", "?sized=1"], ids=["chunked", "content-length"])
@pytest.mark.usefixtures("daemon")
def test_an_answer_that_the_daemons_death_cuts_short_looks_cut_short(client: httpx.Client, query: str) -> None:
    """The client sees a broken connection, not an answer that seems whole."""
    with client.stream("POST", f"/api/die{query}") as answer:
        assert answer.status_code == 200
        with pytest.raises(httpx.RemoteProtocolError):
            list(answer.iter_raw())


@pytest.mark.usefixtures("daemon")
def test_death_before_the_answer_is_a_typed_503_and_the_next_calls_know_of_the_restart(
    client: httpx.Client, server: JupyterServer, wait_for: Callable[..., Any]
) -> None:
    """The caller in flight hears that the daemon died, later ones when it is started again."""
    wait_for(lambda: client.get("/api/echo").status_code == 200)
    wait_for(lambda: "the daemon runs" in server.log.rpartition("no daemon")[2], what="the supervisor watches it")
    answer = client.post("/api/die?silent=1")
    assert (answer.status_code, answer.json()["reason"]) == (503, "died")
    # Until the supervisor has seen the end, a caller may still reach the dying daemon and hear the same.
    later = wait_for(lambda: "Retry-After" in (a := client.get("/api/echo")).headers and a, what="back-off")
    assert (later.status_code, later.json()["reason"]) == (503, "died")
    assert 1 <= int(later.headers["Retry-After"]) <= 40
    assert later.json()["retry_after"] is not None
    # held: the restart is refused as well, and says why
    wait_for(lambda: client.get("/api/echo").json()["reason"] == "stopped", what="the mark is respected")


def test_a_websocket_ends_with_the_daemon(server: JupyterServer, daemon: subprocess.Popen[bytes]) -> None:
    """A viewer sees an abnormal closure at once."""
    headers = {"Authorization": f"token {server.token}"}
    with connect(server.ws_url + "tundra/api/ws", additional_headers=headers, proxy=None) as socket:
        socket.send("there")
        assert socket.recv(5) == "there"
        daemon.kill()
        with pytest.raises(ConnectionClosedError):
            socket.recv(5)


def test_nothing_leaves_a_trace_of_an_error_in_the_servers_log(server: JupyterServer) -> None:
    """A daemon that dies is an ordinary event for the server."""
    assert "Traceback" not in server.log
    assert "Uncaught exception" not in server.log
