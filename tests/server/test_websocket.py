from __future__ import annotations

import json
import time
from collections.abc import Callable
from socket import SHUT_RDWR
from typing import TYPE_CHECKING, Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

if TYPE_CHECKING:
    from tests.server.conftest import JupyterServer

MIB = 1 << 20


def talk(server: JupyterServer, path: str = "/api/ws", *, session: bool = False, **options: Any) -> ClientConnection:
    """A WebSocket by token, or by a browser's session with the page's own origin."""
    headers = dict(options.pop("additional_headers", {}))
    if session:
        with server.client(session=True) as browser:
            headers.setdefault("Origin", server.url.split("/user")[0])
            headers["Cookie"] = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
    else:
        headers.setdefault("Authorization", f"token {server.token}")
    made: ClientConnection = connect(
        server.ws_url + "tundra" + path,
        additional_headers=headers,
        max_size=None,
        proxy=None,
        open_timeout=10,
        **options,
    )
    return made


@pytest.mark.parametrize("session", [False, True], ids=["token", "session"])
def test_messages_pass_both_ways(jupyter_server: JupyterServer, session: bool) -> None:
    """Text and binary frames are echoed by the daemon for token and browser session."""
    with talk(jupyter_server, session=session) as socket:
        socket.send("héllo")
        assert socket.recv(5) == "héllo"
        socket.send(b"\x00\xff")
        assert socket.recv(5) == b"\x00\xff"


def test_a_frame_of_20_mib_passes(jupyter_server: JupyterServer) -> None:
    """Frames are not put together in the bridge, so none is too large."""
    with talk(jupyter_server, compression=None) as socket:
        socket.send(b"x" * (20 * MIB))
        assert len(socket.recv(20)) == 20 * MIB


def test_nobody_is_refused(jupyter_server: JupyterServer) -> None:
    """Without token and session the handshake fails."""
    with pytest.raises(InvalidStatus) as refused:
        talk(jupyter_server, additional_headers={"Authorization": "token wrong"})
    assert refused.value.response.status_code == 403


def test_a_foreign_page_is_refused(jupyter_server: JupyterServer) -> None:
    """A browser's session does not work from another origin."""
    with pytest.raises(InvalidStatus) as refused:
        talk(jupyter_server, session=True, additional_headers={"Origin": "https://evil.example"})
    assert refused.value.response.status_code == 403


def test_the_authorizer_is_asked_for_execute(jupyter_server: JupyterServer) -> None:
    """A WebSocket needs `execute`, and nothing else."""
    try:
        jupyter_server.deny("execute")
        with pytest.raises(InvalidStatus) as refused:
            talk(jupyter_server)
        jupyter_server.deny("read", "write")
        with talk(jupyter_server) as socket:
            socket.send("in")
            assert socket.recv(5) == "in"
    finally:
        jupyter_server.deny()
    assert refused.value.response.status_code == 403


def test_the_daemons_refusal_is_heard(jupyter_server: JupyterServer) -> None:
    """A handshake that the daemon refuses fails with its status."""
    with pytest.raises(InvalidStatus) as refused:
        talk(jupyter_server, "/api/refuse")
    assert refused.value.response.status_code == 403


def test_close_code_and_reason_pass_both_ways(jupyter_server: JupyterServer, wait_for: Callable[..., Any]) -> None:
    """The viewer learns why the daemon closed, the daemon why the viewer did."""
    with talk(jupyter_server) as socket:
        socket.send("close 4410 grace is over")
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(5)
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4410, "grace is over")

    name = f"close-{time.monotonic()}"
    with talk(jupyter_server, f"/api/ws?name={name}") as socket:
        socket.close(4001, "going")
    with jupyter_server.client() as client:
        ended = wait_for(lambda: client.get("/api/seen").json()["ended"].get(name), what="the daemon sees the code")
    assert ended == [4001, "going"]


def test_the_daemon_chooses_the_subprotocol(jupyter_server: JupyterServer) -> None:
    """The handshake's answer is the daemon's own."""
    with talk(jupyter_server, subprotocols=[Subprotocol("one"), Subprotocol("two")]) as socket:
        assert socket.subprotocol == "two"


def test_no_secret_of_jupyter_reaches_the_daemon(jupyter_server: JupyterServer) -> None:
    """Token, cookies and a client's own user name stay outside, also in the handshake's query."""
    path = f"/api/ws?a=1&token={jupyter_server.token}"
    with talk(jupyter_server, path, session=True, additional_headers={"X-Tundra-User": "mallory"}) as socket:
        socket.send("headers")
        text = socket.recv(5)
    told = json.loads(text)
    names = [name for name, _ in told["headers"]]
    assert told["query"] == "a=1"
    assert {"authorization", "cookie"}.isdisjoint(names)
    assert names.count("x-tundra-user") == 1
    assert "mallory" not in str(text)
    assert jupyter_server.token not in str(text)


def test_a_viewer_that_vanishes_is_known_to_the_daemon(
    jupyter_server: JupyterServer, wait_for: Callable[..., Any]
) -> None:
    """A connection that ends without a closing handshake ends at the daemon too."""
    name = f"vanish-{time.monotonic()}"
    with talk(jupyter_server, f"/api/ws?name={name}") as socket:
        socket.socket.shutdown(SHUT_RDWR)
    with jupyter_server.client() as client:
        assert wait_for(lambda: client.get("/api/seen").json()["ended"].get(name), what="the daemon sees it")


def test_a_slow_viewer_slows_the_daemon_down(jupyter_server: JupyterServer) -> None:
    """What the viewer does not read is not collected in the server."""
    before = jupyter_server.rss()
    with talk(jupyter_server, compression=None, max_queue=1) as socket:
        socket.send("flood 100")
        socket.recv(5)
        time.sleep(0.5)
        assert jupyter_server.rss() - before < 16 * MIB
        got = 1
        while got < 100:
            socket.recv(10)
            got += 1


def test_only_get_may_upgrade(jupyter_server: JupyterServer) -> None:
    """Another verb with an Upgrade header is no WebSocket."""
    with jupyter_server.client() as client:
        answer = client.post("/api/ws", headers={"Upgrade": "websocket", "Connection": "Upgrade"})
    assert answer.status_code == 405


def test_nothing_leaves_a_trace_of_an_error_in_the_servers_log(jupyter_server: JupyterServer) -> None:
    """Refusals and viewers that vanish are ordinary events."""
    assert "Traceback" not in jupyter_server.log
    assert "Uncaught exception" not in jupyter_server.log
