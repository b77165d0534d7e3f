"""A Dolt server that somebody else runs, for a team: where it is, and whether we may write and read there."""

from __future__ import annotations

import contextlib
import re
import ssl
import urllib.parse
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from tundra_nb.errors import StoreUnavailable, UsageError
from tundra_nb.settings import StoreSettings

CONNECT_SECONDS = 10
SCHEMES = {"dolt": False, "mysql": False, "mysql+pymysql": False, "dolts": True, "mysqls": True}
"""How the address of a server may begin, and whether that says TLS."""
EXAMPLE = "For example `dolts://tundra@dolt.example:3307/team`; `dolt://` is without TLS."
_DATABASE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,63}")


class Joined(msgspec.Struct, frozen=True, kw_only=True):
    """What was found there."""

    version: str
    made: bool
    """The database was not there, and now is."""
    daemons: int
    """That write to it."""


def settings_of(url: str) -> dict[str, Any]:
    """The settings `store.…` that an address stands for.

    Raises:
        UsageError: it is none, or has a password in it, which is not repeated.
    """
    try:
        parts = urllib.parse.urlsplit(url)
        port = parts.port
    except ValueError as exc:
        raise UsageError(problem="this is not an address", field="URL", remedy=EXAMPLE) from exc
    if parts.password is not None:
        raise UsageError(
            problem="the address has a password in it, which would stand in a shell's history",
            field="URL",
            remedy="Leave it out: `--password-env NAME` names the variable that holds it.",
        )
    database = parts.path.strip("/")
    options = {name.lower(): value.lower() for name, value in urllib.parse.parse_qsl(parts.query)}
    unknown = set(options) - {"tls", "ssl", "ssl-mode", "sslmode"}
    if parts.scheme.lower() not in SCHEMES or not parts.hostname or unknown or not _DATABASE.fullmatch(database):
        raise UsageError(problem=f"{url[:80]!r} is not a database on a Dolt server", field="URL", remedy=EXAMPLE)
    wants_tls = any(value not in ("0", "false", "no", "disabled", "disable") for value in options.values())
    return {
        "engine": "dolt",
        "host": parts.hostname,
        "port": 3307 if port is None else port,
        "database": database,
        "user": urllib.parse.unquote(parts.username or "root"),
        "tls": SCHEMES[parts.scheme.lower()] or wants_tls,
    }


def prove(store: StoreSettings, environ: Mapping[str, str]) -> Joined:
    """Log in as writer, and as reader where there is one; make the database if it is missing.

    Raises:
        StoreUnavailable: nobody answers, it is not Dolt, a login is refused, a right is missing, TLS fails.
    """
    import pymysql

    def connect(user: str, variable: str, database: str | None) -> Any:
        return pymysql.connect(
            host=store.host,
            port=store.port,
            user=user,
            password=environ.get(variable, "") if variable else "",
            database=database,
            connect_timeout=CONNECT_SECONDS,
            read_timeout=CONNECT_SECONDS,
            ssl=ssl.create_default_context(cafile=store.ca_file or None) if store.tls else None,
            ssl_disabled=not store.tls,
            autocommit=True,
        )

    with _told(store, store.user), contextlib.closing(connect(store.user, store.password_env, None)) as db:
        version = str(_rows(db, "SELECT dolt_version()")[0][0])
        made = (store.database,) not in _rows(db, "SHOW DATABASES")
        if made:
            _rows(db, f"CREATE DATABASE IF NOT EXISTS `{store.database}`")
        _rows(db, f"USE `{store.database}`")
        tables = {row[0] for row in _rows(db, "SHOW TABLES")}
        if tables and "meta" not in tables:
            raise StoreUnavailable(
                problem=f"database {store.database} of {store.host}:{store.port} holds something else",
                remedy="Name another database in the address.",
                kind="foreign",
            )
        daemons = int(_rows(db, "SELECT count(*) FROM spool_place")[0][0]) if "spool_place" in tables else 0
    if store.reader_user and not made:  # else it can be granted nothing yet
        with _told(store, store.reader_user):
            connect(store.reader_user, store.reader_password_env, store.database).close()
    return Joined(version=version, made=made, daemons=daemons)


def _rows(db: Any, text: str) -> list[tuple[Any, ...]]:
    with db.cursor() as cursor:
        cursor.execute(text)
        return list(cursor.fetchall())


@contextlib.contextmanager
def _told(store: StoreSettings, user: str) -> Iterator[None]:
    """The driver's errors as ours."""
    import pymysql

    where = f"{store.host}:{store.port}"
    try:
        yield
    except (pymysql.MySQLError, OSError) as exc:
        cause = getattr(exc, "original_exception", exc)
        number, text = (exc.args[0] if exc.args else 0), str(exc.args[-1] if exc.args else exc)
        if isinstance(cause, ssl.SSLError):
            words = getattr(cause, "verify_message", "") or str(cause)
            remedy = "`--ca-file` names the certificate of the authority that signed the server's."
            raise StoreUnavailable(problem=f"{where} is not trusted: {words}", remedy=remedy, kind="tls") from exc
        if number in (1044, 1045, 1698, 1105):
            remedy = "Correct the user, the password in the variable that is named, or the rights that it was given."
            problem = f"{where} does not let user {user!r} in: {text}"
            raise StoreUnavailable(problem=problem, remedy=remedy, kind="access") from exc
        if number == 1305:
            remedy = "Name Dolt's server; ours are on port 3307."
            raise StoreUnavailable(problem=f"{where} is not Dolt", remedy=remedy, kind="not_dolt") from exc
        remedy = "Look at host and port, and whether the server runs."
        raise StoreUnavailable(problem=f"{where} cannot be used: {text}", remedy=remedy, kind="refused") from exc
