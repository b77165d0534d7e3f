"""Traces of the shipped daemon as a receiver decodes them: parents, times, names, status; outage, crash, sampling."""

from __future__ import annotations

import gzip
import http.server
import threading
import time
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

import tundra_nb
from tests.conftest import Home, wait_until
from tundra_nb.errors import TundraError
from tundra_nb.testing.scripted_provider import ScriptedProcess, ScriptedStep, scripted_process

service = pytest.importorskip(
    "opentelemetry.proto.collector.trace.v1.trace_service_pb2", reason="opentelemetry-proto is not installed"
)
json_format = pytest.importorskip("google.protobuf.json_format", reason="protobuf is not installed")

KEY = "canary-trace-Zq9x7e0123"
PROMPT = "canary-prompt-5b1d"
SETTINGS = """
[router]
backoff_seconds = 0.05
retries = 1
[otel]
endpoint = "{endpoint}"
headers_env = "OTEL_HEADERS"
ratio = {ratio}
[[profile]]
name = "first"
kind = "openai"
base_url = "{base_url}"
model = "first-1"
api_key_env = "SCRIPTED_API_KEY"
[[profile]]
name = "second"
kind = "openai"
base_url = "{base_url}"
model = "second-1"
api_key_env = "SCRIPTED_API_KEY"
priority = 10
"""


class Receiver:
    """An OTLP receiver over HTTP: decodes JSON by the protobuf messages of `opentelemetry-proto`."""

    def __init__(self, port: int = 0) -> None:
        self.spans: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.raw: list[str] = []
        self.status = 200
        self.busy = 0
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                receiver.busy += 1
                body = gzip.decompress(self.rfile.read(int(self.headers["Content-Length"])))
                receiver.headers.append(dict(self.headers))
                status = receiver.status
                if status == 200:
                    receiver.take(body)
                receiver.busy -= 1
                self.send_response(status)
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *_: Any) -> None:
                """Nothing is printed."""

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def take(self, body: bytes) -> None:
        self.raw.append(body.decode())
        told: Any = service.ExportTraceServiceRequest()
        # OTLP writes ids in hex where protobuf's JSON has base64: they are put in afterwards, by their names
        plain = json_format.Parse(_without_ids(body), told)
        for resource in plain.resource_spans:
            for scope in resource.scope_spans:
                for span in scope.spans:
                    given = {pair.key: _value(pair.value) for pair in span.attributes}
                    ids = [bytes(part).hex() for part in (span.trace_id, span.span_id, span.parent_span_id)]
                    self.spans.append({"span": span, "attributes": given, "ids": ids, "name": span.name})

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def named(self, name: str) -> list[dict[str, Any]]:
        return [span for span in self.spans if span["name"] == name]


def _without_ids(body: bytes) -> bytes:
    """The same request with ids in base64, as protobuf's own JSON has them."""
    import base64
    import json

    def changed(value: Any) -> Any:
        if isinstance(value, dict):
            return {
                name: base64.b64encode(bytes.fromhex(inner)).decode()
                if name in ("traceId", "spanId", "parentSpanId")
                else changed(inner)
                for name, inner in value.items()
            }
        return [changed(inner) for inner in value] if isinstance(value, list) else value

    return json.dumps(changed(json.loads(body))).encode()


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    found = getattr(value, kind)
    return [_value(one) for one in found.values] if kind == "array_value" else found


@pytest.fixture(scope="module")
def provider() -> Iterator[ScriptedProcess]:
    with scripted_process() as running:
        yield running


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


def ready(home: Home, provider: ScriptedProcess, endpoint: str, ratio: float = 1.0) -> None:
    provider.reset()
    home.write_settings(SETTINGS.format(endpoint=endpoint, base_url=provider.base_url, ratio=ratio))


@pytest.fixture(autouse=True)
def keys(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("SCRIPTED_API_KEY", KEY), ("OTEL_HEADERS", f"x-token={KEY}2")):
        monkeypatch.setenv(name, value)
        home.env[name] = value


