from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

if TYPE_CHECKING:
    from tests.server.conftest import JupyterServer, StartServer

ROOT = Path(__file__).parents[2]
CANARIES = {"ANTHROPIC_API_KEY": "sk-ant-canary-31337", "JUPYTERHUB_API_TOKEN": "hub-canary-31337"}


@pytest.fixture
def server(short_folder: Callable[[], Path], start_server: StartServer) -> JupyterServer:
    """A server with the real daemon."""
    return start_server(short_folder(), env=CANARIES)


def is_up(server: JupyterServer) -> bool:
    with server.client() as client:
        return client.get("/api/status").status_code == 200


@pytest.mark.part("doltlite")
def test_the_servers_daemon_serves_comes_back_after_a_crash_and_ends_with_the_server(
    server: JupyterServer, wait_for: Callable[..., Any]
) -> None:
    """One life: started in the background, killed twice and restarted with growing pauses, ended without an orphan."""
    wait_for(lambda: is_up(server), what="the daemon serves")
    first = server.daemon_record()
    assert first["started_by"] == f"jupyter-server:{server.process.pid}"
    outages = []
    for _ in range(2):
        os.kill(server.daemon_record()["pid"], signal.SIGKILL)
        began = time.monotonic()
        wait_for(lambda: not is_up(server), what="the daemon is down")
        wait_for(lambda: is_up(server), what="the daemon is back")
        outages.append(time.monotonic() - began)
    assert server.daemon_record()["pid"] != first["pid"]
    assert outages[0] < outages[1] < 6

    for process in server.others():
        environ = process.environ()
        assert "JUPYTER_TOKEN" not in environ
        assert "JUPYTERHUB_API_TOKEN" not in environ
    assert server.stop() == 0
    wait_for(lambda: not server.others(), timeout=12, what="no process is left")
    for canary in (*CANARIES.values(), server.token):
        assert canary not in server.log
        assert canary not in server.paths.log.read_text()


@pytest.mark.part("doltlite")
def test_a_client_without_a_shared_filesystem_goes_through_the_bridge(
    server: JupyterServer, wait_for: Callable[..., Any]
) -> None:
    """`TUNDRA_URL` and `TUNDRA_TOKEN` are enough to reach the daemon from anywhere."""
    wait_for(lambda: is_up(server), what="the daemon serves")
    code = "import tundra_nb\nwith tundra_nb.connect() as t: print(len(t.calls()), len(t.limits()))"
    done = run("-c", code, TUNDRA_URL=server.url, TUNDRA_TOKEN=server.token)
    assert done.stdout.split()[:1] == ["0"], done.stderr


@pytest.mark.part("doltlite")
def test_a_daemon_in_use_by_somebody_else_outlives_the_server(
    server: JupyterServer, wait_for: Callable[..., Any]
) -> None:
    """Whoever is attached keeps it; when the last has left, nothing holds it to the server any more."""
    import http.client
    import socket

    wait_for(lambda: is_up(server), what="the daemon serves")
    listener = http.client.HTTPConnection("localhost")
    listener.sock = socket.socket(socket.AF_UNIX)
    listener.sock.connect(str(server.paths.socket))
    listener.request("GET", "/api/events?attach=kernel")
    stream = listener.getresponse()
    assert stream.readline().startswith(b"event: hello")
    assert server.stop() == 0
    daemon = psutil.Process(server.daemon_record()["pid"])
    assert daemon.is_running()
    listener.close()
    for process in server.others():
        process.terminate()
    wait_for(lambda: not server.others(), timeout=12, what="no process is left")


def execute(connection_file: Path, code: str) -> None:
    """Run code in a kernel, which must go well."""
    from jupyter_client.blocking.client import BlockingKernelClient

    client = BlockingKernelClient(connection_file=str(connection_file))
    client.load_connection_file()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=30)
        reply = client.execute_interactive(code, timeout=30)
        assert reply["content"]["status"] == "ok", reply["content"]
    finally:
        client.stop_channels()


