"""The worker of the archive: `python -m tundra_nb.runtime.archive.worker FD FOLDER`, a child of the daemon.

It starts when the archive is first copied to or read, and ends when nobody asks for a while. A question that would take
more memory or time than it may ends this process at worst, and neither the daemon nor the history.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import resource
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from tundra_nb import environment
from tundra_nb.errors import UsageError
from tundra_nb.protocol.query import FrameQuery
from tundra_nb.runtime.history import arrow
from tundra_nb.runtime.history.contract import Stop
from tundra_nb.runtime.history.incoming import IncomingFrame
from tundra_nb.runtime.history.protocol import HELLO, JSON, Hello, WorkerRequest, pack
from tundra_nb.runtime.history.serving import LineServer
from tundra_nb.runtime.history.without import without_pandas
from tundra_nb.runtime.sources.tables import stored_schema

from . import copying
from .place import UNFINISHED, ArchivedDay, ArchivedPart, ArchiveFolder

if TYPE_CHECKING:
    from .reading import ArchiveReading

IDLE_SECONDS = 60.0
LAST_SECONDS = 5.0
"""What does not end so long after it was broken off is ended with the process."""
DATA_BYTES = 6 << 30
"""Most that the process may hold: what DuckDB does not count among its memory (long texts) ends there."""
PROVEN = "proven.json"
"""Which files were read and found sound, and what they looked like then."""
HASHING = 4


class ArchiveWorker(LineServer):
    """Answers requests over one archive."""

    query_seconds = 60.0

    def __init__(self, place: ArchiveFolder, control: socket.socket) -> None:
        super().__init__(control)
        self._place = place
        self._proven = _Proven(place.folder)

    def answer(self, sock: socket.socket, request: WorkerRequest, stop: Stop) -> None:
        params = request.params
        match request.method:
            case "days":
                rows = IncomingFrame(self.inputs(sock)[0])
                told: Any = copying.count(rows.batches(), params["key"], stop)
            case "copy":
                told = self._copy(sock, params, stop)
            case "verify":
                part = msgspec.convert(params["part"], ArchivedPart)
                told = copying.damage(self._place.folder, part, stop)
                if not told:
                    self._proven.note(part)
            case "compare":
                day, rows = msgspec.convert(params["day"], ArchivedDay), IncomingFrame(self.inputs(sock)[0])
                told = copying.differing(self._place.folder, day, params["table"], rows.batches(), stop)
            case "tables":
                told = _tables(params["text"])
            case "sql":
                self._sql(sock, params, stop)
                return
            case "frame" | "rows":
                self._grouped(sock, request, stop)
                return
            case _:
                raise UsageError(problem=f"the archive has no method {request.method!r}")
        sock.sendall(pack(JSON, msgspec.json.encode(told)))

    def _copy(self, sock: socket.socket, params: dict[str, Any], stop: Stop) -> list[ArchivedPart]:
        place, table = self._place, params["table"]
        rows = IncomingFrame(self.inputs(sock)[0])
        with place.writing():
            parts = copying.copy(place, table, params["day"], rows.batches(), params["frame_version"], stop)
        for part in parts:
            self._proven.note(part)
        return parts

    def _sql(self, sock: socket.socket, params: dict[str, Any], stop: Stop) -> None:
        with self._reading(sock, params, stop) as (reading, meta):
            frame = reading.sql(params["text"], params["limit"], stop)
            self.stream(sock, frame, meta)

    def _grouped(self, sock: socket.socket, request: WorkerRequest, stop: Stop) -> None:
        query = msgspec.convert(request.params["query"], FrameQuery)
        with self._reading(sock, request.params, stop) as (reading, meta):
            frame = reading.grouped(query, stop)
            if request.method == "rows":
                sock.sendall(pack(JSON, msgspec.json.encode(arrow.rows(frame.batches))))
            else:
                self.stream(sock, frame, meta)

    @contextlib.contextmanager
    def _reading(
        self, sock: socket.socket, params: dict[str, Any], stop: Stop
    ) -> Iterator[tuple[ArchiveReading, dict[str, Any]]]:
        """A database over what the request names, which ends with it, and what its answer says of itself."""
        from .reading import ArchiveReading, TablePiece, fresh, seam

        inputs = self.inputs(sock)
        pieces: dict[str, TablePiece] = {}
        meta: dict[str, Any] = {"store": params["engine"], "commit": None, "behind": False}
        for table, told in params["tables"].items():
            parts = msgspec.convert(told["parts"], list[ArchivedPart])
            self._prove(parts, stop)
            rows = None
            if told["input"] is not None:
                incoming = IncomingFrame(inputs[told["input"]])
                rows = fresh(incoming.batches(), stored_schema(table), stop)
                meta["behind"] = meta["behind"] or incoming.meta.get("behind", False)
                if "stored_until" in incoming.meta:
                    meta["stored_until"] = incoming.meta["stored_until"]
            pieces[table] = TablePiece(
                files=[part.file for part in parts],
                frame_version=told["frame_version"],
                rows=sum(part.rows for part in parts),
                fresh=rows,
            )
        archived = {"files": sum(len(piece.files) for piece in pieces.values())}
        archived["rows"] = sum(piece.rows for piece in pieces.values())
        meta["archive"] = archived
        stop.renew()
        with seam(stop):
            reading = ArchiveReading(self._place.folder, pieces)
        ending = _Ending(lambda: self._report(sock, stop.error()))
        stop.set_hook(lambda: ending.begin(reading.db.interrupt))
        try:
            yield reading, meta
        finally:
            stop.set_hook(None)
            ending.cancel()
            reading.close()

    def _prove(self, parts: list[ArchivedPart], stop: Stop) -> None:
        """Read files whose look has changed since they were last found sound.

        Raises:
            ArchiveDamaged: one is not what was written; names it.
        """
        doubtful = [part for part in parts if not self._proven.knows(part)]
        if not doubtful:
            return
        with concurrent.futures.ThreadPoolExecutor(HASHING) as pool:
            found = list(pool.map(lambda part: copying.damage(self._place.folder, part, stop), doubtful))
        for part, damage in zip(doubtful, found, strict=True):
            if damage:
                raise self._place.damaged(part.file, damage)
        for part in doubtful:
            self._proven.note(part)


class _Proven:
    """Files that were found sound, and how they looked: size, times, inode. A change of their bytes changes these."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._looks: dict[str, list[Any]] = {}
        with contextlib.suppress(OSError, msgspec.MsgspecError):
            self._looks = msgspec.json.decode((folder / PROVEN).read_bytes(), type=dict[str, list[Any]])

    def knows(self, part: ArchivedPart) -> bool:
        with self._lock:
            return self._looks.get(part.file) == self._look(part)

    def note(self, part: ArchivedPart) -> None:
        """This one is sound."""
        with self._lock:
            self._looks[part.file] = self._look(part)
            draft = self._folder / f"{UNFINISHED}proven"
            with contextlib.suppress(OSError):  # a convenience: without it files are read once more
                draft.write_bytes(msgspec.json.encode(self._looks))
                os.replace(draft, self._folder / PROVEN)

    def _look(self, part: ArchivedPart) -> list[Any]:
        try:
            now = os.stat(self._folder / part.file)
        except OSError:
            return []
        return [part.sha256, now.st_size, now.st_mtime_ns, now.st_ctime_ns, now.st_ino]


