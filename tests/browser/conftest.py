"""Real JupyterLab and Notebook 7 in a real browser.

    def test_x(lab):                            # in JupyterLab; `notebook7` for the other
        page = lab.open(["%load_ext tundra_nb", "%tundra"])
        page.run_all()
        expect(page.output(1)).to_contain_text("tundra is ready")
        page.theme("dark"); page.screenshot("x")        # → $BROWSER_SHOTS/x.png, when that names a folder

`lab.provider` is the scripted provider behind the one profile `scripted`; `lab.tundra("status")` gives a command
beside the notebook. A widget is used in one of the two front ends, and looked at in the other once it is saved. Each
test has its own server, daemon and home, and fails when one of its pages has written an error to the console or asked
for anything from outside.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import httpx
import nbformat
import psutil
import pytest
from nbformat.v4 import new_code_cell, new_notebook
from playwright.sync_api import Browser, ConsoleMessage, Error, Locator, Page, Request, expect, sync_playwright

from tests.conftest import ROOT
from tests.contract.server import free_port
from tundra_nb.testing.scripted_provider import ScriptedProcess, scripted_process

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
TOKEN = "browser-test-token"
SECONDS = 40
"""Longest wait for anything in the browser; a loaded machine starts a kernel in ten."""
OF_JUPYTER = ("Failed to load resource", "WebSocket connection to", "Could not restore the debugger state")
"""What Chromium itself writes when a server has gone, or says no; and JupyterLab of a kernel that has."""
KERNEL_ANSWERS = """async () => {
    const session = window.jupyterapp.shell.currentWidget.sessionContext;
    await session.ready;
    await session.session.kernel.info;
}"""
THEMES = {"light": "JupyterLab Light", "dark": "JupyterLab Dark"}
USER_SETTINGS = {
    # all cells are in the page, also those that are out of sight
    "@jupyterlab/notebook-extension/tracker.jupyterlab-settings": {"windowingMode": "none"},
    "@jupyterlab/apputils-extension/notification.jupyterlab-settings": {
        "fetchNews": "false",
        "checkForUpdates": False,
    },
}
SETTINGS = """\
[router]
retries = 0
[breaker]
failures = 1
successes = 1
open_seconds = {open_seconds}
[[profile]]
name = "scripted"
kind = "local"
base_url = "{url}/v1"
model = "tiny"
rpm = 600
"""
App = Literal["lab", "notebook"]
BASH = r"bash-[\d.]+[$#]"
"""The prompt of `bash --norc --noprofile`."""


def await_prompt(screen: Locator, prompt: str = BASH) -> None:
    """Wait until a terminal's last words are a prompt.

    Programs that take over a terminal, or give it back, throw away what was typed meanwhile.
    """
    expect(screen).to_have_text(re.compile(prompt + r"\s*$"))


@dataclasses.dataclass
class NotebookPage:
    """One notebook that is open in the browser."""

    page: Page
    path: Path

    def run_all(self) -> None:
        """Run every cell and wait until the last is done."""
        self.command("notebook:run-all-cells", wait=True)

    def run(self, index: int, *, wait: bool = True) -> None:
        """Run one cell, and wait until it is done."""
        self.page.evaluate("index => { window.jupyterapp.shell.currentWidget.content.activeCellIndex = index; }", index)
        self.command("notebook:run-cell", wait=wait)

    def cell(self, index: int) -> Locator:
        return self.page.locator(".jp-Notebook .jp-Cell").nth(index)

    def output(self, index: int) -> Locator:
        """What a cell shows."""
        return self.cell(index).locator(".jp-Cell-outputArea")

    def theme(self, name: Literal["light", "dark"]) -> None:
        """Change Jupyter's theme, and what the browser says that the person prefers."""
        self.page.emulate_media(color_scheme=name)
        self.command("apputils:change-theme", theme=THEMES[name])
        light = str(name == "light").lower()
        self.page.wait_for_selector(f'body[data-jp-theme-light="{light}"]', state="attached")

    def save(self) -> nbformat.NotebookNode:
        """Save it; what is on disk then."""
        before = self.path.stat().st_mtime_ns
        self.command("docmanager:save")
        deadline = time.monotonic() + SECONDS
        while True:
            assert time.monotonic() < deadline, "the notebook was not saved"
            self.page.wait_for_timeout(50)
            if self.path.stat().st_mtime_ns != before:
                with contextlib.suppress(nbformat.reader.NotJSONError):  # it is being written
                    saved: nbformat.NotebookNode = nbformat.read(self.path, as_version=4)
                    return saved

    def command(self, name: str, *, wait: bool = False, **args: Any) -> None:
        """Give a command of Jupyter's front end, as its menus do.

        Args:
            name: of the command.
            wait: until it is done.
            args: its arguments.
        """
        give = "const done = window.jupyterapp.commands.execute(name, args).then(() => null);"
        self.page.evaluate(f"([name, args, wait]) => {{ {give} return wait ? done : null; }}", [name, args, wait])

    def screenshot(self, name: str) -> None:
        """For the eye, when `BROWSER_SHOTS` names a folder."""
        if folder := os.environ.get("BROWSER_SHOTS"):
            self.page.screenshot(path=str(Path(folder) / f"{name}.png"))

    def alone(self, width: int) -> None:
        """Make the page so wide, with nothing but the notebook on it."""
        self.page.set_viewport_size({"width": width, "height": 900})
        left = self.page.locator("#jp-left-stack")
        if left.count() and left.is_visible():
            self.command("application:toggle-left-area")
            expect(left).to_be_hidden()

    def close(self) -> None:
        self.page.close()


