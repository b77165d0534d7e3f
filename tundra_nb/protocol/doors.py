"""The gateway's tokens, and where it listens. `/v1` itself is other programs' API, and no part of this one."""

from __future__ import annotations

from typing import Any

import msgspec

from .endpoint import Endpoint, Rows
from .live import CallerRow, TokenRow


class NewTokenBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """What a new token is to be."""

    name: str
    profiles: list[str] = []
    """Those that it may use; all when there are none."""
    rpm: float | None = None
    tpm: float | None = None
    usd_per_day: float | None = None
    expires: str | None = None
    """A span from now (`30d`, `12h`), or a date."""


class NewTokenAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A token, shown this once."""

    name: str
    token: str
    profiles: list[str]
    rpm: float | None
    tpm: float | None
    usd_per_day: float | None
    expires_at: str | None
    urls: dict[str, str]
    """Base URL by vendor's SDK; empty while the gateway does not listen."""


class StartBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Where to listen."""

    port: int | None = None
    """On loopback; 0 chooses one. Left out: the setting `gateway.listen`, else where it listened before."""


class GatewayAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the gateway listens and where, what stands in the way, and who has called."""

    listening: bool
    url: str | None
    listen: str
    insecure: bool
    problem: str | None
    hint: str | None
    socket: str
    urls: dict[str, str]
    callers: list[CallerRow]


TOKENS = Endpoint(
    method="GET", path="/api/tokens", summary="the gateway's tokens, never the secret", answer=Rows[TokenRow]
)
NEW_TOKEN = Endpoint(
    method="POST",
    path="/api/tokens",
    summary="make a gateway token, shown this once",
    body=NewTokenBody,
    answer=NewTokenAnswer,
    status=201,
)
REVOKE_TOKEN = Endpoint(
    method="DELETE", path="/api/tokens/{name}", summary="have a token serve no longer", answer=dict[str, Any]
)
GATEWAY = Endpoint(
    method="GET", path="/api/gateway", summary="where the gateway listens, and who has called", answer=GatewayAnswer
)
START = Endpoint(
    method="POST", path="/api/gateway/start", summary="have the gateway listen", body=StartBody, answer=GatewayAnswer
)
STOP = Endpoint(
    method="POST", path="/api/gateway/stop", summary="have the gateway listen no longer", answer=GatewayAnswer
)
