"""The trace of a failed-over call in receivers that other people run: the core collector, and Phoenix; `make soak`.

The collector is built from its Go modules, Phoenix comes from PyPI into an environment of its own; both are kept under
`build/others`. What cannot be had here is skipped by name.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import re
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import tundra_nb
from tests.conftest import Home, wait_until
from tests.contract.server import free_port, listens
from tests.environments import built, python_with
from tests.wiring import otlp
from tests.wiring.otlp import Span
from tests.wiring.test_traces import KEY, PROMPT, keys, ready, when_settled
from tundra_nb.testing.scripted_provider import ScriptedProcess, ScriptedStep, scripted_process

pytestmark = [pytest.mark.soak, pytest.mark.part("doltlite")]

COLLECTOR = Path(__file__).parent / "collector"
CONFIG = """
receivers:
  otlp:
    protocols:
      http:
        endpoint: 127.0.0.1:{port}
exporters:
  debug:
    verbosity: detailed
service:
  telemetry:
    metrics:
      level: none
  pipelines:
    traces:
      receivers: [otlp]
      exporters: [debug]
"""
PHOENIX = "arize-phoenix==20.26.1"
START_SECONDS = 300
"""Phoenix migrates its database first: 75 s on a small machine."""

__all__ = ["keys"]


@pytest.fixture(scope="module")
def provider() -> Iterator[ScriptedProcess]:
    with scripted_process() as running:
        yield running


def test_the_core_collector_receives_the_trace_of_a_failed_over_call(
    home: Home, provider: ScriptedProcess, tmp_path: Path
) -> None:
    if shutil.which("go") is None:
        pytest.skip("this machine has no Go, of which the collector is built")
    program = built(COLLECTOR, ("go", "mod", "tidy"), ("go", "build", "-o", "collector", ".")) / "collector"
    port, config, log = free_port(), tmp_path / "collector.yaml", tmp_path / "collector.log"
    config.write_text(CONFIG.format(port=port))
    with running([str(program), "--config", f"file:{config}"], log, lambda: listens(port)):
        check(home, provider, f"http://127.0.0.1:{port}", lambda: of_collector(log.read_text()))
    assert KEY not in log.read_text()
    assert PROMPT not in log.read_text()


def test_phoenix_receives_the_trace_of_a_failed_over_call(
    home: Home, provider: ScriptedProcess, tmp_path: Path
) -> None:
    python = python_with(PHOENIX)
    port = free_port()
    env = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(tmp_path),
        "PHOENIX_WORKING_DIR": str(tmp_path / "phoenix"),
        "PHOENIX_HOST": "127.0.0.1",
        "PHOENIX_PORT": str(port),
        "PHOENIX_GRPC_PORT": str(free_port()),
        "PHOENIX_TELEMETRY_ENABLED": "false",
        "PHOENIX_ALLOW_EXTERNAL_RESOURCES": "false",
    }
    url = f"http://127.0.0.1:{port}"
    told = ""

    def spans() -> list[Span]:
        nonlocal told
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/v1/projects/default/spans?limit=100") as page:
            told = page.read().decode()
            return of_phoenix(told)
        return []

    with running([str(python.parent / "phoenix"), "serve"], tmp_path / "phoenix.log", lambda: listens(port), env):
        check(home, provider, url, spans)
    assert KEY not in told
    assert PROMPT not in told
    kinds = {span["name"]: span["span_kind"] for span in json.loads(told)["data"]}
    assert kinds["chat second-1"] == "LLM", "it knows the names of what it shows"


def check(home: Home, provider: ScriptedProcess, endpoint: str, spans: Callable[[], list[Span]]) -> None:
    """Have a call fail over, and look at what has been received."""
    ready(home, provider, endpoint)
    provider.script("*", *[ScriptedStep(status=500, text=f"no {KEY}")] * 2)
    with tundra_nb.connect() as client:
        began_us = time.time_ns() // 1000
        reply = client.ask(PROMPT)
        assert reply.profile == "second"
        wait_until(lambda: len(spans()) >= 5, 60, "the spans of the call")
        otlp.check_failed_over(spans(), str(reply.operation_id), began_us)
        stats = wait_until(lambda: when_settled(client), 30, "the answer to the sender")
        assert (stats["sent"], stats["dropped"], stats["problem"]) == (1, 0, None)


@contextlib.contextmanager
def running(
    command: list[str], log: Path, is_up: Callable[[], bool], env: dict[str, str] | None = None
) -> Iterator[None]:
    """A receiver, from when it is up until it has ended."""
    with log.open("wb") as out, subprocess.Popen(command, env=env, stdout=out, stderr=out) as process:
        try:
            wait_until(lambda: is_up() or process.poll() is not None, START_SECONDS, command[0])
            assert process.poll() is None, log.read_text()[-2000:]
            yield
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def of_collector(log: str) -> list[Span]:
    """The spans in what the debug exporter writes."""
    found = []
    for text in re.split(r"^Span #\d+$", log, flags=re.MULTILINE)[1:]:
        facts = dict(re.findall(r"^ {4}([A-Z][\w ]+?) *: (.*)$", text, re.MULTILINE))
        given = dict(re.findall(r"^ {5}-> ([\w.]+): \w+\((.*)\)$", text, re.MULTILINE))
        found.append(
            Span(
                name=facts["Name"],
                trace_id=facts["Trace ID"],
                span_id=facts["ID"],
                parent_id=facts.get("Parent ID", ""),
                began_us=_us(facts["Start time"]),
                ended_us=_us(facts["End time"]),
                status=facts["Status code"].lower(),
                attributes=given,
            )
        )
    return found


def of_phoenix(page: str) -> list[Span]:
    """The spans in an answer of its REST interface."""
    return [
        Span(
            name=span["name"],
            trace_id=span["context"]["trace_id"],
            span_id=span["context"]["span_id"],
            parent_id=span["parent_id"] or "",
            began_us=_us(span["start_time"]),
            ended_us=_us(span["end_time"]),
            status=span["status_code"].lower(),
            attributes=_flat(span["attributes"]),
        )
        for span in json.loads(page)["data"]
    ]


def _flat(given: dict[str, object], before: str = "") -> dict[str, object]:
    found: dict[str, object] = {}
    for name, value in given.items():
        path = f"{before}{name}"
        found |= _flat(value, f"{path}.") if isinstance(value, dict) else {path: value}
    return found


def _us(text: str) -> int:
    """Microseconds of a time as Go or JSON writes it."""
    at = dt.datetime.fromisoformat(text.removesuffix(" UTC").replace(" +0000", "+00:00"))
    return round(at.timestamp() * 1_000_000)
