"""The versions widget as a person uses it: commits are picked, what changed is seen, and a saved notebook tells it."""

from __future__ import annotations

import re
from typing import Any

import pytest
from playwright.sync_api import expect

pytestmark = [pytest.mark.part("browser", "doltlite"), pytest.mark.timeout(180)]

EVIL = "<script>window.evil = 1</script><b>good</b>"
SETUP = f"""\
%load_ext tundra_nb
from tundra_nb import connect
t = connect()
good = t.versions.commit({EVIL!r})
t.set_setting("deadlines.total_seconds", 7, reason="fail <i>faster</i>")
t.versions.commit("a bad day")"""
CELLS = [SETUP, "%tundra versions --widget", "%tundra diff {{good}} --widget"]
STILL = "div[class^='tundra-still-']"


def test_two_commits_are_picked_and_what_changed_between_them_is_seen(lab: Any) -> None:
    page = lab.open(CELLS)
    page.run(0)
    page.run(1)
    widget = page.output(1).locator(".tundra-versions")
    commits = widget.get_by_role("table", name="commits, newest first")
    expect(commits.locator("tbody tr").nth(1)).to_contain_text("a bad day")
    expect(commits.locator("tbody tr").nth(1).locator(".tundra-name")).to_have_text("main")
    expect(widget.locator(".tundra-found")).to_contain_text("nothing differs between A and B")
    expect(page.output(1).locator(STILL)).to_be_hidden()

    evil = commits.locator("tbody tr", has_text=EVIL)
    expect(evil).to_have_count(1)
    evil.get_by_role("radio", name="A:").check()
    expect(widget.get_by_role("button", name="setting")).to_have_attribute("aria-pressed", "true")
    row = widget.locator("tr[data-kind='modified']", has_text="deadlines.total_seconds")
    expect(row).to_contain_text("value 600.0 → 7.0 · fail <i>faster</i>")
    expect(row.locator("td").first).to_have_text("~")
    expect(row.locator("td").first).to_have_attribute("aria-label", "modified")
    expect(widget.get_by_role("status")).to_have_text("1 table differs")
    assert page.page.evaluate("window.evil") is None
    page.screenshot("lab-versions-light")

    command = widget.get_by_label("the same as a frame").input_value()
    last = page.output(0).inner_text().split("'")[1]
    assert command.startswith("%tundra diff ")
    assert command.endswith(f"{last} setting")
    widget.get_by_role("button", name="swap A and B").click()
    expect(row).to_contain_text("value 7.0 → 600.0")
    page.theme("dark")
    page.page.locator("#jupyterlab-splash").wait_for(state="detached")
    page.screenshot("lab-versions-dark")


def test_it_is_used_by_keyboard_alone_and_a_busy_kernel_answers_the_last_choice_when_it_is_free(lab: Any) -> None:
    page = lab.open([*CELLS[:2], "import time; time.sleep(4)"])
    page.run(0)
    page.run(1)
    widget = page.output(1).locator(".tundra-versions")
    picked = widget.get_by_role("radio", name="A:", checked=True)
    expect(picked).to_have_attribute("aria-label", re.compile("deadlines.total_seconds"))
    picked.focus()
    page.page.keyboard.press("ArrowDown")
    expect(widget.locator("tr.tundra-picked input[aria-label^='A:']:checked")).to_be_focused()
    expect(widget.locator("tr[data-kind='modified']")).to_contain_text("value 600.0 → 7.0")
    expect(widget.get_by_role("radio", name="A:", checked=True)).to_have_attribute("aria-label", re.compile("<b>good"))
    expect(widget.get_by_role("radio", name="A:", checked=True)).to_be_focused()
    assert page.page.evaluate("window.jupyterapp.shell.currentWidget.content.activeCellIndex") == 1
    widget.get_by_label("B, to").fill("now")
    page.page.keyboard.press("Enter")
    expect(widget.get_by_role("radio", name="B: now")).to_be_checked()
    expect(widget.locator(".tundra-stands")).to_contain_text("what is not committed yet")

    page.run(1)
    widget = page.output(1).locator(".tundra-versions")
    expect(widget.locator(".tundra-found")).to_contain_text("nothing differs")
    page.run(2, wait=False)
    commits = widget.locator(".tundra-list tbody tr")
    commits.nth(4).get_by_role("radio", name="A:").check()
    commits.nth(3).get_by_role("radio", name="A:").check()
    expect(widget.locator(".tundra-wait")).to_have_text(re.compile(r"comparing… \d s"))
    expect(commits.nth(3).get_by_role("radio", name="A:")).to_be_checked()
    expect(widget.locator("tr[data-kind='modified']")).to_contain_text("value 600.0 → 7.0")
    expect(commits.nth(3).get_by_role("radio", name="A:")).to_be_checked()
    expect(widget.locator(".tundra-wait")).to_have_text("")


def test_an_error_is_shown_in_place_and_the_next_choice_is_answered(lab: Any) -> None:
    page = lab.open(CELLS)
    page.run(0)
    page.run(1)
    widget = page.output(1).locator(".tundra-versions")
    expect(widget.locator(".tundra-found")).to_contain_text("nothing differs")
    ref = widget.get_by_label("A, from")
    ref.fill("mian")
    ref.press("Enter")
    expect(widget.get_by_role("alert")).to_contain_text("no commit, branch, tag or time 'mian'. Did you mean 'main'?")
    page.screenshot("lab-versions-problem")
    last = page.output(0).inner_text().split("'")[1]
    ref.fill(f"{last}~2")  # not HEAD's: the error above is an event, which is committed meanwhile
    ref.press("Enter")
    expect(widget.locator("tr[data-kind='modified']")).to_contain_text("deadlines.total_seconds")
    expect(widget.get_by_role("alert")).to_have_count(0)

    assert "has stopped" in lab.tundra("daemon", "stop", "--force")
    widget.get_by_role("button", name="Refresh").click()
    expect(widget.get_by_role("alert")).to_contain_text("daemon")
    lab.tundra("daemon", "start")
    widget.get_by_role("button", name="Refresh").click()
    expect(widget.locator("tr[data-kind='modified']")).to_contain_text("deadlines.total_seconds")


def test_a_saved_notebook_shows_the_picked_comparison_without_a_kernel(notebook7: Any) -> None:
    page = notebook7.open(CELLS)
    page.run(0)
    page.run(2)
    widget = page.output(2).locator(".tundra-versions")
    expect(widget.locator("tr[data-kind='modified']")).to_contain_text("deadlines.total_seconds")
    widget.get_by_role("radio", name="B: now").check()
    expect(page.output(2).locator(STILL)).to_contain_text("not committed yet", use_inner_text=False)
    saved = page.save()
    page.close()
    pictures = [out.data["text/html"] for out in saved.cells[2].outputs if "text/html" in out.get("data", {})]
    assert "&lt;script&gt;" in pictures[0]
    assert "<script" not in "".join(pictures)

    again = notebook7.open(saved, name="saved.ipynb", kernel=False)
    still = again.output(2).locator(STILL)
    expect(still).to_be_visible()
    expect(still).to_contain_text(EVIL)
    expect(still).to_contain_text("value 600.0 → 7.0")
    expect(still).to_contain_text("%tundra diff ")
    for theme in ("light", "dark"):
        again.theme(theme)
        again.screenshot(f"notebook-versions-saved-{theme}")