class _Ending:
    """Ends a question, and where that does not help, the process: some work of DuckDB does not look up."""

    def __init__(self, tell: Callable[[], None]) -> None:
        self._tell = tell
        self._timer: threading.Timer | None = None

    def begin(self, interrupt: Callable[[], None]) -> None:
        self._timer = threading.Timer(LAST_SECONDS, self._end)
        self._timer.daemon = True
        self._timer.start()
        interrupt()

    def cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _end(self) -> None:
        self._tell()
        os._exit(1)


def _tables(text: str) -> list[str]:
    """The tables that a statement reads; refuses what is no SELECT."""
    import duckdb

    from .statement import checked

    with duckdb.connect(":memory:", config={"threads": "1", "enable_external_access": "false"}) as db:
        return checked(text, db)[1]


def main() -> int:
    """Run the worker; the exit code is 0 after an orderly end."""
    environment.keep_others_out()
    environment.go_on_without_parent()
    os.umask(0o077)
    without_pandas()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt typed at the terminal is for the daemon
    resource.setrlimit(resource.RLIMIT_DATA, (DATA_BYTES, DATA_BYTES))
    control = socket.socket(fileno=int(sys.argv[1]))
    worker = ArchiveWorker(ArchiveFolder(Path(sys.argv[2])), control)
    worker.send(HELLO, Hello(pid=os.getpid(), engine="archive"))
    worker.serve(IDLE_SECONDS)
    return 0


if __name__ == "__main__":
    sys.exit(main())
