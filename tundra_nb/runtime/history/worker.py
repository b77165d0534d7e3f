"""The store worker: `python -m tundra_nb.runtime.history.worker FD`, a child of the daemon.

It owns the database: one thread writes (`writer`), a few answer requests. Setup comes as JSON on standard input,
requests over the socket FD (`protocol`). It ends when asked to, or when the daemon's end of that socket closes.

Nothing imported at the top may import `sqlite3`: `loading` has to come first, and the dialect after it.

"""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import importlib.abc
import logging
import os
import selectors
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from tundra_nb import environment
from tundra_nb.errors import Cancelled, ConfigError, InternalError, StoreBusy, TundraError, UsageError
from tundra_nb.protocol.digest import digest
from tundra_nb.types import FRAME_VERSION, FRAMES, columns

from . import arrow, grouping, loading
from .contract import EventStore, Frame, Stop
from .protocol import (
    ARROW,
    END,
    ERROR,
    FATAL,
    HELLO,
    JSON,
    META,
    PROGRESS,
    Config,
    Hello,
    Progress,
    Request,
    pack,
    receive_frame,
)
from .query import FrameQuery
from .writer import Writer

log = logging.getLogger("tundra.history")

READERS = 12
"""Requests at a time: a slow client occupies one, and must not keep others waiting."""
SETTLE_SECONDS = 1.0
"""Longest wait of a request until the writer has passed the spool's end."""
OPEN_SECONDS = 3.0
SEND_SECONDS = 120.0
"""A daemon that takes nothing for so long has forgotten the request."""
WATCH_SECONDS = 0.25
WHOLE = frozenset({"commit", "tag"})
"""What would pin a part for the whole while the writer is behind."""


