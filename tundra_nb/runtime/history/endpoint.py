"""A Dolt server as we reach it: connecting, breaking off, and what its refusals mean.

Whoever listens there must greet as a database does before the driver gets the socket: the driver would wait for ever
for a program that says nothing, and tell nothing useful about one that speaks something else.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from typing import Any, TypeAlias

import pymysql
import pymysql.converters
import pymysql.cursors
from pymysql.constants import CR

from tundra_nb.errors import QueryRefused, StoreBusy, StoreDamaged, StoreError, StoreUnavailable, TundraError
from tundra_nb.protocol import greeting

from .contract import Stop
from .protocol import Config
from .rules import apart_problem, ref_problem, sql_problem

CONNECT_SECONDS = 5
KILL_SECONDS = 2
"""Longest wait for a query that was told to end."""
ALIVE_SECONDS = 30
"""A machine that acknowledges nothing for so long is gone."""
NO_SUCH_FUNCTION = 1305
UNKNOWN_DATABASE = 1049
_LOST = {0, 2006, 2013, 2014, 2055}
_REFUSED = {2002, 2003}
_DENIED = {1044, 1045, 1698}
_NO_RIGHT = {1142, 1227, 1370}
_READ_ONLY = {1290, 1792, 1836}
_DAMAGE = re.compile(
    r"decompression error|checksum|corrupt|malformed database|root hash doesn't exist|required but not found"
    r"|cannot resolve default branch head|invalid (?:file signature|chunk|journal)|(?:table file|chunk) not found"
    r"|empty chunk|snappy:|zstd",
    re.IGNORECASE,
)
"""How Dolt words what it finds when files of its own are damaged; it has no number for that."""

Connection: TypeAlias = "pymysql.connections.Connection[pymysql.cursors.Cursor]"


@functools.lru_cache(2)
def _verified(ca_file: str, changed_ns: int) -> ssl.SSLContext:
    """What `store.tls` asks for; `changed_ns`: of the file, so that a renewed one is read."""
    del changed_ns
    return ssl.create_default_context(cafile=ca_file or None)


class DoltAddress:
    """Where the server is, and who we are there."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self.where = f"{config.host}:{config.port}"

    def connect(
        self, database: str, stop: Stop | None = None, *, as_reader: bool = False, as_text: bool = False
    ) -> Connection:
        """A connection that the caller closes; what runs on it is broken off when `stop` is due.

        Raises:
            StoreUnavailable: nobody listens, or it is no database.
            pymysql.MySQLError: the server does not let us in.
        """
        config = self._config
        is_other = as_reader and bool(config.reader_user)
        db: Connection = pymysql.connect(
            host=config.host,
            port=config.port,
            user=config.reader_user if is_other else config.user,
            password=config.reader_password if is_other else config.password,
            database=database or None,
            charset="utf8mb4",
            autocommit=True,
            conv=dict(pymysql.converters.encoders) if as_text else None,  # type: ignore[arg-type]  # no decoders
            ssl=self._tls(),
            ssl_disabled=not config.tls,  # else the driver loads the system's certificates, 20 ms, and trusts any
            defer_connect=True,
        )
        sock = self._greeted()
        try:
            db.connect(sock)
        except BaseException as exc:
            sock.close()
            if problem := self._tls_problem(exc):
                raise problem from exc
            if is_other and isinstance(exc, pymysql.MySQLError) and exc.args[:1] and exc.args[0] in _DENIED:
                raise StoreUnavailable(
                    problem=f"{self.where} does not let user {config.reader_user!r} in: {exc.args[-1]}",
                    remedy="Correct `store.reader_user`, and the password in the variable that"
                    " `store.reader_password_env` names; or unset both.",
                    kind="access",
                ) from exc
            raise
        sock = db._sock  # type: ignore[attr-defined]  # noqa: SLF001 - with TLS it is another one
        if stop is not None:
            number: int = db.thread_id()  # type: ignore[no-untyped-call]
            # a thread of its own, because whoever looks after the deadlines must not wait for a server that hangs
            killer = threading.Thread(target=self._break_off, args=(number, sock, as_reader), daemon=True)
            stop.set_hook(killer.start)
        return db

    def _tls(self) -> ssl.SSLContext | None:
        if not self._config.tls:
            return None
        try:
            changed = os.stat(self._config.ca_file).st_mtime_ns if self._config.ca_file else 0
            return _verified(self._config.ca_file, changed)
        except (OSError, ssl.SSLError) as exc:
            raise StoreUnavailable(
                problem=f"the certificates in {self._config.ca_file} cannot be read: {exc}",
                remedy="Correct `store.ca_file`.",
                kind="tls",
            ) from exc

    def _tls_problem(self, exc: BaseException) -> StoreUnavailable | None:
        """What is wrong with the encryption, if that is what is."""
        cause = getattr(exc, "original_exception", exc)
        if isinstance(cause, ssl.SSLError):
            words = getattr(cause, "verify_message", "") or str(cause)
            return StoreUnavailable(
                problem=f"{self.where} is not trusted: {words}",
                remedy="`store.ca_file` names the certificate of the authority that signed the server's; `store.host`"
                " must be a name in it.",
                kind="tls",
            )
        if isinstance(exc, pymysql.MySQLError) and exc.args[:1] == (CR.CR_SSL_CONNECTION_ERROR,):
            return StoreUnavailable(
                problem=f"{self.where} does not encrypt, and `store.tls` demands it",
                remedy="Give the server a certificate (`tls_cert`, `tls_key` of its `listener`).",
                kind="tls",
            )
        if isinstance(exc, pymysql.MySQLError) and "insecure connection" in str(exc.args[-1:]):
            return StoreUnavailable(
                problem=f"{self.where} takes only connections that are encrypted",
                remedy="Set `store.tls` to true; and `store.ca_file` for a certificate of an authority of your own.",
                kind="tls",
            )
        return None

    def _greeted(self) -> socket.socket:
        """A socket on which a database has said that it is one; nothing is read from it yet."""
        try:
            sock = socket.create_connection((self._config.host, self._config.port), CONNECT_SECONDS)
        except OSError as exc:
            raise self._refused() from exc
        try:
            _watch(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, greeting.FIRST_BYTES)  # Dolt sends it in two pieces
            first = sock.recv(64, socket.MSG_PEEK)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
        except TimeoutError as exc:
            sock.close()
            raise StoreUnavailable(
                problem=f"{self.where} says nothing within {CONNECT_SECONDS} s: it hangs, or is not Dolt",
                remedy="Look at that server; or point `store.host` and `store.port` at Dolt's (ours is on port 3307).",
                kind="silent",
            ) from exc
        except OSError as exc:
            sock.close()
            raise self._lost(str(exc)) from exc
        if not first:
            sock.close()
            raise self._lost("it hangs up at once; is it Dolt that `store.port` names?")
        if not greeting.is_database(first):
            sock.close()
            words = first.decode("ascii", "replace").split("\r")[0].split("\n")[0].strip()
            raise self.not_dolt(f"no database (it says {words[:40]!r})")
        return sock

    def _break_off(self, number: int, sock: socket.socket, as_reader: bool) -> None:
        """End a query from a second connection; when it does not end by that, end the wait for its answer."""
        with contextlib.suppress(StoreUnavailable, pymysql.MySQLError, OSError):
            with contextlib.closing(self.connect(self._config.database, as_reader=as_reader)) as db:
                run(db, "KILL QUERY %s", number)
            time.sleep(KILL_SECONDS)
        with contextlib.suppress(OSError):  # closed already, when the query has ended
            sock.shutdown(socket.SHUT_RDWR)

    def refuse_others(self, db: Connection) -> None:
        """Raise if the server on this connection is not Dolt."""
        try:
            run(db, "SELECT dolt_version()")
        except pymysql.MySQLError as exc:
            if exc.args[0] != NO_SUCH_FUNCTION:
                raise
            server = str(db.get_server_info())  # type: ignore[no-untyped-call]
            name = greeting.product(server)
            raise self.not_dolt("MySQL" if name == greeting.LIKE_DOLT else name) from exc

    def not_dolt(self, what: str) -> StoreUnavailable:
        return StoreUnavailable(
            problem=f"{self.where} is {what}, not Dolt",
            remedy="Point `store.port` at Dolt's server (ours is 3307), or start one with `tundra dolt start`.",
            kind="not_dolt",
        )

    @contextlib.contextmanager
    def seam(self, name: str = "", *, stop: Stop | None = None, is_sql: bool = False) -> Iterator[None]:
        """Where the driver's and the server's errors become ours.

        `name` is the ref or remote that the statement is about; `is_sql` marks a statement that a user wrote.
        """
        try:
            yield
        except TundraError:
            raise
        except (pymysql.MySQLError, OSError) as exc:
            raise self._translated(exc, name, stop, is_sql) from exc

    def _translated(self, exc: Exception, name: str, stop: Stop | None, is_sql: bool) -> TundraError:
        number = exc.args[0] if exc.args and isinstance(exc.args[0], int) else 0
        text = str(exc.args[-1]) if exc.args else str(exc)
        text = text.partition("\ngoroutine ")[0]  # where a panic of the server's came from
        if stop is not None and stop.is_due:
            return stop.error()
        if number in _REFUSED:
            return self._refused()
        if number in _LOST or isinstance(exc, OSError):
            if is_sql and self._answers():  # so Dolt ends a statement that fails when rows of it are on their way
                return QueryRefused(problem="the server broke the statement off in the middle of its rows")
            return self._lost(text)
        if (_DAMAGE.match if is_sql else _DAMAGE.search)(text):  # the words of a user's statement may be in it
            return self._damaged(text)
        if is_sql:
            return QueryRefused(problem=sql_problem(text))
        known = self._not_allowed(number, text)
        if known is not None:
            return known
        if number == 1213:
            return StoreBusy(problem=f"another client changed the same rows: {text}", kind="conflict")
        if "no space left on device" in text:  # in Go's words: Dolt has no number for it
            return self._full()
        if name:
            return apart_problem(text, name) or ref_problem(text, name)
        return StoreError(problem=f"Dolt refused: {text} ({number})")

    def _not_allowed(self, number: int, text: str) -> StoreUnavailable | None:
        if number in _DENIED:
            name = greeting.product(greeting.ask(self._config.host, self._config.port) or text)
            if (
                name != greeting.LIKE_DOLT
            ):  # Dolt greets as MySQL does: then it may be Dolt, and the login is what is wrong
                return self.not_dolt(name)
            return self._denied("in", text)
        if number in _NO_RIGHT or "denied to user" in text:
            return self._denied("write", text)
        if number == UNKNOWN_DATABASE:
            return self.unknown_database()
        if number in _READ_ONLY or "read only" in text.lower() or "read-only" in text.lower():
            return self._no_writes(text)
        return None

    def unknown_database(self) -> StoreUnavailable:
        """Why there is no database of ours: another server, none was made, or its files were deleted."""
        try:
            with contextlib.closing(self.connect("")) as db:
                self.refuse_others(db)
                deleted = self.deleted_under(db)
        except StoreUnavailable as error:
            return error
        except (pymysql.MySQLError, OSError):
            deleted = None  # the first error tells more
        return deleted or StoreUnavailable(
            problem=f"{self.where} has no database {self._config.database!r}",
            remedy="`tundra versions create` makes it, `tundra restore` brings a backup back; or correct"
            " `store.database`.",
            kind="unknown_database",
        )

    def deleted_under(self, db: Connection) -> StoreUnavailable | None:
        """The error for a server that lists the database and has no files of it: it takes writes, and keeps nothing."""
        name = self._config.database
        if (name,) not in run(db, "SHOW DATABASES"):
            return None
        try:
            run(db, f"SHOW TABLES FROM `{name}`")
        except pymysql.MySQLError as exc:
            if exc.args[:1] != (UNKNOWN_DATABASE,):
                return None  # damaged, or not for us to see: whoever needs it is told
        else:
            return None
        return StoreUnavailable(
            problem=f"the files of database {name!r} at {self.where} were deleted under the running server",
            remedy="Start it anew: `tundra dolt stop --force`, then `tundra dolt start` (a server of others: as they"
            " do). Then `tundra restore` brings a backup back, or `tundra versions create` begins a new history; what"
            " the spool still holds is delivered again.",
            kind="deleted",
        )

    def _refused(self) -> StoreUnavailable:
        return StoreUnavailable(
            problem=f"no server answers at {self.where}",
            remedy="`tundra dolt start` runs one; or correct `store.host` and `store.port`.",
            kind="refused",
        )

    def _lost(self, text: str) -> StoreUnavailable:
        return StoreUnavailable(problem=f"the connection to {self.where} was lost: {text}", kind="lost")

    def _denied(self, what: str, text: str) -> StoreUnavailable:
        rights = f"Grant it everything on `{self._config.database}`, or" if what == "write" else "Correct"
        choice = "choose another `store.user`" if what == "write" else "`store.user`"
        anew = " The logins of a server of ours are read anew by `tundra daemon restart`." if what == "in" else ""
        return StoreUnavailable(
            problem=f"{self.where} does not let user {self._config.user!r} {what}: {text}",
            remedy=f"{rights} {choice}, and the password in the variable that `store.password_env` names.{anew}",
            kind="access",
        )

    def _full(self) -> StoreUnavailable:
        return StoreUnavailable(
            problem=f"no space left for the files of {self.where}",
            remedy="Free disk space there. A server that has met a full disk may say so for good: one that `tundra dolt"
            " start` runs is then started anew by itself, within seconds; a server of others: as they do. Events wait"
            " in the spool until then.",
            kind="disk_full",
        )

    def _no_writes(self, text: str) -> StoreUnavailable:
        role = self._cluster_role()
        if role in ("", "primary"):
            return StoreUnavailable(
                problem=f"{self.where} takes no writes: {text}",
                remedy="Point the store at the primary, or end the server's read-only mode.",
                kind="read_only",
            )
        return StoreUnavailable(
            problem=f"{self.where} is a {role} of its cluster and takes no writes: {text}",
            remedy="Point `store.host` and `store.port` at the primary; or, when that one is gone for good, make this"
            " one the primary with `CALL dolt_assume_cluster_role('primary', EPOCH)`.",
            kind="standby",
        )

    def _answers(self) -> bool:
        try:
            self.connect("").close()
        except (StoreUnavailable, pymysql.MySQLError, OSError):
            return False
        return True

    def _cluster_role(self) -> str:
        """Empty for a server that is in no cluster."""
        try:
            with contextlib.closing(self.connect("")) as db:
                return str(run(db, "SELECT @@GLOBAL.dolt_cluster_role")[0][0] or "")
        except (StoreUnavailable, pymysql.MySQLError, OSError):
            return ""  # the variable exists in a cluster only

    def _damaged(self, text: str) -> StoreDamaged:
        return StoreDamaged(
            problem=f"the files of database {self._config.database!r} at {self.where} are damaged: {text}",
            remedy="`tundra restore` brings a backup back; what the spool still holds is delivered again.",
            kind="corrupt",
        )


def run(db: Connection, text: str, *values: Any) -> tuple[tuple[Any, ...], ...]:
    """All rows of one statement."""
    with db.cursor() as cursor:
        cursor.execute(text, values or None)
        return tuple(cursor.fetchall())


def drop(db: Connection) -> None:
    """Close without reading what is left of a result, as a graceful close would."""
    with contextlib.suppress(pymysql.MySQLError, OSError):
        db._force_close()  # type: ignore[attr-defined]  # noqa: SLF001 - the driver offers no other way


def _watch(sock: socket.socket) -> None:
    """Make the system notice when the other machine is gone: without an answer it would wait for hours."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", ALIVE_SECONDS // 2),
        ("TCP_KEEPINTVL", ALIVE_SECONDS // 6),
        ("TCP_KEEPCNT", 3),
        ("TCP_USER_TIMEOUT", ALIVE_SECONDS * 1000),
    ):
        if hasattr(socket, name):  # not on every system
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
