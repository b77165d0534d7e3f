"""A worker's side of the control line: takes requests, hands each to a thread, sends back what comes of it."""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import selectors
import socket
import threading
import time
import traceback
from typing import Any

import msgspec

from tundra_nb.errors import Cancelled, InternalError, StoreBusy, TundraError

from .contract import QUERY_SECONDS, Frame, Stop
from .protocol import ARROW, END, ERROR, JSON, META, WorkerRequest, pack, receive_frame

INPUTS = 32
"""Most descriptors that come with one request: one of each table, and its own."""
READERS = 12
"""Requests at a time: a slow client occupies one, and must not keep others waiting."""
SEND_SECONDS = 120.0
"""A daemon that takes nothing for so long has forgotten the request."""
WATCH_SECONDS = 0.25


class LineServer:
    """Serves one control line until it closes. What answers a request is `answer`, on a thread of its own."""

    query_seconds = QUERY_SECONDS
    """Longest that one request may work."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._sending = threading.Lock()
        self._pool = concurrent.futures.ThreadPoolExecutor(READERS, thread_name_prefix="history-reader")
        self._selector = selectors.DefaultSelector()
        self._active: dict[socket.socket, Stop] = {}
        self._inputs: dict[socket.socket, list[socket.socket]] = {}
        self._done: collections.deque[socket.socket] = collections.deque()
        self._wake_in, self._wake_out = socket.socketpair()
        self._wake_in.setblocking(False)
        self._ending = False
        self._selector.register(control, selectors.EVENT_READ)
        self._selector.register(self._wake_out, selectors.EVENT_READ)

    def answer(self, sock: socket.socket, request: WorkerRequest, stop: Stop) -> None:
        """Answer one request on its socket."""
        raise NotImplementedError

    def inputs(self, sock: socket.socket) -> list[socket.socket]:
        """What came with a request to be read for it; closed when the request is done."""
        return self._inputs[sock]

    def serve(self, idle_seconds: float | None = None) -> None:
        """Serve until the control line closes, `end` was called, or there was no request for `idle_seconds`."""
        last = time.monotonic()
        while not self._ending:
            for key, _ in self._selector.select(WATCH_SECONDS if self._active or idle_seconds else None):
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
            if self._active:
                last = time.monotonic()
            elif idle_seconds is not None and time.monotonic() - last > idle_seconds:
                return

    def end(self) -> None:
        """Serve no longer; from any thread."""
        self._ending = True

    def send(self, kind: bytes, body: Any) -> None:
        """Say something to the daemon, on the control line; from any thread."""
        with self._sending, contextlib.suppress(OSError):
            self._control.sendall(pack(kind, msgspec.json.encode(body)))

    def stream(self, sock: socket.socket, frame: Frame, more: dict[str, Any]) -> None:
        """Send a frame, piece by piece. `more`: what its `meta` says beside its own."""
        from . import arrow

        with contextlib.closing(frame.batches):
            sock.sendall(pack(META, msgspec.json.encode({**frame.meta, **more})))
            for piece in arrow.encode(frame.schema, frame.batches):
                sock.sendall(pack(ARROW, piece))
            sock.sendall(pack(END, b""))

    def _accept(self) -> None:
        try:
            data, descriptors, _, _ = socket.recv_fds(self._control, 1, INPUTS)
        except OSError:
            data, descriptors = b"", []
        if not data:
            self._ending = True
            return
        if not descriptors:
            return
        sock, *inputs = (socket.socket(fileno=descriptor) for descriptor in descriptors)
        sock.settimeout(SEND_SECONDS)
        try:
            _, payload = receive_frame(sock)
            request = msgspec.json.decode(payload, type=WorkerRequest)
        except (OSError, msgspec.MsgspecError):
            for one in (sock, *inputs):
                one.close()
            return
        if request.method == "ping":  # answered here, so that slow queries do not make us look dead
            with contextlib.suppress(OSError):
                sock.sendall(pack(JSON, b"true"))
            sock.close()
            return
        stop = Stop(self.query_seconds)
        self._active[sock], self._inputs[sock] = stop, inputs
        self._selector.register(sock, selectors.EVENT_READ)
        self._pool.submit(self._serve, sock, request, stop)

    def _hung_up(self, sock: socket.socket) -> None:
        """The daemon sends nothing after the request: readable means closed."""
        self._selector.unregister(sock)
        self._active[sock].cancel()

    def _forget(self, sock: socket.socket) -> None:
        del self._active[sock]
        for one in self._inputs.pop(sock):
            one.close()
        with contextlib.suppress(KeyError):
            self._selector.unregister(sock)
        sock.close()

    # --- on a reader's thread ---

    def _serve(self, sock: socket.socket, request: WorkerRequest, stop: Stop) -> None:
        try:
            self.answer(sock, request, stop)
        except Cancelled:
            pass
        except TundraError as exc:
            self._report(sock, exc)
        except OSError:
            pass  # the daemon has closed the request
        except MemoryError:
            problem = f"`{request.method}` needs more memory than the worker may take"
            remedy = "Ask for less: a time window, fewer columns, shorter lists."
            self._report(sock, StoreBusy(problem=problem, remedy=remedy, kind="memory"))
        except Exception as exc:  # noqa: BLE001 - the top of a request: the daemon is told, the log has the rest
            traceback.print_exc()
            self._report(sock, InternalError(problem=f"the store worker failed in `{request.method}`: {exc!r}"))
        finally:
            self._done.append(sock)
            with contextlib.suppress(OSError):
                self._wake_in.send(b"!")

    def _report(self, sock: socket.socket, error: TundraError) -> None:
        with contextlib.suppress(OSError):
            sock.sendall(pack(ERROR, msgspec.json.encode(error.to_wire())))