@pytest.mark.part("doltlite")
def test_a_kernel_of_the_server_does_not_keep_the_daemon(server: JupyterServer, wait_for: Callable[..., Any]) -> None:
    """Kernels are still attached while extensions stop: the daemon is asked again when they have ended."""
    wait_for(lambda: is_up(server), what="the daemon serves")
    with server.client() as client:
        kernel = client.post(server.url + "api/kernels", json={"name": "tundra"}).json()
        file = Path(server.env["JUPYTER_RUNTIME_DIR"]) / f"kernel-{kernel['id']}.json"
        execute(wait_for(lambda: file.exists() and file), "import tundra_nb; t = tundra_nb.connect()")
        wait_for(lambda: client.get("/api/status").json()["attached"], what="the kernel is attached")
    assert server.stop() == 0
    wait_for(lambda: not server.others(), timeout=12, what="no process is left")


def test_a_server_that_is_stopped_while_the_daemon_starts_leaves_no_orphan(
    short_folder: Callable[[], Path], start_server: StartServer, wait_for: Callable[..., Any]
) -> None:
    """SIGTERM at the worst moment: the daemon that comes up then is ended too."""
    server = start_server(short_folder(), wait=False)
    wait_for(lambda: server.paths.log.exists() or server.process.poll() is not None, what="the daemon is being started")
    server.stop(timeout=25)
    wait_for(lambda: not server.others(), timeout=20, what="no process is left")


def test_a_daemon_that_cannot_start_leaves_the_server_alone(
    short_folder: Callable[[], Path], start_server: StartServer
) -> None:
    """Malformed settings: Jupyter works, and a request gets the typed error with the file's name."""
    folder = short_folder()
    (folder / "tundra.toml").write_text("preset = [")
    server = start_server(folder)
    with server.client() as client:
        assert client.get(server.url + "api/status").status_code == 200
        answer = client.get("/api/status")
    assert answer.status_code == 500
    assert answer.json()["code"] == "ConfigError"
    assert "tundra.toml" in answer.json()["message"]
    assert "Traceback" not in server.log


# --- packaging ---


def run(*command: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command], env=dict(os.environ) | env, capture_output=True, text=True, timeout=60, check=False
    )


def test_jupyter_lists_the_extension_as_ok() -> None:
    """Installing the project enables it; the exit status says nothing, so the text must."""
    listed = run("-m", "jupyter_server.extension.serverextension", "list")
    text = listed.stdout + listed.stderr
    line = next(line for line in text.splitlines() if line.split()[:1] == ["tundra_nb"] and "OK" in line)
    from tundra_nb import __version__

    assert __version__ in line
    assert "tundra_nb enabled" in text.replace("\x1b[32m", "").replace("\x1b[0m", "")


def test_importing_the_extension_is_cheap() -> None:
    """Beside what a Jupyter server has loaded anyway, the extension brings neither pandas nor any client library."""
    code = (
        "import jupyter_server.serverapp, sys; before = set(sys.modules);"
        "import tundra_nb; tundra_nb._jupyter_server_extension_points();"
        "print(*sorted(set(sys.modules) - before))"
    )
    loaded = {name.partition(".")[0] for name in run("-c", code).stdout.split()}
    assert not loaded & {"pandas", "pyarrow", "aiohttp", "httpx", "IPython", "starlette", "uvicorn", "doltlite"}


def test_the_traits_have_help() -> None:
    """`jupyter server --help-all` explains both."""
    from tundra_nb.server.app import TundraExtension

    for name, trait in TundraExtension.class_own_traits(config=True).items():
        assert trait.help, name


