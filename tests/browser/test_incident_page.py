"""An incident's notebook as a page shows every picture, without a kernel and without a network, light and dark."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any, Literal

import pytest
from playwright.sync_api import Browser, expect

from tests.incidents.test_incident import FILE, TITLE, outage  # noqa: F401 - a fixture

pytestmark = [pytest.mark.check, pytest.mark.part("browser", "doltlite"), pytest.mark.timeout(280)]


@pytest.fixture(scope="module")
def pages(outage: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:  # noqa: F811
    """Made by nbconvert, and as it lies in an export."""
    home, _ = outage
    folder = tmp_path_factory.mktemp("pages")
    command = [sys.executable, "-m", "nbconvert", "--to", "html", str(home.folder / FILE), "--output-dir", str(folder)]
    subprocess.run(command, env=home.env, check=True, capture_output=True, timeout=100)
    done = home.run("incident", "export", TITLE, "--out", str(folder / "export.zip"), timeout=200)
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(folder / "export.zip") as archive:
        (member,) = [name for name in archive.namelist() if name.endswith(".html") and "report" not in name]
        exported = Path(archive.extract(member, folder / "export"))
    return {"nbconvert": folder / Path(FILE).with_suffix(".html"), "export": exported}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("maker", ["nbconvert", "export"])
def test_every_picture_is_there_offline(
    pages: dict[str, Path], chromium: Browser, maker: str, scheme: Literal["light", "dark"]
) -> None:
    page = chromium.new_page(viewport={"width": 1280, "height": 900}, color_scheme=scheme, offline=True)
    page.goto(pages[maker].as_uri(), wait_until="domcontentloaded")
    pictures = page.locator(".jp-Cell-outputArea img")
    expect(pictures.first).to_be_visible()
    shown = pictures.evaluate_all(
        "images => images.map(image => [image.src.split(',')[0], image.complete && image.naturalWidth > 100,"
        " image.getBoundingClientRect().width > 100])"
    )
    assert len(shown) >= 5
    assert all(picture == ["data:image/svg+xml", True, True] for picture in shown), shown
    expect(page.locator("body")).to_contain_text(TITLE)
    if folder := os.environ.get("BROWSER_SHOTS"):
        page.screenshot(path=f"{folder}/incident-{maker}-{scheme}.png", full_page=True)
    page.close()
