from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Self

import httpx
import pytest

if TYPE_CHECKING:
    from tests.server.conftest import JupyterServer

VERBS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]
ACTIONS = {"GET": "read", "HEAD": "read", "POST": "write", "PUT": "write", "PATCH": "write", "DELETE": "write"}
FOREIGN = {"Origin": "https://evil.example"}
MIB = 1 << 20


@pytest.fixture(params=["token", "session"])
def client(jupyter_server: JupyterServer, request: pytest.FixtureRequest) -> Iterator[httpx.Client]:
    with jupyter_server.client(session=request.param == "session") as made:
        yield made


@pytest.fixture
def token_client(jupyter_server: JupyterServer) -> Iterator[httpx.Client]:
    with jupyter_server.client() as made:
        yield made


@pytest.fixture
def allowing_everything(jupyter_server: JupyterServer) -> Iterator[None]:
    yield
    jupyter_server.deny()


@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_reaches_the_daemon_with_its_body(client: httpx.Client, verb: str) -> None:
    """Every verb passes for token and browser session, with path, query, body and answer unchanged."""
    body = b"" if verb in ("GET", "HEAD") else b'{"a": "\xc3\xa9"}'
    answer = client.request(verb, "/api/echo/x%2Fy%20z?since=1h&column.op=a%26b", content=body)
    assert answer.status_code == 200
    assert answer.headers["X-Tundra-Meta"] == "kept"
    if verb == "HEAD":
        assert answer.content == b""
        assert int(answer.headers["Content-Length"]) > 0
    else:
        told = answer.json()
        assert (told["method"], told["path"]) == (verb, "/api/echo/x%2Fy%20z")
        assert (told["query"], told["body"]) == ("since=1h&column.op=a%26b", body.decode())


@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_without_authentication_is_refused(jupyter_server: JupyterServer, verb: str) -> None:
    """Nobody gets through without token or session."""
    with jupyter_server.client(auth=False) as nobody:
        answer = nobody.request(verb, "/api/echo")
    assert answer.status_code == 403
    assert answer.headers["Content-Type"] == "application/json"


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.usefixtures("allowing_everything")
def test_each_verb_asks_the_authorizer_for_its_own_action(
    jupyter_server: JupyterServer, token_client: httpx.Client, verb: str
) -> None:
    """A refused action is 403; the other actions still pass."""
    jupyter_server.deny(ACTIONS[verb])
    refused = token_client.request(verb, "/api/echo")
    jupyter_server.deny(*({"read", "write", "execute"} - {ACTIONS[verb]}))
    passed = token_client.request(verb, "/api/echo")
    assert (refused.status_code, passed.status_code) == (403, 200)
    if verb != "HEAD":
        assert ACTIONS[verb] in refused.json()["message"]
        assert "code" not in refused.json()


@pytest.mark.parametrize("verb", ["POST", "PUT", "PATCH", "DELETE"])
def test_a_session_without_its_xsrf_header_cannot_change_anything(jupyter_server: JupyterServer, verb: str) -> None:
    """A form on a foreign page carries the cookie but not the header."""
    with jupyter_server.client(session=True) as browser:
        del browser.headers["X-XSRFToken"]
        assert browser.request(verb, "/api/echo").status_code == 403
        assert browser.get("/api/echo").status_code == 200


@pytest.mark.parametrize("verb", VERBS)
def test_a_session_from_a_foreign_origin_is_refused(jupyter_server: JupyterServer, verb: str) -> None:
    """Another page's script cannot use the browser's session."""
    with jupyter_server.client(session=True) as browser:
        assert browser.request(verb, "/api/echo", headers=FOREIGN).status_code == 404


def test_other_methods_are_not_passed_on(token_client: httpx.Client) -> None:
    """OPTIONS belongs to Jupyter's CORS handling, TRACE to nobody."""
    assert token_client.request("OPTIONS", "/api/echo").status_code == 405
    assert token_client.request("TRACE", "/api/echo").status_code == 405


def test_the_gateway_is_under_the_same_mount(token_client: httpx.Client) -> None:
    """`/tundra/v1/…` is the daemon's `/v1/…`."""
    assert token_client.post("/v1/echo").json()["path"] == "/v1/echo"


