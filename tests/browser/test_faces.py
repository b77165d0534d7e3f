"""What a person sees of frames, pictures and the provider widget: no barriers, no errors, nothing from outside."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any, Literal

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.conftest import AXE
from tundra_nb.testing.scripted_provider import ScriptedStep, scripted_process

from .conftest import Jupyter, NotebookPage

pytestmark = [pytest.mark.part("browser", "doltlite", "axe"), pytest.mark.timeout(240)]

CHAT = "/v1/chat/completions"
WIDTHS = (1280, 800, 420)
THEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
COLOUR = "cell => getComputedStyle(cell).color"
LABELS = """image => {
    const drawn = document.createElement("div");
    drawn.innerHTML = decodeURIComponent(image.currentSrc.slice(image.currentSrc.indexOf(",") + 1));
    document.body.append(drawn);
    const sheet = drawn.querySelector("svg").getBoundingClientRect();
    const scale = image.getBoundingClientRect().width / sheet.width;
    const labels = [...drawn.querySelectorAll("text")].map((text) => {
        const box = text.getBoundingClientRect();
        const size = parseFloat(getComputedStyle(text).fontSize) * scale;
        return { told: text.firstChild.data, left: box.left - sheet.left, right: sheet.right - box.right, size,
                 top: box.top, bottom: box.bottom, x: box.left, end: box.right };
    });
    const marks = [...drawn.querySelectorAll("rect[rx='2']")].map((mark) => mark.getBoundingClientRect().width * scale);
    drawn.remove();
    const crosses = (one, other) => one !== other && one.x < other.end && other.x < one.end
        && one.top < other.bottom && other.top < one.bottom;
    return { labels, marks, crossed: labels.filter((one) => labels.some((other) => crosses(one, other))) };
}"""
"""What a picture says: its labels with their place, the widths of its bars, and labels that lie on each other."""
LIGHTNESS = """image => {
    const context = document.createElement("canvas").getContext("2d");
    context.drawImage(image, 0, 0);
    return context.getImageData(20, 4, 1, 1).data[0];
}"""
"""Of the ground of a picture, from 0 to 255."""
IS_SO = """([lightness, isLight]) => {
    const seen = eval(lightness)(document.querySelectorAll(".jp-OutputArea img")[0]);
    return isLight ? seen > 200 : seen < 60;
}"""


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
    """Errors of the page and requests to elsewhere, from now on: for pages that the fixture has not opened."""
    seen: list[str] = []
    page.on("pageerror", lambda error: seen.append(f"page error: {error}"))
    page.on("request", lambda request: seen.append(request.url) if is_outside(request.url, base) else None)
    return seen


def is_outside(url: str, base: str) -> bool:
    return url.startswith("http") and not url.startswith(base)


def shots(page: NotebookPage, name: str) -> None:
    for theme in THEMES:
        page.theme(theme)
        for width in WIDTHS:
            page.alone(width)
            page.screenshot(f"{name}-{theme}-{width}")
    page.page.set_viewport_size({"width": 1280, "height": 900})
    page.theme("light")


def hidden(where: Locator, what: str = "table") -> list[int]:
    """Of each table or picture of an output that is not folded away: the pixels that only scrolling shows."""
    told: list[int] = where.locator(f"[aria-label={what}]:visible").evaluate_all(
        "all => all.map(table => table.scrollWidth - table.clientWidth)"
    )
    return told


def told_by_colour(frame: Locator) -> None:
    """Rows of a frame say by their colours how they ended."""
    colours = {word: frame.get_by_text(word, exact=True).first.evaluate(COLOUR) for word in ("ok", "error", "scripted")}
    assert len(set(colours.values())) == 3, colours
    red, green, _ = (int(part) for part in re.findall(r"\d+", colours["ok"])[:3])
    assert green > red
    red, green, _ = (int(part) for part in re.findall(r"\d+", colours["error"])[:3])
    assert red > green


def test_frames_and_pictures_are_read_with_and_without_a_kernel(lab: Jupyter) -> None:
    cause = "down for maintenance until the end of the day; the page of our operators says how far they are"
    lab.provider.script(CHAT, ScriptedStep(text="hi", repeat=3), ScriptedStep(status=503, text=cause))
    for _ in range(4):
        lab.tundra("ask", "hi")
    cells = [
        *("%load_ext tundra_nb", "%tundra calls", "%tundra calls --plot", "%tundra why last", "%tundra status"),
        *(
            "%tundra attempts",
            "%tundra errors",
            "%tundra breaker-history",
            "%tundra commits",
            "%tundra history setting",
        ),
    ]
    page = lab.open(cells)
    page.run_all()
    frame = page.output(1)
    expect(frame.locator("th").first).to_have_text("id")
    expect(frame.locator("th").nth(1)).to_have_text(re.compile(r"at \(\w+\)"))
    expect(frame.get_by_text("by latency_ms ↓")).to_be_visible()
    expect(frame).to_contain_text("AllProvidersExhausted")
    told_by_colour(frame)
    assert max(row["height"] for row in map(Locator.bounding_box, frame.locator("tbody tr:visible").all()) if row) < 45
    expect(frame).not_to_contain_text("+00:00")
    expect(frame).not_to_contain_text("<NA>")
    expect(page.output(2).locator("img").first).to_be_visible()
    expect(page.output(3)).to_contain_text("maintenance")
    shots(page, "faces")
    for width in WIDTHS:  # pictures and messages are seen without scrolling
        page.alone(width)
        assert is_readable(page.output(2).locator("img")) > 4
        for index in (2, 3):
            assert not any(hidden(page.output(index), "picture")), (width, index)
        message = page.output(6).get_by_text("down for maintenance").first.bounding_box()
        assert message is not None
        assert message["x"] + message["width"] <= width, width
    for width in (420, 1280):  # nor are tables scrolled: on a page for a phone their rows flow over several lines
        page.alone(width)
        for index in range(1, len(cells)):
            assert not any(hidden(page.output(index))), (width, cells[index])
    for index in range(1, len(cells)):
        assert not barriers(page.output(index)), index
    saved = page.save()
    page.close()
    assert "<script" not in json.dumps(saved)

    again = lab.open(saved, name="saved.ipynb", kernel=False)
    for desktop in THEMES:  # pictures are as Jupyter is, whatever the desktop is
        again.theme("dark" if desktop == "light" else "light")
        again.page.emulate_media(color_scheme=desktop)
        again.page.wait_for_function(IS_SO, arg=[LIGHTNESS, desktop == "dark"])
    told_by_colour(again.output(1))
    details = again.output(1).locator("details").first
    details.locator("summary").click()
    expect(details.locator("td").first).to_be_visible()
    expect(again.output(2).locator("img").first).to_be_visible()
    expect(again.output(3)).to_contain_text("next:")
    again.screenshot("faces-saved")


def test_the_buttons_of_the_provider_widget_act_and_a_drill_is_marked_as_one(notebook7: Jupyter) -> None:
    page = notebook7.open(["%load_ext tundra_nb", "%tundra providers --widget", "%tundra ask hi"])
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
    shots(page, "notebook-widget")
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


def test_a_click_on_an_id_tells_its_story_below(lab: Jupyter) -> None:
    """The command stands in a new cell and is run; in a notebook that is not trusted Jupyter asks before.

    An older one asks which kernel is to run it.
    """
    lab.provider.script(CHAT, ScriptedStep(status=503, text="down for maintenance"))
    lab.tundra("ask", "hi")
    page = lab.open(["%load_ext tundra_nb", "%tundra calls"])
    page.run_all()
    page.output(1).locator("td button").first.click()
    expect(page.output(2)).to_contain_text("down for maintenance")
    assert page.cell(2).locator(".cm-content").inner_text().startswith("%tundra why ")
    saved = page.save()
    page.close()

    again = lab.open(saved, name="saved.ipynb", kernel=False)
    again.output(1).locator("td button").first.click()
    expect(again.page.locator(".jp-Dialog")).to_contain_text(re.compile("%tundra why |Select Kernel"))


def is_readable(picture: Locator) -> int:
    """How many labels a picture has: none is cut, too small or on another, and each mark can be seen."""
    found = picture.evaluate(LABELS)
    assert not [one["told"] for one in found["labels"] if one["told"].endswith("…")]
    assert min(min(one["left"], one["right"]) for one in found["labels"]) >= 0
    assert min(one["size"] for one in found["labels"]) >= 7.5
    assert found["crossed"] == []
    assert min(found["marks"], default=2) >= 2
    return len(found["labels"])


def test_why_cuts_no_label_that_has_room_and_is_read_on_a_narrow_page(lab: Jupyter) -> None:
    """There it is a picture of its own: words above the bars, as wide as the page."""
    profile = '[[profile]]\nname = "primary-europe"\nkind = "local"\nbase_url = "{}/v1"\nmodel = "tiny"\n'
    with scripted_process(pieces=4, delay=0.4) as slow:
        slow.script(CHAT, ScriptedStep(status=503, text="down for maintenance"))
        more = profile.format(slow.url)
        lab.write_settings(Path(lab.env["TUNDRA_CONFIG"]).read_text().replace("[[profile]]", f"{more}[[profile]]"))
        lab.tundra("daemon", "restart", "--force")  # the server has started one
        lab.tundra("ask", "hi")
    page = lab.open(["%load_ext tundra_nb", "%tundra why last"])
    page.run_all()
    picture = page.output(1).locator("img")
    assert picture.evaluate("image => image.naturalWidth") == 880
    page.alone(1280)
    assert is_readable(picture) > 4
    expect(page.output(1).locator("th").last).to_have_text("outcome")  # no column of costs: nothing was paid
    assert not any(hidden(page.output(1)))
    page.alone(420)
    page.page.wait_for_function("() => document.querySelector('.jp-OutputArea img').naturalWidth === 400")
    box, whole = picture.bounding_box(), page.output(1).bounding_box()
    assert box is not None
    assert whole is not None
    assert box["width"] <= whole["width"]
    assert is_readable(picture) > 4
    for theme in ("light", "dark"):
        page.theme(theme)
        page.screenshot(f"why-narrow-{theme}")


def test_terminal_and_versions_widgets_have_no_barriers(lab: Jupyter) -> None:
    page = lab.open(["%load_ext tundra_nb", "%tundra versions --widget", "%tundra pty open --widget bash --norc"])
    page.run_all()
    versions, terminal = page.output(1).locator(".tundra-versions"), page.output(2).locator(".tundra-terminal")
    expect(versions.locator("tbody tr").first).to_be_visible()
    expect(terminal.locator(".tundra-screen")).to_contain_text("bash")
    shots(page, "widgets")
    for theme in ("light", "dark"):
        page.theme(theme)
        assert barriers(versions) + barriers(terminal) == [], theme


def test_a_page_made_of_a_notebook_still_answers(lab: Jupyter) -> None:
    """As HTML by nbconvert, without a kernel and without a network: what failed, why, what next."""
    from nbconvert import HTMLExporter

    lab.provider.script(CHAT, ScriptedStep(status=503, text="down for maintenance"))
    lab.tundra("ask", "hi")
    cells = [
        "%tundra calls",
        "%tundra why last",
        "%tundra providers --widget",
        "%tundra pty open --widget echo on screen",
    ]
    page = lab.open(["%load_ext tundra_nb", *cells, "%tundra calls --plot"])
    for index in range(6):
        page.run(index)
    expect(page.output(4).locator(".tundra-screen")).to_contain_text("on screen")
    expect(page.output(3).locator("div[class^='tundra-still-']")).to_contain_text("breaker", use_inner_text=False)
    saved = page.save()
    page.close()
    file = lab.folder / "page.html"
    file.write_text(HTMLExporter().from_notebook_node(saved)[0], encoding="utf-8")
    # the page is light wherever it is looked at, and so are its pictures
    made = lab.browser.new_page(viewport={"width": 1280, "height": 900}, offline=True, color_scheme="dark")
    made.goto(file.as_uri(), wait_until="domcontentloaded")
    outputs = made.locator(".jp-Cell-outputArea")
    expect(outputs.nth(0)).to_contain_text("AllProvidersExhausted")
    expect(outputs.nth(1)).to_contain_text("scripted: the provider failed (503): down for maintenance")
    expect(outputs.nth(1)).to_contain_text("next: ")
    assert outputs.nth(1).locator("img").evaluate("image => image.naturalWidth") == 880
    expect(outputs.nth(2).locator("div[class^='tundra-still-']")).to_be_visible()
    expect(outputs.nth(3).locator("div[class^='tundra-still-']")).to_contain_text("on screen")
    assert outputs.nth(4).locator("img").first.evaluate("image => image.naturalWidth") > 0
    for index in (1, 4):
        assert outputs.nth(index).locator("img").first.evaluate(LIGHTNESS) > 200
    if folder := os.environ.get("BROWSER_SHOTS"):
        made.screenshot(path=f"{folder}/page.png", full_page=True)
    made.close()
