"""A real JupyterHub with the example's configuration: two users, each with daemon, kernels and terminals of their own.

The hub comes from PyPI and its proxy from npm, each into an environment of its own. Where root runs this, the two users
have accounts of their own, which no password file names, as in a container on OpenShift.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from websockets.sync.client import connect

from tests.conftest import ROOT, wait_until
from tests.environments import node_with, python_with
from tundra_nb.testing.scripted_provider import scripted_process

pytestmark = [
    pytest.mark.part("doltlite"),
    pytest.mark.part("node"),
    pytest.mark.check,
    pytest.mark.timeout(600),
]

EXAMPLE = ROOT / "tundra_nb" / "guide" / "jupyterhub_config.py"
PACKAGES = ("jupyterhub>=5", "jupyterlab>=4.3", "ipykernel", "--editable", str(ROOT))
PROXY = "configurable-http-proxy@5"
SYSTEM_PYTHON = Path("/usr/bin/python3")
UIDS = {"alice": 61001, "bob": 61002}
CONFIG = '''
import os
from jupyterhub.spawner import SimpleLocalProcessSpawner

load_subconfig({example!r})

UIDS = {uids!r}

class Spawner(SimpleLocalProcessSpawner):
    """As the example's, on the accounts of this test."""

    home_dir_template = {homes!r} + "/{{username}}"

    def make_preexec_fn(self, name):
        home = self.home_dir
        def before():
            if UIDS:
                os.setgroups([])
                os.setgid(UIDS[name])
                os.setuid(UIDS[name])
            os.chdir(home)
        return before

