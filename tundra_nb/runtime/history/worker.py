"""The store worker: `python -m tundra_nb.runtime.history.worker FD`, a child of the daemon.

It owns the database: one thread writes (`writer`), a few answer requests. Setup comes as JSON on standard input,
requests over the socket FD (`protocol`). It ends when asked to, or when the daemon's end of that socket closes.

Nothing imported at the top may import `sqlite3`: `loading` has to come first, and the dialect after it.

"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from tundra_nb import environment
from tundra_nb.errors import ConfigError, StoreBusy, StoreError, TundraError, UsageError
from tundra_nb.protocol.digest import digest
from tundra_nb.types import FRAME_VERSION, FRAMES, KEY_OF, columns

from . import loading, schema, story
from .contract import EventStore, Frame, Stop
from .protocol import FATAL, HELLO, JSON, PROGRESS, TRACES, Config, Hello, Progress, WorkerRequest, pack
from .query import Condition, FrameQuery, ungrouped
from .serving import LineServer
from .spool import writer_id
from .values import Brought, Described, Merge, Overview, Rows
from .without import without_pandas
from .writer import Writer, signed

if TYPE_CHECKING:
    from tundra_nb.runtime.telemetry.sender import Sender

log = logging.getLogger("tundra.history")

SETTLE_SECONDS = 1.0
"""Longest wait of a request until the writer has passed the spool's end."""
OPEN_SECONDS = 3.0
WHOLE = frozenset({"commit", "tag"})
"""What would pin a part for the whole while the writer is behind."""


