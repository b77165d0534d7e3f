"""`t.tokens` and `t.gateway`: programs that speak a vendor's own API, who may come and where, blocking and awaited."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

from tundra_nb.frames import frames
from tundra_nb.protocol import doors
from tundra_nb.protocol.live import LIVE

from . import api
from .call import Call, HttpAnswer, Step, call
from .endpoints import Awaiting, Blocking, awaited, blocking
from .results import Document

if TYPE_CHECKING:
    import pandas as pd

T = TypeVar("T")


class NewToken(Document):
    """A token just made: `name`, `token` (shown this once), `profiles`, `rpm`, `tpm`, `usd_per_day`, `urls` …"""

    def __repr__(self) -> str:
        return f"<new token {self['name']}>"


class GatewayStatus(Document):
    """Where the gateway listens, and who has called: `listening`, `url`, `insecure`, `problem`, `callers`."""

    @property
    def calls(self) -> pd.DataFrame:
        """The programs that called since the daemon's start, the latest first."""
        return frames.from_rows(self["callers"], LIVE["callers"], meta={"query": "callers"})


# tokens:


def new(
    name: str,
    *,
    profiles: Sequence[str] = (),
    rpm: float | None = None,
    tpm: float | None = None,
    usd_per_day: float | None = None,
    expires: str | None = None,
) -> Call[NewToken]:
    """Make a gateway token for a program. It is shown this once.

    Args:
        name: stands in `user_name` of the calls made with it.
        profiles: those that it may use; all when left out.
        rpm: requests per minute.
        tpm: tokens per minute.
        usd_per_day: what its calls may cost per day (UTC), never more.
        expires: a span such as `30d`, or a date; without one it never does.
    """
    body = doors.NewTokenBody(
        name=name, profiles=list(profiles), rpm=rpm, tpm=tpm, usd_per_day=usd_per_day, expires=expires
    )
    return call(doors.NEW_TOKEN, decode=lambda answer: NewToken(answer.json()), body=body)


def list_() -> Call[pd.DataFrame]:
    """The gateway's tokens: what each may do, until when, and what it has spent today; never the token itself."""
    return call(doors.TOKENS, decode=_token_frame)


def revoke(name: str) -> Call[Document]:
    """Have a token serve no longer."""
    return call(doors.REVOKE_TOKEN, decode=api.document, name=name)


# the listener:


def status() -> Call[GatewayStatus]:
    """Whether the gateway listens and where, and who has called."""
    return call(doors.GATEWAY, decode=_status)


def start(port: int | None = None) -> Call[GatewayStatus]:
    """Have the gateway listen, on loopback at `port` (0 chooses one and keeps it), until `stop`."""
    return call(doors.START, decode=_status, body=doors.StartBody(port=port))


def stop() -> Call[GatewayStatus]:
    """Have the gateway listen no longer. `/v1` on the socket and under a Jupyter server stays."""
    return call(doors.STOP, decode=_status)


def _status(answer: HttpAnswer) -> GatewayStatus:
    return GatewayStatus(answer.json())


def _token_frame(answer: HttpAnswer) -> pd.DataFrame:
    return frames.from_rows(answer.json()["rows"], LIVE["tokens"], meta={"query": "tokens"})


class Tokens:
    """`t.tokens` of a `Client`."""

    def __init__(self, client: Blocking) -> None:
        self._client = client

    def _do(self, step: Step[T]) -> T:
        return self._client._do(step)  # noqa: SLF001 - a namespace of the client

    new = blocking(new)
    list = blocking(list_)
    revoke = blocking(revoke)


class AsyncTokens:
    """`t.tokens` of an `AsyncClient`."""

    def __init__(self, client: Awaiting) -> None:
        self._client = client

    async def _do(self, step: Step[T]) -> T:
        return await self._client._do(step)  # noqa: SLF001 - a namespace of the client

    new = awaited(new)
    list = awaited(list_)
    revoke = awaited(revoke)


class Listener:
    """`t.gateway` of a `Client`."""

    def __init__(self, client: Blocking) -> None:
        self._client = client

    def _do(self, step: Step[T]) -> T:
        return self._client._do(step)  # noqa: SLF001 - a namespace of the client

    status = blocking(status)
    start = blocking(start)
    stop = blocking(stop)


class AsyncListener:
    """`t.gateway` of an `AsyncClient`."""

    def __init__(self, client: Awaiting) -> None:
        self._client = client

    async def _do(self, step: Step[T]) -> T:
        return await self._client._do(step)  # noqa: SLF001 - a namespace of the client

    status = awaited(status)
    start = awaited(start)
    stop = awaited(stop)