c.JupyterHub.spawner_class = Spawner
c.JupyterHub.authenticator_class = "null"
c.JupyterHub.bind_url = "http://127.0.0.1:{port}"
c.JupyterHub.hub_port = {hub_port}
c.JupyterHub.db_url = "sqlite://"
c.JupyterHub.cleanup_servers = True
c.ConfigurableHTTPProxy.command = [{proxy!r}]
c.ConfigurableHTTPProxy.api_url = "http://127.0.0.1:{api_port}"
c.Spawner.http_timeout = 90
c.Spawner.start_timeout = 90
c.JupyterHub.load_roles = [
    {{"name": "test", "services": ["test"], "scopes": ["admin:users", "admin:servers", "tokens", "access:servers"]}}
]
c.JupyterHub.services = [{{"name": "test", "api_token": {token!r}}}]
'''
SETTINGS = """
[[profile]]
name = "main"
kind = "local"
base_url = "{base}"
model = "m"
"""


def _port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclasses.dataclass
class User:
    """One user of the hub, from outside: by a token of the hub."""

    name: str
    url: str
    token: str
    data: Path

    def http(self) -> httpx.Client:
        headers = {"Authorization": f"token {self.token}"}
        return httpx.Client(base_url=self.url, headers=headers, trust_env=False, timeout=60)

    def tundra(self, *args: str) -> subprocess.CompletedProcess[str]:
        """`tundra ARGS` on another machine, by the user's address at the hub."""
        env = {name: value for name, value in os.environ.items() if not name.startswith("TUNDRA_")}
        env |= {"TUNDRA_URL": self.url, "TUNDRA_TOKEN": self.token}
        line = [sys.executable, "-m", "tundra_nb.cli", *args]
        return subprocess.run(line, env=env, capture_output=True, text=True, timeout=90, check=False)

    def processes(self) -> list[psutil.Process]:
        """What runs for this user: server, kernels, guard, daemon, worker, terminals."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get("TUNDRA_DATA_DIR") == str(self.data):
                    found.append(process)
        return found

    def socket(self) -> Path:
        """Where the daemon listens."""
        daemons = [one for one in self.processes() if "tundra_nb.daemon" in " ".join(one.cmdline())]
        listening = [line.laddr for one in daemons for line in one.net_connections("unix") if line.laddr]
        return next(Path(str(place)) for place in listening if Path(str(place)).is_socket())


@dataclasses.dataclass
class Hub:
    api: httpx.Client
    users: dict[str, User]
    folder: Path
    uids: dict[str, int]

    def log(self) -> str:
        return (self.folder / "hub.log").read_text(errors="replace")[-6000:]


def _python() -> tuple[Path, dict[str, int]]:
    """The hub's Python, and the accounts that the users get; none where this is not root."""
    if os.geteuid() == 0 and SYSTEM_PYTHON.exists():
        with contextlib.suppress(pytest.skip.Exception):
            python = python_with(*PACKAGES, base=str(SYSTEM_PYTHON))
            line = [str(python), "-c", "import jupyterhub, tundra_nb.daemon, doltlite"]
            uid = UIDS["alice"]
            done = subprocess.run(line, user=uid, group=uid, extra_groups=[], cwd="/", capture_output=True, check=False)
            if done.returncode == 0:
                return python, UIDS
    return python_with(*PACKAGES), {}


@pytest.fixture(scope="module")
def provider() -> Iterator[str]:
    with scripted_process() as made:
        yield made.base_url


@pytest.fixture(scope="module")
def hub(provider: str) -> Iterator[Hub]:
    python, uids = _python()
    proxy = node_with(PROXY) / "node_modules" / ".bin" / "configurable-http-proxy"
    folder = Path(tempfile.mkdtemp(prefix="tundra-hub-"))
    folder.chmod(0o755)
    data, homes = folder / "data", folder / "homes"
    for name in UIDS:
        for place in (data / name, homes / name):
            place.mkdir(parents=True)
            place.chmod(0o700)
        (data / name / "tundra.toml").write_text(SETTINGS.format(base=provider))
        if uids:
            for place in (data / name, data / name / "tundra.toml", homes / name):
                os.chown(place, uids[name], uids[name])
    port, token = _port(), uuid.uuid4().hex
    given = {"example": str(EXAMPLE), "uids": uids, "homes": str(homes), "proxy": str(proxy), "token": token}
    config = folder / "config.py"
    config.write_text(CONFIG.format(**given, port=port, hub_port=_port(), api_port=_port()))
    env = {name: value for name, value in os.environ.items() if not name.startswith(("TUNDRA_", "JUPYTER", "XDG_"))}
    env |= {"TUNDRA_HUB_DATA": str(data), "CONFIGPROXY_AUTH_TOKEN": uuid.uuid4().hex}
    env["PATH"] = os.pathsep.join((str(python.parent), env["PATH"]))
    with (folder / "hub.log").open("wb") as log:
        line = [str(python), "-m", "jupyterhub", "-f", str(config)]
        process = subprocess.Popen(line, cwd=folder, env=env, stdout=log, stderr=log, start_new_session=True)
        made = Hub(
            httpx.Client(
                base_url=f"http://127.0.0.1:{port}/hub/api",
                headers={"Authorization": f"token {token}"},
                trust_env=False,
                timeout=60,
            ),
            {},
            folder,
            uids,
        )
        try:
            wait_until(lambda: _answers(made.api) or process.poll() is not None, 90, "the hub")
            assert process.poll() is None, made.log()
            for name in UIDS:
                made.users[name] = _started(made, name, data / name / "data", port)
            yield made
        finally:
            made.api.close()
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)
            for user in made.users.values():
                for left in user.processes():
                    left.kill()
            shutil.rmtree(folder, ignore_errors=True)


def _answers(api: httpx.Client) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        return api.get("/").status_code == 200
    return False


def _started(hub: Hub, name: str, data: Path, port: int) -> User:
    assert hub.api.post(f"/users/{name}").status_code == 201, hub.log()
    token = hub.api.post(f"/users/{name}/tokens", json={"note": "test"}).json()["token"]
    _start(hub, name)
    return User(name, f"http://127.0.0.1:{port}/user/{name}", token, data)


def _start(hub: Hub, name: str) -> None:
    assert hub.api.post(f"/users/{name}/server").status_code in (201, 202), hub.log()
    is_ready = lambda: hub.api.get(f"/users/{name}").json()["servers"].get("", {}).get("ready")  # noqa: E731
    wait_until(is_ready, 120, f"the server of {name}: {hub.log()}")


@dataclasses.dataclass
class Kernel:
    """A kernel of a user, as a notebook in the browser has it: by WebSocket through the hub's proxy."""

    line: Any
    comms: list[dict[str, Any]] = dataclasses.field(default_factory=list)

    def run(self, code: str) -> str:
        """What a cell prints and shows; an error of it fails the test."""
        header = {"msg_id": uuid.uuid4().hex, "msg_type": "execute_request", "username": "", "session": "s"}
        content = {"code": code, "silent": False, "store_history": True, "allow_stdin": False}
        message = {"header": header, "parent_header": {}, "metadata": {}, "content": content, "channel": "shell"}
        self.line.send(json.dumps(message | {"buffers": []}))
        shown, deadline = "", time.monotonic() + 120
        while time.monotonic() < deadline:
            told = self.line.recv(timeout=120)
            if isinstance(told, bytes):  # a widget's state with buffers
                continue
            got = json.loads(told)
            kind, content = got["header"]["msg_type"], got["content"]
            if kind == "comm_open":
                self.comms.append(content)
            if got["parent_header"].get("msg_id") != header["msg_id"]:
                continue
            if kind == "stream":
                shown += content["text"]
            elif kind in ("display_data", "execute_result", "update_display_data"):
                shown += json.dumps(content["data"])
            elif kind == "error":
                pytest.fail("\n".join(content["traceback"]))
            elif kind == "status" and content["execution_state"] == "idle":
                return shown
        raise AssertionError(f"the cell does not end: {code}")


@contextlib.contextmanager
def kernel_of(user: User) -> Iterator[Kernel]:
    with user.http() as http:
        made = http.post(f"{user.url}/api/kernels", json={"name": "python3"})
        assert made.status_code == 201, made.text
        number = made.json()["id"]
        address = f"{user.url}/api/kernels/{number}/channels".replace("http", "ws", 1)
        headers = {"Authorization": f"token {user.token}"}
        with connect(address, additional_headers=headers, max_size=None, open_timeout=60) as line:
            yield Kernel(line)
        http.delete(f"{user.url}/api/kernels/{number}")


@pytest.fixture(scope="module")
def alice(hub: Hub) -> User:
    return hub.users["alice"]


@pytest.fixture(scope="module")
def bob(hub: Hub) -> User:
    return hub.users["bob"]


def _status(user: User) -> Any:
    with user.http() as http:

        def told() -> Any:
            answer = http.get(f"{user.url}/tundra/api/status")
            return answer.json() if answer.status_code == 200 else None

        return wait_until(told, 60, f"the daemon of {user.name}")


def test_each_user_has_a_daemon_of_their_own_behind_the_hub(hub: Hub, alice: User, bob: User) -> None:
    one, other = _status(alice), _status(bob)
    assert one["pid"] != other["pid"]
    assert [profile["profile"] for profile in one["profiles"]] == ["main"]
    for user in (alice, bob):
        assert stat.S_IMODE(user.data.stat().st_mode) == 0o700
        if hub.uids:
            assert {process.uids().real for process in user.processes()} == {hub.uids[user.name]}
    with alice.http() as http:
        found = http.get(f"{alice.url}/lab/api/extensions").text
        assert "tundra" in found


def test_magics_and_widgets_in_a_kernel_are_the_hubs_users(alice: User, bob: User) -> None:
    with kernel_of(alice) as kernel:
        kernel.run("%load_ext tundra_nb")
        assert "answer" in kernel.run("%%tundra ask --as reply\nhi").lower() + kernel.run("print(reply.text, 'answer')")
        assert "main" in kernel.run("calls = %tundra calls\nprint(list(calls.profile), list(calls.outcome))")
        assert "exit 0" in kernel.run("r = %tundra run echo from-alice\nprint(r.text, 'exit', r.exit_code)")
        shown = kernel.run("%tundra providers --widget")
        assert "widget-view+json" in shown
        assert any("anywidget" in json.dumps(comm) for comm in kernel.comms)
    calls = json.loads(alice.tundra("calls", "--json").stdout)
    assert {call["user_name"] for call in calls} == {"alice"}
    assert json.loads(bob.tundra("calls", "--json").stdout) == []


def test_a_terminal_is_in_the_list_of_jupyterlab_and_talks_through_the_proxy(alice: User) -> None:
    with alice.http() as http:
        made = http.post(f"{alice.url}/tundra/api/ptys", json={"command": "sh"})
        assert made.status_code in (200, 201), made.text
        pty = made.json()["pty_id"]
        listed = [one["name"] for one in http.get(f"{alice.url}/api/terminals").json()]
        assert f"tundra-{pty}" in listed
        address = f"{alice.url}/terminals/websocket/tundra-{pty}".replace("http", "ws", 1)
        with connect(address, additional_headers={"Authorization": f"token {alice.token}"}) as line:
            line.send(json.dumps(["stdin", "echo $((6 * 7))-seen\r"]))
            seen, deadline = "", time.monotonic() + 60
            while "42-seen" not in seen and time.monotonic() < deadline:
                seen += str(line.recv(timeout=60))
            assert "42-seen" in seen
        assert http.delete(f"{alice.url}/tundra/api/ptys/{pty}").status_code in (200, 204)


def test_programs_reach_the_gateway_below_the_users_address(alice: User, bob: User) -> None:
    made = alice.tundra("token", "new", "agent", "--json")
    assert made.returncode == 0, made.stderr
    token = json.loads(made.stdout)["token"]
    body = {"model": "main", "messages": [{"role": "user", "content": "hi"}]}
    headers = {"Authorization": f"Bearer {token}"}
    with httpx.Client(trust_env=False, timeout=60, headers=headers) as http:
        told = http.post(f"{alice.url}/tundra/v1/chat/completions", json=body)
        assert told.status_code == 200, told.text
        assert told.json()["choices"][0]["message"]["content"]
        assert told.headers["x-tundra-profile"] == "main"
        assert http.post(f"{bob.url}/tundra/v1/chat/completions", json=body).status_code in (401, 403)
        # a program's token opens the gateway and nothing else
        assert http.get(f"{alice.url}/tundra/api/status").status_code in (302, 401, 403)


def test_one_user_cannot_reach_the_daemon_of_another(hub: Hub, alice: User, bob: User) -> None:
    headers = {"Authorization": f"token {bob.token}"}
    with httpx.Client(trust_env=False, timeout=60, headers=headers) as http:
        for path in ("/tundra/api/status", "/tundra/api/history/calls", "/tundra/v1/models", "/api/terminals"):
            assert http.get(alice.url + path).status_code in (401, 403, 404), path
        assert http.post(f"{alice.url}/tundra/api/ptys", json={"command": "id"}).status_code in (401, 403, 404)
    with httpx.Client(trust_env=False, timeout=60) as http:  # nobody at all
        answer = http.get(f"{alice.url}/tundra/api/status")
        assert answer.status_code in (302, 401, 403)
    if hub.uids:
        with kernel_of(bob) as kernel:
            look = f"print(os.listdir({str(alice.data)!r}))"
            code = f"import os\ntry:\n    {look}\nexcept PermissionError:\n    print('kept out')"
            assert "kept out" in kernel.run(code)
            socket_file = str(alice.socket())
            code = (
                "import socket\ns = socket.socket(socket.AF_UNIX)\n"
                f"try:\n    s.connect({socket_file!r})\n    print('let in')\nexcept OSError:\n    print('kept out')"
            )
            assert "kept out" in kernel.run(code)


def test_stopping_a_server_through_the_hub_leaves_nothing_of_it(hub: Hub, alice: User, bob: User) -> None:
    place = alice.socket()
    assert place.is_socket()
    with alice.http() as http:
        http.post(f"{alice.url}/tundra/api/ptys", json={"command": "sleep 1000"})
    assert "TUNDRA_DATA_DIR" in alice.processes()[0].environ()
    assert hub.api.delete("/users/alice/server").status_code in (202, 204)
    wait_until(lambda: not alice.processes(), 60, "an end of all of alice's processes")
    assert not place.exists()
    assert _status(bob)["pid"]
    # and the next server finds what the last one wrote
    _start(hub, "alice")
    _status(alice)
    assert len(json.loads(alice.tundra("calls", "--since", "all", "--json").stdout)) >= 2
