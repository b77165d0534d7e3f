"""Pass what an authenticated user sends under `/tundra/` on to the daemon, and back: HTTP, event streams, WebSockets.

On tornado alone: its `HTTP1Connection` is the client, a WebSocket is a splice of bytes after the handshake. So nothing
is buffered, frames of any size pass, pings and close codes go end to end, and back-pressure reaches the daemon. Each
request has a socket of its own: a pool gains nothing on a Unix socket and brings races with stale connections.

A refusal is decided in `prepare`, before anything reaches the daemon, but spoken only when the request's body has been
read: an answer in the middle of a body makes tornado close the connection, and clients see a reset instead of the 403.
"""

from __future__ import annotations

import asyncio
import functools
import json
import os
import re
import sys
import urllib.parse
from collections.abc import Awaitable, Callable
from http.client import responses
from typing import Any

from jupyter_core.utils import ensure_async
from jupyter_server._tz import utcnow
from jupyter_server.auth import User
from jupyter_server.auth.decorator import ws_authenticated
from jupyter_server.auth.utils import HTTP_METHOD_TO_AUTH_ACTION
from jupyter_server.base.handlers import JupyterHandler
from tornado import httputil, web
from tornado.http1connection import HTTP1Connection, HTTP1ConnectionParameters
from tornado.iostream import IOStream, StreamClosedError

from tundra_nb.environment import account
from tundra_nb.errors import IpcError, TundraError
from tundra_nb.local import running
from tundra_nb.protocol.words import USER_HEADER

from . import gateway
from .supervisor import Supervisor, dial

MOUNT = "/tundra"
"""Where the daemon's API stands under the server's base URL."""
RESOURCE = "tundra"
"""The name that authorizers know us by, and the key of our last activity."""
LOOK_ONLY = frozenset(("wake=0",))
"""In the address of who only looks: a daemon that is not there stays so. Lab's panel is no reason to start one."""
PIECE_BYTES = 65536

HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
NOT_PASSED_ON = HOP_BY_HOP | {
    "authorization",  # Jupyter's token
    "cookie",  # Jupyter's session
    "x-xsrftoken",
    "x-csrftoken",
    "referer",  # the page's address may carry ?token=
    "host",
    "expect",  # tornado has said "100 Continue" itself
    "content-length",  # set again, from what tornado has checked
}
NOT_PASSED_BACK = HOP_BY_HOP | {"set-cookie"}  # the cookies of this origin are Jupyter's
OWN_HEADERS = "x-tundra-"
"""Only the bridge says who the user is: what a client sends under this prefix is dropped."""
SECRET_PARAMETERS = frozenset(("token", "_xsrf"))
METHODS_WITH_CHUNKS = frozenset(("POST", "PUT", "PATCH"))
"""Methods with which `HTTP1Connection` can send a body of unknown length."""
GENERATED_NAME = re.compile(r"[0-9a-f]{32}")
PING, PONG = 0x89, 0x8A
"""First byte of a WebSocket's ping and pong frame."""

_PARAMETERS = HTTP1ConnectionParameters(no_keep_alive=True, chunk_size=PIECE_BYTES, max_body_size=sys.maxsize)


class Refused(web.HTTPError):
    """A typed error of ours on its way to the client."""

    def __init__(self, error: TundraError) -> None:
        super().__init__(error.http_status, "%s: %s", error.code, error.message)
        self.error = error


