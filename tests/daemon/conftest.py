"""A daemon with a tiny application, for tests of the daemon's life."""

from __future__ import annotations

import dataclasses
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tundra_nb import paths as places
from tundra_nb.paths import Paths

TINY = Path(__file__).with_name("tiny.py")


@dataclasses.dataclass
class Answer:
    status: int
    body: Any


class Tiny:
    """Runs tiny daemons of one data directory, in the foreground as `tundra daemon run` does."""

    def __init__(self, paths: Paths) -> None:
        self.paths = paths
        self.processes: list[subprocess.Popen[str]] = []

    def run(self, *options: str, **env: str) -> subprocess.Popen[str]:
        """Start one and return at once."""
        process = subprocess.Popen(
            [sys.executable, str(TINY), *options],
            env=os.environ | env,
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        self.processes.append(process)
        return process

    def start(self, *options: str, **env: str) -> subprocess.Popen[str]:
        """Start one and wait until it is ready."""
        process = self.run(*options, **env)
        self.until(lambda: self.record.get("pid") == process.pid or process.poll() is not None, "ready")
        assert process.poll() is None, process.stderr and process.stderr.read()
        return process

    def fail(self, *options: str, **env: str) -> tuple[int, str]:
        """Start one that is to end by itself; exit code and stderr."""
        process = self.run(*options, **env)
        _, told = process.communicate(timeout=10)
        return process.returncode, told

    @property
    def record(self) -> dict[str, Any]:
        """The connection file; {} when there is none."""
        try:
            found: dict[str, Any] = json.loads(self.paths.connection_file.read_text())
        except FileNotFoundError:
            return {}
        return found

    def connect(self) -> socket.socket:
        connected = socket.socket(socket.AF_UNIX)
        connected.settimeout(10)
        connected.connect(str(self.paths.socket))
        return connected

    def ask(self, method: str, path: str, body: Any = None) -> Answer:
        connection = http.client.HTTPConnection("tundra")
        connection.sock = self.connect()
        try:
            connection.request(method, path, None if body is None else json.dumps(body))
            answer = connection.getresponse()
            return Answer(answer.status, json.loads(answer.read()))
        finally:
            connection.close()

    def attach(self, who: str = "kernel") -> socket.socket:
        """Open an event stream; returns once it has said hello."""
        stream = self.connect()
        stream.sendall(f"GET /api/events?attach={who} HTTP/1.1\r\nHost: tundra\r\n\r\n".encode())
        told = b""
        while b"hello" not in told:
            received = stream.recv(4096)
            assert received, told
            told += received
        return stream

    @staticmethod
    def until(condition: Callable[[], Any], what: str, timeout: float = 10) -> None:
        deadline = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < deadline, f"not within {timeout} s: {what}"
            time.sleep(0.01)

    @property
    def log(self) -> str:
        return self.paths.log.read_text()

    def close(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
            process.communicate()


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tiny]:
    monkeypatch.setenv("TUNDRA_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("TUNDRA_CONFIG", str(tmp_path / "tundra.toml"))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "jupyter"))
    made = Tiny(places.find())
    yield made
    made.close()
