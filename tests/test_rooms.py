"""The order of the rooms, as it is checked and as it is drawn."""

from __future__ import annotations

import re
import tomllib

from tests.conftest import ROOT
from tests.guide.generate import GUIDE


def test_the_drawing_of_the_rooms_is_the_order_that_is_checked() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["name"] == "Rooms are layered")
    page = (GUIDE / "architecture.md").read_text().partition("## Rooms")[2]
    drawn = re.findall(r"^([\w ·]+?)(?:  +|$)", page.partition("```\n")[2].partition("```")[0], re.MULTILINE)
    assert [line.split(" · ") for line in drawn if line] == [layer.split(" | ") for layer in layers]