@pytest.mark.part("doltlite")
def test_the_trace_of_a_failed_over_call_has_the_right_parents_times_names_and_status(
    home: Home, provider: ScriptedProcess, receiver: Receiver
) -> None:
    """Call, retry, failover, pause: as the rows say, below a trace of the caller's, without a word of the prompt."""
    ready(home, provider, receiver.endpoint)
    provider.script("*", *[ScriptedStep(status=500, text=f"no {KEY}")] * 2)
    with tundra_nb.connect() as client:
        began = time.time_ns()
        reply = client.ask(PROMPT)
        assert reply.profile == "second"
        row = client.calls().iloc[-1]
        wait_until(lambda: len(receiver.spans) >= 5, 30, "the spans of the call")
        (top,) = [span for span in receiver.spans if not span["ids"][2]]
        attempts = [span for span in receiver.spans if "tundra.attempt_id" in span["attributes"]]
        (pause,) = receiver.named("wait backoff")
        assert {span["ids"][0] for span in receiver.spans} == {top["ids"][0]}
        assert {span["ids"][2] for span in (*attempts, pause)} == {top["ids"][1]}
        assert [span["name"] for span in attempts] == ["chat first-1", "chat first-1", "chat second-1"]
        assert [span["span"].kind for span in attempts] == [3, 3, 3]
        assert [span["span"].status.code for span in attempts] == [2, 2, 0]
        assert [span["attributes"].get("http.response.status_code") for span in attempts] == [500, 500, 200]
        assert [span["attributes"]["tundra.cause"] for span in attempts] == ["first", "retry", "failover"]
        assert attempts[0]["attributes"]["error.type"] == "ApiError"
        answered = attempts[2]["attributes"]
        assert answered["gen_ai.operation.name"] == "chat"
        assert answered["gen_ai.provider.name"] == "openai"
        assert answered["gen_ai.usage.input_tokens"] == int(row["input_tokens"])
        assert answered["gen_ai.response.finish_reasons"] == ["stop"]
        assert top["span"].status.code == 0
        assert top["attributes"]["tundra.operation_id"] == str(row["operation_id"])
        for span in (*attempts, pause):
            inner = span["span"]
            assert began <= top["span"].start_time_unix_nano <= inner.start_time_unix_nano
            assert inner.start_time_unix_nano <= inner.end_time_unix_nano
            assert inner.end_time_unix_nano <= top["span"].end_time_unix_nano + 2_000_000
        assert pause["span"].end_time_unix_nano - pause["span"].start_time_unix_nano >= 10_000_000
        whole = "".join(receiver.raw)
        assert KEY not in whole
        assert PROMPT not in whole
        assert receiver.headers[0]["x-token"] == f"{KEY}2"
        stats = client.status()["store"]["traces"]
        assert (stats["sent"], stats["dropped"], stats["problem"]) == (1, 0, None)


@pytest.mark.part("doltlite")
def test_an_outage_of_the_collector_delays_nothing_and_loses_nothing(
    home: Home, provider: ScriptedProcess, receiver: Receiver
) -> None:
    """Calls go on while it is away, `status` says so, and their traces come when it is back; also after kill -9."""
    ready(home, provider, receiver.endpoint)
    receiver.status = 503
    with tundra_nb.connect() as client:
        first = client.ask("one").operation_id
        wait_until(lambda: receiver.headers, 30, "a try to send")
        told = wait_until(
            lambda: [one for one in client.status()["problems"] if one["what"] == "traces"], 30, "the problem"
        )
        assert "503" in told[0]["message"]
        worker = client.status()["store"]["worker_pid"]
        second = client.ask("two").operation_id
        wait_until(lambda: len(client.calls()) == 2, 30)
        psutil.Process(worker).kill()
        wait_until(lambda: not psutil.pid_exists(worker), 30)
        wait_until(lambda: receiver.busy == 0, 30)  # what the dead one had sent is refused, too
        receiver.status = 200
        wait_until(lambda: len(receiver.named("chat")) + len(receiver.named("chat first-1")) >= 2, 60, "both traces")
        third = client.ask("three").operation_id
        seen = wait_until(lambda: _operations(receiver) >= {str(first), str(second), str(third)} and receiver, 60)
        wait_until(lambda: not client.status()["problems"], 30, "the problem to be over")
    ids = [tuple(span["ids"]) for span in seen.spans]
    assert len(ids) == len(set(ids)), "nothing is sent twice when the collector had refused it"


