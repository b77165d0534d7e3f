"""Each page's recipe, run as it is written: it raises exactly that code and leaves its row, and the remedy helps."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Home, stop_processes, wait_until
from tests.contract.server import free_port, mariadb
from tundra_nb import cli
from tundra_nb.guide import lookup, pages
from tundra_nb.guide.pages import Page
from tundra_nb.testing.scripted_provider import ScriptedProcess, ScriptedStep, scripted_process

pytestmark = [pytest.mark.check, pytest.mark.part("doltlite"), pytest.mark.timeout(150)]

SETTINGS = """
[router]
retries = 0
[[profile]]
name = "primary"
kind = "openai"
base_url = "{url}/v1"
model = "scripted-1"
api_key_env = "PRIMARY_API_KEY"
[[profile]]
name = "backup"
kind = "local"
base_url = "{url}/v1"
model = "scripted-1"
priority = 1
"""
WITHOUT_RECIPE = {
    "StoreError": "every failure of the database that is known has a class of its own",
    "InternalError": "a defect is not made on purpose",
}
"""Pages whose trouble no command makes, and why."""
NOT_OURS = {
    "RateLimited": "the remedy is to wait until the time that the provider named",
}
"""Recipes after which the remedy is somebody else's, and why."""
WITHOUT_ROW = {
    "TransportError": "nothing of it reaches a daemon",
    "TokenRefused": "nothing was asked: the log has a line",
    "clock-set-back": "is no error: no row is lost, and the clock is the machine's",
    "IpcError": "there is no daemon to write it",
    "permission-denied": "nothing can be written",
    "zombie-and-leaked-sessions": "the recipe makes a session; an end of an orphan is written at the next start",
    "CommandFailed": "is the command line's own: the session's row has the exit code",
    "Cancelled": "is no error: the operation has the outcome",
}
"""Recipes that leave no row of `error_event`, and why."""
SITUATIONS = {
    "connection-refused": "HttpError",
    "damaged-store": "StoreDamaged",
    "permission-denied": "ConfigError",
    "history-behind": "StoreUnavailable",
    "port-3306-conflict": "StoreUnavailable",
    "migration-failure": "StoreDamaged",
    "disk-full": "StoreUnavailable",
}
"""The code that a situation shows itself by."""
TO_PROGRAMS = ("BudgetSpent", "TokenRefused")
"""Errors that programs are told, in the body of an answer."""
NEEDS = {"port-3306-conflict": "mariadb", "disk-full": "mount"}
"""The part of the machine that a recipe takes."""
EVERY = pages.every_page()
WITH_RECIPE = [page for page in EVERY.values() if page.blocks("Provoke it")]
CASES = [
    pytest.param(page, id=page.name, marks=[pytest.mark.part(NEEDS[page.name])] if page.name in NEEDS else [])
    for page in WITH_RECIPE
]


@dataclasses.dataclass
class Ran:
    """What a line gave."""

    exit_code: int
    out: str
    err: str


class Shell:
    """Runs the lines of a page: `tundra …` in this process, `export` and `unset` on its environment, others by sh."""

    def __init__(self, home: Home, patch: pytest.MonkeyPatch, capture: pytest.CaptureFixture[str]) -> None:
        self._home = home
        self._patch = patch
        self._capture = capture
        patch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")

    def run(self, block: str) -> Ran:
        """Run every line; what the last gave. Only the last may fail, or one like it."""
        ran = Ran(0, "", "")
        for line in block.strip().splitlines():
            ran = self.line(line)
        return ran

    def line(self, line: str) -> Ran:
        if told := re.fullmatch(r"export (\w+)=(\$\(.+\))", line):
            ran = self.sh(f"printf %s {told[2]}")
            assert ran.out, ran.err
            self._patch.setenv(told[1], ran.out)
            return ran
        words = [os.path.expandvars(word) for word in shlex.split(line)]
        if words[0] == "export":
            self._patch.setenv(*words[1].split("=", 1))
        elif words[0] == "unset":
            self._patch.delenv(words[1])
        elif words[0] == "tundra":
            return self.tundra(*words[1:])
        else:
            return self.sh(line)
        return Ran(0, "", "")

    def sh(self, line: str) -> Ran:
        done = subprocess.run(
            ["sh", "-c", line], capture_output=True, text=True, check=False, timeout=60, cwd=self._home.folder
        )
        return Ran(done.returncode, done.stdout, done.stderr)

    def tundra(self, *words: str) -> Ran:
        self._patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))
        self._capture.readouterr()
        code = cli.run(words)
        told = self._capture.readouterr()
        return Ran(code, told.out, told.err)


@pytest.fixture(scope="module")
def provider() -> Iterator[ScriptedProcess]:
    with scripted_process() as made:
        yield made


