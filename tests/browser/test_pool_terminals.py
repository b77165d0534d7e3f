"""Terminals of the daemon in JupyterLab's and Notebook 7's own terminal."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, Request, expect

from tests.browser.conftest import BASH, SECONDS, TOKEN, Jupyter

pytestmark = [pytest.mark.part("browser"), pytest.mark.part("doltlite"), pytest.mark.check]

SHORT = """
[pty]
grace_seconds = 1.0
lab_grace_seconds = 20.0
"""
SHOWN = """() => {
    const widget = [...window.jupyterapp.shell.widgets('main')].find(one => one.content && one.content._term);
    if (!widget) return '';
    const buffer = widget.content._term.buffer.active;
    return [...Array(buffer.length).keys()].map(i => buffer.getLine(i).translateToString(true)).join('\\n');
}"""


NOTEBOOK = "() => [...window.jupyterapp.shell.widgets('main')].find(one => one.title.label.endsWith('.ipynb')).id"


def opened(jupyter: Jupyter, command: str, *options: str) -> str:
    told = jupyter.tundra("pty", "open", "--json", *options, command)
    row, _ = json.JSONDecoder().raw_decode(told)
    return str(row["pty_id"])


def page_of(jupyter: Jupyter, place: str) -> Page:
    page = jupyter.watch(jupyter.browser.new_page(viewport={"width": 1200, "height": 700}))
    page.set_default_timeout(SECONDS * 1000)
    page.goto(f"{jupyter.url}{place}{'&' if '?' in place else '?'}token={TOKEN}")
    return page


def until_shown(page: Page, text: str) -> str:
    deadline = time.monotonic() + SECONDS
    while True:
        shown = str(page.evaluate(SHOWN))
        if text in shown:
            return shown
        assert time.monotonic() < deadline, f"{text!r} is not in {shown!r}"
        page.wait_for_timeout(100)


def until_prompt(page: Page) -> None:
    """What is typed before bash has set up the terminal may be thrown away."""
    until(lambda: re.search(BASH + r"\s*$", str(page.evaluate(SHOWN))), "bash shows its prompt")


def api(jupyter: Jupyter, method: str, path: str, **options: Any) -> httpx.Response:
    headers = {"Authorization": f"token {TOKEN}"}
    return httpx.request(method, jupyter.url + path, headers=headers, trust_env=False, timeout=20, **options)


def until(condition: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + SECONDS
    while not (value := condition()):
        assert time.monotonic() < deadline, what
        time.sleep(0.1)
    return value


def is_kept(request: Request, pty: str) -> bool:
    """Whether Lab stores by it a layout with the terminal in it."""
    return request.method == "PUT" and "api/workspaces" in request.url and pty in (request.post_data or "")


def open_tab(page: Page, pty: str) -> None:
    page.wait_for_selector("#jp-main-dock-panel")
    page.wait_for_function("() => window.jupyterapp.commands.hasCommand('terminal:open')")
    page.evaluate("name => window.jupyterapp.commands.execute('terminal:open', { name }).then(() => null)", pty)
    page.wait_for_selector(".jp-Terminal .xterm")


def test_a_terminal_of_the_pool_lives_in_labs_own_tab(lab: Jupyter) -> None:
    """Listed, opened, typed into, reloaded, cut off for five seconds, and shut down from the list."""
    lab.write_settings(SHORT)
    pty = opened(lab, "bash --norc --noprofile")
    names = until(lambda: [one["name"] for one in api(lab, "GET", "api/terminals").json()], "it is listed")
    assert names == [f"tundra-{pty}"]
    page = page_of(lab, "lab?reset")
    with page.expect_response(lambda answer: is_kept(answer.request, pty)):  # the layout that a reload brings back
        open_tab(page, f"tundra-{pty}")
    until_prompt(page)
    page.locator(".jp-Terminal").click()
    page.keyboard.type("echo $((6*7)); stty size\n")
    until_shown(page, "\n42\n")
    if folder := os.environ.get("BROWSER_SHOTS"):
        page.screenshot(path=f"{folder}/pool-terminal-lab.png")

    page.reload()
    until_shown(page, "\n42\n")

    page.context.set_offline(True)
    lab.tundra("pty", "send", pty, "echo while-away-$((1+1))")
    page.wait_for_timeout(5000)
    page.context.set_offline(False)
    shown = until_shown(page, "while-away-2")
    assert shown.count("\n42\n") == 1

    assert api(lab, "GET", f"api/terminals/tundra-{pty}").json()["name"] == f"tundra-{pty}"
    assert api(lab, "DELETE", f"api/terminals/tundra-{pty}").status_code == 204
    until(lambda: api(lab, "GET", "api/terminals").json() == [], "it is no longer listed")
    assert api(lab, "DELETE", "api/terminals/tundra-zz0").status_code == 404
    page.close()


def test_an_end_that_was_not_the_programs_own_is_told_on_the_screen(lab: Jupyter) -> None:
    """The tab of a terminal that somebody ended says so; Lab's own terminals go on working beside it."""
    lab.write_settings(SHORT)
    pty = opened(lab, "bash --norc --noprofile", "--persistent")
    page = page_of(lab, "lab?reset")
    open_tab(page, f"tundra-{pty}")
    lab.tundra("pty", "kill", pty)
    until_shown(page, "has ended")
    own = api(lab, "POST", "api/terminals", json={}).json()["name"]
    assert own.isdigit()
    names = {one["name"] for one in api(lab, "GET", "api/terminals").json()}
    assert names >= {own, f"tundra-{pty}"}
    assert api(lab, "DELETE", f"api/terminals/{own}").status_code == 204
    page.close()


