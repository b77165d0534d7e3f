"""The terminal widget as a person uses it: it types, shows output, and is still there in a saved notebook."""

from __future__ import annotations

import json
import shutil
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import await_prompt

pytestmark = [pytest.mark.part("browser", "doltlite"), pytest.mark.timeout(240)]

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
    await_prompt(screen)
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
    await_prompt(screen, "sleep 100")
    line.press("Control+c")
    await_prompt(screen)
    line.fill("echo $((6 * 7)); stty size")
    line.press("Enter")
    expect(screen).to_contain_text("42\n24 80")
    await_prompt(screen)
    widget.locator("select").select_option("100×30")
    line.fill("stty size")
    line.press("Enter")
    expect(screen).to_contain_text("30 100")
    page.theme("dark")
    page.screenshot("terminal-dark")
    widget.get_by_role("button", name="End").click()
    expect(widget.locator(".tundra-how")).to_contain_text("ended by")
    expect(line).to_be_disabled()


def test_a_saved_notebook_shows_the_screen_without_a_kernel(notebook7: Any) -> None:
    page = notebook7.open(CELLS)
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

    again = notebook7.open(saved, name="saved.ipynb", kernel=False)
    still = again.output(1).locator(STILL)
    expect(still).to_be_visible()
    expect(still).to_contain_text("hello jo <b>")
    for theme in ("light", "dark"):
        again.theme(theme)
        again.screenshot(f"notebook-terminal-saved-{theme}")


def test_the_screen_takes_every_key_and_the_notebook_none(lab: Any) -> None:
    """`dd` types two letters and deletes no cell; arrows, Tab, Ctrl, paste work; a password is hidden."""
    page = lab.open(["%load_ext tundra_nb", "%tundra pty open --widget bash --norc --noprofile", "1 + 1"])
    page.run(0)
    page.run(1)
    widget = page.output(1).locator(".tundra-terminal")
    screen = widget.locator(".tundra-screen")
    await_prompt(screen)
    keys = page.page.keyboard
    screen.click()
    expect(screen).to_be_focused()
    keys.type("echo dd-aa-bb")
    keys.press("Enter")
    expect(screen).to_contain_text("\ndd-aa-bb\n")
    await_prompt(screen)
    assert page.page.locator(".jp-Notebook .jp-Cell").count() == 3
    expect(page.cell(2).locator(".jp-OutputArea-child")).to_have_count(0)
    keys.press("ArrowUp")
    keys.type("X")
    keys.press("ArrowLeft")
    keys.press("ArrowLeft")
    keys.press("Control+a")
    keys.type("true; ")
    keys.press("Enter")
    expect(screen).to_contain_text("true; echo dd-aa-bbX")
    expect(screen).to_contain_text("\ndd-aa-bbX\n")
    await_prompt(screen)
    keys.type("ls -d /etc/shado")
    keys.press("Tab")
    expect(screen).to_contain_text("ls -d /etc/shadow")
    keys.press("Control+c")
    await_prompt(screen)
    page.page.evaluate(
        """() => {
        const data = new DataTransfer();
        data.setData("text", "echo pasted-$((6*7))");
        const event = new ClipboardEvent("paste", { clipboardData: data, bubbles: true, cancelable: true });
        document.querySelector(".tundra-screen").dispatchEvent(event);
    }"""
    )
    keys.press("Enter")
    expect(screen).to_contain_text("\npasted-42\n")
    await_prompt(screen)
    keys.type("seq 1 200")
    keys.press("Enter")
    expect(screen).to_contain_text("\n200\n")
    await_prompt(screen)
    keys.press("Shift+PageUp")
    expect(widget.locator(".tundra-above")).to_contain_text("\n100\n")
    page.screenshot("terminal-typing")

    keys.type("read -s -p 'Password: ' p; echo got ${#p}")
    keys.press("Enter")
    line = widget.locator(".tundra-input")
    expect(line).to_have_attribute("type", "password")
    page.screenshot("terminal-password")
    line.fill("hunter2-hunter2")
    line.press("Enter")
    expect(screen).to_contain_text("got 15")
    expect(line).to_have_attribute("type", "text")
    assert "hunter2" not in page.page.content()
    assert "hunter2" not in json.dumps(page.save())
    keys.press("Shift+Escape")


@pytest.mark.check
@pytest.mark.skipif(shutil.which("vim") is None, reason="this machine has no vim: apt-get install vim")
def test_vim_and_a_python_prompt_can_be_used(lab: Any) -> None:
    """Full-screen programs and their keys, Escape included."""
    page = lab.open(["%load_ext tundra_nb", "%tundra pty open --widget bash --norc --noprofile"])
    page.run(0)
    page.run(1)
    screen = page.output(1).locator(".tundra-screen")
    keys = page.page.keyboard
    await_prompt(screen)
    screen.click()
    keys.type("python3 -q -i")
    keys.press("Enter")
    await_prompt(screen, ">>>")
    keys.type("print(6 * 7)")
    keys.press("Enter")
    expect(screen).to_contain_text("\n42\n")
    await_prompt(screen, ">>>")
    keys.press("Control+d")
    await_prompt(screen)
    keys.type("vim -u NONE -N written.txt")
    keys.press("Enter")
    expect(screen).to_contain_text("~")
    keys.type("ihello")
    keys.press("Escape")
    keys.type("yyp:w")
    keys.press("Enter")
    expect(screen).to_contain_text("written")
    page.screenshot("terminal-vim")
    keys.type(":q!")
    keys.press("Enter")
    await_prompt(screen)
    keys.type("cat written.txt")
    keys.press("Enter")
    expect(screen).to_contain_text("hello\nhello\n")
    assert page.page.locator(".jp-Notebook .jp-Cell").count() == 2
