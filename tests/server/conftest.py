"""A real Jupyter server as a process, with token and browser-session clients, and a scripted daemon behind it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import httpx
import psutil
import pytest

from tundra_nb import paths as tundra_paths

HERE = Path(__file__).parent
TOKEN = "jupyter-token-canary-7f3a"
QUIET_EXTENSIONS = dict.fromkeys(["jupyterlab", "notebook", "notebook_shim", "jupyter_lsp", "nbclassic"], False)
"""Other extensions of the test environment, off for speed."""

CONFIG = '''
from jupyter_server.auth import Authorizer
from pathlib import Path

class FileAuthorizer(Authorizer):
    """Refuses what the file `denied` names: an action on our own resource, or `resource:action`."""
    def is_authorized(self, handler, user, action, resource):
        file = Path({denied!r})
        denied = file.read_text().split() if file.exists() else []
        return not (resource == "tundra" and action in denied) and f"{{resource}}:{{action}}" not in denied

c.ServerApp.authorizer_class = FileAuthorizer
'''


@dataclasses.dataclass
class JupyterServer:
    """One running server. `url` ends in a slash."""

    url: str
    token: str
    process: subprocess.Popen[bytes]
    env: dict[str, str]
    folder: Path

    @property
    def paths(self) -> tundra_paths.Paths:
        return paths_of(self.env)

    @property
    def log(self) -> str:
        return (self.folder / "server.log").read_text(errors="replace")

    @property
    def ws_url(self) -> str:
        return self.url.replace("http", "ws", 1)

    def client(self, session: bool = False, auth: bool = True, **options: Any) -> httpx.Client:
        """A client of `/tundra`: by token, by a browser's session (cookie and XSRF header), or by nothing."""
        options.setdefault("timeout", 30)
        headers, cookies = {}, httpx.Cookies()
        if session:
            with httpx.Client(trust_env=False) as browser:
                browser.get(self.url + "login")
                form = {"password": self.token, "_xsrf": browser.cookies["_xsrf"]}
                assert browser.post(self.url + "login", data=form).status_code == 302
                cookies, headers["X-XSRFToken"] = browser.cookies, browser.cookies["_xsrf"]
        elif auth:
            headers["Authorization"] = f"token {self.token}"
        return httpx.Client(base_url=self.url + "tundra", trust_env=False, headers=headers, cookies=cookies, **options)

    def deny(self, *actions: str) -> None:
        """Make the authorizer refuse these actions from now on."""
        (self.folder / "denied").write_text(" ".join(actions))

    def rss(self) -> int:
        return int(psutil.Process(self.process.pid).memory_info().rss)

    def descriptors(self) -> int:
        return int(psutil.Process(self.process.pid).num_fds())

    def daemon_record(self) -> dict[str, Any]:
        """The connection file, {} when there is none."""
        with contextlib.suppress(OSError, ValueError):
            return dict(json.loads(self.paths.connection_file.read_text()))
        return {}

    def others(self) -> list[psutil.Process]:
        """Every process that was started with the server's data directory, except the server."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get("TUNDRA_DATA_DIR") == self.env["TUNDRA_DATA_DIR"] and process.is_running():
                    found.append(process)
        return [process for process in found if process.pid not in (self.process.pid, os.getpid())]

    def stop(self, timeout: float = 20) -> int:
        """SIGTERM; the exit status."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGABRT)  # the faulthandler writes where each thread is
            self.process.wait()
            pytest.fail(f"the server does not end:\n{self.log[-6000:]}")


class StartServer(Protocol):
    """Start a server in `folder`, and wait until it answers."""

    def __call__(
        self, folder: Path, *options: str, env: Mapping[str, str] | None = None, wait: bool = True
    ) -> JupyterServer: ...


def paths_of(env: dict[str, str]) -> tundra_paths.Paths:
    """Where the daemon of this environment is."""
    found = tundra_paths.find(None, env)
    return dataclasses.replace(found, connection_file=Path(env["JUPYTER_RUNTIME_DIR"]) / found.connection_file.name)


def environment(folder: Path) -> dict[str, str]:
    """The environment of a person whose home is `folder`."""
    keep = {name: os.environ[name] for name in ("PATH", "LANG", "SYSTEMROOT", "PYTHONPATH") if name in os.environ}
    (folder / "run").mkdir(mode=0o700, exist_ok=True)
    return keep | {
        "HOME": str(folder),
        "XDG_RUNTIME_DIR": str(folder / "run"),
        "JUPYTER_CONFIG_DIR": str(folder / "config"),
        "JUPYTER_DATA_DIR": str(folder / "data"),
        "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
        "PYTHONFAULTHANDLER": "1",
        "TUNDRA_DATA_DIR": str(folder / "tundra"),
        "TUNDRA_CONFIG": str(folder / "tundra.toml"),
        "JUPYTER_TOKEN": TOKEN,
    }


