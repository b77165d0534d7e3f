"""The provider widget as a person sees it: in JupyterLab and Notebook 7, live, and saved without a kernel."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import pytest
from playwright.sync_api import expect

from tundra_nb.testing.scripted_provider import ScriptedStep

from .conftest import Jupyter

pytestmark = [pytest.mark.part("browser", "doltlite"), pytest.mark.timeout(180)]

CELLS = ["%load_ext tundra_nb", "%tundra providers --widget", "%tundra ask hi", "%tundra why last"]
CHAT = "/v1/chat/completions"
STILL = "div[class^='tundra-still-']"


def test_a_breaker_is_seen_to_open_to_count_down_and_to_close_until_the_output_is_closed(
    start_jupyter: Callable[..., Jupyter],
) -> None:
    lab = start_jupyter("lab", open_seconds=6)
    page = lab.open([*CELLS, "import threading\nsorted(t.name for t in threading.enumerate())"])
    page.run(0)
    page.run(1)
    widget = page.output(1).locator(".tundra-providers")
    breaker = widget.locator(".tundra-breaker .tundra-pill")
    expect(breaker).to_have_text("closed")
    expect(page.output(1).locator(STILL)).to_be_hidden()
    page.screenshot("lab-closed")

    lab.provider.script(CHAT, ScriptedStep(status=503, text="down for maintenance"))
    page.run(2)
    expect(breaker).to_have_text(re.compile(r"open, probe in \d"))
    page.screenshot("lab-open")
    countdown = breaker.locator(".tundra-countdown")
    first = seconds(countdown.inner_text())
    expect(countdown).not_to_have_text(f", probe in {first:.1f} s")
    assert 0 < seconds(countdown.inner_text()) < first <= 6
    page.theme("dark")
    page.run(3)
    page.screenshot("lab-open-dark")

    expect(breaker).to_have_text("half open")
    page.run(2)
    expect(breaker).to_have_text("closed")

    page.run(4)
    expect(page.output(4)).to_contain_text("tundra-provider-widget")
    page.command("notebook:clear-all-cell-outputs")
    expect(page.page.locator(".tundra-providers")).to_have_count(0)
    page.run(4)
    expect(page.output(4)).not_to_contain_text("tundra-provider-widget")
    expect(page.output(4)).to_contain_text("MainThread")


def test_saved_when_the_daemon_had_gone_it_shows_the_last_state_without_a_kernel(notebook7: Jupyter) -> None:
    notebook7.provider.script(CHAT, ScriptedStep(status=503, text="down for <b>maintenance</b>"))
    page = notebook7.open(CELLS)
    for index in range(len(CELLS)):  # one by one: the failing call would end a run of all
        page.run(index)
    expect(page.output(1).locator(".tundra-breaker .tundra-pill")).to_contain_text("open")
    expect(page.output(1).locator(STILL)).to_contain_text("probe at", use_inner_text=False)
    notebook7.tundra("daemon", "stop", "--force")
    expect(page.output(1).locator(".tundra-problem code")).to_have_text("tundra daemon start")
    expect(page.output(1).locator(".tundra-breaker .tundra-pill")).to_contain_text("open")  # as it was
    expect(page.output(1).locator(STILL)).to_contain_text("nothing newer", use_inner_text=False)
    saved = page.save()
    page.close()
    assert "<script" not in json.dumps(saved)

    again = notebook7.open(saved, name="saved.ipynb", kernel=False)
    still = again.output(1).locator(STILL)
    expect(still).to_contain_text(re.compile(r"providers at \d\d:\d\d:\d\d"))
    expect(still).to_contain_text("nothing newer: ")
    expect(still).to_be_visible()
    expect(still).to_contain_text("scripted")
    expect(still).to_contain_text("open, probe at")
    picture = again.output(3).locator("img")
    picture.scroll_into_view_if_needed()
    assert picture.evaluate("image => image.complete && image.naturalWidth") == 880
    for theme in ("light", "dark"):
        again.theme(theme)
        again.screenshot(f"notebook-saved-{theme}")
    expect(again.page.locator(".jp-Notebook")).not_to_contain_text(
        re.compile("model not found|error displaying", re.IGNORECASE)
    )


def seconds(told: str) -> float:
    found = re.search(r"([\d.]+) s", told)
    assert found is not None, told
    return float(found[1])
