"""Every endpoint against what nobody would send: the daemon answers, and never with a defect of its own."""

from __future__ import annotations

import itertools
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from msgspec import inspect
from schemathesis.schemas import APIOperation

from tests.guide.generate import GUIDE
from tests.wiring.conftest import environment
from tundra_nb import paths
from tundra_nb.local import launch
from tundra_nb.local.place import Place
from tundra_nb.local.wire import Wire
from tundra_nb.protocol import daemon as daemon_routes
from tundra_nb.protocol.endpoint import Endpoint
from tundra_nb.protocol.table import ENDPOINTS
from tundra_nb.protocol.words import EVENTS
from tundra_nb.testing.scripted_provider import scripted_process

SOAK_SECONDS = 600.0
EXAMPLES = 12
ANSWER_SECONDS = 30.0
"""None of these questions takes long; a daemon that says nothing for so long hangs."""
SPOKEN = {
    name: endpoint
    for name, endpoint in ENDPOINTS.items()
    if endpoint.method != "WS" and endpoint is not daemon_routes.STOP
}


class Daemon:
    """A real daemon with a profile that answers, and every path it may write below a folder of the test."""

    def __init__(self, socket: str, folder: Path) -> None:
        self.place = Place(socket=socket)
        self.folder = folder

    def send(self, method: str, target: str, headers: dict[str, str], body: bytes | None) -> tuple[int, bytes]:
        wire = Wire(self.place)
        try:
            wire.set_timeout(ANSWER_SECONDS)
            response = wire.exchange(method, target, headers, body)
            if EVENTS in response.headers.get("content-type", ""):
                return response.status, next(response.pieces(), b"")  # it may have no end
            return response.status, response.read()
        finally:
            wire.close()


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    folder = tmp_path_factory.mktemp("fuzz")
    env = environment(folder)
    where = paths.find(env["TUNDRA_DATA_DIR"], env)
    with scripted_process() as provider:
        profile = f'[[profile]]\nname = "p"\nkind = "local"\nbase_url = "{provider.url}/v1"\nmodel = "m"\n'
        Path(env["TUNDRA_CONFIG"]).write_text(profile)
        connection = launch.ensure(where, environ=env)
        assert connection.socket is not None
        yield Daemon(connection.socket, folder)
        launch.stop(where, force=True)


def harmless(body: Any, folder: Path) -> Any:
    """What a body may not do even in a test: run what it says, write where it likes, or wait for ever."""
    if not isinstance(body, dict):
        return body
    made = dict(body)
    for name in ("command", "cell"):
        if made.get(name):
            made[name] = "true" if isinstance(made[name], str) else ["true"]
    for name in ("folder", "into", "remote", "cwd"):
        if isinstance(made.get(name), str) and made[name].startswith(("/", "~", "file:")):
            made[name] = str(folder / "elsewhere")
    for name in ("timeout", "wait"):
        if name in made and not isinstance(made[name], str):
            made[name] = 0.05
    return made


def send(daemon: Daemon, case: schemathesis.Case[Any]) -> tuple[int, bytes, str]:
    """Send a case; also what it was, for whoever has to mend it."""
    if isinstance(case.body, dict):
        case.body = harmless(case.body, daemon.folder)
    arguments = case.as_transport_kwargs(base_url="http://tundra")
    known = {
        name: arguments[name] for name in ("method", "url", "headers", "params", "json", "data") if name in arguments
    }
    prepared = requests.Request(**known).prepare()
    target = str(prepared.url).removeprefix("http://tundra")
    text = prepared.body
    body = text.encode() if isinstance(text, str) else text if isinstance(text, bytes) else None
    headers = {name: str(value) for name, value in prepared.headers.items() if name.lower() != "content-length"}
    status, answer = daemon.send(str(prepared.method), target, headers, body)
    return status, answer, f"{prepared.method} {target} {(body or b'')[:300]!r}"


def fuzz(daemon: Daemon, operation: APIOperation[Any, Any, Any, Any], examples: int, number: int) -> list[str]:
    """The defects that some cases of an operation find."""
    defects: list[str] = []

    @seed(number)
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy())
    def one(case: schemathesis.Case[Any]) -> None:
        try:
            status, answer, asked = send(daemon, case)
        except UnicodeError:
            return  # no client can write this
        if status == 500 and b'"ConfigError"' not in answer:
            defects.append(f"{asked}\n    {answer[:300]!r}")
        elif status >= 400:
            assert "code" in json.loads(answer), asked

    one()
    return defects


def operations() -> Iterator[APIOperation[Any, Any, Any, Any]]:
    schema = schemathesis.openapi.from_path(str(GUIDE / "openapi.json"))
    for endpoint in SPOKEN.values():
        yield schema[endpoint.template][endpoint.method.lower()]


@pytest.mark.check
def test_a_few_odd_requests_to_each_endpoint_find_no_defect(daemon: Daemon) -> None:
    found = [defect for operation in operations() for defect in fuzz(daemon, operation, EXAMPLES, 1)]
    assert not found, "\n".join(found)


