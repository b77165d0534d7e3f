"""A real `dolt sql-server` of one test, which can be started again in another role on the same port."""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pymysql
import pytest

READ_ONLY: dict[str, Any] = {"behavior": {"read_only": True}}
START_SECONDS = 15
MARIADB_SECONDS = 40


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def listens(port: int) -> bool:
    """Whether somebody takes connections there."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


@contextlib.contextmanager
def mariadb(folder: Path, port: int) -> Iterator[None]:
    """A MariaDB server with its files below `folder`, until the block ends."""
    data = folder / "data"
    data.mkdir(parents=True)
    own = ("--no-defaults", f"--user={getpass.getuser()}", f"--datadir={data}")
    subprocess.run(
        ["mariadb-install-db", *own, "--auth-root-authentication-method=normal"], check=True, capture_output=True
    )
    place = (f"--port={port}", "--bind-address=127.0.0.1", f"--socket={folder / 's'}", f"--pid-file={folder / 'pid'}")
    process = subprocess.Popen(["mariadbd", *own, *place], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + MARIADB_SECONDS
        while not listens(port):
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail("MariaDB does not start")
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait(30)


def standby() -> dict[str, Any]:
    """The configuration of a server that another one replicates to."""
    remote = {"name": "primary", "remote_url_template": f"http://127.0.0.1:{free_port()}/{{database}}"}
    return {
        "cluster": {
            "standby_remotes": [remote],
            "bootstrap_role": "standby",
            "bootstrap_epoch": 1,
            "remotesapi": {"port": free_port()},
        }
    }


class DoltServer:
    """One data directory and one port. `start` and `stop` as often as wanted; the port stays."""

    def __init__(self, folder: Path) -> None:
        binary = shutil.which("dolt")
        assert binary is not None
        self.binary = binary
        self.folder = folder
        self.data = folder / "data"
        self.data.mkdir(parents=True)
        self.port = free_port()
        self.env = {"PATH": os.environ["PATH"], "HOME": str(folder), "DOLT_ROOT_PATH": str(folder)}
        for name, value in (("user.name", "t"), ("user.email", "t@localhost"), ("metrics.disabled", "true")):
            command = [binary, "config", "--global", "--add", name, value]
            subprocess.run(command, env=self.env, check=True, capture_output=True)
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, config: dict[str, Any] | None = None) -> None:
        """Start in the role that `config` gives it, and wait until it takes connections."""
        listener = {"host": "127.0.0.1", "port": self.port}
        whole = {"log_level": "error", "data_dir": str(self.data), "listener": listener} | (config or {})
        (self.folder / "config.yaml").write_text(json.dumps(whole))
        command = [self.binary, "sql-server", "--config", str(self.folder / "config.yaml")]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, env=self.env, stdout=log, stderr=log, cwd=self.data)
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1) as sock:
                sock.settimeout(1)
                if sock.recv(8):
                    return
            time.sleep(0.05)
        pytest.fail(f"dolt sql-server did not start: {(self.folder / 'log').read_text()[-2000:]}")

    def send(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        process, self.process = self.process, None
        if process is not None:
            process.send_signal(number)
            process.send_signal(signal.SIGCONT)
            process.wait(15)

    def admin(self, *statements: str) -> list[Any]:
        """Run statements as root, without a database; the rows of the last one."""
        with (
            contextlib.closing(pymysql.connect(host="127.0.0.1", port=self.port, user="root", autocommit=True)) as db,
            db.cursor() as cursor,
        ):
            for statement in statements:
                cursor.execute(statement)
            return list(cursor.fetchall())
