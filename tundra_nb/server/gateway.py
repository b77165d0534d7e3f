"""Who may pass to `/v1` of the daemon: Jupyter's own users, and programs with a gateway token.

A gateway token opens this path and no other, and without cookies: it says nothing to Jupyter, so a request that is
admitted by it is nobody's session. Whether the token serves, the daemon decides; here only its form is looked at. Where
`ServerApp.allow_unauthenticated_access` is False, Jupyter's administrator wants no request that Jupyter has not
authenticated itself, and so there is none.
"""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Mapping
from typing import Any

from tornado import httputil

PATH = "/v1"
TOKEN = re.compile(r"tnd-[A-Za-z0-9_-]{8,}")
PASSED_ON = frozenset({"x-tundra-failover"})
"""The one header of ours that a program may send."""
IN_URL = "tnd-in-the-address"
"""Stands in the address for a token that stood there."""
CREDENTIALS = frozenset({"authorization", "x-api-key", "cookie"})


def is_below(target: str) -> bool:
    """Whether a request below the mount is for the gateway; `target` is path and query as they were sent."""
    path = urllib.parse.unquote(target.partition("?")[0])
    return path == PATH or path.startswith(PATH + "/")


def token_in(headers: httputil.HTTPHeaders) -> str | None:
    """The gateway token that a request carries in its headers."""
    scheme, _, bearer = headers.get("Authorization", "").strip().partition(" ")
    for presented in (headers.get("X-Api-Key", "").strip(), bearer.strip() if scheme.lower() == "bearer" else ""):
        if TOKEN.fullmatch(presented):
            return presented
    return None


def admits(headers: httputil.HTTPHeaders, settings: Mapping[str, Any]) -> str | None:
    """The token by which a request is admitted past Jupyter's own authentication; None where it is not."""
    if not settings.get("allow_unauthenticated_access", False):
        return None
    return token_in(headers)


def prepared(headers: httputil.HTTPHeaders) -> None:
    """Have Jupyter find its own token where an SDK puts an API key."""
    key = headers.get("X-Api-Key", "").strip()
    if key and "Authorization" not in headers and not TOKEN.fullmatch(key):
        headers["Authorization"] = f"token {key}"


def told(status: int, body: Mapping[str, Any]) -> dict[str, Any]:
    """An error of the bridge in words that the SDKs of both vendors read."""
    kind = {401: "authentication_error", 403: "permission_error"}.get(status, "api_error")
    message = body.get("message")
    if status == 401:
        message = "neither a token of this Jupyter server nor a gateway token was sent"
    error = {"type": kind, "message": message, "code": body.get("code"), "param": None}
    return {"type": "error", "error": error}


def without_tokens(query: str) -> str:
    """A query that may be logged: the gateway reads none."""
    return "&".join(part for part in query.split("&") if not TOKEN.search(urllib.parse.unquote_plus(part)))
