"""The dashboard as a person uses it: zoomed, brushed, filtered, by keys, live, and saved without a kernel."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Locator, expect

from tests.conftest import ROOT
from tests.outage import Outage, fill

from .conftest import SETTINGS, Jupyter, NotebookPage
from .test_faces import barriers, watch

pytestmark = [pytest.mark.part("browser", "doltlite", "axe"), pytest.mark.timeout(300)]

CALLS = 100_000
FEW = 20_000
LIVE = 800
"""Calls at 200 a second: so many that a loaded machine gets through them."""
CELLS = ["%load_ext tundra_nb", "dash = %tundra dash 3h\ndash", "len(dash.selection), dash.selection['at'].max()"]
STILL = "div[class^='tundra-still-']"


def drawn(dash: Locator) -> int:
    return int(dash.get_attribute("data-drawn") or 0)


def press(page: NotebookPage, dash: Locator, *keys: str) -> None:
    """Press keys in the picture; wait until it was drawn after the last."""
    dash.locator(".tundra-stage").focus()
    for key in keys:
        before = drawn(dash)
        page.page.keyboard.press(key)
        expect(dash).not_to_have_attribute("data-drawn", str(before))


def counted(dash: Locator) -> int:
    """Calls in view."""
    found = re.search(r"([\d,]+) calls?\b", dash.locator(".tundra-counts").inner_text())
    assert found is not None
    return int(found[1].replace(",", ""))


@pytest.fixture
def outage() -> list[Outage]:
    return []


def opened(start: Callable[..., Jupyter], app: str, made: list[Outage], calls: int = FEW) -> Jupyter:
    return start(app, prepare=lambda env: made.append(fill(env, calls)))


def test_an_outage_is_told_zoomed_into_selected_and_explained(
    start_jupyter: Callable[..., Jupyter], outage: list[Outage]
) -> None:
    lab = opened(start_jupyter, "lab", outage, CALLS)
    page = lab.open(CELLS)
    seen = watch(page.page, lab.url)
    page.page.on("console", lambda message: seen.append(message.text) if message.type == "error" else None)
    page.run(0)
    page.run(1)
    output = page.output(1)
    dash = output.locator(".tundra-dash")
    expect(dash.get_by_role("heading", level=3)).to_have_text(
        re.compile(r"^anthropic open for 46 min from .*status_529 × [\d,]+$")
    )
    expect(dash.locator(".tundra-before")).to_have_text("9 min before: retry.attempts 8 → 64 (ada)")
    expect(dash.locator(".tundra-beside")).to_contain_text("still well: ")
    expect(output.locator(STILL)).to_be_hidden()
    assert outage[0].calls * 0.98 < counted(dash) <= outage[0].calls

    page.screenshot("dash-whole")

    # keys stay in the picture: none of them adds or deletes a cell
    cells = page.page.locator(".jp-Notebook .jp-Cell").count()
    whole = counted(dash)
    press(page, dash, "e")
    part = counted(dash)
    assert part < whole
    said = re.compile(r"anthropic open .*9 min before: .* calls, [\d.]+ % not answered")  # in one breath
    expect(dash.locator("[aria-live]")).to_have_text(said)
    press(page, dash, "+", "+", "ArrowRight", "-")
    for key in ("b", "a", "d", "d", "x"):
        page.page.keyboard.press(key)
    assert page.page.locator(".jp-Notebook .jp-Cell").count() == cells
    press(page, dash, "0")
    expect(dash.get_by_role("button", name="All")).to_be_visible()

    # a brush by the pointer gives exactly the daemon's rows
    stage = dash.locator(".tundra-stage")
    box = stage.bounding_box()
    assert box is not None
    page.page.mouse.move(box["x"] + 300, box["y"] + 60)
    page.page.mouse.down()
    page.page.mouse.move(box["x"] + 380, box["y"] + 90, steps=4)
    page.page.mouse.up()
    picked = dash.locator(".tundra-picked strong")
    expect(picked).to_contain_text("Selected")
    told = re.search(r"([\d,]+) calls", picked.inner_text())
    assert told is not None
    page.run(2)
    assert page.output(2).inner_text().split("(")[1].startswith(told[1].replace(",", ""))
    page.screenshot("dash-brush")

    dash.get_by_role("button", name="anthropic").click()
    expect(dash.locator(".tundra-counts")).not_to_contain_text(f" {whole:,} calls")
    page.run(2)
    assert not page.output(2).inner_text().split("(")[1].startswith(told[1].replace(",", "") + ",")
    dash.get_by_role("button", name="anthropic").click()

    dash.locator(".tundra-picked td button").first.click()
    expect(dash.locator(".tundra-why img")).to_be_visible()
    expect(dash.locator(".tundra-why pre")).to_contain_text("AllProvidersExhausted")
    dash.get_by_text("As a table").click()
    expect(dash.locator("details table").nth(2)).to_contain_text("status_529")
    for theme in ("light", "dark"):
        page.theme(theme)
        assert not barriers(dash), theme
        for width in (1280, 900, 620):
            before = drawn(dash)
            page.page.set_viewport_size({"width": width, "height": 900})
            if width != 1280 or theme == "dark":
                expect(dash).not_to_have_attribute("data-drawn", str(before))
            page.screenshot(f"dash-{theme}-{width}")
    assert not seen


def test_a_saved_notebook_and_its_page_show_the_picture_at_once_and_stay_small(
    start_jupyter: Callable[..., Jupyter], outage: list[Outage], tmp_path: Path
) -> None:
    jupyter = opened(start_jupyter, "notebook", outage)
    page = jupyter.open([CELLS[0], "%tundra dash 3h", "%tundra dash 3h"])
    page.run(0)
    empty = len(json.dumps(page.save()))
    for index in (1, 2):
        page.run(index)
        expect(page.output(index).locator(".tundra-dash")).to_be_visible()
    saved = page.save()
    page.close()
    assert len(json.dumps(saved)) - empty < 54_000
    assert "<script" not in json.dumps(saved)

    again = jupyter.open(saved, name="saved.ipynb", kernel=False)
    still = again.output(1).locator(STILL)
    expect(still).to_be_visible()
    expect(still).to_contain_text("anthropic open for 46 min")
    expect(still).to_contain_text("9 min before: retry.attempts 8 → 64 (ada)")
    picture = still.locator("img")
    assert picture.evaluate("image => image.complete && image.naturalWidth") == 880
    again.screenshot("dash-saved")
    again.close()

    source = jupyter.folder / "notebooks" / "saved.ipynb"
    command = [sys.executable, "-m", "nbconvert", "--to", "html", str(source), "--output-dir", str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True, timeout=100)
    context = jupyter.browser.new_context(offline=True)
    html = context.new_page()
    html.goto(f"file://{tmp_path / 'saved.html'}", wait_until="commit")
    expect(html.locator(STILL).first).to_contain_text("anthropic open for 46 min")
    expect(html.locator(f"{STILL} img").first).to_be_visible()
    context.close()


def test_what_happens_is_added_while_it_happens_and_none_is_lost(start_jupyter: Callable[..., Jupyter]) -> None:
    def without_limit(env: dict[str, str]) -> None:
        file = Path(env["TUNDRA_CONFIG"])
        file.write_text(file.read_text().replace("rpm = 600\n", ""))

    assert "rpm = 600\n" in SETTINGS
    lab = start_jupyter("lab", prepare=without_limit)
    lab.tundra("ask", "hi")
    page = lab.open([CELLS[0], "dash = %tundra dash\ndash"])
    page.run(0)
    page.run(1)
    dash = page.output(1).locator(".tundra-dash")
    expect(dash.get_by_role("button", name="Live")).to_have_attribute("aria-pressed", "true")
    load: Any = subprocess.Popen(
        [sys.executable, "-m", "tests.benchmarks.load", "200", "daemon", str(LIVE)],
        env=lab.env, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert load.stdout.readline() == "begun\n"
    seen: set[int] = set()
    while load.poll() is None:
        seen.add(counted(dash))
        page.page.wait_for_timeout(200)
    output, _ = load.communicate(timeout=10)
    answered, failed = (int(number) for number in output.split())
    assert answered + failed == LIVE
    total = LIVE + 2  # that of the command line, and the first of the load
    expect(dash.locator(".tundra-counts")).to_contain_text(f"{total:,} calls", timeout=120_000)
    assert len(seen) > 2, seen  # it grew before all were there
    expect(dash.get_by_role("heading", level=3)).to_contain_text("all well")
    page.screenshot("dash-live")