@dataclasses.dataclass
class Jupyter:
    """A running Jupyter server with one of its two front ends."""

    app: App
    url: str
    folder: Path
    env: dict[str, str]
    browser: Browser
    provider: ScriptedProcess
    complaints: list[str] = dataclasses.field(default_factory=list)
    """Errors of the console, and requests to elsewhere."""

    def watch(self, page: Page) -> Page:
        """Note what must not happen on a page."""

        def console(message: ConsoleMessage) -> None:
            is_jupyters = message.text.startswith(OF_JUPYTER) or "/static/" in message.text
            if message.type == "error" and not is_jupyters:
                self.complaints.append(f"console: {message.text}")

        def request(asked: Request) -> None:
            if asked.url.startswith("http") and not asked.url.startswith(self.url):
                self.complaints.append(f"request: {asked.url}")

        page.on("console", console)

        def failed(error: Error) -> None:
            if "/static/" not in (error.stack or ""):  # Jupyter's own; a widget's script is a blob
                self.complaints.append(f"page: {error}")

        page.on("pageerror", failed)
        page.on("request", request)
        return page

    def open(
        self,
        cells: Sequence[str] | nbformat.NotebookNode,
        *,
        name: str = "test.ipynb",
        kernel: bool = True,
        password: str = "",
    ) -> NotebookPage:
        """Write a notebook and open it, in a fresh browser profile.

        Args:
            cells: their sources; or a whole notebook.
            name: of the file.
            kernel: without one nothing is started: what a person sees who only looks at a saved notebook.
            password: to log in with, where the server has one and no token: the page has a cookie then, and no more.
        """
        notebook = cells if isinstance(cells, nbformat.NotebookNode) else new_notebook()
        if not isinstance(cells, nbformat.NotebookNode):
            notebook.cells = [new_code_cell(cell) for cell in cells]
        spec = "python3" if kernel else "absent"
        notebook.metadata["kernelspec"] = {"name": spec, "display_name": spec, "language": "python"}
        path = self.folder / "notebooks" / name
        nbformat.write(notebook, path)
        page = self.watch(self.browser.new_page(viewport={"width": 1280, "height": 900}))
        page.set_default_timeout(SECONDS * 1000)
        place = f"lab/tree/{name}?reset" if self.app == "lab" else f"notebooks/{name}"
        if password:
            page.goto(f"{self.url}login")
            page.locator("input[name=password]").fill(password)
            page.locator("button[type=submit]").click()
            page.wait_for_url(re.compile(r"/(lab|tree)"))
            page.goto(self.url + place)
        else:
            page.goto(f"{self.url}{place}{'&' if '?' in place else '?'}token={TOKEN}")
        page.wait_for_selector(".jp-Notebook .jp-Cell")
        made = NotebookPage(page, path)
        if kernel:
            page.evaluate(KERNEL_ANSWERS)
        else:
            dialog = page.locator(".jp-Dialog")
            dialog.get_by_role("button", name="No Kernel").click()
            expect(dialog).to_have_count(0)
        return made

    def tundra(self, *args: str) -> str:
        """Give `tundra ARGS` beside the notebook; what it prints."""
        command = [sys.executable, "-m", "tundra_nb.cli", *args]
        done = subprocess.run(command, env=self.env, capture_output=True, text=True, timeout=SECONDS, check=False)
        return done.stdout + done.stderr

    def write_settings(self, toml: str) -> None:
        """Replace the settings; before the daemon is started."""
        Path(self.env["TUNDRA_CONFIG"]).write_text(toml)


