"""The panel in JupyterLab and Notebook 7: what it says in each state, and what its buttons do."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jupyter_server.auth.security import passwd
from playwright.sync_api import Page, expect

from tundra_nb.testing.scripted_provider import ScriptedStep

from .conftest import KERNEL_ANSWERS, SECONDS, Jupyter, NotebookPage
from .test_faces import barriers, watch

pytestmark = [pytest.mark.part("browser", "doltlite", "axe"), pytest.mark.timeout(300)]

CHAT = "/v1/chat/completions"
SHORTCUTS = """() => {
    const all = window.jupyterapp.commands.keyBindings;
    const ours = all.filter(one => one.command.startsWith("tundra:"));
    const clash = ours.filter(one => all.some(other => !other.command.startsWith("tundra:")
        && other.keys.join() === one.keys.join()));
    return [ours.map(one => one.command).sort(), clash.map(one => one.command)];
}"""
OF_NOTEBOOK = "reading 'schema'"
"""Notebook 7 throws this by itself when a page is opened, also without the panel."""

WITHIN = """button => {
    const [own, panel] = [button, button.closest(".tundra-panel")].map(one => one.getBoundingClientRect());
    return own.left >= panel.left && own.right <= panel.right + 1 && panel.right <= window.innerWidth;
}"""
"""Whether a button is not cut by the side of the panel, nor that by the side of the page."""


def panel_of(page: NotebookPage) -> Any:
    page.page.wait_for_function("() => window.jupyterapp.commands.hasCommand('tundra:show')")
    page.command("tundra:show", wait=True)
    panel = page.page.locator(".tundra-panel")
    expect(panel).to_be_visible()
    return panel


def sources(page: Page) -> list[str]:
    """The text of each cell."""
    found: list[str] = page.evaluate(
        "() => window.jupyterapp.shell.currentWidget.content.widgets.map(one => one.model.sharedModel.getSource())"
    )
    return found


def test_in_lab_it_tells_what_is_open_acts_and_inserts_cells_of_ids(lab: Jupyter) -> None:
    lab.provider.script(CHAT, ScriptedStep(status=503, text="down for <b>maintenance</b>"))
    lab.tundra("ask", "hi")
    lab.tundra("pty", "open", "sleep", "600")
    page = lab.open(["1 + 1"])
    seen = watch(page.page, lab.url)
    panel = panel_of(page)
    item = page.page.locator(".tundra-item")
    expect(panel.get_by_role("heading", level=2)).to_have_text("scripted open")
    expect(item).to_have_text("tundra: 1 open")
    expect(panel.locator("[data-breaker]")).to_have_text(re.compile(r"open, probe in \d+ s"))
    expect(panel.get_by_role("list", name="Last errors")).to_contain_text("down for <b>maintenance</b>")
    for theme in ("light", "dark"):
        page.theme(theme)
        for width in (1280, 620):
            page.page.set_viewport_size({"width": width, "height": 900})
            page.screenshot(f"panel-{theme}-{width}")
            assert not barriers(panel), (theme, width)
            for button in panel.get_by_role("button").all():
                assert button.evaluate(WITHIN), (theme, width, button.inner_text())
    page.page.set_viewport_size({"width": 1280, "height": 900})

    commands, clash = page.page.evaluate(SHORTCUTS)
    assert commands == ["tundra:dash", "tundra:last", "tundra:show", "tundra:status"]
    assert clash == []
    panel.get_by_role("list", name="Last errors").get_by_role("button", name="why").click()
    page.page.wait_for_function(
        "() => window.jupyterapp.shell.currentWidget.content.widgets.length === 2"
        " && window.jupyterapp.shell.currentWidget.content.widgets[1].model.sharedModel.getSource() !== ''"
    )
    assert re.fullmatch(r"%load_ext tundra_nb\n%tundra why \d+", sources(page.page)[1])
    assert page.page.evaluate("() => window.jupyterapp.shell.currentWidget.content.mode") == "edit"

    panel.get_by_role("button", name="Reset: scripted").click()
    expect(panel.get_by_role("heading", level=2)).to_have_text("well: 1 profile ready")
    expect(item).to_have_text("tundra: well")
    panel.get_by_role("button", name="Park: scripted").click()
    expect(panel.get_by_role("heading", level=2)).to_have_text("scripted parked")
    panel.get_by_role("button", name="Recheck: scripted").click()
    expect(panel.get_by_role("heading", level=2)).to_have_text("well: 1 profile ready")
    panel.get_by_role("button", name="Test: scripted").click()
    expect(panel.get_by_role("status")).to_contain_text("scripted: answered")

    panel.get_by_role("button", name="open terminal").click()
    expect(page.page.locator(".jp-Terminal")).to_be_visible()
    assert not seen


def test_a_daemon_that_was_stopped_is_told_and_not_woken(lab: Jupyter) -> None:
    page = lab.open(["1 + 1"])
    panel = panel_of(page)
    heading = panel.get_by_role("heading", level=2)
    expect(heading).to_have_text("well: 1 profile ready")
    stopped = lab.tundra("daemon", "stop", "--force")
    expect(heading).to_have_text("stopped by hand")
    expect(panel).to_contain_text("tundra daemon start")
    expect(page.page.locator(".tundra-item")).to_have_text("tundra: stopped")
    page.screenshot("panel-stopped")
    panel.get_by_role("button", name="Look again").click()
    expect(heading).to_have_text("stopped by hand")
    assert '"running": false' in lab.tundra("daemon", "status", "--json"), stopped
    lab.tundra("daemon", "start")  # as the second half of `daemon restart`, which nobody is asked to look at
    expect(heading).to_have_text("well: 1 profile ready")


def test_in_notebook_7_under_a_base_url_with_a_blank_it_shows_and_inserts(
    start_jupyter: Callable[..., Jupyter],
) -> None:
    jupyter = start_jupyter("notebook", options=["--ServerApp.base_url=/user/al%20ice/"])
    page = jupyter.open(["1 + 1"])
    errors = watch(page.page, jupyter.url)
    panel = panel_of(page)
    expect(panel.get_by_role("heading", level=2)).to_have_text("well: 1 profile ready")
    panel.get_by_role("button", name="Status", exact=True).click()
    page.page.wait_for_function(
        "() => window.jupyterapp.shell.currentWidget.content.widgets.some("
        "one => one.model.sharedModel.getSource() === '%load_ext tundra_nb\\n%tundra status')"
    )
    page.screenshot("panel-notebook")
    assert [error for error in errors if OF_NOTEBOOK not in error] == []


def test_with_a_password_alone_it_looks_acts_and_follows_and_tells_of_a_crash(
    start_jupyter: Callable[..., Jupyter],
) -> None:
    """By cookie alone: the page has no token, so a POST needs the header against forged requests."""
    lab = start_jupyter(
        "lab",
        prepare=lambda env: env.pop("JUPYTER_TOKEN"),
        options=[f"--PasswordIdentityProvider.hashed_password={passwd('let me in', 'sha1')}"],
    )
    page = lab.open(["1 + 1"], password="let me in")
    assert page.page.evaluate("() => window.jupyterapp.serviceManager.serverSettings.token") == ""
    panel = panel_of(page)
    heading = panel.get_by_role("heading", level=2)
    expect(heading).to_have_text("well: 1 profile ready")
    panel.get_by_role("button", name="Park: scripted").click()
    expect(heading).to_have_text("scripted parked")
    panel.get_by_role("button", name="Recheck: scripted").click()
    expect(heading).to_have_text("well: 1 profile ready")
    lab.provider.script(CHAT, ScriptedStep(status=503, text="down"))
    lab.tundra("ask", "hi")  # nobody looks: the feed tells
    expect(heading).to_have_text("scripted open")

    data = Path(lab.env["TUNDRA_DATA_DIR"])
    data.chmod(0o755)
    deadline = time.monotonic() + SECONDS
    while "others may look" not in lab.tundra("status"):
        assert time.monotonic() < deadline
    panel.get_by_role("button", name="Reset: scripted").click()
    expect(heading).to_contain_text("degraded: others may look into")
    expect(panel).to_contain_text("chmod 700")
    expect(page.page.locator(".tundra-item")).to_have_text("tundra: degraded")
    page.screenshot("panel-degraded")
    assert not barriers(panel)
    data.chmod(0o700)

    before = json.loads(lab.tundra("daemon", "status", "--json"))["pid"]
    os.kill(before, signal.SIGKILL)
    # the server starts another, and the panel finds it
    expect(heading).to_have_text("well: 1 profile ready", timeout=3 * SECONDS * 1000)
    assert json.loads(lab.tundra("daemon", "status", "--json"))["pid"] != before


def test_the_card_of_the_launcher_opens_a_notebook_with_the_dashboard(lab: Jupyter) -> None:
    page = lab.open(["1 + 1"])
    page.command("launcher:create", wait=True)
    card = page.page.locator(".jp-LauncherCard", has_text="Tundra Dashboard")
    expect(card).to_be_visible()
    card.click()
    page.page.wait_for_function(
        "() => window.jupyterapp.shell.currentWidget?.content?.widgets?.[0]?.model?.sharedModel"
        "?.getSource()?.endsWith('%tundra dash')"
    )
    page.page.evaluate(KERNEL_ANSWERS)
    page.command("notebook:run-all-cells", wait=True)
    expect(page.page.locator(".tundra-dash:visible").get_by_role("heading", level=3)).to_have_text(
        "no call in this window"
    )
    page.screenshot("dash-launched")


def test_where_it_is_switched_off_nothing_of_it_is_there(start_jupyter: Callable[..., Jupyter]) -> None:
    def switched_off(env: dict[str, str]) -> None:
        command = [sys.executable, "-m", "jupyterlab.labextensions", "disable", "--level=user", "tundra-nb"]
        subprocess.run(command, env=env, check=True, capture_output=True, timeout=SECONDS)

    lab = start_jupyter("lab", prepare=switched_off)
    asked: list[str] = []
    page = lab.open(["1 + 1"])
    page.page.on("request", lambda request: asked.append(request.url) if "/tundra/" in request.url else None)
    assert page.page.evaluate("() => window.jupyterapp.commands.hasCommand('tundra:show')") is False
    page.page.reload()
    page.page.wait_for_selector(".jp-Notebook .jp-Cell")
    page.page.evaluate("async () => { await window.jupyterapp.restored; }")
    expect(page.page.locator(".tundra-item, .tundra-panel")).to_have_count(0)
    assert asked == []


def test_without_the_server_extension_it_says_what_to_do_and_asks_once(start_jupyter: Callable[..., Jupyter]) -> None:
    off = "--ServerApp.jpserver_extensions={'jupyterlab': True, 'tundra_nb': False}"
    jupyter = start_jupyter("lab", options=[off])
    page = jupyter.open(["1 + 1"])
    asked: list[str] = []
    page.page.on("request", lambda request: asked.append(request.url) if "/tundra/" in request.url else None)
    panel = panel_of(page)
    expect(panel.get_by_role("heading", level=2)).to_have_text("not on this server")
    expect(panel).to_contain_text("jupyter server extension enable tundra_nb")
    expect(panel.get_by_role("button", name="Dashboard")).to_be_disabled()
    expect(page.page.locator(".tundra-item")).to_be_hidden()
    assert len(asked) <= 1