def _wait(condition: Callable[[], Any], timeout: float = 30, what: str = "") -> Any:
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        if time.monotonic() > deadline:
            pytest.fail(f"not within {timeout} s: {what}")
        time.sleep(0.01)
    return value


@pytest.fixture(scope="session")
def wait_for() -> Callable[..., Any]:
    """Poll until a condition holds; its value."""
    return _wait


@pytest.fixture(scope="session")
def short_folder() -> Iterator[Callable[[], Path]]:
    """Fresh folders with short names: a Unix socket's path must stay under 100 bytes."""
    made: list[Path] = []

    def make() -> Path:
        made.append(Path(tempfile.mkdtemp(prefix="tnb-")))
        return made[-1]

    yield make
    for folder in made:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def start_server() -> Iterator[StartServer]:
    """Start Jupyter servers; they are ended with the session."""
    servers: list[JupyterServer] = []

    def start(folder: Path, *options: str, env: Mapping[str, str] | None = None, wait: bool = True) -> JupyterServer:
        env = environment(folder) | dict(env or {})
        config = folder / "config"
        config.mkdir(exist_ok=True)
        (folder / "notebooks").mkdir(exist_ok=True)
        switches = {"ServerApp": {"jpserver_extensions": QUIET_EXTENSIONS}}
        (config / "jupyter_server_config.json").write_text(json.dumps(switches))
        (config / "jupyter_server_config.py").write_text(CONFIG.format(denied=str(folder / "denied")))
        command = [sys.executable, "-m", "jupyter_server", "--no-browser", "--allow-root", "--debug"]
        command += [] if any(option.startswith("--ServerApp.port=") for option in options) else ["--port=0"]
        command += [f"--ServerApp.root_dir={folder / 'notebooks'}", *options]
        with (folder / "server.log").open("wb") as log:
            process = subprocess.Popen(command, env=env, stdout=log, stderr=log, cwd=folder, start_new_session=True)
        server = JupyterServer("", TOKEN, process, env, folder)
        servers.append(server)
        if wait:
            await_server(server)
        return server

    yield start
    for server in servers:
        if server.process.poll() is None:
            server.process.terminate()
    for server in servers:
        try:
            server.process.wait(15)
        except subprocess.TimeoutExpired:
            server.process.kill()
        for process in server.others():  # only a failed test has left any
            with contextlib.suppress(psutil.Error):
                process.kill()


def await_server(server: JupyterServer) -> None:
    """Wait until a server answers, and learn its address."""
    info = Path(server.env["JUPYTER_RUNTIME_DIR"]) / f"jpserver-{server.process.pid}.json"

    def ready() -> bool:
        if server.process.poll() is not None:
            pytest.fail(f"the Jupyter server ended with {server.process.returncode}:\n{server.log}")
        with contextlib.suppress(OSError, ValueError, KeyError, httpx.HTTPError):
            server.url = str(json.loads(info.read_text())["url"])
            return httpx.get(server.url + "api", trust_env=False, timeout=5).status_code == 200
        return False

    _wait(ready, what="the Jupyter server answers")


class StartDaemon(Protocol):
    """Start a scripted daemon for an environment, and wait until it listens."""

    def __call__(self, env: dict[str, str], started_by: str = "test") -> subprocess.Popen[bytes]: ...


@pytest.fixture(scope="session")
def start_scripted_daemon() -> Iterator[StartDaemon]:
    """Start scripted daemons; they are ended with the session."""
    daemons: list[subprocess.Popen[bytes]] = []

    def start(env: dict[str, str], started_by: str = "test") -> subprocess.Popen[bytes]:
        where = paths_of(env)
        command = [sys.executable, str(HERE / "scripted_daemon.py"), str(where.socket), str(where.connection_file)]
        process = subprocess.Popen([*command, started_by], env=env)
        daemons.append(process)

        def listening() -> bool:
            with contextlib.suppress(OSError, ValueError):
                return bool(json.loads(where.connection_file.read_text())["pid"] == process.pid)
            return False

        _wait(listening, what="the scripted daemon listens")
        return process

    yield start
    for process in daemons:
        if process.poll() is None:
            process.kill()
        process.wait()


@pytest.fixture(scope="module")
def jupyter_server(
    short_folder: Callable[[], Path], start_server: StartServer, start_scripted_daemon: StartDaemon
) -> JupyterServer:
    """A server in front of a scripted daemon that somebody else has started. Strict: every route must authenticate."""
    folder = short_folder()
    start_scripted_daemon(environment(folder))
    return start_server(
        folder,
        "--ServerApp.base_url=/user/jo%40x/",
        "--ServerApp.allow_unauthenticated_access=False",
    )