def test_the_wheel_switches_the_extension_on_and_brings_the_kernel() -> None:
    """The files that do so are mapped into the environment, for wheel and editable install alike."""
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    shared = project["tool"]["hatch"]["build"]["targets"]["wheel"]["shared-data"]
    assert shared == {
        "jupyter-config/jupyter_server_config.d": "etc/jupyter/jupyter_server_config.d",
        "jupyter-config/kernels": "share/jupyter/kernels",
        "tundra_nb/labextension": "share/jupyter/labextensions/tundra-nb",
    }
    switch = json.loads((ROOT / "jupyter-config/jupyter_server_config.d/tundra_nb.json").read_text())
    assert switch == {"ServerApp": {"jpserver_extensions": {"tundra_nb": True}}}
    installed = Path(sys.prefix) / "etc/jupyter/jupyter_server_config.d/tundra_nb.json"
    assert json.loads(installed.read_text()) == switch


def test_the_kernelspec_runs_under_nbclient() -> None:
    """ "Tundra (Python 3)" has the magics loaded, in whatever Python it was installed into."""
    import nbclient
    import nbformat

    code = "import sys; print(sys.prefix, 'tundra' in get_ipython().magics_manager.magics['line'])"
    cell: dict[str, Any] = {
        "cell_type": "code",
        "id": "a",
        "source": code,
        "metadata": {},
        "outputs": [],
        "execution_count": None,
    }
    notebook = nbformat.from_dict({"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5})
    nbclient.NotebookClient(notebook, kernel_name="tundra", timeout=60).execute()
    assert notebook.cells[0].outputs[0].text.split() == [sys.prefix, "True"]


def test_the_openapi_file_names_every_verb_of_the_bridge() -> None:
    """What the file promises is what the handler has."""
    import yaml  # type: ignore[import-untyped]

    from tundra_nb.server.proxy import MOUNT, DaemonProxy

    described = yaml.safe_load((ROOT / "tundra_nb/server/rest-api.yml").read_text())
    operations = set(described["paths"][f"{MOUNT}/{{path}}"]) - {"parameters"}
    unimplemented = DaemonProxy._unimplemented_method
    assert operations == {
        verb.lower()
        for verb in DaemonProxy.SUPPORTED_METHODS
        if getattr(DaemonProxy, verb.lower()) is not unimplemented
    }


def test_the_panel_is_shipped_as_it_is_written_under_the_hash_of_its_files(tmp_path: Path) -> None:
    """A wheel needs no Node: it holds exactly the files of the source, once, named by version and hash."""
    import hashlib
    import zipfile

    from tundra_nb._version import __version__

    source = ROOT / "tundra_nb/labextension"
    package = json.loads((source / "package.json").read_text())
    scripts = b"".join(file.read_bytes() for file in sorted((source / "static").glob("*.js")))
    load = f"static/remoteEntry.js?v={hashlib.sha256(scripts).hexdigest()[:12]}"
    assert (package["version"], package["jupyterlab"]["_build"]["load"]) == (__version__, load), "run `make docs`"

    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=100, env={"PATH": ""})
    (wheel,) = tmp_path.glob("*.whl")
    shipped = {name for name in zipfile.ZipFile(wheel).namelist() if "labextension" in name}
    prefix = f"tundra_nb-{__version__}.data/data/share/jupyter/labextensions/tundra-nb/"
    written = {str(file.relative_to(source)) for file in source.rglob("*") if file.is_file()}
    assert shipped == {prefix + name for name in written}


def test_who_only_looks_wakes_no_daemon(tmp_path: Path) -> None:
    """`wake=0` is answered with why there is none, and is not passed on."""
    import logging

    from tundra_nb.paths import Paths
    from tundra_nb.server.supervisor import Supervisor

    def never(*_: object) -> None:
        raise AssertionError("started")

    where = Paths(tmp_path, tmp_path / "s", tmp_path / "c")
    supervisor = Supervisor(where, never, logging.getLogger("test"))  # type: ignore[arg-type]
    assert supervisor.absence().reason == "absent"
    where.held.touch()
    error = supervisor.absence()
    assert (error.reason, error.http_status) == ("held", 503)
    assert "tundra daemon start" in error.hint
