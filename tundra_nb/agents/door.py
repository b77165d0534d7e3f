"""`tundra mcp` as hosts start it: the tools are listed before click, msgspec or a client of the daemon are imported.

A host starts one such process per session and shows nothing until it has the list. The list follows from the table of
commands, and making it takes ten times as long as telling it; so `tools.json` holds it, written by `make docs`, and a
test fails when it is stale.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from . import stdio
from .rpc import RpcServer

if TYPE_CHECKING:
    from .calling import Calling

FILE = "tools.json"
"""`{"reads": […], "acts": {LABEL: …}}`: the tools as `tools/list` tells them, the acting ones by their label."""


def serve(words: Sequence[str]) -> bool:
    """Serve what `tundra mcp WORDS` asks for until standard input ends.

    Returns:
        False, before anything is read or written, where the words say more than which acting tools are allowed.
    """
    allowed = words[1::2]
    if any(word != "--allow" for word in words[::2]) or len(words) % 2:
        return False
    listed = offered(allowed)
    if listed is None:
        return False
    with contextlib.ExitStack() as until_the_end:
        stdio.serve(RpcServer(listed, lambda: _calls(allowed, until_the_end)))
    return True


def offered(allowed: Sequence[str]) -> list[dict[str, Any]] | None:
    """The tools that read and those that are allowed, as a client is told of them; None where a name is unknown."""
    with open(os.path.join(os.path.dirname(__file__), FILE), encoding="utf-8") as file:  # pathlib takes its time
        tools = json.load(file)
    acts = tools["acts"]
    if any(name != "all" and name not in acts for name in allowed):
        return None
    return [*tools["reads"], *(tool for label, tool in acts.items() if "all" in allowed or label in allowed)]


def _calls(allowed: Sequence[str], until_the_end: contextlib.ExitStack) -> Calling:
    from . import tools
    from .calling import Calling, connecting

    return Calling(tools.Toolbox(connecting(until_the_end), tools.readers() | tools.actors(allowed)))
