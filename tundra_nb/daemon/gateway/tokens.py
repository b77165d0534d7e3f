"""Gateway tokens: made once, shown once, kept as a hash.

A token is `tnd-` and 43 characters (32 random bytes). The file of the data directory holds its SHA-256, which tells
nothing about it, with what it may do. A revoked one stays in the file, so that whoever still uses it is told so.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
import os
import re
import secrets
import tempfile
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import msgspec

from tundra_nb.errors import ConfigError, TokenRefused, UsageError
from tundra_nb.nearest import nearest
from tundra_nb.protocol.doors import NewTokenBody
from tundra_nb.runtime.caller import TOKEN_KEY, Caller
from tundra_nb.settings.model import MOST

PREFIX = "tnd-"
RANDOM_BYTES = 32
MAX_TOKENS = 10_000
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_SPAN = re.compile(r"(\d+(?:\.\d+)?)\s*([smhdw])", re.ASCII)
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_INDEX_CHARS = 16


class Token(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a token may do. Times are seconds since the epoch."""

    name: str
    sha256: str
    created_at: float
    profiles: tuple[str, ...] = ()
    rpm: float | None = None
    tpm: float | None = None
    usd_per_day: float | None = None
    expires_at: float | None = None
    revoked_at: float | None = None

    def __repr__(self) -> str:
        return f"<Token {self.name}>"

    @property
    def caller(self) -> Caller:
        return Caller(
            name=self.name,
            key=TOKEN_KEY + self.name,
            rpm=self.rpm,
            tpm=self.tpm,
            usd_per_day=self.usd_per_day,
            profiles=self.profiles,
        )


