"""`tundra doctor` in real situations: it finds exactly what is wrong, and its remedy works when it is followed."""

from __future__ import annotations

import contextlib
import email.utils
import http.server
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import venv
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest
import trustme

from tests.conftest import Home, wait_until
from tests.contract.server import free_port, listens, mariadb
from tundra_nb.doctor import configuration
from tundra_nb.doctor.check import SYMPTOMS, Finding
from tundra_nb.doctor.place import Subject
from tundra_nb.doctor.run import run
from tundra_nb.paths import find
from tundra_nb.testing.scripted_provider import ScriptedProcess, ScriptedStep, scripted_process

pytestmark = [pytest.mark.check, pytest.mark.part("doltlite"), pytest.mark.timeout(100)]

PROFILE = """
[router]
retries = 0
[[profile]]
name = "primary"
kind = "openai"
base_url = "{url}/v1"
model = "scripted-1"
api_key_env = "{variable}"
"""
KEY = {"PRIMARY_API_KEY": "doctors-own-key-77aa"}


@pytest.fixture(scope="module")
def provider() -> Iterator[ScriptedProcess]:
    with scripted_process() as made:
        yield made


@pytest.fixture
def healthy(home: Home, provider: ScriptedProcess) -> Home:
    """A home whose profile answers and whose key is set."""
    provider.reset()
    home.env.update(KEY)
    home.write_settings(PROFILE.format(url=provider.url, variable="PRIMARY_API_KEY"))
    return home


def doctor(home: Home, *args: str, **env: Any) -> dict[str, Any]:
    """What `tundra doctor --json` says; its exit code must fit."""
    done = home.run("doctor", "--json", *args, **env)
    assert done.stdout, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == (0 if told["ok"] else 1)
    assert told["seconds"] < 10
    return told


def wrong(told: dict[str, Any], *states: str) -> dict[str, dict[str, Any]]:
    """The findings that are not well, by id, without those on the machine, which others load as they like."""
    chosen = states or ("warn", "fail")
    skipped = ("machine.", "store.disk", "ptys.system", "interpreters.server")
    return {c["id"]: c for c in told["checks"] if c["state"] in chosen and not c["id"].startswith(skipped)}


def commands(finding: dict[str, Any]) -> list[str]:
    return re.findall(r"`([^`]+)`", finding["remedy"])


def test_a_healthy_installation_has_nothing_wrong_and_every_finding_is_whole(healthy: Home) -> None:
    assert healthy.run("ask", "hello").returncode == 0
    told = doctor(healthy)
    assert wrong(told) == {}
    assert told["ok"] is True
    for check in told["checks"]:
        assert set(check) >= {"id", "group", "title", "state", "evidence", "remedy", "page", "seconds"}
        assert check["evidence"]
        assert check["state"] != "ok" or not check["remedy"]
    ids = [check["id"] for check in told["checks"]]
    assert len(ids) == len(set(ids))
    parts = ["key", "resolve", "connect", "tls", "proxy", "answer", "clock"]
    assert {f"provider.primary.{part}" for part in parts} <= set(ids)
    assert "doctors-own-key" not in json.dumps(told)


class _Models(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = b'{"object": "list", "data": [{"id": "scripted-1"}]}'
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None: ...


def test_a_private_authority_is_looked_for_where_the_daemon_looks(home: Home) -> None:
    ca, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("localhost").configure_cert(context)
    file = home.folder / "ca.pem"
    ca.cert_pem.write_to_path(str(file))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Models) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        home.write_settings(PROFILE.format(url=f"https://localhost:{server.server_port}", variable=""))
        assert home.run("daemon", "start", SSL_CERT_FILE=str(file)).returncode == 0
        found = {check["id"]: check for check in doctor(home, "--for", "network")["checks"]}
        assert found["provider.primary.tls"]["state"] == "ok"
        assert f"trusted is {file}, by the daemon's environment" in found["provider.primary.tls"]["evidence"]
        assert home.run("daemon", "restart").returncode == 0
        found = wrong(doctor(home, "--for", "network", SSL_CERT_FILE=str(file)), "fail")
        assert "certificate verify failed" in found["provider.primary.tls"]["evidence"], "the daemon does not trust it"
        assert home.run("daemon", "stop").returncode == 0
        found = {check["id"]: check for check in doctor(home, "--for", "network", SSL_CERT_FILE=str(file))["checks"]}
        assert "by this shell's environment" in found["provider.primary.tls"]["evidence"]
        server.shutdown()


