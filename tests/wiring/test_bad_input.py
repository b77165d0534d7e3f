"""What a person gets wrong, told through both faces: one typed error with the remedy, and nothing half-made."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import psutil
import pytest
from jupyter_client.manager import KernelManager

from tests.conftest import Home, stop_processes, wait_until
from tests.kernel.conftest import Notebook
from tundra_nb import paths
from tundra_nb.testing.scripted_provider import scripted_process

pytestmark = [pytest.mark.part("doltlite"), pytest.mark.timeout(60)]

LOCAL = '[[profile]]\nname = "scripted"\nkind = "local"\nbase_url = "http://127.0.0.1:9/v1"\nmodel = "tiny"\n'


@dataclasses.dataclass
class Told:
    """What a person saw."""

    text: str
    failed: bool


class Face(Protocol):
    """A way to give a command."""

    home: Home
    prefix: str

    def run(self, line: str) -> Told: ...


class CommandLine:
    prefix = "tundra"

    def __init__(self, home: Home) -> None:
        self.home = home

    def run(self, line: str) -> Told:
        done = self.home.run(*line.split())
        assert "Traceback" not in done.stderr, done.stderr
        return Told(" ".join((done.stdout + done.stderr).split("\n")), done.returncode != 0)


class Kernel:
    """A kernel that is started at the first command, so that tests can prepare the home before."""

    prefix = "%tundra"

    def __init__(self, home: Home) -> None:
        self.home = home
        self._manager: KernelManager | None = None

    def run(self, line: str) -> Told:
        if self._manager is None:
            self._manager = KernelManager(kernel_name="python3")
            self._manager.start_kernel(env=self.home.env, cwd=str(self.home.folder))
            self._notebook = Notebook(self._manager, None, self.home.env)  # type: ignore[arg-type]
            loaded = self._notebook.run("%load_ext tundra_nb")
            assert loaded.error is None, loaded.traceback
        ran = self._notebook.run(f"%tundra {line}")
        text = ran.text + ran.stdout + (ran.traceback if ran.error else "")
        assert "Traceback" not in text, text
        return Told(" ".join(text.split("\n")), ran.error is not None)

    def close(self) -> None:
        if self._manager is not None:
            self._notebook.client.stop_channels()
            self._manager.shutdown_kernel(now=True)


@pytest.fixture(params=["cli", "kernel"])
def face(request: pytest.FixtureRequest, home: Home) -> Iterator[Face]:
    home.env |= {"COLUMNS": "400", "IPYTHONDIR": str(home.folder / "ipython")}
    if request.param == "cli":
        yield CommandLine(home)
        return
    kernel = Kernel(home)
    try:
        yield kernel
    finally:
        kernel.close()


def ours(home: Home) -> list[str]:
    """Command lines of daemon, guard and worker of a home."""
    found = []
    for process in home.daemon_processes():
        with contextlib.suppress(psutil.Error):
            command = " ".join(process.cmdline())
            if "tundra_nb.daemon" in command or "tundra_nb.runtime" in command:
                found.append(command)
    return found


def nothing_is_left(home: Home) -> None:
    """No process runs, and no file says that one does."""
    wait_until(lambda: not ours(home), 10, "no process is left")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("JUPYTER_RUNTIME_DIR", "XDG_RUNTIME_DIR"):
            if name in home.env:
                patch.setenv(name, home.env[name])
        where = paths.find(None, home.env)
    for file in (where.connection_file, where.socket, where.store, where.spool):
        assert not file.exists(), file


def test_an_unknown_word_names_the_nearest(face: Face) -> None:
    face.home.write_settings(LOCAL)
    for line, nearest in (
        ("stauts", "'status'"),
        ("calls --sinse 1h", "--since"),
        ("ask --profil x hi", "--profile"),
        ("breakers rest scripted", "'reset'"),
        ("daemon strat", "'start'"),
    ):
        told = face.run(line)
        assert told.failed, line
        assert "did you mean" in told.text.lower(), told.text
        assert nearest in told.text


@pytest.mark.parametrize(
    ("toml", "variables", "words"),
    [
        ("[brekaer]\nfailures = 5\n", {}, ["brekaer", "unknown setting", "'breaker'"]),
        ("[breaker]\nfailurs = 5\n", {}, ["breaker.failurs", "unknown setting", "'breaker.failures'"]),
        (LOCAL + 'modle = "x"\n', {}, ["profile.scripted.modle", "'profile.scripted.model'"]),
        ("", {"TUNDRA_BREAKER__FAILURS": "5"}, ["TUNDRA_BREAKER__FAILURS", "'breaker.failures'"]),
        ("[breaker\nfailures = 5\n", {}, ["tundra.toml, line 1", "not valid TOML"]),
        ("[breaker]\nfailures = 5\nsuccesses = = 2\n", {}, ["tundra.toml, line 3", "not valid TOML"]),
        ('[breaker]\nfailures = "many"\n', {}, ["tundra.toml", "breaker.failures", "expected `int`", "`str`"]),
        ("[breaker]\nfailures = 0\n", {}, ["breaker.failures", ">= 1"]),
        ("", {"TUNDRA_BREAKER__FAILURES": "many"}, ["TUNDRA_BREAKER__FAILURES", "breaker.failures", "`int`"]),
        ('[[profile]]\nname = "a"\nkind = "claude"\n', {}, ["profile.a.kind", "claude"]),
        ('[store]\nengine = "sqlite"\n', {}, ["store.engine", "sqlite"]),
        (LOCAL + LOCAL, {}, ["profile.scripted", "two profiles have this name"]),
        ('preset = "prod"\n', {}, ["preset", "prod"]),
        ('[log]\nfilter = "loud"\n', {}, ["loud"]),
    ],
)
def test_settings_that_are_wrong_are_named_by_place_and_nothing_starts(
    home: Home, toml: str, variables: dict[str, str], words: list[str]
) -> None:
    home.env |= variables | {"COLUMNS": "400"}
    home.write_settings(toml)
    told = CommandLine(home).run("status")
    assert told.failed
    assert "ConfigError" in told.text
    for word in words:
        assert word in told.text
    nothing_is_left(home)


def test_malformed_settings_are_told_in_a_notebook_and_correcting_them_is_enough(home: Home) -> None:
    home.write_settings("[breaker]\nfailures = 5\nsuccesses = = 2\n")
    kernel = Kernel(home)
    try:
        told = kernel.run("ask hi")
        assert told.failed
        assert "tundra.toml, line 3" in told.text
        assert "ConfigError" in told.text
        nothing_is_left(home)
        home.write_settings("[breaker]\nfailures = 5\nsuccesses = 2\n" + LOCAL)
        assert "scripted" in kernel.run("status").text
    finally:
        kernel.close()


def test_a_missing_key_names_the_variable_where_it_looked_and_the_profile(face: Face) -> None:
    face.home.write_settings(LOCAL + 'api_key_env = "MISSING_API_KEY"\n')
    told = face.run("ask hi")
    assert told.failed
    assert "MISSING_API_KEY" in told.text
    assert "scripted" in told.text
    assert "environment" in told.text
    status = face.run("status")
    assert not status.failed
    assert "parked" in status.text
    assert "MISSING_API_KEY" in status.text


def test_without_a_profile_status_and_ask_show_three_lines_that_make_one(face: Face) -> None:
    for line, failed in (("status", False), ("ask hi", True)):
        told = face.run(line)
        assert told.failed is failed, told.text
        commands = re.findall(
            rf"{face.prefix} (providers add local --kind local --base-url \S+|status|ask Say hi)", told.text
        )
        assert len(commands) == 3, told.text
    with scripted_process() as provider:  # and they do
        added = commands[0].rpartition(" ")[0] + f" {provider.base_url}"
        assert not face.run(added).failed
        assert not face.run(commands[1]).failed
        assert "word0" in face.run(commands[2]).text


@pytest.mark.parametrize("how", ["a file is in its place", "it cannot be made", "it is immutable"])
def test_a_data_directory_that_cannot_be_written_is_a_config_error(face: Face, how: str) -> None:
    home = face.home
    home.write_settings(LOCAL)
    with contextlib.ExitStack() as stack:
        if how == "a file is in its place":
            home.data_dir.write_text("something else")
        elif how == "it cannot be made":
            home.env["TUNDRA_DATA_DIR"] = "/proc/tundra-data"
        else:
            home.data_dir.mkdir()
            make_immutable(home.data_dir, stack)
        told = face.run("ask hi")
        assert told.failed
        assert "ConfigError" in told.text
        assert str(home.data_dir) in told.text
        assert "TUNDRA_DATA_DIR" in told.text, "the remedy"
        nothing_is_left(home)
        if how == "a file is in its place":
            assert home.data_dir.read_text() == "something else"
        elif how == "it is immutable":
            assert list(home.data_dir.iterdir()) == []


def make_immutable(folder: Path, stack: contextlib.ExitStack) -> None:
    """Make a directory that not even root may write to, until the stack closes."""
    if os.geteuid():
        folder.chmod(0o500)
        return
    if (
        not shutil.which("chattr")
        or subprocess.run(["chattr", "+i", folder], capture_output=True, check=False).returncode
    ):
        pytest.skip("this file system knows no immutable directories")
    stack.callback(lambda: subprocess.run(["chattr", "-i", folder], check=True))


def test_a_socket_path_that_is_too_long_is_a_config_error(face: Face) -> None:
    home = face.home
    home.write_settings(LOCAL)
    long = home.folder / ("x" * 100)
    long.mkdir()
    home.env["XDG_RUNTIME_DIR"] = str(long)
    told = face.run("ask hi")
    assert told.failed
    assert "ConfigError" in told.text
    assert re.search(r"socket's path has \d+ bytes, 99 are allowed", told.text), told.text
    assert "XDG_RUNTIME_DIR" in told.text, "the remedy"
    nothing_is_left(home)
    assert list(long.iterdir()) == []


def test_a_second_daemon_is_refused_and_the_first_goes_on(home: Home) -> None:
    home.write_settings(LOCAL)
    command = CommandLine(home)
    assert not command.run("daemon start").failed
    first = set(ours(home))
    pid = json.loads(command.run("daemon status --json").text)["pid"]
    second = command.run("daemon run")
    assert second.failed
    assert "IpcError" in second.text
    assert str(pid) in second.text
    assert set(ours(home)) == first
    assert not command.run("status").failed


@pytest.fixture
def deadly(home: Home) -> Path:
    """The store worker dies as soon as it starts, while the file `deadly/on` exists."""
    folder = home.folder / "deadly"
    folder.mkdir()
    (folder / "on").touch()
    (folder / "sitecustomize.py").write_text(
        "import os, sys\n"
        f"if 'tundra_nb.runtime.history.worker' in sys.orig_argv and os.path.exists({str(folder / 'on')!r}):\n"
        "    sys.stderr.write('the library is broken\\n')\n"
        "    os._exit(7)\n"
    )
    home.env["PYTHONPATH"] = os.pathsep.join(filter(None, [str(folder), home.env.get("PYTHONPATH")]))
    return folder / "on"


def test_a_worker_that_dies_on_each_start_fails_reads_and_no_call(face: Face, deadly: Path) -> None:
    home = face.home
    with scripted_process() as provider:
        home.write_settings(LOCAL.replace("http://127.0.0.1:9/v1", provider.base_url))
        assert "word0" in face.run("ask hi").text
        wait_until(lambda: "failing" in face.run("status --json").text, 20, "it is given up on")
        told = face.run("calls")
        assert told.failed
        assert "StoreUnavailable" in told.text
        assert "exit code 7: the library is broken" in told.text
        status = face.run("status")
        assert not status.failed
        assert "the library is broken" in status.text
        assert "word0" in face.run("ask again").text
        deadly.unlink()
        wait_until(lambda: not face.run("calls").failed, 20, "the store comes back")
        assert face.run("calls --json").text.count('"operation_id"') == 2, "what waited in the spool is there"


def test_a_stop_while_the_worker_cannot_start_leaves_no_process(home: Home, deadly: Path) -> None:
    home.write_settings(LOCAL)
    command = CommandLine(home)
    assert not command.run("status").failed
    assert not command.run("daemon stop").failed
    wait_until(lambda: not ours(home), 15, "no process is left")
    stop_processes(home)


def test_a_history_file_that_is_no_database_is_named_and_left_as_it_is(face: Face) -> None:
    home = face.home
    home.write_settings(LOCAL)
    home.data_dir.mkdir(parents=True)
    (home.data_dir / "history.db").write_bytes(b"this is not a database, but somebody's notes\n" * 100)
    told = wait_until(lambda: (said := face.run("calls")).failed and "Store" in said.text and said, 20, "it is told")
    assert "history.db" in told.text
    assert (home.data_dir / "history.db").read_bytes().startswith(b"this is not a database")


def test_python_says_the_same_as_the_faces(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    home.write_settings("[breaker]\nfailurs = 5\n")
    code = (
        "import tundra_nb, tundra_nb.errors as e\n"
        "try:\n    tundra_nb.connect()\n"
        "except e.ConfigError as error:\n    print(error.code, '|', error, '|', error.hint)\n"
    )
    done: Any = subprocess.run([sys.executable, "-c", code], env=home.env, capture_output=True, text=True, check=False)
    assert done.stdout.startswith("ConfigError |"), done.stderr
    assert "breaker.failurs" in done.stdout
    assert "'breaker.failures'" in done.stdout