@pytest.mark.part("doltlite")
def test_a_dead_collector_does_not_hold_up_the_end_and_the_next_life_sends_what_is_owed(
    home: Home, provider: ScriptedProcess, receiver: Receiver
) -> None:
    """`daemon stop` while nobody takes the traces; after the next start they are sent."""
    receiver.close()
    ready(home, provider, receiver.endpoint)
    with tundra_nb.connect() as client:
        first = client.ask("one").operation_id
        wait_until(lambda: (client.status()["store"]["traces"] or {}).get("problem"), 30)
    assert home.run("daemon", "stop").returncode == 0
    again = Receiver(receiver.port)
    try:
        assert home.run("daemon", "start").returncode == 0
        with tundra_nb.connect() as client:
            client.status()
            wait_until(lambda: str(first) in _operations(again), 60, "the trace of the life before")
    finally:
        again.close()


@pytest.mark.part("doltlite")
def test_sampling_follows_the_parent_and_failures_are_always_sent(
    home: Home, provider: ScriptedProcess, receiver: Receiver
) -> None:
    """Ratio 0: only what failed, and what a caller samples; the caller's span is the parent."""
    trace_api = pytest.importorskip("opentelemetry.trace", reason="opentelemetry-api is not installed")
    ready(home, provider, receiver.endpoint, ratio=0.0)
    with tundra_nb.connect() as client:
        client.ask("unsampled")
        for flags, what in ((1, "sampled"), (0, "not sampled")):
            context = trace_api.SpanContext(0xABC0 + flags, 0xDEF0 + flags, False, trace_api.TraceFlags(flags))
            with trace_api.use_span(trace_api.NonRecordingSpan(context)):
                client.ask(what)
        provider.script("*", *[ScriptedStep(status=400, text="bad")] * 2)
        with pytest.raises(TundraError):
            client.ask("fails")
        wait_until(lambda: (client.status()["store"]["traces"] or {}).get("unsampled") == 2, 30)
        wait_until(lambda: (client.status()["store"]["traces"] or {}).get("sent") == 2, 30)
    tops = [span for span in receiver.spans if "tundra.operation_id" in span["attributes"]]
    assert {span["attributes"]["tundra.outcome"] for span in tops} == {"ok", "error"}
    (ours,) = [span for span in tops if span["attributes"]["tundra.outcome"] == "ok"]
    assert ours["ids"][0] == f"{0xABC1:032x}"
    assert ours["ids"][2] == f"{0xDEF1:016x}"
    assert all(span["span"].status.code == 2 for span in tops if span is not ours)


@pytest.mark.part("doltlite")
def test_without_an_endpoint_nothing_of_it_is_imported(home: Home, provider: ScriptedProcess) -> None:
    """Off is off, and turned on while the daemon runs it works."""
    ready(home, provider, "")
    with tundra_nb.connect() as client:
        client.ask("one")
        store = client.status()["store"]
        assert store["traces"] is None
        assert not (home.data_dir / "traces").exists()
        receiver = Receiver()
        try:
            client.set_setting("otel.endpoint", receiver.endpoint)
            wait_until((home.data_dir / "traces" / "settled").exists, 30)
            second = client.ask("two").operation_id
            wait_until(lambda: str(second) in _operations(receiver), 30)
        finally:
            receiver.close()


def _operations(receiver: Receiver) -> set[str]:
    return {str(span["attributes"].get("tundra.operation_id")) for span in receiver.spans}
