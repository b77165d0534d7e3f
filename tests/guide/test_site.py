"""`make docs` builds a site of every page, with no link that leads nowhere."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests.guide import site
from tundra_nb.guide import pages

pytestmark = [pytest.mark.check, pytest.mark.timeout(110)]


@pytest.fixture(scope="module")
def html(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    assert site.build(folder) == 0, "Sphinx names what is wrong above"
    return folder / "html"


def test_every_page_of_the_guide_is_in_the_site(html: Path) -> None:
    for name in pages.sections():
        assert (html / f"{name}.html").exists(), name
    for page in pages.every_page().values():
        place = "errors" if page.kind == "error" else "situations"
        assert page.title.partition(":")[0] in (html / place / f"{page.name}.html").read_text()


def test_no_link_of_the_site_leads_nowhere(html: Path) -> None:
    lost = []
    for file in html.rglob("*.html"):
        for link in re.findall(r'(?:href|src)="([^"#?]+)', file.read_text()):
            is_outside = re.match(r"[a-z]+:|//", link)
            if not is_outside and not Path(os.path.normpath(file.parent / link)).exists():
                lost += [f"{file.relative_to(html)}: {link}"]
    assert lost == []


def test_a_link_to_nowhere_stops_the_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = site.write_source

    def with_a_slip(folder: Path) -> None:
        real(folder)
        (folder / "index.md").write_text((folder / "index.md").read_text() + "\n[gone](nothing-there.md)\n")

    monkeypatch.setattr(site, "write_source", with_a_slip)
    assert site.build(tmp_path) != 0