@web.stream_request_body
class DaemonProxy(JupyterHandler):
    """Every verb and the WebSocket of every route of the daemon.

    Not an `APIHandler`: its `finish` would force `application/json` on every answer.
    """

    auth_resource = RESOURCE
    supervisor: Supervisor

    def initialize(self, supervisor: Supervisor) -> None:
        self.supervisor = supervisor
        # tornado and Jupyter log the address, and Jupyter's scrubbing does not know a percent-encoded `token`.
        query = gateway.without_tokens(_without_secrets(self.request.query))
        has_token_in_query = query != _without_secrets(self.request.query)
        self.request.uri = f"{self.request.path}?{query}" if query else self.request.path
        self.may_wake = not LOOK_ONLY & set(query.split("&"))
        """Whether a daemon that is not there is started for this request."""
        if not self.may_wake:
            query = "&".join(part for part in query.split("&") if part not in LOOK_ONLY)
            self.request.uri = f"{self.request.path}?{query}" if query else self.request.path
        self.is_websocket = self.request.headers.get("Upgrade", "").lower() == "websocket"
        self.gateway_token: str | None = None
        """Admits this request to `/v1` although Jupyter does not know who sends it."""
        if gateway.is_below(self._target) and not self.is_websocket:
            if has_token_in_query:  # without its value: the daemon says why it is refused
                self.request.uri += ("&" if query else "?") + f"key={gateway.IN_URL}"
            self.gateway_token = gateway.admits(self.request.headers, self.settings)
            if self.gateway_token is None:
                gateway.prepared(self.request.headers)
        self.refusal: web.HTTPError | None = None
        self.upstream: IOStream | None = None
        self.daemon: HTTP1Connection | None = None

    @property
    def content_security_policy(self) -> str:
        # What the daemon sends is data: should a browser show it as a page of Jupyter's origin, nothing in it may run.
        return f"{super().content_security_policy}; default-src 'none'"

    # --- before the body ---

    async def prepare(self) -> None:  # type: ignore[override]
        try:
            if self.gateway_token is None:
                await super().prepare(_redirect_to_login=False)
                await self._admit()
            else:
                self._admit_program()
            await self._connect()
        except web.HTTPError as error:
            self.refusal = error
        except TundraError as error:
            self.refusal = Refused(error)

    async def _admit(self) -> None:
        method = self.request.method or ""
        if method not in HTTP_METHOD_TO_AUTH_ACTION or method == "OPTIONS" or (self.is_websocket and method != "GET"):
            raise web.HTTPError(405)
        if self.current_user is None:
            raise web.HTTPError(403)
        if not self.check_origin():
            raise web.HTTPError(403 if self.is_websocket else 404)
        # Asked directly: `@authorized` on a function shared by verbs keeps the action of the first verb for all.
        action = HTTP_METHOD_TO_AUTH_ACTION["WEBSOCKET" if self.is_websocket else method]
        resource = self.auth_resource
        if not await ensure_async(self.authorizer.is_authorized(self, self.current_user, action, resource)):
            raise web.HTTPError(403, f"User is not authorized to {action} on resource: {resource}.")
        if method not in METHODS_WITH_CHUNKS and "Transfer-Encoding" in self.request.headers:
            raise web.HTTPError(411)
        self.touch()

    def _admit_program(self) -> None:
        """A program with a gateway token, on `/v1` only: nobody to Jupyter, and its cookies are not looked at."""
        if not self.check_host():
            raise web.HTTPError(403)
        # a name for this one request's log line; it is no identity that anything else of Jupyter knows
        self.current_user = self._jupyter_current_user = User(username="gateway-token")
        if "Origin" in self.request.headers and not self.check_origin():
            raise web.HTTPError(404)
        self.touch()

    def check_xsrf_cookie(self) -> None:
        """A token in a header is proof against forged requests by itself."""
        if getattr(self, "gateway_token", None) is None:
            super().check_xsrf_cookie()

    async def _connect(self) -> None:
        try:
            self.upstream = await dial(self.supervisor.socket)
            self.supervisor.noticed()
        except OSError:
            if not self.may_wake:
                raise self.supervisor.absence() from None
            await self.supervisor.wake()
            try:
                self.upstream = await dial(self.supervisor.socket)
            except OSError as exc:
                raise IpcError(kind="refused", problem=f"the daemon's socket cannot be reached: {exc}") from exc
        if (error := running.stopped_peer(self.upstream.socket)) is not None:
            self.upstream.close()
            raise error
        if not self.is_websocket:
            self.daemon = HTTP1Connection(self.upstream, is_client=True, params=_PARAMETERS)
            head = httputil.RequestStartLine(str(self.request.method), self._target, "HTTP/1.1")
            await _offer(self.daemon.write_headers(head, self._passed_on()))

    @property
    def _target(self) -> str:
        # Cut from the address as it was sent: tornado's path arguments are decoded, and could then hold a line break.
        return str(self.request.uri)[len(self.base_url.rstrip("/")) + len(MOUNT) :]

    def _passed_on(self) -> httputil.HTTPHeaders:
        named = {name.strip().lower() for name in self.request.headers.get("Connection", "").split(",")}
        headers = httputil.HTTPHeaders({"Host": "localhost"})
        is_program = self.gateway_token is not None
        if not is_program:
            headers[USER_HEADER] = user_of(self)
        own = gateway.PASSED_ON if gateway.is_below(self._target) else frozenset()
        for name, value in self.request.headers.get_all():
            lower = name.lower()
            if lower in NOT_PASSED_ON or lower in named or lower in gateway.CREDENTIALS:
                continue
            if lower in own or not lower.startswith(OWN_HEADERS):
                headers.add(name, value)
        if self.gateway_token is not None:
            headers["X-Api-Key"] = self.gateway_token
        if "Content-Length" in self.request.headers and not self.is_websocket:
            headers["Content-Length"] = self.request.headers["Content-Length"]
        return headers

    # --- body, answer ---

    async def data_received(self, chunk: bytes) -> None:
        if self.refusal is None and self.daemon is not None:
            self.touch()
            await _offer(self.daemon.write(chunk))

    @ws_authenticated  # tells ServerApp.allow_unauthenticated_access=False that this route authenticates
    async def get(self, *_path: str) -> None:
        if self.refusal is not None:
            raise self.refusal
        assert self.upstream is not None
        if self._client_connection().stream.closed():
            self.upstream.close()  # gone while the daemon was being started: nothing will tell us again
            self._auto_finish = False
        elif self.is_websocket:
            await self._splice(self.upstream)
        else:
            await self._answer(self.upstream)

    head = post = put = patch = delete = get

    async def _answer(self, upstream: IOStream) -> None:
        assert self.daemon is not None
        answer = _Answer(self, upstream)
        try:
            self.daemon.finish()
            await self.daemon.read_response(answer)
        except (StreamClosedError, httputil.HTTPOutputError):
            pass  # told apart below
        finally:
            upstream.close()
            self.touch()
        if answer.is_whole:
            self.finish()
        elif self._client_connection().stream.closed():
            self._auto_finish = False
        elif self._headers_written:
            # The only way to say "this is not all" after the headers; a chunked body would otherwise look whole.
            self.detach().close()
        else:
            remedy = "It is being restarted; `tundra logs -n 50` shows why it ended."
            raise Refused(IpcError(kind="died", problem="the daemon died before it answered", remedy=remedy))

    async def _splice(self, upstream: IOStream) -> None:
        head = [f"GET {self._target} HTTP/1.1", "Connection: Upgrade", "Upgrade: websocket"]
        head += [f"{name}: {value}" for name, value in self._passed_on().get_all()]
        browser = self.detach()
        browser.set_nodelay(True)
        # The daemon's own answer to the handshake goes through too: it chooses the subprotocol, or refuses.
        await _offer(upstream.write("\r\n".join([*head, "", ""]).encode("latin-1")))
        await asyncio.gather(_pump(browser, upstream, self._touch_by), _pump(upstream, browser, self._touch_by))

    def begin(self, start_line: httputil.ResponseStartLine, headers: httputil.HTTPHeaders) -> None:
        """Start the answer to the client as the daemon's begins."""
        self.set_status(start_line.code, start_line.reason or None)
        self.clear_header("Content-Type")
        named = {name.strip().lower() for name in headers.get("Connection", "").split(",")}
        seen: set[str] = set()
        for name, value in headers.get_all():
            lower = name.lower()
            if lower in NOT_PASSED_BACK or lower in named:
                continue
            (self.add_header if lower in seen else self.set_header)(name, value)
            seen.add(lower)
        if headers.get("Content-Type", "").startswith("text/event-stream"):
            self.set_header("X-Accel-Buffering", "no")  # an nginx in front of the server must not collect events
        self._client_connection().stream.set_nodelay(True)

    def on_connection_close(self) -> None:
        if self.upstream is not None:
            self.upstream.close()  # the daemon sees it at once, and cancels
        super().on_connection_close()

    def _client_connection(self) -> HTTP1Connection:
        connection = self.request.connection
        assert isinstance(connection, HTTP1Connection)
        return connection

    # --- errors, activity ---

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Errors of ours in their wire form; Jupyter's as its own API words them, without a `code`."""
        error = (kwargs.get("exc_info") or (None, None, None))[1]
        self.set_header("Content-Type", "application/json")
        body: dict[str, Any] = {"message": responses.get(status_code, "Unknown HTTP Error"), "reason": None}
        if isinstance(error, Refused):
            body = error.error.to_wire()
            if body["retry_after"] is not None:
                self.set_header("Retry-After", str(max(1, round(body["retry_after"]))))
        elif isinstance(error, web.HTTPError):
            if error.log_message:
                body["message"] = error.log_message % error.args if error.args else error.log_message
            body["reason"] = error.reason
        if gateway.is_below(self._target):
            if status_code == 403 and self.current_user is None:
                self.set_status(401)
                status_code = 401
            body = gateway.told(status_code, body)
        self.finish(json.dumps(body))

    def touch(self) -> None:
        """Keep the server from being culled as idle."""
        self.settings["last_activity_times"][RESOURCE] = utcnow()

    def _touch_by(self, piece: bytes) -> None:
        # The heartbeat of an idle terminal must not keep the server from being culled.
        if piece[0] not in (PING, PONG):
            self.touch()


