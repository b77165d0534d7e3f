"""The worker of sources: `python -m tundra_nb.runtime.sources.worker FD`, a child of the daemon.

It starts when a source is first read or made, and ends when nobody asks for a while. What it reads may be hostile: it
holds no key but those that it must mask, which come with the request to import.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from pathlib import Path
from typing import Any

import msgspec

from tundra_nb import environment
from tundra_nb.errors import TundraError, UsageError
from tundra_nb.paths import unwritable
from tundra_nb.protocol.query import FrameQuery
from tundra_nb.protocol.sources import Importing
from tundra_nb.runtime.history import arrow, grouping
from tundra_nb.runtime.history.contract import Frame, Stop
from tundra_nb.runtime.history.protocol import HELLO, JSON, PROGRESS, Hello, WorkerRequest, pack
from tundra_nb.runtime.history.query import ungrouped
from tundra_nb.runtime.history.serving import LineServer
from tundra_nb.runtime.history.story import WantedOperation, tell
from tundra_nb.runtime.history.without import without_pandas
from tundra_nb.runtime.telemetry.redact import Redactor

from .place import SourcesFolder
from .tables import SourceTables

IDLE_SECONDS = 60.0
PROGRESS_BYTES = 8 << 20
"""How much of a file is read between two words about the progress."""


class SourcesWorker(LineServer):
    """Answers requests over the sources of one folder."""

    def __init__(self, place: SourcesFolder, control: socket.socket) -> None:
        super().__init__(control)
        self._place = place
        self._making = threading.Lock()
        """Imports run one after the other: the second of the same file finds the first."""

    def answer(self, sock: socket.socket, request: WorkerRequest, stop: Stop) -> None:
        params = request.params
        match request.method:
            case "frame":
                self.stream(sock, self._frame(params, stop), {"behind": False})
            case "rows":
                sock.sendall(pack(JSON, msgspec.json.encode(arrow.rows(self._frame(params, stop).batches))))
            case "story":
                tables = self._tables(params["source"])
                found = tell(
                    lambda query: arrow.rows(tables.frame(query, stop).batches),
                    msgspec.convert(params["wanted"], WantedOperation),
                )
                sock.sendall(pack(JSON, msgspec.json.encode(found)))
            case "sql":
                tables = self._tables(params["source"])
                tables.check_at(params["at"])
                self.stream(sock, tables.sql(params["text"], params["limit"], stop), {"behind": False})
            case "import":
                made = self._import(sock, params, stop)
                sock.sendall(pack(JSON, msgspec.json.encode(made)))
            case _:
                raise UsageError(problem=f"sources have no method {request.method!r}")

    def _tables(self, name: str) -> SourceTables:
        return SourceTables(self._place.folder / name, self._place.find(name))

    def _frame(self, params: dict[str, Any], stop: Stop) -> Frame:
        query = msgspec.convert(params["query"], FrameQuery)
        tables = self._tables(params["source"])
        tables.check_at(query.at)
        if not query.is_grouped:
            return tables.frame(query, stop)
        return grouping.grouped(tables.frame(ungrouped(query), stop), query)

    def _import(self, sock: socket.socket, params: dict[str, Any], stop: Stop) -> Any:
        from .importing import import_

        redactor = Redactor(bytes.fromhex(params["salt"]))
        for name, value in params["secrets"]:
            redactor.register(name, value)
        told = Importing(doing="", done_bytes=0, size_bytes=0)

        def progress(now: Importing) -> None:
            nonlocal told
            if now.doing != told.doing or now.done_bytes - told.done_bytes >= PROGRESS_BYTES or now.lines > told.lines:
                told = now
                sock.sendall(pack(PROGRESS, msgspec.json.encode(now)))

        with self._making:
            stop.renew()
            try:
                return import_(
                    self._place,
                    params["path"],
                    name=params["name"],
                    about=params["about"],
                    link=params["link"],
                    origin=params["origin"],
                    redactor=redactor,
                    on_progress=progress,
                    stop=stop,
                )
            except OSError as exc:
                if isinstance(exc, ConnectionError | TimeoutError):
                    raise
                raise _trouble(self._place.folder, params["path"], exc) from exc


def _trouble(folder: Path, path: str, exc: OSError) -> TundraError:
    """What a failure of the file system means: only one of our own folder is about its owner and mode."""
    if exc.filename is None or Path(os.fsdecode(exc.filename)).is_relative_to(folder):
        return unwritable(folder, exc)
    return UsageError(problem=f"{path} cannot be read: {os.fsdecode(exc.filename)}: {exc.strerror}", field="path")


def main() -> int:
    """Run the worker; the exit code is 0 after an orderly end."""
    environment.keep_others_out()
    environment.go_on_without_parent()
    os.umask(0o077)
    without_pandas()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt typed at the terminal is for the daemon
    control = socket.socket(fileno=int(sys.argv[1]))
    place = SourcesFolder(Path(sys.argv[2]))
    place.sweep()
    worker = SourcesWorker(place, control)
    worker.send(HELLO, Hello(pid=os.getpid(), engine="sources"))
    worker.serve(IDLE_SECONDS)
    return 0


if __name__ == "__main__":
    sys.exit(main())