def test_notebook_7_opens_it_as_a_second_viewer(notebook7: Jupyter) -> None:
    pty = opened(notebook7, "bash --norc --noprofile", "--persistent")
    until(lambda: api(notebook7, "GET", "api/terminals").json(), "it is listed")
    first = page_of(notebook7, f"terminals/tundra-{pty}")
    second = page_of(notebook7, f"terminals/tundra-{pty}")
    for page in (first, second):
        page.wait_for_selector(".jp-Terminal .xterm")
        until_prompt(page)
    first.locator(".jp-Terminal").click()
    first.keyboard.type("echo both-$((40+2))\n")
    for page in (first, second):
        until_shown(page, "both-42")
    expect(first.locator(".jp-Terminal")).to_be_visible()
    first.close()
    second.close()


def test_open_lab_opens_the_tab_and_show_links_to_it(lab: Jupyter) -> None:
    """Once, when the cell is run; a saved notebook opens nothing by itself."""
    lab.write_settings(SHORT.replace("20.0", "60.0"))
    page = lab.open(["%load_ext tundra_nb", "%tundra pty open --lab bash --norc --noprofile"])
    page.run(0)
    page.run(1)
    tab = page.page.locator(".jp-Terminal .xterm")
    expect(tab).to_be_visible()
    until_shown(page.page, "$" if os.getuid() else "#")
    page.screenshot("pty-open-lab")
    link = page.output(1).locator("button")
    pty = str(link.text_content()).partition(":")[0].removeprefix("tundra-")
    names = [one["name"] for one in api(lab, "GET", "api/terminals").json()]
    assert names == [f"tundra-{pty}"]
    page.page.locator(".lm-TabBar-tab", has_text=f"tundra-{pty}").locator(".lm-TabBar-tabCloseIcon").click()
    expect(tab).to_have_count(0)
    link.click()
    expect(tab).to_be_visible()
    page.command("tabsmenu:activate-by-id", id=page.page.evaluate(NOTEBOOK))
    saved = page.save()
    page.close()

    again = lab.open(saved, name="saved.ipynb", kernel=False)
    expect(again.output(1).get_by_role("button", name="open its terminal tab")).to_be_visible()
    again.page.wait_for_timeout(1500)
    expect(again.page.locator(".jp-Terminal")).to_have_count(0)
    expect(again.page.locator(".jp-Dialog")).to_have_count(0)


def test_open_lab_in_notebook_7_opens_a_page(notebook7: Jupyter) -> None:
    page = notebook7.open(["%load_ext tundra_nb", "%tundra pty open --lab bash --norc --noprofile"])
    page.run(0)
    with page.page.context.expect_page() as opened_page:
        page.run(1)
    assert "/terminals/tundra-" in opened_page.value.url
    opened_page.value.wait_for_selector(".jp-Terminal .xterm")