class _Answer(httputil.HTTPMessageDelegate):
    """What the daemon answers, piece by piece; each returned awaitable is the back-pressure."""

    def __init__(self, handler: DaemonProxy, upstream: IOStream) -> None:
        self._handler = handler
        self._upstream = upstream
        self.is_whole = False

    def headers_received(
        self, start_line: httputil.RequestStartLine | httputil.ResponseStartLine, headers: httputil.HTTPHeaders
    ) -> Awaitable[None] | None:
        assert isinstance(start_line, httputil.ResponseStartLine)
        if start_line.code < 200:
            return None  # an interim answer; the real one follows
        self._handler.begin(start_line, headers)
        if int(headers.get("Content-Length") or 0) > 0 and self._handler.request.method != "HEAD":
            return None  # the body follows: one packet for both
        return self._flush()

    def data_received(self, chunk: bytes) -> Awaitable[None]:
        if self._handler.request.method != "GET":
            self._handler.touch()  # a long answer is activity; the heartbeat of an open live feed is not
        self._handler.write(chunk)
        return self._flush()

    def finish(self) -> None:
        self.is_whole = True

    async def _flush(self) -> None:
        try:
            await self._handler.flush()
        except StreamClosedError:
            self._upstream.close()


def user_of(handler: JupyterHandler) -> str:
    """Whom the daemon counts a call for, percent-encoded.

    Jupyter makes up a name per browser, and per request when there is only a token. Such a name says nothing and would
    give each request a bucket of its own, so the account that the server runs under stands for it, as it does for a
    kernel's calls.
    """
    name = str(handler.current_user.username)
    return urllib.parse.quote(_account() if GENERATED_NAME.fullmatch(name) else name, safe="@+")


@functools.cache
def _account() -> str:
    return account(os.environ)


def _without_secrets(query: str) -> str:
    parts = query.split("&")
    return "&".join(p for p in parts if urllib.parse.unquote_plus(p.partition("=")[0]) not in SECRET_PARAMETERS)


async def _offer(written: Awaitable[None]) -> None:
    """Wait until it is written; when the daemon has hung up, what it said before that is read later."""
    try:
        await written
    except StreamClosedError:
        return


async def _pump(source: IOStream, sink: IOStream, passed: Callable[[bytes], None]) -> None:
    """Carry bytes until either side closes, then close the sink."""
    try:
        while True:
            piece = await source.read_bytes(PIECE_BYTES, partial=True)
            passed(piece)
            await sink.write(piece)
    except StreamClosedError:
        pass
    finally:
        sink.close()