@pytest.mark.soak
@pytest.mark.timeout(SOAK_SECONDS + 300)
def test_ten_minutes_of_odd_requests_find_no_defect(daemon: Daemon) -> None:
    begin, found, number = time.monotonic(), list[str](), int.from_bytes(os.urandom(4))
    for count, operation in enumerate(itertools.cycle(operations())):
        if time.monotonic() - begin > SOAK_SECONDS:
            break
        found += fuzz(daemon, operation, 10 * EXAMPLES, number + count)
    print(f"{count} times {10 * EXAMPLES} requests")
    assert not found, "\n".join(found)


def filled(endpoint: Endpoint, text: str) -> str:
    return endpoint.at(**dict.fromkeys(endpoint.parts, text))


DEEP = b"[" * 200_000
BODIES: dict[str, Callable[[], bytes]] = {
    "deep": lambda: DEEP,
    "deep object": lambda: b'{"a":' * 100_000,
    "deep field": lambda: b'{"value":' + DEEP + b"]" * 200_000 + b"}",
    "no text": lambda: b'{"message": "\xff\xfe"}',
    "half a character": lambda: b'{"message": "\\ud800", "text": "\\ud800", "name": "\\ud800", "body": "\\udfff"}',
    "endless number": lambda: b'{"limit": ' + b"9" * 5000 + b"}",
    "not a number": lambda: b'{"limit": NaN}',
    "a number": lambda: b"7",
    "nothing": lambda: b"",
    "a zero": lambda: (
        b'{"path": "\\u0000", "name": "\\u0000", "branch": "\\u0000", "ref": "\\u0000", "sql": "\\u0000"}'
    ),
}


@pytest.mark.parametrize("body", BODIES)
def test_a_body_that_is_none_is_refused_by_every_endpoint(daemon: Daemon, body: str) -> None:
    for name, endpoint in SPOKEN.items():
        if endpoint.method == "POST" and endpoint.body is not None:
            status, answer = daemon.send(
                "POST", filled(endpoint, "p"), {"Content-Type": "application/json"}, BODIES[body]()
            )
            assert status < 500 or status in (502, 503) or b'"ConfigError"' in answer, (name, answer[:300])


def least(kind: inspect.Type) -> Any:
    """A small value of a type."""
    match kind:
        case inspect.IntType():
            return 1
        case inspect.LiteralType(values):
            return values[0]
        case inspect.StructType():
            return {field.encode_name: least(field.type) for field in kind.fields if field.required}
        case inspect.ListType() | inspect.VarTupleType():
            return []
        case inspect.DictType():
            return {}
    return "p"


def has_number(kind: inspect.Type) -> bool:
    return isinstance(kind, inspect.IntType) or (
        isinstance(kind, inspect.UnionType) and any(map(has_number, kind.types))
    )


@pytest.mark.parametrize("number", [-(10**23), -(1 << 63), (1 << 63) - 1, 1 << 64])
def test_a_number_out_of_bounds_is_refused_or_answered_by_every_endpoint(daemon: Daemon, number: int) -> None:
    """In each whole number of each body."""
    for name, endpoint in SPOKEN.items():
        kind = inspect.type_info(endpoint.body) if endpoint.body is not None else None
        if not isinstance(kind, inspect.StructType):
            continue
        for field in kind.fields:
            if has_number(field.type):
                body = json.dumps(least(kind) | {field.encode_name: number}).encode()
                status, answer = daemon.send(
                    endpoint.method, filled(endpoint, "1"), {"Content-Type": "application/json"}, body
                )
                assert status < 500 or status in (502, 503), (name, body, answer[:300])


ODD = [
    "9223372036854775807",
    "9223372036854775808",
    "-1",
    "0",
    "1e3",
    "٣",
    "nan",
    "9" * 400,
    "",
    "%00",
    "a%2Fb",
    "HEAD~99999999999",
    "0001-01-01",
    "9999-12-31T23:59:59+14:00",
    "%ED%A0%80",
    "'",
    "--",
]


@pytest.mark.parametrize("odd", ODD)
def test_an_odd_parameter_is_answered_or_refused_with_its_field(daemon: Daemon, odd: str) -> None:
    for name, endpoint in SPOKEN.items():
        if endpoint.method != "GET" or endpoint.query is None:
            continue
        for parameter in endpoint.query.__struct_encode_fields__:
            target = f"{filled(endpoint, 'calls')}?{parameter}={requests.utils.requote_uri(odd)}"
            if name == "versions.DIFF" and parameter != "table":
                target += "&table=note"
            status, answer = daemon.send("GET", target, {}, None)
            assert status < 500 or status in (502, 503), (target, answer[:300])


@pytest.mark.parametrize("odd", ["1" * 5000, "1h" * 200, "-1", "9" * 30, "٣", "a\0b"])
def test_an_odd_part_of_a_path_is_answered_or_refused(daemon: Daemon, odd: str) -> None:
    for name, endpoint in SPOKEN.items():
        if endpoint.method == "GET" and endpoint.parts:
            status, answer = daemon.send("GET", filled(endpoint, odd), {}, None)
            assert status < 500 or status in (502, 503), (name, answer[:300])
