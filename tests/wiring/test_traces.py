"""Traces of the shipped daemon as a receiver decodes them: parents, times, names, status; outage, crash, sampling."""

from __future__ import annotations

import base64
import contextlib
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

import tundra_nb
from tests.conftest import Home, has_ended, wait_until
from tests.contract.server import free_port
from tests.wiring import otlp
from tests.wiring.otlp import Receiver
from tundra_nb.errors import TundraError
from tundra_nb.testing.scripted_provider import CapturedRequest, ScriptedProcess, ScriptedStep, scripted_process

service = pytest.importorskip(
    "opentelemetry.proto.collector.trace.v1.trace_service_pb2", reason="needs opentelemetry-proto"
)

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
        began_us = time.time_ns() // 1000
        reply = client.ask(PROMPT)
        assert reply.profile == "second"
        row = client.calls().iloc[-1]
        wait_until(lambda: len(receiver.spans) >= 5, 30, "the spans of the call")
        otlp.check_failed_over(receiver.spans, str(row["operation_id"]), began_us)
        (answered,) = [span for span in receiver.spans if span.attributes.get("tundra.cause") == "failover"]
        assert answered.kind == "client"
        assert answered.attributes["gen_ai.usage.input_tokens"] == int(row["input_tokens"])
        assert answered.attributes["gen_ai.response.finish_reasons"] == ["stop"]
        whole = b"".join(receiver.raw)
        assert KEY.encode() not in whole
        assert PROMPT.encode() not in whole
        assert receiver.headers[0]["x-token"] == f"{KEY}2"
        stats = wait_until(lambda: when_settled(client), 30, "the answer to the sender")
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
        worker = psutil.Process(client.status()["store"]["worker_pid"])
        second = client.ask("two").operation_id
        wait_until(lambda: len(client.calls()) == 2, 30)
        worker.kill()
        wait_until(lambda: has_ended(worker), 30)
        receiver.status = 200
        wait_until(lambda: receiver.operations >= {str(first), str(second)}, 60, "both traces")
        third = client.ask("three").operation_id
        wait_until(lambda: str(third) in receiver.operations, 60)
        wait_until(lambda: not client.status()["problems"], 30, "the problem to be over")
    ids = [span.span_id for span in receiver.spans]
    assert len(ids) == len(set(ids)), "nothing is sent twice when the collector had refused it"


@pytest.mark.part("doltlite")
def test_traces_that_a_collector_refuses_for_good_are_told_until_it_takes_some(
    home: Home, provider: ScriptedProcess, receiver: Receiver
) -> None:
    """A wrong path or token: what is lost is said on `status` with what to correct, and counted as nothing else."""
    ready(home, provider, receiver.endpoint)
    receiver.status = 401
    with tundra_nb.connect() as client:
        client.ask("one")
        told = wait_until(
            lambda: [one for one in client.status()["problems"] if one["what"] == "traces"], 30, "the problem"
        )
        assert "traces are lost: the collector answers 401" in told[0]["message"]
        assert "otel.headers_env" in told[0]["hint"]
        stats = client.status()["store"]["traces"]
        assert (stats["sent"], stats["dropped"], stats["unsampled"], stats["waiting"]) == (0, 1, 0, 0)
        receiver.status = 200
        client.ask("two")
        wait_until(lambda: not client.status()["problems"], 30, "the problem to be over")


@pytest.mark.part("doltlite")
def test_what_a_collector_finds_too_large_is_sent_in_smaller_requests(
    home: Home, provider: ScriptedProcess, receiver: Receiver
) -> None:
    """Many calls wait out an outage; a collector, or the proxy before it, takes only a few of them at a time."""
    ready(home, provider, receiver.endpoint)
    receiver.status = 503
    with tundra_nb.connect() as client:
        ids = {str(client.ask("hi").operation_id) for _ in range(20)}
        receiver.status, receiver.longest = 200, 4_000
        wait_until(lambda: receiver.operations >= ids, 60, "all traces")
        assert max(map(len, receiver.raw)) <= 4_000
        wait_until(lambda: not client.status()["problems"], 30, "the problem to be over")
        assert client.status()["store"]["traces"]["dropped"] == 0


@pytest.mark.part("doltlite")
def test_a_collector_to_which_one_call_is_too_large_is_told_as_that(
    home: Home, provider: ScriptedProcess, receiver: Receiver
) -> None:
    """413 to a call alone: the path is right, and the collector's limit is what to correct."""
    ready(home, provider, receiver.endpoint)
    receiver.longest = 1
    with tundra_nb.connect() as client:
        for _ in range(3):
            client.ask("hi")
        (told,) = wait_until(lambda: client.status()["problems"], 30, "the problem")
        assert "traces are lost: the collector answers 413: the spans of a single call" in told["message"]
        assert told["hint"].startswith("Raise the limit")
        assert "otel.endpoint" not in told["hint"]
        wait_until(lambda: client.status()["store"]["traces"]["dropped"] == 3, 30, "all to be told as lost")
        receiver.longest = None
        client.ask("hi")
        wait_until(lambda: not client.status()["problems"], 30, "the problem to be over")


