"""What a person sees of frames, pictures and the provider widget: no barriers, no errors, nothing from outside."""

from __future__ import annotations

import json
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.conftest import AXE
from tundra_nb.testing.scripted_provider import Step

from .conftest import Jupyter, NotebookPage

pytestmark = [pytest.mark.part("browser", "doltlite", "axe"), pytest.mark.timeout(240)]

CHAT = "/v1/chat/completions"
WIDTHS = (1280, 800, 420)


def barriers(where: Locator) -> list[str]:
    """What axe-core finds serious in a part of the page."""
    page = where.page
    if not page.evaluate("() => Boolean(window.axe)"):
        page.evaluate(AXE.read_text())
    handle = where.element_handle()
    found: dict[str, Any] = page.evaluate("async element => await window.axe.run(element)", handle)
    return [
        f"{one['id']}: {one['nodes'][0]['html'][:200]}"
        for one in found["violations"]
        if one["impact"] in ("serious", "critical")
    ]


def watch(page: Page, base: str) -> list[str]:
    """Errors of the console and requests to elsewhere, from now on."""
    seen: list[str] = []
    page.on("pageerror", lambda error: seen.append(f"page error: {error}"))
    page.on("request", lambda request: seen.append(request.url) if is_outside(request.url, base) else None)
    return seen


def is_outside(url: str, base: str) -> bool:
    return url.startswith("http") and not url.startswith(base)


def shots(page: NotebookPage, name: str) -> None:
    for theme in ("light", "dark"):
        page.theme(theme)
        for width in WIDTHS:
            page.page.set_viewport_size({"width": width, "height": 900})
            page.screenshot(f"{name}-{theme}-{width}")
    page.page.set_viewport_size({"width": 1280, "height": 900})
    page.theme("light")


def test_frames_and_pictures_are_read_with_and_without_a_kernel(lab: Jupyter) -> None:
    lab.provider.script(CHAT, Step(text="hi", repeat=3), Step(status=503, text="down for maintenance"))
    for _ in range(4):
        lab.tundra("ask", "hi")
    cells = ["%load_ext tundra_nb", "%tundra calls", "%tundra calls --plot", "%tundra why last", "%tundra status"]
    page = lab.open(cells)
    seen = watch(page.page, lab.url)
    page.run_all()
    frame = page.output(1)
    expect(frame.locator("th").first).to_have_text("id")
    expect(frame).to_contain_text("AllProvidersExhausted")
    expect(frame).not_to_contain_text("+00:00")
    expect(frame).not_to_contain_text("<NA>")
    expect(page.output(2).locator("img").first).to_be_visible()
    expect(page.output(3)).to_contain_text("maintenance")
    shots(page, "faces")
    for index in range(1, 5):
        assert not barriers(page.output(index)), index
    saved = page.save()
    page.close()
    assert "<script" not in json.dumps(saved)

    again = lab.open(saved, name="saved.ipynb", kernel=False)
    details = again.output(1).locator("details").first
    details.locator("summary").click()
    expect(details.locator("td").first).to_be_visible()
    expect(again.output(2).locator("img").first).to_be_visible()
    expect(again.output(3)).to_contain_text("next:")
    again.screenshot("faces-saved")
    assert not seen


def test_the_buttons_of_the_provider_widget_act_and_a_drill_is_marked_as_one(jupyter: Jupyter) -> None:
    page = jupyter.open(["%load_ext tundra_nb", "%tundra providers --widget", "%tundra ask hi"])
    seen = watch(page.page, jupyter.url)
    page.run(0)
    page.run(1)
    widget = page.output(1).locator(".tundra-providers")
    widget.get_by_role("button", name="Test: scripted").click()
    expect(widget.locator(".tundra-buttons")).to_contain_text("answered in")
    widget.get_by_role("button", name="Park: scripted").click()
    expect(widget.locator("[data-state='parked']")).to_be_visible()
    widget.get_by_role("button", name="Recheck: scripted").click()
    expect(widget.locator("[data-state='ready']")).to_be_visible()

    drill = widget.locator(".tundra-drill")
    expect(drill.locator("legend")).to_have_text("Drill: break it on purpose")
    drill.get_by_label("fault to inject").select_option("refused")
    drill.get_by_role("button", name="Inject").click()
    expect(widget.locator(".tundra-drilled")).to_have_text("DRILL")
    page.run(2)
    expect(widget.locator(".tundra-breaker")).to_contain_text("open")
    shots(page, f"{jupyter.app}-widget")
    assert not barriers(widget)
    widget.get_by_role("button", name="End drill: scripted").click()
    expect(widget.locator(".tundra-drilled")).to_have_count(0)
    widget.get_by_role("button", name="Reset breaker: scripted").click()
    expect(widget.locator(".tundra-breaker")).to_contain_text("closed")

    cells = page.page.locator(".jp-Notebook .jp-Cell").count()
    widget.get_by_role("button", name="Test: scripted").focus()
    for key in ("b", "a", "d", "d", "x"):
        page.page.keyboard.press(key)
    assert page.page.locator(".jp-Notebook .jp-Cell").count() == cells
    assert not seen