class Tokens:
    """The tokens of a data directory. `now` gives seconds since the epoch."""

    def __init__(self, file: Path, now: Callable[[], float]) -> None:
        self._file = file
        self._now = now
        self.problem: ConfigError | None = None
        """Why the file cannot be read; every token is refused then, and none is made over it."""
        self._tokens: tuple[Token, ...] = ()
        try:
            self._tokens = _read(file)
        except ConfigError as error:
            self.problem = error
        self._index: dict[str, tuple[Token, Caller]] = {}
        self._reindex()

    def __repr__(self) -> str:
        return f"<Tokens {len(self._tokens)}>"

    def check(self, presented: str) -> tuple[Token, Caller]:
        """The token that was presented.

        Raises:
            TokenRefused: it is none of ours, revoked or expired.
        """
        digest = hashlib.sha256(presented.encode("utf-8", "surrogatepass")).hexdigest()
        # The index leads by the start of a hash, which nobody can choose; the rest is compared in constant time.
        entry = self._index.get(digest[:_INDEX_CHARS])
        if entry is None or not hmac.compare_digest(entry[0].sha256, digest):
            raise TokenRefused(kind="unknown")
        token = entry[0]
        if token.revoked_at is not None:
            raise TokenRefused(kind="revoked", name=token.name)
        if token.expires_at is not None and token.expires_at <= self._now():
            raise TokenRefused(kind="expired", name=token.name)
        return entry

    def new(self, wanted: NewTokenBody, profiles: Collection[str]) -> tuple[Token, str]:
        """Make a token; it is given out here and never again. `profiles` are the names that there are.

        Raises:
            UsageError: a value that cannot be; names the field.
            ConfigError: the file cannot be written.
        """
        if not _NAME.fullmatch(wanted.name):
            raise UsageError(
                problem="a token's name has 1 to 64 letters, digits, '.', '_' or '-', the first no mark",
                field="name",
            )
        if any(token.name == wanted.name and token.revoked_at is None for token in self._tokens):
            remedy = f"`%tundra token revoke {wanted.name}` ends the one there is."
            raise UsageError(problem=f"there is a token {wanted.name!r} already", field="name", remedy=remedy)
        for profile in wanted.profiles:
            if profile not in profiles:
                raise UsageError(
                    problem=f"no profile {profile!r}",
                    field="profiles",
                    nearest=nearest(profile, profiles),
                    remedy="`%tundra providers` lists them.",
                )
        for field in ("rpm", "tpm", "usd_per_day"):
            value = getattr(wanted, field)
            if value is not None and not 0 < value <= MOST:
                raise UsageError(problem=f"{field} is {value}", field=field, remedy="A number above 0, at most 1e12.")
        if len(self._tokens) >= MAX_TOKENS:
            raise UsageError(problem=f"there are {MAX_TOKENS} tokens already", field="name")
        secret = PREFIX + secrets.token_urlsafe(RANDOM_BYTES)
        token = Token(
            name=wanted.name,
            sha256=hashlib.sha256(secret.encode()).hexdigest(),
            created_at=self._now(),
            profiles=tuple(dict.fromkeys(wanted.profiles)),
            rpm=wanted.rpm,
            tpm=wanted.tpm,
            usd_per_day=wanted.usd_per_day,
            expires_at=self._expiry(wanted.expires),
        )
        self._write((*(each for each in self._tokens if each.name != token.name), token))
        return token, secret

    def revoke(self, name: str) -> Token:
        """Have a token serve no longer.

        Raises:
            UsageError: there is none of this name.
        """
        for token in self._tokens:
            if token.name == name and token.revoked_at is None:
                revoked = msgspec.structs.replace(token, revoked_at=self._now())
                self._write(tuple(revoked if each is token else each for each in self._tokens))
                return revoked
        known = [token.name for token in self._tokens if token.revoked_at is None]
        raise UsageError(
            problem=f"no token {name!r}", field="name", nearest=nearest(name, known), remedy="`%tundra token list`."
        )

    def rows(self) -> list[dict[str, Any]]:
        """What there is to tell of each token, the newest last; never anything of the secret."""
        now = self._now()
        return [
            {
                "name": token.name,
                "state": _state(token, now),
                "profiles": list(token.profiles),
                "rpm": token.rpm,
                "tpm": token.tpm,
                "usd_per_day": token.usd_per_day,
                "created_at": iso(token.created_at),
                "expires_at": iso(token.expires_at),
            }
            for token in self._tokens
        ]

    def _expiry(self, text: str | None) -> float | None:
        if text is None:
            return None
        now = self._now()
        text = text.strip()
        if span := _SPAN.fullmatch(text):
            at = now + float(span[1]) * _SECONDS[span[2]]
        else:
            try:
                date = dt.datetime.fromisoformat(text)
            except ValueError:
                remedy = "A span such as 30d or 12h, or a date such as 2027-01-31."
                raise UsageError(problem=f"{text!r} is no time", field="expires", remedy=remedy) from None
            at = (date if date.tzinfo else date.astimezone()).timestamp()
        if not now < at < now + 100 * 366 * 86400:
            problem = f"{text!r} is past already" if at <= now else f"{text!r} is more than a hundred years away"
            raise UsageError(problem=problem, field="expires", remedy="Leave it out for a token without an end.")
        return at

    def _write(self, tokens: tuple[Token, ...]) -> None:
        if self.problem is not None:
            raise self.problem
        try:
            self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle, draft = tempfile.mkstemp(prefix=f".{self._file.name}-", dir=self._file.parent)  # 0600
            try:
                with os.fdopen(handle, "wb") as stream:
                    stream.write(msgspec.json.encode(tokens))
                    stream.flush()
                    os.fsync(stream.fileno())
                os.replace(draft, self._file)
            except BaseException:
                os.unlink(draft)
                raise
        except OSError as exc:
            raise ConfigError(where=str(self._file), problem=f"cannot be written: {exc.strerror or exc}") from exc
        self._tokens = tokens
        self._reindex()

    def _reindex(self) -> None:
        self._index = {token.sha256[:_INDEX_CHARS]: (token, token.caller) for token in self._tokens}


def iso(at: float | None) -> str | None:
    """A point of time as ISO 8601, UTC."""
    if at is None:
        return None
    return dt.datetime.fromtimestamp(at, dt.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _state(token: Token, now: float) -> str:
    if token.revoked_at is not None:
        return "revoked"
    return "expired" if token.expires_at is not None and token.expires_at <= now else "valid"


def _read(file: Path) -> tuple[Token, ...]:
    try:
        return msgspec.json.decode(file.read_bytes(), type=tuple[Token, ...])
    except FileNotFoundError:
        return ()
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise ConfigError(
            where=str(file),
            problem=f"the gateway's tokens cannot be read: {exc}",
            remedy="Move the file away and make new tokens.",
        ) from exc
