"""The MCP server over HTTP: one POST, one JSON answer, a bearer token, on a loopback address.

A page in a browser must not reach it: requests with an `Origin` are refused, whatever their token.
"""

from __future__ import annotations

import hmac
import ipaddress
import secrets
from collections.abc import Mapping
from typing import Any

import anyio.to_thread
import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tundra_nb.errors import UsageError

from .rpc import (
    HEADER_MISMATCH,
    INVALID_PARAMS,
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
    PARSE_ERROR,
    UNSUPPORTED_VERSION,
    VERSION_KEY,
    McpSession,
    RpcError,
    RpcServer,
    error,
)

PATH = "/mcp"
MAX_BODY_BYTES = 4 * 1024 * 1024
LAST_ANSWERS_SECONDS = 1
"""How long an answer that is under way may hold up the end."""
_STATUS = {
    PARSE_ERROR: 400,
    INVALID_REQUEST: 400,
    INVALID_PARAMS: 400,
    HEADER_MISMATCH: 400,
    UNSUPPORTED_VERSION: 400,
    METHOD_NOT_FOUND: 404,
}


def address(listen: str) -> tuple[str, int]:
    """Host and port of `HOST:PORT`.

    Raises:
        UsageError: it is not of that form, or not a loopback address: the token would cross a network unprotected.
    """
    host, colon, port = listen.rpartition(":")
    host = host.strip("[]")
    try:
        is_loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_loopback = False
    if not colon or not port.isdigit() or int(port) > 65_535 or not is_loopback:
        raise UsageError(
            problem=f"{listen!r} is not a loopback address and a port",
            field="--listen",
            remedy="For example: 127.0.0.1:4243",
        )
    return host, int(port)


def app(server: RpcServer, token: str) -> Starlette:
    """The ASGI application; every request needs `Authorization: Bearer` with the token."""

    async def post(request: Request) -> Response:
        refused = _refused(request, token)
        if refused is not None:
            return refused
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_BODY_BYTES:
                return _json({"error": "the body is too large"}, 413)
        try:
            message = msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return _json(error(None, RpcError(PARSE_ERROR, "the body is not JSON")), 400)
        mismatch = _mismatch(request, message)
        if mismatch is not None:
            return _json(error(message.get("id"), mismatch), 400)
        answer = await anyio.to_thread.run_sync(server.handle, message, McpSession(), abandon_on_cancel=True)
        if answer is None:
            return Response(status_code=202)
        return _json(answer, _STATUS.get(answer.get("error", {}).get("code", 0), 200))

    return Starlette(routes=[Route(PATH, post, methods=["POST"])])


def serve(server: RpcServer, listen: str, token: str, ready: Any) -> None:
    """Listen until interrupted; `ready(url)` is called once connections are taken.

    Raises:
        UsageError: the address is no loopback address, or is taken.
    """
    import socket

    import uvicorn

    host, port = address(listen)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as exc:
            raise UsageError(
                problem=f"{listen} cannot be listened on: {exc.strerror}",
                field="--listen",
                remedy="Another program has that port; choose another one, 0 finds a free one.",
            ) from exc
        listener.listen()  # before anybody is told the address
        shown = f"[{host}]" if ":" in host else host
        ready(f"http://{shown}:{listener.getsockname()[1]}{PATH}")
        config = uvicorn.Config(
            app(server, token),
            log_config=None,
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=LAST_ANSWERS_SECONDS,
        )
        uvicorn.Server(config).run(sockets=[listener])


def new_token() -> str:
    return secrets.token_urlsafe(32)


def _refused(request: Request, token: str) -> Response | None:
    if "origin" in request.headers:
        return _json({"error": "requests from a page of a browser are refused"}, 403)
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), token.encode()):
        answer = _json({"error": "the bearer token is missing or wrong"}, 401)
        answer.headers["www-authenticate"] = "Bearer"
        return answer
    return None


def _mismatch(request: Request, message: Any) -> RpcError | None:
    """A stateless request names its version, method and tool in headers too, for those between; they must agree."""
    if not isinstance(message, dict) or not isinstance(message.get("params"), dict):
        return None
    params: Mapping[str, Any] = message["params"]
    meta = params.get("_meta")
    if not isinstance(meta, dict) or VERSION_KEY not in meta:
        return None
    expected = {"mcp-protocol-version": meta[VERSION_KEY], "mcp-method": message.get("method")}
    if message.get("method") == "tools/call":
        expected["mcp-name"] = params.get("name")
    for name, value in expected.items():
        if request.headers.get(name) != value:
            return RpcError(HEADER_MISMATCH, f"the header {name} does not say what the body does")
    return None


def _json(body: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(body), status, media_type="application/json")
