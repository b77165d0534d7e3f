"""The dashboard where things are odd: nothing, one call, names from strangers, a daemon or kernel that is gone."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import expect

from tests.outage import fill
from tundra_nb.testing.scripted_provider import ScriptedStep

from .conftest import Jupyter
from .test_faces import LIGHTNESS, barriers, watch

pytestmark = [pytest.mark.part("browser", "doltlite", "axe"), pytest.mark.timeout(400)]

EVIL = "<img src=x onerror=\"document.title='taken'\"> \u202egpj.exe"
NAMES = (EVIL, "b" * 300, *(f"PROFILE-WWWW-{number}" for number in range(298)))
OUTSIDE = """stage => [...stage.querySelectorAll("text")].filter(
  (text) => text.getBoundingClientRect().left < stage.getBoundingClientRect().left).map((text) => text.textContent)"""
"""Words that begin left of the picture, where they are cut off."""
SILENT_SECONDS = 90
"""After 40 the page says that its kernel has been silent."""
RESTART = "async () => { await window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.restart(); }"


def test_names_from_strangers_are_text_and_of_hundreds_of_profiles_the_worst_are_shown(
    start_jupyter: Callable[..., Jupyter],
) -> None:
    notebook = start_jupyter("notebook", prepare=lambda env: fill(env, 3_000, names=NAMES))
    page = notebook.open(["%load_ext tundra_nb", "%tundra dash 4h"])
    seen = watch(page.page, notebook.url)
    page.run(0)
    page.run(1)
    dash = page.output(1).locator(".tundra-dash")
    expect(dash).to_be_visible()
    expect(dash.get_by_role("heading", level=3)).to_contain_text("<img src=x")
    expect(dash.locator("svg text", has_text="more").first).to_have_text(re.compile(r"^24\d more$"))
    expect(dash.locator(".tundra-filters button")).to_have_count(8)
    dash.get_by_text("As a table").click()
    expect(dash.locator("details table").nth(1)).to_contain_text("<img src=x")
    assert dash.locator("img").count() == 0
    assert page.page.title() != "taken"
    stage = dash.locator(".tundra-stage")
    expect(stage.locator("text", has_text="PROFILE").first).to_be_visible()
    assert stage.evaluate(OUTSIDE) == []
    for theme in ("light", "dark"):
        page.theme(theme)
        assert not barriers(dash), theme
    page.alone(420)
    assert not barriers(dash)
    assert stage.evaluate(OUTSIDE) == []
    page.screenshot("dash-strangers-420")
    assert not [one for one in seen if "reading 'schema'" not in one]


def test_a_chosen_caller_leaves_only_its_calls_in_lanes_table_and_selection(lab: Jupyter) -> None:
    for _ in range(2):
        lab.tundra("ask", "hi")
    page = lab.open(["%load_ext tundra_nb", "%tundra ask hi", "dash = %tundra dash\ndash", "len(dash.selection)"])
    page.run(0)
    lab.provider.script("/v1/chat/completions", ScriptedStep(status=503, text="down for maintenance"))
    page.run(1)
    page.run(2)
    dash = page.output(2).locator(".tundra-dash")
    counts, caller = dash.locator(".tundra-counts"), dash.get_by_label("caller", exact=True)
    expect(counts).to_contain_text("3 calls")
    expect(dash.get_by_role("button", name="Live")).to_have_attribute("aria-pressed", "true")
    expect(dash.locator("svg text", has_text="api_error")).to_have_count(1)
    dash.get_by_text("As a table").click()
    reasons = dash.locator("details table").nth(2)

    caller.select_option("cli")
    expect(counts).to_contain_text("2 calls, 0 % not answered · profiles and reasons are of calls")
    expect(dash.locator("svg text", has_text="api_error")).to_have_count(0)
    expect(reasons.locator("tbody tr")).to_have_count(0)
    page.run(3)
    expect(page.output(3)).to_have_text(re.compile(r"\b2$"))

    caller.select_option("kernel")
    expect(counts).to_contain_text("1 call, 100 % not answered")
    expect(dash.locator("svg text", has_text="AllProvidersExhausted")).to_have_count(1)
    expect(reasons).to_contain_text("AllProvidersExhausted")
    page.run(3)
    expect(page.output(3)).to_have_text(re.compile(r"\b1$"))
    page.screenshot("dash-caller")

    caller.select_option("")
    expect(counts).to_contain_text("3 calls")
    expect(counts).not_to_contain_text("of calls")


def test_a_pin_and_a_source_show_what_was_while_the_present_goes_on(lab: Jupyter) -> None:
    for _ in range(2):
        lab.tundra("ask", "hi")
    zipped, notebook, copy = (str(lab.folder / name) for name in ("i.zip", "i.ipynb", "copy.ipynb"))
    steps = [
        f"t.incidents.new('a bad minute', '10m', run=False, out={notebook!r})",
        f"t.incidents.export('a bad minute', {zipped!r})",
        f"source = t.incidents.import_({zipped!r}, out={copy!r})['source']",
        "pin = t.versions.commit('before')",
        "t.ask('later')",
    ]
    dashes = ["%tundra dash --at {{pin}}", "%tundra dash --in {{source}}", "%tundra dash"]
    page = lab.open(["%load_ext tundra_nb\nimport tundra_nb\nt = tundra_nb.connect()", "\n".join(steps), *dashes])
    for index in range(5):
        page.run(index)
    pin, source, present = (page.output(index).locator(".tundra-dash") for index in (2, 3, 4))
    expect(present.get_by_role("heading", level=3)).to_have_text("all well · 3 calls, 0 % not answered")
    lab.tundra("ask", "hi")
    expect(present.get_by_role("heading", level=3)).to_have_text("all well · 4 calls, 0 % not answered")
    for dash, where in ((pin, "as of "), (source, "a-bad-minute")):
        dash.locator(".tundra-stage").scroll_into_view_if_needed()  # it is drawn where it is seen
        expect(dash.locator(".tundra-counts")).to_contain_text(where)
        expect(dash.get_by_role("heading", level=3)).to_have_text("all well · 2 calls, 0 % not answered")
        expect(dash.get_by_role("button", name="Live")).to_be_hidden()
    page.screenshot("dash-pin-source")


def test_nothing_one_call_two_views_and_a_daemon_and_a_kernel_that_go(lab: Jupyter) -> None:
    page = lab.open(
        ["%load_ext tundra_nb", "%tundra dash", "%tundra dash", "%tundra dash --between 2090-01-01 2090-01-02"]
    )
    for index in range(4):
        page.run(index)
    first, second, future = (page.output(index).locator(".tundra-dash") for index in (1, 2, 3))
    for dash in (first, second, future):
        expect(dash.get_by_role("heading", level=3)).to_have_text("no call in this window")
    expect(future.get_by_role("button", name="Live")).to_be_hidden()
    for dash in (first, second):  # also where the picture is out of sight and not painted
        expect(dash.get_by_role("button", name="Live")).to_have_attribute("aria-pressed", "true")
    page.screenshot("dash-nothing")

    lab.tundra("ask", "hi")
    for dash in (first, second):
        expect(dash.get_by_role("heading", level=3)).to_have_text("all well · 1 call, 0 % not answered")
    first.locator(".tundra-stage").focus()
    page.page.keyboard.press("Enter")
    expect(first.locator(".tundra-picked strong")).to_contain_text("1 call, 0 % not answered")
    expect(second.locator(".tundra-picked strong")).to_have_count(0)
    page.page.keyboard.press("Tab")  # keys alone reach what is below: Zoom, Clear, the table, and its first call
    for _ in range(3):
        page.page.keyboard.press("Tab")
    page.page.keyboard.press("Enter")
    expect(first.locator(".tundra-why pre")).to_contain_text("scripted")
    page.screenshot("dash-one-call")
    page.theme("dark")
    page.page.emulate_media(color_scheme="light")  # the picture is as Jupyter is, whatever the desktop is
    assert first.locator(".tundra-why img").evaluate(LIGHTNESS) < 60
    page.theme("light")

    lab.tundra("daemon", "restart", "--force")
    lab.tundra("ask", "hi")
    for dash in (first, second):
        expect(dash.get_by_role("heading", level=3)).to_have_text("all well · 2 calls, 0 % not answered")
        expect(dash.locator(".tundra-problem")).to_have_text("")

    lab.tundra("daemon", "stop", "--force")
    expect(first.locator(".tundra-problem code")).to_have_text("tundra daemon start")
    expect(first.locator(".tundra-problem")).not_to_contain_text("`")
    expect(first.get_by_role("heading", level=3)).to_have_text("all well · 2 calls, 0 % not answered")
    page.screenshot("dash-no-daemon")

    page.page.evaluate(RESTART)
    expect(second.locator(".tundra-problem")).to_contain_text("no word from the kernel", timeout=SILENT_SECONDS * 1000)