@pytest.mark.part("doltlite")
def test_a_collector_leaves_out_no_more_than_it_was_sent(
    home: Home, provider: ScriptedProcess, receiver: Receiver
) -> None:
    """A count of rejected spans is believed as far as it can be true; 60 bytes of it, written `<`, are no web page."""
    ready(home, provider, receiver.endpoint)
    with tundra_nb.connect() as client:
        for number, rejected in ((1, 1), (-1, 1), (2**62, 3)):
            partial = service.ExportTracePartialSuccess(rejected_spans=number, error_message="no" * 28)
            receiver.words = service.ExportTraceServiceResponse(partial_success=partial).SerializeToString()
            operation_id = str(client.ask("hi").operation_id)
            wait_until(lambda key=operation_id: key in receiver.operations, 30, "the spans")  # type: ignore[misc]
            stats = wait_until(lambda: when_settled(client), 30, "the answer to the sender")
            assert stats["rejected_spans"] == rejected


@pytest.mark.part("doltlite")
def test_a_collector_that_drips_its_answer_is_given_up_told_and_tried_again(
    home: Home, provider: ScriptedProcess, receiver: Receiver
) -> None:
    """A byte now and then is no answer: an exchange has one time limit, however many waits it has."""
    ready(home, provider, receiver.endpoint)
    receiver.drips = True
    with tundra_nb.connect() as client:
        ids = {str(client.ask("hi").operation_id) for _ in range(3)}
        told = wait_until(
            lambda: [one for one in client.status()["problems"] if one["what"] == "traces"], 30, "the problem"
        )
        assert "gives no whole answer within 10 s" in told[0]["message"]
        receiver.drips = False
        wait_until(lambda: receiver.operations >= ids, 60, "the traces")
        wait_until(lambda: not client.status()["problems"], 30, "the problem to be over")


@pytest.mark.part("doltlite")
def test_a_web_page_that_answers_in_the_place_of_a_collector_has_taken_nothing(
    home: Home, provider: ScriptedProcess, receiver: Receiver
) -> None:
    ready(home, provider, receiver.endpoint)
    receiver.words = b"\n<!doctype html><title>Log in</title>"
    with tundra_nb.connect() as client:
        client.ask("hi")
        told = wait_until(lambda: client.status()["problems"], 30, "the problem")
        assert "answers with a web page" in told[0]["message"]
        traces = client.status()["store"]["traces"]
        assert (traces["sent"], traces["waiting"]) == (0, 1)
        receiver.words = b""
        wait_until(lambda: client.status()["store"]["traces"]["sent"] == 1, 30, "the trace")
        assert not client.status()["problems"]


@pytest.mark.part("doltlite")
def test_what_is_owed_is_counted_during_a_pause_that_the_collector_asks_for(
    home: Home, provider: ScriptedProcess, receiver: Receiver
) -> None:
    """`waiting` is what is owed now, not what was at the last try."""
    ready(home, provider, receiver.endpoint)
    receiver.status, receiver.more = 429, {"Retry-After": "60"}
    with tundra_nb.connect() as client:
        client.ask("one")
        wait_until(lambda: client.status()["problems"], 30, "the problem")
        for _ in range(3):
            client.ask("more")
        wait_until(lambda: client.status()["store"]["traces"]["waiting"] == 4, 30, "the count")
        assert len(receiver.headers) == 1


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
            wait_until(lambda: str(first) in again.operations, 60, "the trace of the life before")
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
    tops = [span for span in receiver.spans if "tundra.operation_id" in span.attributes]
    assert {span.attributes["tundra.outcome"] for span in tops} == {"ok", "error"}
    (ours,) = [span for span in tops if span.attributes["tundra.outcome"] == "ok"]
    assert ours.trace_id == f"{0xABC1:032x}"
    assert ours.parent_id == f"{0xDEF1:016x}"
    assert all(span.status == "error" for span in tops if span is not ours)


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
            wait_until(lambda: str(second) in receiver.operations, 30)
        finally:
            receiver.close()


IMPORTED = """
import sys
import tundra_nb.daemon.serve, tundra_nb.runtime.runtime, tundra_nb.runtime.history.worker
print([name for name in sys.modules if name.startswith(("opentelemetry", "google.protobuf"))
       or name.rpartition("telemetry.")[2] in ("sender", "spans", "otlp")])
"""