def test_it_starts_nothing_and_writes_nothing(healthy: Home) -> None:
    told = doctor(healthy)
    assert wrong(told) == {}
    assert not healthy.data_dir.exists()


@pytest.mark.parametrize("symptom", SYMPTOMS)
def test_each_symptom_has_checks_of_its_own(home: Home, symptom: str) -> None:
    told = doctor(home, "--for", symptom)
    assert told["symptom"] == symptom
    assert len(told["checks"]) >= 3
    assert symptom == "everything" or any(check["group"] == symptom for check in told["checks"])


def test_without_keys_and_profiles_it_says_how_to_make_one(home: Home, provider: ScriptedProcess) -> None:
    found = wrong(doctor(home), "fail")
    assert list(found) == ["provider"]
    assert found["provider"]["page"] == "NoProfile"
    line = next(c for c in commands(found["provider"]) if c.startswith("tundra providers add"))
    done = home.run(*line.replace("http://127.0.0.1:8080", provider.url).split()[1:])
    assert done.returncode == 0, done.stderr
    assert wrong(doctor(home)) == {}


def test_a_key_that_is_set_nowhere_is_named_and_offering_it_helps(home: Home, provider: ScriptedProcess) -> None:
    home.write_settings(PROFILE.format(url=provider.url, variable="PRIMARY_API_KEY"))
    home.run("status")
    found = wrong(doctor(home), "fail")
    assert set(found) == {"provider.primary.key"} | ({"protection.primary.parked"} & set(found))
    assert "PRIMARY_API_KEY" in found["provider.primary.key"]["evidence"]
    assert found["provider.primary.key"]["page"] == "KeyMissing"
    home.env.update(KEY)
    found = wrong(doctor(home), "fail")
    assert "the daemon lacks it" in found["provider.primary.key"]["evidence"]
    for line in commands(found["provider.primary.key"]):
        assert home.run(*line.split()[1:]).returncode == 0
    assert wrong(doctor(home)) == {}


def test_fix_hands_over_a_key_that_the_daemon_lacks(home: Home, provider: ScriptedProcess) -> None:
    home.write_settings(PROFILE.format(url=provider.url, variable="PRIMARY_API_KEY"))
    home.run("status")
    home.env.update(KEY)
    told = doctor(home, "--fix", "--yes")
    assert told["fixed"] == ["offer_keys"]
    assert wrong(told) == {}


def test_without_a_yes_nothing_is_fixed(home: Home, provider: ScriptedProcess) -> None:
    home.write_settings(PROFILE.format(url=provider.url, variable="PRIMARY_API_KEY"))
    home.run("status")
    home.env.update(KEY)
    told = doctor(home, "--fix")
    assert told["fixed"] == []
    assert "provider.primary.key" in wrong(told, "fail")


def test_a_wrong_key_is_found_by_asking_the_provider(healthy: Home, provider: ScriptedProcess) -> None:
    provider.script("/v1/models", ScriptedStep(status=401, text="Incorrect API key provided", repeat=0))
    found = wrong(doctor(healthy), "fail")
    assert list(found) == ["provider.primary.key"]
    assert "PRIMARY_API_KEY" in found["provider.primary.key"]["evidence"]
    assert found["provider.primary.key"]["page"] == "KeyRejected"
    provider.reset()  # the vendor takes the corrected key
    assert wrong(doctor(healthy)) == {}