def test_no_secret_of_jupyter_reaches_the_daemon(jupyter_server: JupyterServer) -> None:
    """Token and cookies are dropped wherever they came from, encoded names included; the rest of the query stays."""
    with jupyter_server.client(session=True) as browser:
        headers = {
            "Authorization": f"token {jupyter_server.token}",
            "Referer": f"{jupyter_server.url}lab?token={jupyter_server.token}",
            "X-Tundra-User": "mallory",
            "X-Tundra-Anything": "x",
            "Connection": "keep-alive, X-Named",
            "X-Named": "hop",
            "X-Kept": "kept",
        }
        query = f"a=1&token={jupyter_server.token}&tok%65n={jupyter_server.token}&_xsrf={browser.cookies['_xsrf']}&b=2"
        answer = browser.post(f"/api/echo?{query}", headers=headers, content=b"body")
        xsrf, session = browser.cookies["_xsrf"], [v for k, v in browser.cookies.items() if k.startswith("username")]
    told = answer.json()
    names = {name for name, _ in told["headers"]}
    assert told["query"] == "a=1&b=2"
    assert names.isdisjoint({"authorization", "cookie", "x-xsrftoken", "referer", "x-tundra-anything", "x-named"})
    assert "x-kept" in names
    assert session
    for secret in (jupyter_server.token, xsrf, *session):
        assert secret not in answer.text
    assert "mallory" not in answer.text
    assert jupyter_server.token not in jupyter_server.log


def test_the_daemon_sets_no_cookie_and_no_hop_header(token_client: httpx.Client) -> None:
    """Cookies of this origin are Jupyter's, and what a hop says stays on the hop."""
    answer = token_client.get("/api/echo")
    assert "daemon=1" not in answer.headers.get("Set-Cookie", "")
    assert "X-Hop" not in answer.headers
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]


def test_calls_count_for_the_account_when_jupyter_made_the_name_up(token_client: httpx.Client) -> None:
    """A token alone gives a random user per request; the limiter must not see a new user each time."""
    users = set()
    for _ in range(3):
        token_client.cookies.clear()
        users.add(dict(token_client.get("/api/echo").json()["headers"])["x-tundra-user"])
    assert len(users) == 1
    assert len(users.pop()) < 32


def test_an_answer_without_a_body_passes(token_client: httpx.Client) -> None:
    """204 has neither body nor length."""
    answer = token_client.get("/api/nothing")
    assert (answer.status_code, answer.content) == (204, b"")


def test_a_route_that_the_daemon_does_not_know_is_its_own_404(token_client: httpx.Client) -> None:
    """Errors of the daemon come through as they are."""
    answer = token_client.get("/api/unknown")
    assert (answer.status_code, answer.text) == (404, "Not Found")


# --- bodies ---


class _Peak:
    """The server's highest resident size while the block runs, above that at its start."""

    def __init__(self, server: JupyterServer) -> None:
        self._server = server
        self.grown = 0

    def __enter__(self) -> Self:
        self._start = self._server.rss()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._done.wait(0.005):
            self.grown = max(self.grown, self._server.rss() - self._start)

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()


@pytest.mark.parametrize("sized", [True, False], ids=["content-length", "chunked"])
def test_50_mib_up_are_streamed(jupyter_server: JupyterServer, token_client: httpx.Client, sized: bool) -> None:
    """A large body passes whole, while the server's memory stays flat."""
    piece = bytes(range(256)) * 4096
    digest = hashlib.sha256(piece * 50).hexdigest()
    headers = {"Content-Length": str(50 * MIB)} if sized else {}
    with _Peak(jupyter_server) as peak:
        answer = token_client.post("/api/upload", content=(piece for _ in range(50)), headers=headers)
    assert answer.json() == {"bytes": 50 * MIB, "sha256": digest}
    assert peak.grown < 16 * MIB


@pytest.mark.parametrize("query", ["mib=150", "mib=150&sized=1"], ids=["chunked", "content-length"])
def test_150_mib_down_are_streamed(jupyter_server: JupyterServer, token_client: httpx.Client, query: str) -> None:
    """More than tornado's own limit of 100 MB passes whole, while the server's memory stays flat."""
    with _Peak(jupyter_server) as peak, token_client.stream("GET", f"/api/download?{query}") as answer:
        assert sum(map(len, answer.iter_raw())) == 150 * MIB
    assert peak.grown < 16 * MIB


def test_a_slow_reader_slows_the_daemon_down(jupyter_server: JupyterServer, token_client: httpx.Client) -> None:
    """What the client does not take is not collected in the server."""
    with _Peak(jupyter_server) as peak, token_client.stream("GET", "/api/download?mib=200") as answer:
        pieces = answer.iter_raw()
        next(pieces)
        time.sleep(0.5)
        assert peak.grown < 16 * MIB


