"""The terminal widget as a person uses it: it types, shows output, and is still there in a saved notebook."""

from __future__ import annotations

import json
from typing import Any

import pytest
from playwright.sync_api import expect

pytestmark = [pytest.mark.part("browser", "doltlite"), pytest.mark.timeout(180)]

SCRIPT = "printf 'name? '; read n; printf '\\033[32mhello\\033[0m %s <b>\\n' $n; exec bash --norc"
CELLS = ["%load_ext tundra_nb", f"%tundra pty open --widget {SCRIPT}", "%tundra pty"]
STILL = "div[class^='tundra-still-']"


def test_it_types_shows_resizes_and_survives_the_restart_of_another_notebook(lab: Any) -> None:
    page = lab.open(CELLS)
    page.run(0)
    page.run(1)
    widget = page.output(1).locator(".tundra-terminal")
    screen = widget.locator(".tundra-screen")
    expect(screen).to_contain_text("name?")
    expect(page.output(1).locator(STILL)).to_be_hidden()
    line = widget.locator(".tundra-input")
    line.fill("jo")
    line.press("Enter")
    expect(screen).to_contain_text("hello jo <b>")
    page.screenshot("terminal-light")

    other = lab.open(["1 + 1"], name="other.ipynb")
    other.run(0)
    other.command("kernelmenu:restart")
    other.page.locator(".jp-Dialog .jp-mod-accept").click()
    other.run(0)
    expect(other.output(0)).to_contain_text("2")
    other.close()

    line.fill("sleep 100")
    line.press("Enter")
    line.press("Control+c")
    line.fill("echo $((6 * 7)); stty size")
    line.press("Enter")
    expect(screen).to_contain_text("42\n24 80")
    widget.locator("select").select_option("100×30")
    line.fill("stty size")
    line.press("Enter")
    expect(screen).to_contain_text("30 100")
    page.theme("dark")
    page.screenshot("terminal-dark")
    widget.get_by_role("button", name="End").click()
    expect(widget.locator(".tundra-how")).to_contain_text("ended by")
    expect(line).to_be_disabled()


def test_a_saved_notebook_shows_the_screen_without_a_kernel(jupyter: Any) -> None:
    page = jupyter.open(CELLS)
    page.run(0)
    page.run(1)
    widget = page.output(1).locator(".tundra-terminal")
    expect(widget.locator(".tundra-screen")).to_contain_text("name?")
    line = widget.locator(".tundra-input")
    line.fill("jo")
    line.press("Enter")
    expect(widget.locator(".tundra-screen")).to_contain_text("hello jo")
    expect(page.output(1).locator(STILL)).to_contain_text("hello jo", use_inner_text=False)
    saved = page.save()
    page.close()
    assert "<script" not in json.dumps(saved)

    again = jupyter.open(saved, name="saved.ipynb", kernel=False)
    still = again.output(1).locator(STILL)
    expect(still).to_be_visible()
    expect(still).to_contain_text("hello jo <b>")
    for theme in ("light", "dark"):
        again.theme(theme)
        again.screenshot(f"{jupyter.app}-terminal-saved-{theme}")