class Worker(LineServer):
    """Answers requests over one store, and has its writer."""

    def __init__(self, config: Config, store: EventStore, control: socket.socket) -> None:
        super().__init__(control)
        self._config = config
        self._store = store
        self._writer = Writer(store, config, self._on_progress, self._on_fatal)
        self._sender: Sender | None = None
        self._reading: dict[str, Callable[[dict[str, Any], Stop], Any]] = {
            "frame": self._frame,
            "rows": self._rows,
            "sql": lambda p, stop: store.sql(p["text"], self._at(p.get("at")), p.get("limit"), stop),
            "diff": self._diff,
            "log": lambda p, _: store.log(p.get("limit"), p.get("ref", "HEAD")),
            "resolve": lambda p, _: store.resolve(p["ref"]),
            "stat": lambda p, _: store.stat(p["a"], p["b"]),
            "history": lambda p, stop: store.history(p["table"], p.get("key"), stop, p.get("writer")),
            "describe": lambda p, _: self._described(p["ref"]),
            "overview": lambda _p, _s: Overview(store.log(1)[0], store.tables(), store.refs()),
            "story": self._story,
            "tables": lambda _p, _s: store.tables(),
            "refs": lambda _p, _s: store.refs(),
            "check": lambda _p, _s: store.check(),
            "create": lambda _p, _s: True,
            "digests": self._digests,
            "below": self._below,
        }
        self._writing: dict[str, Callable[..., Any]] = {
            "commit": store.commit,
            "commit_events": store.commit_events,
            "branch": self._naming(store.branch),
            "tag": self._naming(store.tag),
            "propose": self._propose,
            "merge": self._with_settings(store.merge),
            "revert": self._with_settings(lambda ref, author: Merge(store.revert(ref, author))),
            "push": self._then_main(store.push),
            "pull": store.pull,
            "clone": store.clone,
            "backup": self._then_main(store.backup),
            "gc": store.gc,
        }

    def run(self) -> None:
        """Serve until the control line closes or a `stop` request has been answered."""
        self.send(HELLO, Hello(pid=os.getpid(), engine=self._store.engine))
        self._writer.start()
        self._trace(self._config.traces)
        self.serve()
        if self._sender is not None:
            self._sender.stop()
        self._writer.stop()
        self._writer.join(OPEN_SECONDS)

    # --- on a reader's thread ---

    def answer(self, sock: socket.socket, request: WorkerRequest, stop: Stop) -> None:
        if request.method == "stop":
            try:
                self._writer.stop(request.after)
                self._writer.join()
                sock.sendall(pack(JSON, b"true"))
            finally:
                self.end()
            return
        if request.method == "settle":
            assert request.after is not None
            passed = self._writer.wait_passed(request.after, request.params["timeout"])
            sock.sendall(pack(JSON, b"true" if passed else b"false"))
            return
        if request.method == "traces":
            self._trace(request.params)
            sock.sendall(pack(JSON, b"null"))
            return
        if request.method == "create":
            self._store.create()
            self._writer.retry()
        if request.method == "restore":  # the way out when the database is damaged
            kept = self._writer.run_job(lambda: self._store.restore(**request.params), repairs=True)
            sock.sendall(pack(JSON, msgspec.json.encode(kept)))
            return
        self._writer.wait_open(OPEN_SECONDS)
        seconds = SETTLE_SECONDS if request.wait is None else request.wait
        is_behind = request.after is not None and not self._writer.wait_passed(request.after, seconds)
        stop.renew()
        if request.method in self._reading:
            result = self._reading[request.method](request.params, stop)
        elif request.method in self._writing:
            if is_behind and request.method in WHOLE:
                raise self._writer.problem or StoreBusy(
                    problem=f"not all events are in the store yet, and a {request.method} would leave them out",
                    remedy="Wait a moment and do it again; `tundra status` says how far the store is behind.",
                    kind="behind",
                )
            action = self._writing[request.method]
            result = self._writer.run_job(lambda: action(**request.params))
        else:
            raise UsageError(problem=f"the store has no method {request.method!r}")
        if isinstance(result, Frame):
            more: dict[str, Any] = {"store": self._store.engine, "behind": is_behind}
            if is_behind:
                more["stored_until"] = self._writer.stored_until
            self.stream(sock, result, more)
        else:
            sock.sendall(pack(JSON, msgspec.json.encode(result)))

    def _trace(self, params: dict[str, Any]) -> None:
        """Send traces there from now on, or none."""
        sender, self._sender, self._writer.on_stored = self._sender, None, None
        if sender is not None:
            sender.stop()
        if not params.get("endpoint"):
            return
        from tundra_nb.runtime.telemetry.sender import Sender, Traces

        def rows(query: FrameQuery) -> list[dict[str, Any]]:
            return self._store.rows(query, Stop())

        self._sender = sender = Sender(
            msgspec.convert(params, Traces),
            rows,
            writer_id(self._config.owner),
            Path(self._config.spool).parent / "traces" / "settled",
            self._wait_ready,
            lambda stats: self.send(TRACES, stats),
        )
        self._writer.on_stored = sender.offer
        sender.start()

    def _wait_ready(self) -> None:
        while True:
            try:
                self._writer.wait_open(OPEN_SECONDS)
            except StoreError:
                time.sleep(OPEN_SECONDS)
            else:
                return

    def _frame(self, params: dict[str, Any], stop: Stop) -> Frame:
        query = self._pinned(msgspec.convert(params, FrameQuery))
        if not query.is_grouped:
            return self._store.frame(query, stop)
        from . import grouping

        frame = self._store.frame(ungrouped(query), stop)
        with contextlib.closing(frame.batches):
            return grouping.grouped(frame, query)

    def _rows(self, params: dict[str, Any], stop: Stop) -> list[dict[str, Any]]:
        query = msgspec.convert(params, FrameQuery)
        if not query.is_grouped:
            return self._store.rows(self._pinned(query), stop)
        from . import arrow

        return arrow.rows(self._frame(params, stop).batches)

    def _pinned(self, query: FrameQuery) -> FrameQuery:
        return msgspec.structs.replace(query, at=self._at(query.at))

    def _diff(self, params: dict[str, Any], stop: Stop) -> Frame:
        from . import differences

        before, after, limit = self._store.resolve(params["a"]), self._store.resolve(params["b"]), params.get("limit")
        if params["table"] is None:
            return differences.every_table(self._store, before, after, limit, stop)
        return self._store.diff(before, after, params["table"], limit, stop)

    def _described(self, ref: str | int) -> Described:
        (commit,) = self._store.log(1, self._store.resolve(ref))
        kinds = [known.kind for known in self._store.refs() if known.name == ref]
        return Described(commit, kinds[0] if kinds else "commit")

    def _story(self, params: dict[str, Any], stop: Stop) -> story.StoredStory:
        def rows(query: FrameQuery) -> list[dict[str, Any]]:
            return self._store.rows(self._pinned(query), stop)

        wanted = msgspec.convert(params["wanted"], story.WantedOperation)
        is_shared = self._store.engine == "dolt" and not wanted.all
        return story.tell(rows, wanted, writer_id(self._config.owner) if is_shared else "")

    def _propose(self, branch: str, rows: Rows, message: str, author: str) -> str:
        """As rows of this daemon: merged, they are what it has in force."""
        writer = writer_id(self._config.owner)
        own = {table: list(signed(table, some, writer)) for table, some in rows.items()}
        return self._store.propose(branch, own, message, author)

    def _naming(self, name: Callable[..., None]) -> Callable[..., str | None]:
        """Makes or deletes a branch or tag; tells the hash that it names."""

        def named(**params: Any) -> str | None:
            name(**params)
            return None if params.get("delete") else self._store.resolve(params["name"])

        return named

    def _then_main(self, copy: Callable[..., None]) -> Callable[..., str]:
        """Copies the history to somewhere; tells the hash that `main` has there."""

        def copied(**params: Any) -> str:
            copy(**params)
            return self._store.resolve("main")

        return copied

    def _with_settings(self, change: Callable[..., Merge]) -> Callable[..., Brought]:
        """Changes `main`; tells which of this daemon's settings have another value by that."""

        def brought(**params: Any) -> Brought:
            if "ref" in params:
                params["ref"] = self._store.resolve(params["ref"])
            self._store.commit_events()  # the change does, too: what `main` gets by that is not its own
            ref, before = params.get("ref", ""), self._store.resolve(schema.MAIN)
            merged = change(**params)
            if merged.commit is None or merged.commit == before:
                return Brought(merged.commit, merged.conflicts, ref=ref, is_new=False)
            tables = [stat.table for stat in self._store.stat(before, merged.commit)]
            if "setting" not in tables:
                return Brought(merged.commit, ref=ref, tables=tables)
            was, now = self._settings(before), self._settings(merged.commit)
            changed = {path: value for path, value in now.items() if value != was.get(path)}
            return Brought(merged.commit, ref=ref, settings=changed, tables=tables)

        return brought

    def _settings(self, commit: str) -> dict[str, str]:
        own = [Condition("writer_id", "eq", writer_id(self._config.owner))] if self._store.engine == "dolt" else []
        rows = self._store.rows(FrameQuery(table="setting", at=commit, where=own), Stop())
        return {row["path"]: row["value"] for row in rows}

    def _digests(self, params: dict[str, Any], stop: Stop) -> dict[str, dict[str, Any]]:
        """Rows and SHA-256 of each of these frames in a window, over the columns of a frame version."""
        import pyarrow as pa

        at = self._at(params.get("at"))
        found = {}
        for name in params["frames"]:
            query = FrameQuery(table=FRAMES[name], since_us=params["since_us"], until_us=params["until_us"], at=at)
            frame = self._store.frame(query, stop)
            with contextlib.closing(frame.batches):
                table = pa.Table.from_batches(list(frame.batches), schema=frame.schema)
            names = [column.name for column in columns(query.table, params.get("version", FRAME_VERSION))]
            found[name] = {"rows": table.num_rows, "sha256": digest(table, names)}
        return found

    def _below(self, params: dict[str, Any], stop: Stop) -> int:
        """How many rows of a table have a key below one: all, which the engines know, but those from there on."""
        from . import arrow

        table, at = params["table"], self._at(params.get("at"))

        def counted(where: str) -> int:
            frame = self._store.sql(f"SELECT count(*) AS counted FROM {table}{where}", at, 1, stop)  # noqa: S608
            with contextlib.closing(frame.batches):
                return int(arrow.rows(frame.batches)[0]["counted"])

        return counted("") - counted(f" WHERE {KEY_OF[table]} >= {int(params['key'])}")

    def _at(self, ref: str | int | None) -> str | None:
        return None if ref is None else self._store.resolve(ref)

    # --- on the writer's thread ---

    def _on_progress(self, progress: Progress) -> None:
        self.send(PROGRESS, progress)

    def _on_fatal(self, error: TundraError) -> None:
        self.send(FATAL, error.to_wire())
        os._exit(1)


def make_store(config: Config) -> EventStore:
    """The store of the configured engine, not yet open. Raises `ConfigError` when the engine cannot be loaded."""
    if config.engine == "dolt":
        from .dolt import DoltStore

        return DoltStore(config)
    loading.load()
    from .doltlite import DoltliteStore

    return DoltliteStore(Path(config.store))


def main() -> int:
    """Run the worker; the exit code is 0 after an orderly end."""
    environment.keep_others_out()
    environment.go_on_without_parent()
    os.umask(0o077)  # the engine makes its files without a word about their mode
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(levelname)s %(message)s")
    without_pandas()
    # An interrupt typed at the terminal is for the daemon, which ends us in its own order.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    control = socket.socket(fileno=int(sys.argv[1]))
    config = msgspec.json.decode(sys.stdin.buffer.read(), type=Config)
    try:
        store = make_store(config)
    except ConfigError as exc:
        control.sendall(pack(FATAL, msgspec.json.encode(exc.to_wire())))
        return 1
    Worker(config, store, control).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
