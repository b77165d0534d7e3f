"""The way to the server of shared limits: one script, a short deadline, and our own breaker in front.

A client's own settings are of no use here: they retry for seconds, and a paused server holds each caller up. A command
that ran out of time may be carried out later all the same, so that none is ever sent twice.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from tundra_nb.errors import BreakerOpen
from tundra_nb.runtime.resilience.breaker import Breaker, BreakerChange
from tundra_nb.settings import BreakerSettings, SharedLimitsSettings

VERSION = 1
"""Version of the script and of what it keeps: daemons of another version must not share state with this one."""
SCRIPT = Path(__file__).with_name("script.lua").read_text("utf-8")
SHA = hashlib.sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest()
AFTER_FAILURES = 2
AWAY_SECONDS = 1.0
"""How long nobody asks a server that has failed so often; then one does."""
SCHEMES = {"valkey": False, "redis": False, "valkeys": True, "rediss": True}
"""Scheme of an address, and whether it means TLS."""
DEFAULT_PORT = 6379
NOT_INSTALLED = 'the package for it is missing: pip install "tundra-nb[shared]"'


class AwayError(Exception):
    """The server did not answer in time, or not as it should."""


class BucketPart(msgspec.Struct, frozen=True):
    """One bucket of a command: its key, how it is shaped, and an amount in seconds of refill."""

    key: str
    per_unit: float
    span: float
    amount: float


class BudgetServer:
    """One budget on one server.

    Args:
        settings: where it is.
        environ: where its password is looked up.
        daemon: names this daemon among those that share the budget.
        monotonic: seconds.
    """

    def __init__(
        self,
        settings: SharedLimitsSettings,
        environ: Mapping[str, str],
        daemon: str,
        monotonic: Callable[[], float],
        on_change: Callable[[BreakerChange], None],
    ) -> None:
        self.settings = settings
        self.problem = ""
        """What went wrong last, in words."""
        self.answered_at = -math.inf
        """When it answered last, in `monotonic` seconds."""
        self._monotonic = monotonic
        self._daemon = daemon
        self._prefix = f"tundra:{VERSION}:{{{settings.budget}}}:"
        self._client = _client(settings, environ)
        if self._client is None:
            self.problem = NOT_INSTALLED
        thresholds = BreakerSettings(failures=AFTER_FAILURES, successes=1, open_seconds=AWAY_SECONDS)
        self.breaker = Breaker("limits.shared", thresholds, monotonic, on_change)

    def __repr__(self) -> str:
        return f"<Server of shared limits {self.settings.url}, budget {self.settings.budget}, {self.breaker.state}>"

    @property
    def is_away(self) -> bool:
        return self._client is None or self.breaker.state != "closed"

    async def aclose(self) -> None:
        """Close all connections."""
        if self._client is not None:
            await self._client.aclose()

    async def run(self, verb: str, *words: str, buckets: Sequence[BucketPart]) -> list[Any]:
        """Carry a verb out on the server; the reply's parts, numbers as text.

        Raises:
            AwayError: it did not answer in time, or with an error; it may carry the verb out all the same.
        """
        if self._client is None:
            raise AwayError(self.problem)
        keys = [self._prefix + name for name in ("since", "number", "daemons")]
        keys += [f"{self._prefix}bucket:{bucket.key}" for bucket in buckets]
        args = [verb, self._daemon, *words]
        args += [f"{number:.17g}" for part in buckets for number in (part.per_unit, part.span, part.amount)]
        try:
            permit = self.breaker.admit()
        except BreakerOpen as exc:
            raise AwayError(self.problem) from exc
        with permit:
            try:
                async with asyncio.timeout(self.settings.deadline_seconds):
                    reply = await self._evaluate(keys, args)
            except Exception as exc:  # whatever the client raises, the limiter must go on without it
                self.problem = _words(exc, self.settings.deadline_seconds)
                permit.failure(type(exc).__name__)
                raise AwayError(self.problem) from exc
            permit.success()
        self.answered_at = self._monotonic()
        return [part.decode() if isinstance(part, bytes) else part for part in reply]

    async def _evaluate(self, keys: list[str], args: list[str]) -> list[Any]:
        from valkey.exceptions import NoScriptError

        try:
            found: list[Any] = await self._client.evalsha(SHA, len(keys), *keys, *args)
        except NoScriptError:  # a server that was started anew
            found = await self._client.eval(SCRIPT, len(keys), *keys, *args)
        return found


def _client(settings: SharedLimitsSettings, environ: Mapping[str, str]) -> Any:
    try:
        from valkey.asyncio import Valkey
        from valkey.asyncio.retry import Retry
        from valkey.backoff import NoBackoff
    except ImportError:
        return None
    parts = urllib.parse.urlsplit(settings.url)
    password = environ.get(settings.password_env) if settings.password_env else None
    return Valkey(
        host=parts.hostname or "127.0.0.1",
        port=parts.port or DEFAULT_PORT,
        db=int(parts.path.strip("/") or 0),
        username=settings.user or None,
        password=password,
        socket_timeout=settings.deadline_seconds,
        socket_connect_timeout=settings.deadline_seconds,
        retry=Retry(NoBackoff(), 0),
        retry_on_timeout=False,
        ssl=SCHEMES[parts.scheme],
        ssl_ca_certs=settings.ca_file or None,
    )


def _words(exc: BaseException, deadline: float) -> str:
    if isinstance(exc, TimeoutError):
        return f"no answer within {deadline:g} s"
    return " ".join(str(exc).split())[:200] or type(exc).__name__
