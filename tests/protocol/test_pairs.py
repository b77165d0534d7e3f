"""The table of endpoints against what is there: handlers of the daemon, calls of the client."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from starlette.routing import Route, WebSocketRoute

import tundra_nb
from tundra_nb.protocol import versions
from tundra_nb.protocol.endpoint import Endpoint, params, quoted
from tundra_nb.protocol.table import ENDPOINTS, ROOMS

PACKAGE = Path(tundra_nb.__file__).parent
CALLERS = ("client", "local", "doctor", "commands", "kernel")
FOR_OTHERS = {"gateway", "metrics"}
"""Families that programs of others speak to; our own client has no method for them."""


class _Anything:
    """Stands for the parts that routes close over but do not use until a request comes."""

    def __getattr__(self, name: str) -> Any:
        return _Anything()

    def __call__(self, *_: Any, **__: Any) -> Any:
        return _Anything()


def handled() -> list[tuple[str, str]]:
    from tundra_nb.daemon.app import create_app

    anything: Any = _Anything()
    found = []
    for route in create_app(anything, anything, anything).routes:
        if isinstance(route, WebSocketRoute):
            found.append(("WS", route.path))
        elif isinstance(route, Route):
            found += [(method, route.path) for method in route.methods or {"POST"} if method != "HEAD"]
    return found


def test_each_endpoint_has_exactly_one_handler_and_no_handler_is_left_over() -> None:
    listed = [(endpoint.method, endpoint.path) for endpoint in ENDPOINTS.values()]
    assert len(set(listed)) == len(listed)
    assert sorted(handled()) == sorted(listed)


def used() -> Iterator[str]:
    """`room.NAME` of each endpoint that the client's side names."""
    rooms = {room.__name__.rpartition(".")[2] for room in ROOMS}
    for folder in CALLERS:
        for file in (PACKAGE / folder).rglob("*.py"):
            tree = ast.parse(file.read_text())
            aliases = {
                alias.asname or alias.name: alias.name
                for node in ast.walk(tree)
                if isinstance(node, ast.ImportFrom) and node.module == "tundra_nb.protocol"
                for alias in node.names
                if alias.name in rooms
            }
            for node in ast.walk(tree):
                if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in aliases:
                    yield f"{aliases[node.value.id]}.{node.attr}"


def test_each_endpoint_is_called_by_the_client() -> None:
    ours = {name for name, endpoint in ENDPOINTS.items() if endpoint.method != "WS"}
    missing = ours - set(used())
    assert {name for name in missing if name.partition(".")[0] not in FOR_OTHERS} == set()


def test_no_path_of_the_api_is_written_down_beside_the_table() -> None:
    path = re.compile(r"""["']/api/[a-z]""")
    written = [
        f"{file.relative_to(PACKAGE)}:{number}"
        for folder in ("client", "local", "daemon", "commands", "kernel", "doctor", "views", "frames")
        for file in (PACKAGE / folder).rglob("*.py")
        for number, line in enumerate(file.read_text().splitlines(), 1)
        if path.search(line)
    ]
    assert written == []


@pytest.mark.parametrize("name", ENDPOINTS)
def test_an_endpoint_says_what_it_is_and_fills_in_its_path(name: str) -> None:
    endpoint = ENDPOINTS[name]
    assert endpoint.summary
    assert (endpoint.body is None) or endpoint.method in ("POST", "PUT")
    parts = {part: "a/ö?" if f"{{{part}:path}}" in endpoint.path else "a ö?" for part in endpoint.parts}
    filled = endpoint.at(**parts)
    assert "{" not in filled
    assert all(quoted(given) in filled for given in parts.values())
    assert filled.isascii()


def test_a_query_is_written_without_its_defaults() -> None:
    assert params(None) == ()
    assert params(versions.DiffQuery(from_="a", table=None, limit=3)) == (("from", "a"), ("limit", "3"))


@pytest.mark.parametrize("name", [name for name, endpoint in ENDPOINTS.items() if endpoint.query])
def test_a_query_comes_back_from_its_parameters(name: str) -> None:
    form = ENDPOINTS[name].query
    assert form is not None
    given = form()
    assert msgspec.convert(dict(params(given)), form, strict=False) == given
    assert isinstance(ENDPOINTS[name], Endpoint)