def test_a_dead_provider_is_refused_at_the_step_of_connecting(healthy: Home, provider: ScriptedProcess) -> None:
    healthy.write_settings(PROFILE.format(url=f"http://127.0.0.1:{free_port()}", variable=""))
    found = wrong(doctor(healthy), "fail")
    assert list(found) == ["provider.primary.connect"]
    assert "nobody listens" in found["provider.primary.connect"]["evidence"]
    line = next(c for c in commands(found["provider.primary.connect"]) if "base_url" in c)
    assert healthy.run(*line.replace("URL", f"{provider.url}/v1").split()[1:]).returncode == 0
    assert wrong(doctor(healthy)) == {}


def test_a_name_that_cannot_be_resolved_is_found_at_that_step(healthy: Home, provider: ScriptedProcess) -> None:
    healthy.write_settings(PROFILE.format(url="http://no-such-host.invalid", variable=""))
    found = wrong(doctor(healthy, "--for", "network"), "fail")
    assert list(found) == ["provider.primary.resolve"]
    line = next(c for c in commands(found["provider.primary.resolve"]) if "base_url" in c)
    assert healthy.run(*line.replace("URL", f"{provider.url}/v1").split()[1:]).returncode == 0
    assert wrong(doctor(healthy)) == {}


@contextlib.contextmanager
def refusing_proxy() -> Iterator[str]:
    """A proxy that answers every request with 407."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        code = (
            "import socket,sys\n"
            "s=socket.socket(fileno=int(sys.argv[1]))\n"
            "while True:\n"
            " c,_=s.accept(); c.recv(4096); c.sendall(b'HTTP/1.1 407 Proxy Authentication Required\\r\\n"
            "content-length: 0\\r\\n\\r\\n'); c.close()\n"
        )
        process = subprocess.Popen([sys.executable, "-c", code, str(listening.fileno())], pass_fds=[listening.fileno()])
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.kill()
            process.wait()


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_refuses_is_named_and_no_proxy_helps(
    healthy: Home, provider: ScriptedProcess, scheme: str
) -> None:
    url = provider.url if scheme == "http" else "https://api.example.invalid"
    healthy.write_settings(PROFILE.format(url=url, variable=""))
    with refusing_proxy() as proxy:
        found = wrong(doctor(healthy, "--for", "network", **{f"{scheme}_proxy": proxy}), "fail")
        assert list(found) == ["provider.primary.proxy"]
        assert "407" in found["provider.primary.proxy"]["evidence"]
        if scheme == "http":
            told = doctor(healthy, "--for", "network", http_proxy=proxy, no_proxy="127.0.0.1")
            assert wrong(told) == {}


def test_a_clock_that_is_an_hour_off_is_compared_with_the_providers(healthy: Home, provider: ScriptedProcess) -> None:
    for hours, words in ((1, "behind"), (-1, "ahead")):
        date = email.utils.formatdate(time.time() + 3600 * hours, usegmt=True)
        provider.script("/v1/models", ScriptedStep(headers=(("date", date),)))
        found = wrong(doctor(healthy), "fail")
        assert list(found) == ["provider.primary.clock"]
        assert words in found["provider.primary.clock"]["evidence"]
        assert found["provider.primary.clock"]["page"] == "clock-set-back"
    assert wrong(doctor(healthy)) == {}


def test_a_stale_socket_is_found_and_removed(healthy: Home) -> None:
    assert healthy.run("status").returncode == 0
    file = Path(json.loads(healthy.run("daemon", "status", "--json").stdout)["socket"])
    healthy.run("daemon", "stop", "--force")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(file))
    (healthy.data_dir / "daemon.held").unlink()
    found = wrong(doctor(healthy))
    assert list(found) == ["daemon.socket"]
    assert "nobody listens" in found["daemon.socket"]["evidence"]
    told = doctor(healthy, "--fix", "--yes")
    assert told["fixed"] == ["remove_socket"]
    assert wrong(told) == {}
    assert not file.exists()


def test_a_socket_that_was_deleted_under_a_living_daemon_is_found(healthy: Home) -> None:
    assert healthy.run("status").returncode == 0
    status = json.loads(healthy.run("daemon", "status", "--json").stdout)
    os.kill(status["pid"], signal.SIGSTOP)  # so that it cannot bind a new one before it is looked at
    try:
        Path(status["socket"]).unlink()
        found = wrong(doctor(healthy), "fail")
    finally:
        os.kill(status["pid"], signal.SIGCONT)
    assert {"daemon.process", "daemon.socket"} == set(found)
    assert str(status["pid"]) in found["daemon.socket"]["remedy"]
    doctor(healthy, "--fix", "--yes")
    wait_until(lambda: not wrong(doctor(healthy)), timeout=60, what="the remedy works")


def test_a_daemon_that_was_stopped_on_purpose_is_brought_back(healthy: Home) -> None:
    healthy.run("status")
    healthy.run("daemon", "stop", "--force")
    found = wrong(doctor(healthy))
    assert list(found) == ["daemon.process"]
    told = doctor(healthy, "--fix", "--yes")
    assert told["fixed"] == ["start"]
    assert wrong(told) == {}


def test_a_settings_file_that_cannot_be_read_is_named_by_line(healthy: Home) -> None:
    good = healthy.config.read_text()
    healthy.write_settings(good + "\n[breaker\n")
    found = wrong(doctor(healthy, "--for", "configuration"), "fail")
    assert list(found) == ["settings.file"]
    assert "line" in found["settings.file"]["evidence"]
    healthy.write_settings(good)
    assert wrong(doctor(healthy)) == {}


def test_a_directory_that_others_may_read_is_closed(healthy: Home) -> None:
    healthy.run("status")
    healthy.data_dir.chmod(0o755)
    found = wrong(doctor(healthy))
    assert list(found) == ["data.directory"]
    assert found["data.directory"]["page"] == "permission-denied"
    told = doctor(healthy, "--fix", "--yes")
    assert wrong(told) == {}
    assert healthy.data_dir.stat().st_mode & 0o077 == 0


DAMAGES: dict[str, Callable[[Path], object]] = {
    "overwritten": lambda file: file.write_bytes(b"damaged"),
    "another program's bytes": lambda file: file.write_bytes(bytes(range(256)) * 40),
    "cut": lambda file: os.truncate(file, file.stat().st_size // 3),
    "a page spoilt": lambda file: spoil(file, at=file.stat().st_size // 2),
}


def spoil(file: Path, at: int) -> None:
    with file.open("r+b") as stream:
        stream.seek(at)
        stream.write(bytes(range(255, 0, -1)) * 40)


def test_a_damaged_file_is_found_while_no_daemon_runs_and_restoring_helps(healthy: Home) -> None:
    healthy.run("ask", "hello")
    healthy.run("backup")
    healthy.run("daemon", "stop")
    file = healthy.data_dir / "history.db"
    whole = file.read_bytes()
    sound = {c["id"]: c for c in doctor(healthy, "--for", "database")["checks"]}["store.database"]
    assert sound["state"] == "ok"
    assert "sound" in sound["evidence"]
    for name, damage in DAMAGES.items():
        file.write_bytes(whole)
        damage(file)
        found = wrong(doctor(healthy, "--for", "database"), "fail")
        assert list(found) == ["store.database"], name
        assert "damaged" in found["store.database"]["evidence"], name
        assert found["store.database"]["page"] == "damaged-store"
    for line in ("tundra daemon start", "tundra restore"):
        assert line in commands(found["store.database"])
        assert healthy.run(*line.split()[1:]).returncode == 0
    assert wrong(doctor(healthy)) == {}
    assert healthy.run("calls").returncode == 0


@pytest.mark.parametrize("name", ["history.db", "spool/0000000001.spool", "logs/daemon.log"])
def test_a_pipe_in_the_data_directory_is_told_at_once_as_a_start_tells_it(healthy: Home, name: str) -> None:
    pipe = healthy.data_dir / name
    pipe.parent.mkdir(parents=True, mode=0o700)
    healthy.data_dir.chmod(0o700)
    os.mkfifo(pipe)
    refused = healthy.run("daemon", "start")
    told = doctor(healthy)
    directory = wrong(told, "fail")["data.directory"]
    assert f"{pipe}: this is a pipe" in directory["evidence"]
    assert directory["evidence"] in refused.stderr
    assert directory["remedy"] in refused.stderr
    assert "no answer within" not in json.dumps(told)
    pipe.unlink()
    assert wrong(doctor(healthy)) == {}


def test_a_directory_in_the_place_of_the_history_is_told_as_that(healthy: Home) -> None:
    file = healthy.data_dir / "history.db"
    file.mkdir(parents=True)
    healthy.data_dir.chmod(0o700)
    for _ in range(2):
        found = wrong(doctor(healthy, "--for", "database"), "fail")["store.database"]
        assert f"{file} is a directory, not a file" in found["evidence"]
        assert found["remedy"].startswith("Move it away")
        refused = healthy.run("calls")  # starts the daemon
        assert "is a directory, not a file" in refused.stderr
        assert "Move it away" in refused.stderr
    file.rmdir()
    wait_until(lambda: healthy.run("calls").returncode == 0, 20)  # the store looks again every few seconds


def inside(home: Home, mount: str, before: str = "true") -> dict[str, Any]:
    """`tundra doctor` with another disk mounted at the data directory, in a mount namespace of its own."""
    home.data_dir.mkdir(exist_ok=True)
    script = f"{mount} {home.data_dir} && {before} && {sys.executable} -m tundra_nb.cli doctor --json"
    flags = "-m" if os.geteuid() == 0 else "-rm"
    done = subprocess.run(
        ["unshare", flags, "sh", "-c", script],
        env=home.env,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        cwd=home.folder,
    )
    if not done.stdout:
        pytest.skip(f"this machine lets nobody mount: {done.stderr.strip()[-200:]}")
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def test_a_read_only_data_directory_is_named_with_its_remedy(healthy: Home) -> None:
    found = wrong(inside(healthy, "mount -t tmpfs -o ro,mode=700 tmpfs"), "fail")
    assert list(found) == ["data.directory"]
    assert "Read-only" in found["data.directory"]["evidence"]
    assert found["data.directory"]["page"] == "permission-denied"
    assert "TUNDRA_DATA_DIR" in found["data.directory"]["remedy"]
    other = str(healthy.folder / "elsewhere")
    assert wrong(doctor(healthy, TUNDRA_DATA_DIR=other), "fail") == {}


def test_a_full_disk_is_named_with_its_remedy(healthy: Home) -> None:
    fill = f"(head -c 3000000 /dev/zero > {healthy.data_dir}/ballast || true)"
    told = inside(healthy, "mount -t tmpfs -o size=1m,mode=700 tmpfs", fill)
    failing = {c["id"]: c for c in told["checks"] if c["state"] == "fail"}
    assert "store.disk" in failing
    assert set(failing) <= {"store.disk", "data.directory"}
    assert failing["store.disk"]["page"] == "disk-full"
    assert "tundra clean --yes" in commands(failing["store.disk"])
    assert "store.disk" not in {c["id"] for c in doctor(healthy)["checks"] if c["state"] == "fail"}


@pytest.mark.part("mariadb")
def test_mariadb_on_the_port_is_named_and_the_embedded_store_helps(healthy: Home, tmp_path: Path) -> None:
    port = free_port() if listens(3306) else 3306
    with mariadb(tmp_path / "m", port):
        healthy.write_settings(healthy.config.read_text() + f'[store]\nengine = "dolt"\nport = {port}\n')
        found = wrong(doctor(healthy), "fail")
        assert list(found) == [f"store.ports.{port}"]
        assert "MariaDB" in found[f"store.ports.{port}"]["evidence"]
        assert found[f"store.ports.{port}"]["page"] == "port-3306-conflict"
        assert any("store.port" in line for line in commands(found[f"store.ports.{port}"]))
        healthy.run("status")
        assert "store.database" in wrong(doctor(healthy), "fail"), "the daemon says the same"
        for line in ("settings set store.engine=doltlite", "daemon restart"):
            assert healthy.run(*line.split()).returncode == 0
        assert wrong(doctor(healthy)) == {}


def test_a_kernel_whose_environment_lacks_the_package_is_named_with_the_command_that_helps(
    healthy: Home, tmp_path: Path
) -> None:
    environment = tmp_path / "empty"
    venv.create(environment, with_pip=False, symlinks=True)
    python = str(environment / "bin" / "python")
    spec = tmp_path / "share" / "kernels" / "lonely"
    spec.mkdir(parents=True)
    argv = [python, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (spec / "kernel.json").write_text(json.dumps({"argv": argv, "display_name": "Lonely", "language": "python"}))
    path = {"JUPYTER_PATH": str(tmp_path / "share")}
    found = wrong(doctor(healthy, **path), "fail")
    assert list(found) == ["interpreters.kernel.lonely"]
    assert python in found["interpreters.kernel.lonely"]["evidence"]
    line = commands(found["interpreters.kernel.lonely"])[0]
    assert line.startswith(f"{python} -m pip install tundra-nb")
    # installed as the remedy says, only from where the tests have it: the index may not have this version yet
    packages = next((environment / "lib").glob("python*/site-packages"))
    import tundra_nb
    from tundra_nb._version import __version__

    (packages / "tundra.pth").write_text(str(Path(tundra_nb.__file__).parent.parent))
    (packages / f"tundra_nb-{__version__}.dist-info").mkdir()
    (packages / f"tundra_nb-{__version__}.dist-info" / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: tundra-nb\nVersion: {__version__}\n"
    )
    assert wrong(doctor(healthy, **path)) == {}


def looked(env: Mapping[str, str]) -> dict[str, Finding]:
    """What the checks of the configuration find in an environment."""
    return {one.id: one for one in run(Subject(find(None, env), env), configuration.CHECKS).checks}


@pytest.mark.parametrize(
    ("kind", "options", "told"),
    [
        ("nfs4", "rw,vers=4.2", "network filesystem"),
        ("nfs", "rw,nolock,local_lock=all", "nolock, local_lock=all"),
        ("cifs", "rw,nobrl", "nobrl"),
    ],
)
def test_a_data_directory_on_a_network_disk_is_told_with_what_its_locks_are(
    home: Home, monkeypatch: pytest.MonkeyPatch, kind: str, options: str, told: str
) -> None:
    """No test machine mounts NFS: what the system says of its mounts is put in its place."""
    mount = type(psutil.disk_partitions(all=True)[0])("server:/home", str(home.folder), kind, options)
    monkeypatch.setattr(psutil, "disk_partitions", lambda *_, **__: [mount])
    home.data_dir.mkdir()
    found = looked(home.env)["data.filesystem"]
    assert found.state == "fail"
    assert told in found.evidence
    assert "TUNDRA_DATA_DIR" in found.remedy


def test_hub_and_container_are_named(home: Home) -> None:
    env = home.env | {"JUPYTERHUB_USER": "ada", "KUBERNETES_SERVICE_HOST": "10.0.0.1"}
    env.pop("XDG_RUNTIME_DIR", None)
    found = looked(env)["surroundings"]
    assert found.state == "ok"
    for told in ("JupyterHub, user ada", "in pod", "no XDG_RUNTIME_DIR"):
        assert told in found.evidence
    del env["TUNDRA_DATA_DIR"]
    found = looked(env)["surroundings"]
    assert found.state == "warn"
    assert "c.Spawner.environment" in found.remedy