class Worker:
    """Takes requests from the control line and hands them to threads."""

    def __init__(self, config: Config, store: EventStore, control: socket.socket) -> None:
        self._config = config
        self._store = store
        self._control = control
        self._sending = threading.Lock()
        self._writer = Writer(store, config, self._on_progress, self._on_fatal)
        self._pool = concurrent.futures.ThreadPoolExecutor(READERS, thread_name_prefix="history-reader")
        self._selector = selectors.DefaultSelector()
        self._active: dict[socket.socket, Stop] = {}
        self._done: collections.deque[socket.socket] = collections.deque()
        self._wake_in, self._wake_out = socket.socketpair()
        self._wake_in.setblocking(False)
        self._ending = False
        self._reading: dict[str, Callable[[dict[str, Any], Stop], Any]] = {
            "frame": self._frame,
            "rows": lambda p, stop: arrow.rows(self._frame(p, stop).batches),
            "sql": lambda p, stop: store.sql(p["text"], self._at(p.get("at")), p.get("limit"), stop),
            "diff": lambda p, stop: store.diff(p["a"], p["b"], p["table"], p.get("limit"), stop),
            "log": lambda p, _: store.log(p.get("limit"), p.get("ref", "HEAD")),
            "resolve": lambda p, _: store.resolve(p["ref"]),
            "stat": lambda p, _: store.stat(p["a"], p["b"]),
            "history": lambda p, stop: store.history(p["table"], p.get("key"), stop),
            "tables": lambda _p, _s: store.tables(),
            "refs": lambda _p, _s: store.refs(),
            "check": lambda _p, _s: store.check(),
            "create": lambda _p, _s: True,
            "digests": self._digests,
        }
        self._writing: dict[str, Callable[..., Any]] = {
            "commit": store.commit,
            "branch": store.branch,
            "tag": store.tag,
            "propose": store.propose,
            "merge": store.merge,
            "revert": store.revert,
            "push": store.push,
            "pull": store.pull,
            "clone": store.clone,
            "backup": store.backup,
            "gc": store.gc,
        }

    def run(self) -> None:
        """Serve until the control line closes or a `stop` request has been answered."""
        self._selector.register(self._control, selectors.EVENT_READ)
        self._selector.register(self._wake_out, selectors.EVENT_READ)
        self._send(HELLO, Hello(pid=os.getpid(), engine=self._store.engine))
        self._writer.start()
        while not self._ending:
            for key, _ in self._selector.select(WATCH_SECONDS if self._active else None):
                if key.fileobj is self._control:
                    self._accept()
                elif key.fileobj is self._wake_out:
                    self._wake_out.recv(4096)
                else:
                    self._hung_up(key.fileobj)  # type: ignore[arg-type]
            while self._done:
                self._forget(self._done.popleft())
            for stop in self._active.values():
                stop.enforce()
        self._writer.stop()
        self._writer.join(OPEN_SECONDS)

    def _accept(self) -> None:
        try:
            data, descriptors, _, _ = socket.recv_fds(self._control, 1, 1)
        except OSError:
            data, descriptors = b"", []
        if not data:
            self._ending = True
            return
        for descriptor in descriptors:
            sock = socket.socket(fileno=descriptor)
            sock.settimeout(SEND_SECONDS)
            try:
                _, payload = receive_frame(sock)
                request = msgspec.json.decode(payload, type=Request)
            except (OSError, msgspec.MsgspecError):
                sock.close()
                continue
            if request.method == "ping":  # answered here, so that slow queries do not make us look dead
                with contextlib.suppress(OSError):
                    sock.sendall(pack(JSON, b"true"))
                sock.close()
                continue
            stop = Stop()
            self._active[sock] = stop
            self._selector.register(sock, selectors.EVENT_READ)
            self._pool.submit(self._serve, sock, request, stop)

    def _hung_up(self, sock: socket.socket) -> None:
        """The daemon sends nothing after the request: readable means closed."""
        self._selector.unregister(sock)
        self._active[sock].cancel()

    def _forget(self, sock: socket.socket) -> None:
        del self._active[sock]
        with contextlib.suppress(KeyError):
            self._selector.unregister(sock)
        sock.close()

    # --- on a reader's thread ---

    def _serve(self, sock: socket.socket, request: Request, stop: Stop) -> None:
        try:
            self._answer(sock, request, stop)
        except Cancelled:
            pass
        except TundraError as exc:
            self._report(sock, exc)
        except OSError:
            pass  # the daemon has closed the request
        except Exception as exc:  # noqa: BLE001 - the top of a request: the daemon is told, the log has the rest
            traceback.print_exc()
            self._report(sock, InternalError(problem=f"the store worker failed in `{request.method}`: {exc!r}"))
        finally:
            if request.method == "stop":
                self._ending = True
            self._done.append(sock)
            with contextlib.suppress(OSError):
                self._wake_in.send(b"!")

    def _answer(self, sock: socket.socket, request: Request, stop: Stop) -> None:
        if request.method == "stop":
            self._writer.stop(request.after)
            self._writer.join()
            sock.sendall(pack(JSON, b"true"))
            return
        if request.method == "settle":
            assert request.after is not None
            passed = self._writer.wait_passed(request.after, request.params["timeout"])
            sock.sendall(pack(JSON, b"true" if passed else b"false"))
            return
        if request.method == "create":
            self._store.create()
            self._writer.retry()
        if request.method == "restore":  # the way out when the database is damaged
            self._writer.run_job(lambda: self._store.restore(**request.params), repairs=True)
            sock.sendall(pack(JSON, b"null"))
            return
        self._writer.wait_open(OPEN_SECONDS)
        seconds = SETTLE_SECONDS if request.wait is None else request.wait
        is_behind = request.after is not None and not self._writer.wait_passed(request.after, seconds)
        stop.renew()
        if request.method in self._reading:
            result = self._reading[request.method](request.params, stop)
        elif request.method in self._writing:
            if is_behind and request.method in WHOLE:
                raise StoreBusy(
                    problem=f"not all events are in the store yet, and a {request.method} would leave them out",
                    remedy="Wait a moment and do it again; `tundra status` says how far the store is behind.",
                    kind="behind",
                )
            action = self._writing[request.method]
            result = self._writer.run_job(lambda: action(**request.params))
        else:
            raise UsageError(problem=f"the store has no method {request.method!r}")
        if isinstance(result, Frame):
            self._stream(sock, result, is_behind=is_behind)
        else:
            sock.sendall(pack(JSON, msgspec.json.encode(result)))

    def _stream(self, sock: socket.socket, frame: Frame, *, is_behind: bool) -> None:
        with contextlib.closing(frame.batches):
            meta = {"store": self._store.engine, **frame.meta, "behind": is_behind}
            if is_behind:
                meta["stored_until"] = self._writer.stored_until
            sock.sendall(pack(META, msgspec.json.encode(meta)))
            for piece in arrow.encode(frame.schema, frame.batches):
                sock.sendall(pack(ARROW, piece))
            sock.sendall(pack(END, b""))

    def _report(self, sock: socket.socket, error: TundraError) -> None:
        with contextlib.suppress(OSError):
            sock.sendall(pack(ERROR, msgspec.json.encode(error.to_wire())))

    def _frame(self, params: dict[str, Any], stop: Stop) -> Frame:
        query = msgspec.convert(params, FrameQuery)
        query = msgspec.structs.replace(query, at=self._at(query.at))
        if not query.is_grouped:
            return self._store.frame(query, stop)
        frame = self._store.frame(grouping.ungrouped(query), stop)
        with contextlib.closing(frame.batches):
            return grouping.grouped(frame, query)

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

    def _at(self, ref: str | int | None) -> str | None:
        return None if ref is None else self._store.resolve(ref)

    # --- on the writer's thread ---

    def _on_progress(self, progress: Progress) -> None:
        self._send(PROGRESS, progress)

    def _on_fatal(self, error: TundraError) -> None:
        self._send(FATAL, error.to_wire())
        os._exit(1)

    def _send(self, kind: bytes, body: Any) -> None:
        with self._sending, contextlib.suppress(OSError):
            self._control.sendall(pack(kind, msgspec.json.encode(body)))


def make_store(config: Config) -> EventStore:
    """The store of the configured engine, not yet open. Raises `ConfigError` when the engine cannot be loaded."""
    if config.engine == "dolt":
        from .dolt import DoltStore

        return DoltStore(config)
    loading.load()
    from .doltlite import DoltliteStore

    return DoltliteStore(Path(config.store))


class _WithoutPandas(importlib.abc.MetaPathFinder):
    """pyarrow imports pandas at the first array, only to see whether it is given a Series: 0.4 s and 40 MB."""

    def find_spec(self, fullname: str, _path: Any, _target: Any = None) -> None:
        if fullname == "pandas":
            raise ModuleNotFoundError("the store worker does without pandas", name=fullname)


def main() -> int:
    """Run the worker; the exit code is 0 after an orderly end."""
    environment.keep_others_out()
    os.umask(0o077)  # the engine makes its files without a word about their mode
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(levelname)s %(message)s")
    sys.meta_path.insert(0, _WithoutPandas())
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