def test_neither_daemon_nor_worker_imports_what_sends_traces_before_somebody_wants_them() -> None:
    done = subprocess.run([sys.executable, "-c", IMPORTED], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.mark.part("doltlite")
def test_only_a_provider_that_may_know_it_is_told_the_trace_and_nests_below_the_attempt(
    home: Home, provider: ScriptedProcess, receiver: Receiver
) -> None:
    """By default nobody; with `traceparent` on the profile the attempt's span is the parent, at the gateway too."""
    ready(home, provider, receiver.endpoint)
    provider.script("*", *[ScriptedStep(status=500, text="no")] * 2)
    with tundra_nb.connect() as client:
        client.set_setting("profile.second.traceparent", value=True)
        url = client.gateway.start(port=0)["url"]
        asks = {"x-api-key": client.tokens.new("tests")["token"], "traceparent": f"00-{TRACE}-{SPAN}-01"}
        body = {"model": "auto", "messages": [{"role": "user", "content": PROMPT}]}
        httpx.post(f"{url}/chat/completions", json=body, headers=asks, timeout=60).raise_for_status()
        assert [sent(request) for request in posts(provider)[:2]] == ["", ""]
        version, trace, span, flags = sent(posts(provider)[2]).split("-")
        wait_until(lambda: len(receiver.spans) >= 5, 30, "the spans of the call")
        (attempt,) = [each for each in receiver.spans if each.attributes.get("tundra.cause") == "failover"]
        assert (version, trace, span, flags) == ("00", TRACE, attempt.span_id, "01")
        client.set_setting("otel.endpoint", "")
        provider.reset()
        body["model"] = "second"
        for flag in ("01", "00"):
            asks["traceparent"] = f"00-{TRACE}-{SPAN}-{flag}"
            httpx.post(f"{url}/chat/completions", json=body, headers=asks, timeout=60).raise_for_status()
        client.ask("hi", profile="second")
    passed_on = [sent(request) for request in posts(provider)]
    assert passed_on == [f"00-{TRACE}-{SPAN}-01", f"00-{TRACE}-{SPAN}-00", ""], "without spans of ours the caller's own"


def when_settled(client: tundra_nb.Client) -> dict[str, Any] | None:
    """How the sender stands when nothing is owed any more."""
    stats: dict[str, Any] | None = client.status()["store"]["traces"]
    return None if stats is None or stats["waiting"] else stats


def posts(provider: ScriptedProcess) -> list[CapturedRequest]:
    return [request for request in provider.requests if request.method == "POST"]


def sent(request: CapturedRequest) -> str:
    return dict(request.headers).get("traceparent", "")


KILLS = 5
ASKERS, PAUSE_SECONDS = 4, 0.02


@pytest.mark.check
@pytest.mark.part("doltlite")
def test_nothing_is_lost_when_receiver_and_worker_are_killed_and_only_what_was_under_way_comes_twice(
    home: Home, provider: ScriptedProcess, tmp_path: Path
) -> None:
    """kill -9 of both, again and again, in the middle of calls; a batch comes once more at most for each kill."""
    port, file = free_port(), tmp_path / "received"
    ready(home, provider, f"http://127.0.0.1:{port}")
    with contextlib.ExitStack() as exits:
        client = exits.enter_context(tundra_nb.connect())
        asked: list[str] = []
        over = threading.Event()

        def ask() -> None:
            while not over.wait(PAUSE_SECONDS):
                asked.append(str(client.ask("hi").operation_id))

        receiver = started(port, file)
        askers = [threading.Thread(target=ask) for _ in range(ASKERS)]
        exits.callback(over.set)
        for asker in askers:
            asker.start()
        for _ in range(KILLS):
            before = len(lines(file))
            wait_until(lambda most=before: len(lines(file)) > most, 60, "a batch")  # type: ignore[misc]
            worker = client.status()["store"]["worker_pid"]
            receiver.kill()
            os.kill(worker, signal.SIGKILL)
            receiver.wait()
            wait_until(lambda dead=worker: client.status()["store"]["worker_pid"] not in (dead, None), 60)  # type: ignore[misc]
            receiver = started(port, file)
        over.set()
        exits.callback(receiver.wait)
        exits.callback(receiver.kill)
        for asker in askers:
            asker.join(60)
        wait_until(lambda: received(file) >= set(asked), 60, "every call's trace")
        assert client.status()["store"]["traces"]["dropped"] == 0
    batches = [otlp.decoded(line) for line in lines(file)]
    seen: set[str] = set()
    repeated = 0
    for batch in batches:
        repeated += any(span.span_id in seen for span in batch)
        seen |= {span.span_id for span in batch}
    assert repeated <= 2 * KILLS
    by_id: dict[str, otlp.Span] = {}
    for span in itertools.chain(*batches):
        assert by_id.setdefault(span.span_id, span) == span, "what comes again is the same span"


def started(port: int, file: Path) -> subprocess.Popen[str]:
    """A receiver that listens."""
    process = subprocess.Popen([sys.executable, otlp.__file__, str(port), str(file)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline().strip() == str(process.pid)
    process.stdout.close()
    return process


def lines(file: Path) -> list[bytes]:
    """The requests that it has taken; the last line is none when its end has cut it off."""
    whole = file.read_bytes().split(b"\n")[:-1] if file.exists() else []
    return [base64.b64decode(line) for line in whole]


def received(file: Path) -> set[str]:
    return {str(span.attributes.get("tundra.operation_id")) for line in lines(file) for span in otlp.decoded(line)}