@pytest.fixture
def shell(
    home: Home, provider: ScriptedProcess, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Shell:
    provider.reset()
    moved = ScriptedStep(status=308, headers=(("location", "https://elsewhere.invalid/"),), repeat=0)
    provider.script("/moved/v1/chat/completions", moved)
    closed = ScriptedStep(status=403, headers=(("content-type", "text/plain"),), body=b"error code: 1010", repeat=0)
    provider.script("/closed/v1/chat/completions", closed)
    for name, value in {
        "PRIMARY_API_KEY": "key-of-the-guides-own-tests",
        "BASE_URL": f"{provider.url}/v1",
        "REDIRECTING_URL": f"{provider.url}/moved/v1",
        "FORBIDDING_URL": f"{provider.url}/closed/v1",
        "FREE_PORT": str(free_port()),
    }.items():
        monkeypatch.setenv(name, value)
    home.write_settings(SETTINGS.format(url=provider.url))
    return Shell(home, monkeypatch, capsys)


def test_every_page_has_a_recipe_or_a_reason_for_none() -> None:
    without = {page.name for page in EVERY.values() if not page.blocks("Provoke it")}
    assert without == set(WITHOUT_RECIPE)


def test_every_remedy_is_carried_out_or_has_a_reason() -> None:
    without = {page.name for page in WITH_RECIPE if not page.blocks("Afterwards")}
    assert without == set(NOT_OURS)
    assert {*WITHOUT_ROW, *SITUATIONS} <= set(EVERY)


@pytest.fixture
def part(request: pytest.FixtureRequest, home: Home, tmp_path: Path) -> Iterator[None]:
    """What a page's recipe takes beside tundra: a MariaDB server, or that a disk is taken off again."""
    name = request.getfixturevalue("page").name
    if name == "port-3306-conflict":
        port = free_port()
        request.getfixturevalue("monkeypatch").setenv("MARIADB_PORT", str(port))
        with mariadb(tmp_path / "mariadb", port):
            yield
        return
    yield
    if name == "disk-full":
        stop_processes(home)
        subprocess.run(["umount", "--lazy", str(home.data_dir)], check=False, capture_output=True)


@pytest.mark.parametrize("page", CASES)
def test_a_recipe_raises_its_code_leaves_its_row_and_the_remedy_helps(page: Page, shell: Shell, part: None) -> None:
    code = page.code or SITUATIONS.get(page.name, "")
    ran = shell.run(page.blocks("Provoke it")[0])
    if page.name == "Cancelled":
        assert ran.exit_code != 0
    elif page.name in TO_PROGRAMS:
        assert ran.exit_code != 0, ran
        told = json.loads(ran.out)["error"]
        assert told["code"] == code
        assert is_as_seen(f"{code}: {told['message']}", page), told
        assert told["hint"]
    elif code:
        assert ran.exit_code != 0, ran
        first = next((line for line in ran.err.splitlines() if line.startswith(f"{code}: ")), "")
        assert first, ran.err
        assert is_as_seen(first, page), f"{first!r} is not on the page as it is seen"
        assert "→" in ran.err, "the hint stands below it"
    else:
        assert ran.exit_code == 0, ran
    if blocks := page.blocks("Afterwards"):
        ended = shell.run(blocks[0])
        # a checkup may find something else on the machine that runs the tests
        assert ended.exit_code == 0 or blocks[0].strip().splitlines()[-1].startswith("tundra doctor"), ended
    if page.name not in WITHOUT_ROW:
        wait_until(lambda: has_row(shell, code, page), timeout=30, what=f"a row of {page.name}")
    if page.name == "Cancelled":
        wait_until(lambda: '"cancelled"' in shell.tundra("calls", "--json").out, timeout=30, what="the outcome")
    if page.name == "clock-set-back":
        assert_ids_grow_where_times_step_back(shell)
    if page.name == "TokenRefused":
        assert "gateway refused a call" in shell.tundra("logs", "-n", "100").out


def assert_ids_grow_where_times_step_back(shell: Shell) -> None:
    """Both calls are there; the later one has the higher id and the earlier time, and stands in a window of minutes."""
    rows = json.loads(shell.tundra("calls", "--since", "all", "--json").out)
    before, after = sorted(rows, key=lambda row: int(row["operation_id"]))
    assert before["at"] > after["at"], "the clock was set back between the two"
    recent = json.loads(shell.tundra("calls", "--since", "10m", "--json").out)
    assert after["operation_id"] in [row["operation_id"] for row in recent]


def is_as_seen(line: str, page: Page) -> bool:
    """Whether a message is one of those that the page shows; what is in braces changes from case to case."""
    for seen in page.blocks("As seen")[0].strip().splitlines():
        pattern = ".*".join(re.escape(part) for part in re.split(r"\{\w+\}", seen.strip()))
        if re.match(pattern, line, re.DOTALL):
            return True
    return False


def has_row(shell: Shell, code: str, page: Page) -> bool:
    """Whether the history has an error of this code whose page is this one."""
    if page.name == "BudgetSpent":
        return bool(json.loads(shell.tundra("attempts", "--code", code, "--json").out or "[]"))
    rows = json.loads(shell.tundra("errors", "--since", "all", "--json").out or "[]")
    mine = [row for row in rows if row["code"] == code]
    if page.kind == "situation":
        return bool(mine)
    return any(lookup.for_error(code, row["reason"]) == page for row in mine)