@pytest.fixture(scope="module")  # not longer: while it lasts its event loop runs in this thread, and no other can
def chromium() -> Iterator[Browser]:
    expect.set_options(timeout=SECONDS * 1000)
    path = next(filter(None, map(shutil.which, CHROMIUM)))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(ARGUMENTS))
        yield browser
        browser.close()


@pytest.fixture
def start_jupyter(chromium: Browser) -> Iterator[Callable[[App], Jupyter]]:
    """Start a server for a front end; all are ended with the test."""
    made: list[Jupyter] = []
    with contextlib.ExitStack() as stack:

        def start(
            app: App,
            *,
            open_seconds: float = 30,
            prepare: Callable[[dict[str, str]], object] | None = None,
            options: Sequence[str] = (),
        ) -> Jupyter:
            # short, because a Unix socket's path must stay under 100 bytes
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tnb-", ignore_cleanup_errors=True)))
            provider = stack.enter_context(scripted_process(pieces=4))
            env = _environment(folder)
            (folder / "notebooks").mkdir()
            Path(env["TUNDRA_CONFIG"]).write_text(SETTINGS.format(url=provider.url, open_seconds=open_seconds))
            if prepare is not None:
                prepare(env)
            url = stack.enter_context(_server(app, folder, env, options))
            made.append(Jupyter(app, url, folder, env, chromium, provider))
            return made[-1]

        yield start
        assert [told for one in made for told in one.complaints] == []


@pytest.fixture
def lab(start_jupyter: Callable[[App], Jupyter]) -> Jupyter:
    return start_jupyter("lab")


@pytest.fixture
def notebook7(start_jupyter: Callable[[App], Jupyter]) -> Jupyter:
    return start_jupyter("notebook")


def _environment(folder: Path) -> dict[str, str]:
    """The environment of a person whose home is `folder`."""
    (folder / "run").mkdir(mode=0o700)
    settings = folder / "settings"
    for name, values in USER_SETTINGS.items():
        file = settings / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values))
    # what is in the source, not what was installed of it some time ago
    extensions = folder / "jupyter" / "labextensions"
    extensions.mkdir(parents=True)
    (extensions / "tundra-nb").symlink_to(ROOT / "tundra_nb" / "labextension")
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "PYTHONPATH", "TZ") if name in os.environ}
    return kept | {
        "HOME": str(folder),
        "XDG_RUNTIME_DIR": str(folder / "run"),
        "IPYTHONDIR": str(folder / "ipython"),
        "JUPYTER_CONFIG_DIR": str(folder / "config"),
        "JUPYTER_DATA_DIR": str(folder / "jupyter"),
        "JUPYTER_PREFER_ENV_PATH": "0",  # else an environment's copy of the extension comes first
        "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
        "JUPYTERLAB_SETTINGS_DIR": str(settings),
        "JUPYTERLAB_WORKSPACES_DIR": str(folder / "workspaces"),
        "JUPYTER_TOKEN": TOKEN,
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
        "TUNDRA_DATA_DIR": str(folder / "tundra"),
        "TUNDRA_CONFIG": str(folder / "tundra.toml"),
    }


@contextlib.contextmanager
def _server(app: App, folder: Path, env: dict[str, str], options: Sequence[str] = ()) -> Iterator[str]:
    """A Jupyter server; its URL, which ends in a slash. Its kernels and daemon end with it."""
    module, trait = ("jupyterlab", "LabApp") if app == "lab" else ("notebook", "JupyterNotebookApp")
    command = [
        *(sys.executable, "-m", module, "--no-browser", f"--port={free_port()}", "--allow-root"),
        f"--ServerApp.root_dir={folder / 'notebooks'}",
        f"--{trait}.expose_app_in_browser=True",
        *options,
    ]
    log = folder / "server.log"
    with log.open("wb") as file:
        process = subprocess.Popen(command, env=env, stdout=file, stderr=file, cwd=folder, start_new_session=True)
    try:
        yield _await_url(process, Path(env["JUPYTER_RUNTIME_DIR"]) / f"jpserver-{process.pid}.json", log)
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for left in _of_this_home(env):  # only a failed test has left any
            with contextlib.suppress(psutil.Error):
                left.kill()


def _await_url(process: subprocess.Popen[bytes], info: Path, log: Path) -> str:
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError, ValueError, KeyError, httpx.HTTPError):
            url = str(json.loads(info.read_text())["url"])
            if httpx.get(url + "api", trust_env=False, timeout=5).status_code == 200:
                return url
        time.sleep(0.05)
    pytest.fail(f"the Jupyter server did not answer:\n{log.read_text(errors='replace')}")


def _of_this_home(env: dict[str, str]) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("TUNDRA_DATA_DIR") == env["TUNDRA_DATA_DIR"]:
                found.append(process)
    return found