def test_a_large_body_that_is_refused_still_gets_its_answer(jupyter_server: JupyterServer) -> None:
    """The refusal is a 403 to read, not a connection reset in the middle of the upload."""
    with jupyter_server.client(auth=False) as nobody:
        answer = nobody.post("/api/upload", content=(b"x" * MIB for _ in range(20)))
    assert answer.status_code == 403


def test_the_daemons_early_refusal_of_a_large_body_is_heard(token_client: httpx.Client) -> None:
    """A daemon that answers without reading the body is passed on, not turned into a broken connection."""
    answer = token_client.post("/api/early", content=(b"x" * MIB for _ in range(20)))
    assert (answer.status_code, answer.json()) == (413, {"said": "too large"})


def test_a_body_of_unknown_length_needs_a_verb_that_has_one(token_client: httpx.Client) -> None:
    """DELETE in chunks cannot be passed on and says so."""
    assert token_client.request("DELETE", "/api/echo", content=(b"x" for _ in range(2))).status_code == 411


# --- streams ---


@pytest.mark.parametrize("verb", ["GET", "POST"])
@pytest.mark.parametrize("accept", ["text/event-stream", "application/json"])
def test_events_arrive_while_they_are_made(token_client: httpx.Client, verb: str, accept: str) -> None:
    """Whatever the client accepts, an event is there within milliseconds of its making."""
    with token_client.stream(verb, "/api/events?count=25", headers={"Accept": accept}) as answer:
        assert answer.headers["X-Accel-Buffering"] == "no"
        lags = [time.monotonic() - float(line.split()[2]) for line in answer.iter_lines() if line]
    assert len(lags) == 25
    assert sorted(lags)[12] < 0.015


@pytest.mark.parametrize("path", ["events", "silent"])
@pytest.mark.parametrize("verb", ["GET", "POST"])
def test_a_client_that_leaves_is_known_to_the_daemon_at_once(
    token_client: httpx.Client, wait_for: Callable[..., Any], path: str, verb: str
) -> None:
    """The daemon can cancel the provider's call: with a stream under way, and before its first byte."""
    name = f"{path}-{verb}-{time.monotonic()}"
    with httpx.Client(base_url=token_client.base_url, headers=token_client.headers, timeout=0.3) as leaving:
        if path == "events":
            with leaving.stream(verb, f"/api/events?name={name}") as answer:
                next(answer.iter_raw())
            left = time.monotonic()
        else:
            with pytest.raises(httpx.ReadTimeout):
                leaving.request(verb, f"/api/silent?name={name}")
            left = time.monotonic()
    ended = wait_for(lambda: token_client.get("/api/seen").json()["ended"].get(name), what="the daemon sees it")
    assert ended - left < 0.1


def test_clients_that_leave_leave_nothing_behind(
    jupyter_server: JupyterServer, token_client: httpx.Client, wait_for: Callable[..., Any]
) -> None:
    """Streams dropped half-way, and uploads, cost the server no descriptor."""

    def half_a_body() -> Iterator[bytes]:
        yield b"x" * MIB
        raise InterruptedError

    token_client.get("/api/echo")
    before = jupyter_server.descriptors()
    for _ in range(5):
        for path in ("/api/download?mib=100", "/api/events"):
            with token_client.stream("GET", path) as answer:
                next(answer.iter_raw())
        with pytest.raises(InterruptedError):
            token_client.post("/api/upload", content=half_a_body())
    wait_for(lambda: jupyter_server.descriptors() <= before + 1, what="the descriptors are closed")


# --- activity ---


def test_use_is_activity_for_the_servers_culler(jupyter_server: JupyterServer, token_client: httpx.Client) -> None:
    """A server in use through the bridge is not idle."""
    before = token_client.get(jupyter_server.url + "api/status").json()["last_activity"]
    token_client.get("/api/echo")
    assert token_client.get(jupyter_server.url + "api/status").json()["last_activity"] > before


def test_nothing_leaves_a_trace_of_an_error_in_the_servers_log(jupyter_server: JupyterServer) -> None:
    """Refusals, cut streams and clients that leave are ordinary events."""
    assert "Traceback" not in jupyter_server.log
    assert "Uncaught exception" not in jupyter_server.log
