"""Builds the guide as a browsable site, with Sphinx and MyST; every link between pages is checked.

    make docs

The pages are those of the package, as they are; only the first page and the order are made here. What does not fit
(a link to nowhere, a page that no other leads to) is an error.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from tundra_nb._version import __version__
from tundra_nb.guide import pages

SITE = Path(__file__).parents[2] / ".site"
PARTS = {
    "Begin": ["getting-started", "dashboard", "incidents", "architecture"],
    "When something is wrong": ["troubleshooting", *pages.TROUBLESHOOTING, "errors/index"],
    "Reference": ["commands", "settings", "python", "http-api"],
}
CONF = """
project = "tundra_nb"
version = release = {version!r}
extensions = ["myst_parser"]
html_theme = "furo"
html_title = "tundra_nb {version}"
highlight_language = "text"
myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]
nitpicky = True
"""


def write_source(folder: Path) -> None:
    """The pages of the guide below a first page that leads to all of them."""
    guide = pages.folder()
    shutil.copytree(guide, folder, ignore=shutil.ignore_patterns("*.py", "__pycache__", "*.toml"))
    shutil.copy(guide / "jupyterhub_config.py", folder)  # a page links to it: it can be downloaded
    (folder / "conf.py").write_text(CONF.format(version=__version__))
    named = {name for names in PARTS.values() for name in names}
    others = sorted(file.stem for file in guide.glob("*.md") if file.stem not in named)
    lines = [
        "# tundra_nb",
        "",
        "A runtime for LLM calls, shell sessions and versioned history, and the notebook workbench over it.",
    ]
    for caption, names in (PARTS | ({"More": others} if others else {})).items():
        lines += ["", "```{toctree}", ":maxdepth: 1", f":caption: {caption}", "", *names, "```"]
    (folder / "index.md").write_text("\n".join(lines) + "\n")
    index = folder / "errors" / "index.md"
    errors = sorted(file.stem for file in (guide / "errors").glob("*.md") if file.stem != "index")
    situations = sorted(f"../situations/{file.stem}" for file in (guide / "situations").glob("*.md"))
    tree = ["", "```{toctree}", ":hidden:", "", *errors, *situations, "```", ""]
    index.write_text(index.read_text() + "\n".join(tree))


def build(site: Path) -> int:
    """Build the site below a folder; 0 when every page and link is well."""
    from sphinx.cmd.build import main as sphinx

    source, html = site / "source", site / "html"
    for folder in (source, html):
        shutil.rmtree(folder, ignore_errors=True)
    site.mkdir(parents=True, exist_ok=True)
    write_source(source)
    return sphinx(["-b", "html", "-W", "--keep-going", "-q", "-d", str(site / "doctrees"), str(source), str(html)])


if __name__ == "__main__":
    code = build(SITE)
    if code == 0:
        sys.stdout.write(f"{SITE / 'html' / 'index.html'}\n")
    sys.exit(code)
