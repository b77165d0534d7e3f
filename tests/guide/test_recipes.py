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

from tests.conftest import Home, wait_until
from tests.contract.server import free_port
from tundra_nb import cli
from tundra_nb.guide import lookup, pages
from tundra_nb.guide.pages import Page
from tundra_nb.testing.scripted_provider import ScriptedProcess, Step, scripted_process

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
    "BudgetSpent": "is told to callers of the gateway alone: its own tests spend budgets",
    "TokenRefused": "is told to callers of the gateway alone: its own tests send wrong tokens",
    "StoreError": "every failure of the database that is known has a class of its own",
    "InternalError": "a defect is not made on purpose",
    "port-3306-conflict": "takes a MariaDB server: the doctor's tests start one",
    "migration-failure": "takes a history of a newer version: the contract's tests make one",
    "disk-full": "takes a disk of its own: the doctor's tests mount one",
    "clock-set-back": "takes a clock that is set back, which others would notice",
}
"""Pages whose trouble no command makes, and why."""
NOT_OURS = {
    "RateLimited": "the remedy is to wait until the time that the provider named",
}
"""Recipes after which the remedy is somebody else's, and why."""
WITHOUT_ROW = {
    "TransportError": "nothing of it reaches a daemon",
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
}
"""The code that a situation shows itself by."""
EVERY = pages.every_page()
WITH_RECIPE = [page for page in EVERY.values() if page.blocks("Provoke it")]


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
        words = [os.path.expandvars(word) for word in shlex.split(line)]
        if words[0] == "export":
            self._patch.setenv(*words[1].split("=", 1))
        elif words[0] == "unset":
            self._patch.delenv(words[1])
        elif words[0] == "tundra":
            return self.tundra(*words[1:])
        else:
            done = subprocess.run(
                ["sh", "-c", line], capture_output=True, text=True, check=False, timeout=60, cwd=self._home.folder
            )
            return Ran(done.returncode, done.stdout, done.stderr)
        return Ran(0, "", "")

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
    moved = Step(status=308, headers=(("location", "https://elsewhere.invalid/"),), repeat=0)
    provider.script("/moved/v1/chat/completions", moved)
    closed = Step(status=403, headers=(("content-type", "text/plain"),), body=b"error code: 1010", repeat=0)
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


@pytest.mark.parametrize("page", WITH_RECIPE, ids=lambda page: page.name)
def test_a_recipe_raises_its_code_leaves_its_row_and_the_remedy_helps(page: Page, shell: Shell) -> None:
    code = page.code or SITUATIONS.get(page.name, "")
    ran = shell.run(page.blocks("Provoke it")[0])
    if page.name == "Cancelled":
        assert ran.exit_code != 0
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


def is_as_seen(line: str, page: Page) -> bool:
    """Whether a message is one of those that the page shows; what is in braces changes from case to case."""
    for seen in page.blocks("As seen")[0].strip().splitlines():
        pattern = ".*".join(re.escape(part) for part in re.split(r"\{\w+\}", seen.strip()))
        if re.match(pattern, line, re.DOTALL):
            return True
    return False


def has_row(shell: Shell, code: str, page: Page) -> bool:
    """Whether the history has an error of this code whose page is this one."""
    rows = json.loads(shell.tundra("errors", "--since", "all", "--json").out or "[]")
    mine = [row for row in rows if row["code"] == code]
    if page.kind == "situation":
        return bool(mine)
    return any(lookup.for_error(code, row["reason"]) == page for row in mine)
