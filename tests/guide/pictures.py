"""Makes the pictures of the README and the guide, light and dark, from a real run: `make pictures`.

Three profiles answer for half a minute; then a model is changed and its provider fails with 529s, until the change is
taken back. All of it goes through the shipped daemon, and is looked at in a real JupyterLab.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Literal

from playwright.sync_api import Locator, sync_playwright

from tests.browser.conftest import ARGUMENTS, CHROMIUM, SECONDS, Jupyter, NotebookPage, _environment, _server
from tests.conftest import ROOT
from tundra_nb.client.aio import AsyncClient
from tundra_nb.errors import TundraError
from tundra_nb.testing.scripted_provider import ScriptedProcess, ScriptedStep, scripted_process

FOLDER = ROOT / "tundra_nb" / "guide" / "pictures"
MOST_BYTES = 400_000
"""Of all pictures together: they are in the wheel."""
KEY = "PICTURES_KEY"
THEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
SETTINGS = """\
[router]
retries = 0
[breaker]
failures = 5
successes = 2
open_seconds = 8
[[profile]]
name = "anthropic"
kind = "anthropic"
base_url = "{0}"
model = "claude-large"
api_key_env = "PICTURES_KEY"
rpm = 3000
[[profile]]
name = "openai"
kind = "openai"
base_url = "{1}/v1"
model = "gpt-large"
api_key_env = "PICTURES_KEY"
rpm = 3000
[[profile]]
name = "local"
kind = "local"
base_url = "{2}/v1"
model = "tiny"
"""
BEFORE, CHANGE, OUTAGE, AFTER = 30.0, 6.0, 34.0, 16.0
"""Seconds: well; from the change to the first 529; of 529s; well again."""
PER_SECOND = 24.0
SHARES = {"anthropic": 0.5, "openai": 0.3, "local": 0.2}
WHY = """\
calls = %tundra calls --since 1h
attempts = %tundra attempts --since 1h
failed = set(attempts[attempts.outcome == "error"].operation_id)
more = calls[(calls.attempts > 1) & (calls.outcome == "ok")].operation_id
it = max(more, key=lambda one: one in failed)
%tundra why {{it}}
"""
"""Of a failover, after a failure where there is one: a better story than one after a refusal."""
OVERLOADED = '{"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}'


async def _run(providers: list[ScriptedProcess]) -> None:
    async with AsyncClient() as client:
        await client.status()
        await client.ptys.open("make eval || sleep 600")
        tasks: set[asyncio.Task[None]] = set()

        async def one() -> None:
            name = random.choices(list(SHARES), list(SHARES.values()))[0]
            with contextlib.suppress(TundraError):
                await client.ask("Say hi", profile=name, failover=random.random() < 0.3)

        async def calls(seconds: float) -> None:
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                task = asyncio.create_task(one())
                tasks.add(task)
                task.add_done_callback(tasks.discard)
                await asyncio.sleep(random.expovariate(PER_SECOND))

        await calls(BEFORE)
        await client.set_provider("anthropic", model="claude-larger")
        await calls(CHANGE)
        providers[0].script("/v1/messages", ScriptedStep(status=529, text=OVERLOADED, delay=0.12, repeat=0))
        await calls(OUTAGE)
        await client.set_provider("anthropic", model="claude-large")
        providers[0].reset()
        await calls(AFTER)
        await asyncio.gather(*tasks)


def main() -> None:
    """Run, look, and write."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tnb-", ignore_cleanup_errors=True)))
        delays = (0.35, 0.25, 0.12)
        providers = [stack.enter_context(scripted_process(pieces=4, delay=delay)) for delay in delays]
        env = _environment(folder) | {KEY: "sk-not-a-key-of-anybody"}
        (folder / "notebooks").mkdir()
        Path(env["TUNDRA_CONFIG"]).write_text(SETTINGS.format(*(provider.url for provider in providers)))
        url = stack.enter_context(_server("lab", folder, env))
        os.environ.update(env)
        asyncio.run(_run(providers))
        playwright = stack.enter_context(sync_playwright())
        path = next(filter(None, map(shutil.which, CHROMIUM)))
        browser = playwright.chromium.launch(executable_path=path, args=list(ARGUMENTS))
        stack.callback(browser.close)
        _look(Jupyter("lab", url, folder, env, browser, providers[0]))
    total = total_bytes()
    print(f"{total:,} bytes in {FOLDER}")
    sys.exit(total > MOST_BYTES)


def _look(lab: Jupyter) -> None:
    cells = [
        "%load_ext tundra_nb",
        "%tundra dash",
        WHY,
    ]
    page = lab.open(cells)
    for index in range(len(cells)):
        page.run(index)
    dash = page.output(1).locator(".tundra-dash")
    dash.wait_for(timeout=SECONDS * 1000)
    page.command("application:toggle-left-area")
    page.page.set_viewport_size({"width": 1100, "height": 1000})
    page.page.add_style_tag(content=".tundra-dash { padding: 10px; background: var(--jp-layout-color0); }")
    dash.get_by_role("button", name="Live").click()
    for theme in THEMES:
        page.theme(theme)
        _take(page, dash, f"dash-{theme}")
        page.page.set_viewport_size({"width": 1000, "height": 1000})
        _take(page, page.output(2).locator("img").first, f"why-{theme}")
        page.page.set_viewport_size({"width": 1100, "height": 1000})
    page.command("tundra:show", wait=True)
    page.page.locator(".tundra-panel").wait_for()
    page.page.set_viewport_size({"width": 1100, "height": 640})
    for theme in THEMES:
        page.theme(theme)
        page.cell(1).scroll_into_view_if_needed()
        page.page.mouse.move(0, 0)
        page.page.wait_for_timeout(500)
        page.page.screenshot(path=str(FOLDER / f"panel-{theme}.png"))


def _take(page: NotebookPage, what: Locator, name: str) -> None:
    what.scroll_into_view_if_needed()
    page.page.wait_for_timeout(500)  # until it is drawn in the new theme and size; a picture is no test
    what.screenshot(path=str(FOLDER / f"{name}.png"))


def total_bytes() -> int:
    """Of all pictures."""
    return sum(file.stat().st_size for file in FOLDER.glob("*.png"))


if __name__ == "__main__":
    main()
