"""Each form that a foreign log may have: Rust's tracing as its own crate writes it, OTLP, LiteLLM, our bundle."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.environments import built
from tundra_nb.runtime.telemetry import spans

from .test_importing import KEY, made, rows, written

HERE = Path(__file__).parent
FIXTURES = HERE / "fixtures"
"""Written by the program in `rust`, which the gate builds anew where there is a cargo."""
PROMPT = "canary-prompt-5b1d"
BEGAN = 1_772_361_045_000_000


@pytest.mark.parametrize("name", ["tracing.log", "tracing.ansi.log", "tracing.jsonl"])
def test_what_tracing_subscriber_writes_is_read_in_each_of_its_forms(tmp_path: Path, name: str) -> None:
    """Plain, with colours, as JSON: the same calls, attempts and errors."""
    check_tracing(tmp_path, FIXTURES / name)


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.parametrize("form", ["text", "ansi", "json"])
def test_todays_crate_writes_what_the_fixtures_hold(tmp_path: Path, form: str) -> None:
    """The program is built and run where a cargo is."""
    if shutil.which("cargo") is None:
        pytest.skip("there is no cargo")
    folder = built(HERE / "rust", ("cargo", "build", "--quiet"))
    out = subprocess.run([folder / "target" / "debug" / "fixture", form], capture_output=True, timeout=30, check=True)
    check_tracing(tmp_path, written(tmp_path, out.stdout, "own.log"))


def check_tracing(tmp_path: Path, file: Path) -> None:
    source = made(tmp_path, file)
    assert source.kind == "tracing"
    is_json = source.lines == 9
    assert source.sample == ([] if is_json else ["second line"])  # in text a message's second line is no event
    lines = rows(tmp_path, source, "imported_log")
    assert len(lines) == 9
    assert lines[0]["message"].replace('"', "") == "logging initialised service=at-daemon"
    assert [line["severity"] for line in lines] == [
        "info",
        "debug",
        *["warning"] * 3,
        "error",
        *["warning"] * 2,
        "error",
    ]
    assert {line["origin"] for line in lines} == {"auto-tundra"}
    assert [line["logger"] for line in lines][1] == "at_session::pty_pool"
    (call,) = rows(tmp_path, source, "operation")
    assert (call["outcome"], call["code"], call["attempts"]) == ("error", "AllProvidersExhausted", 3)
    attempts = rows(tmp_path, source, "attempt")
    assert [(row["profile"], row["code"]) for row in attempts] == [
        ("local-runtime", "CircuitBreakerError::Open"),
        ("anthropic", "Timeout"),
        ("openai", "ApiError"),
    ]
    assert attempts[1]["latency_ms"] == 30_000
    assert attempts[2]["message"] == "API error (status 529): busy now"
    (limit,) = rows(tmp_path, source, "limit_event")
    assert (limit["limit_key"], limit["retry_after_s"]) == ("global", 1.5)
    (breaker,) = rows(tmp_path, source, "breaker_event")
    assert breaker["failures"] == 5
    assert rows(tmp_path, source, "error_event")[-1]["code"] == "Timeout"


def span(name: str, number: int, parent: int, start_ms: int, end_ms: int, **more: Any) -> dict[str, Any]:
    """A span in OTLP's JSON; attributes by name."""
    values = []
    for key, value in more.pop("attributes").items():
        kind = {str: "stringValue", int: "intValue", float: "doubleValue", bool: "boolValue"}.get(type(value))
        told = (
            {kind: str(value) if kind == "intValue" else value}
            if kind
            else {"arrayValue": {"values": [{"stringValue": one} for one in value]}}
        )
        values.append({"key": key, "value": told})
    return {
        "traceId": f"{7:032x}",
        "spanId": f"{number:016x}",
        "parentSpanId": f"{parent:016x}" if parent else "",
        "name": name,
        "startTimeUnixNano": str((BEGAN + start_ms * 1000) * 1000),
        "endTimeUnixNano": str((BEGAN + end_ms * 1000) * 1000),
        "attributes": values,
        **more,
    }


def exported(*spans_: dict[str, Any]) -> str:
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": "agent"}}]}
    return json.dumps({"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": list(spans_)}]}]})


NEW = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "anthropic",
    "gen_ai.request.model": "m",
    "gen_ai.response.model": "m-1",
    "gen_ai.usage.input_tokens": 10,
    "gen_ai.usage.output_tokens": 5,
    "gen_ai.response.finish_reasons": ["stop"],
    "gen_ai.input.messages": PROMPT,
}
OLD = {
    "gen_ai.system": "anthropic",
    "gen_ai.request.model": "m",
    "gen_ai.response.model": "m-1",
    "gen_ai.usage.prompt_tokens": 10,
    "gen_ai.usage.completion_tokens": 5,
    "gen_ai.response.finish_reasons": ["stop"],
    "gen_ai.prompt.0.content": PROMPT,
}
OPENINFERENCE = {
    "openinference.span.kind": "LLM",
    "llm.provider": "anthropic",
    "llm.model_name": "m-1",
    "llm.token_count.prompt": 10,
    "llm.token_count.completion": 5,
    "input.value": PROMPT,
}


@pytest.mark.parametrize("attributes", [NEW, OLD, OPENINFERENCE])
def test_a_span_of_every_generation_of_names_is_the_same_call(tmp_path: Path, attributes: dict[str, Any]) -> None:
    """OpenTelemetry's names of today and of before, and OpenInference's; prompts are not taken over."""
    source = made(tmp_path, written(tmp_path, exported(span("x", 1, 0, 0, 1500, attributes=attributes)), "t.json"))
    assert source.kind == "otlp"
    (call,) = rows(tmp_path, source, "operation")
    assert (call["outcome"], call["profile"], call["model"]) == ("ok", "anthropic", "m-1")
    assert (call["input_tokens"], call["output_tokens"], call["latency_ms"]) == (10, 5, 1500)
    (attempt,) = rows(tmp_path, source, "attempt")
    assert (attempt["outcome"], attempt["operation_id"]) == ("ok", call["operation_id"])
    for file in (tmp_path / "sources" / source.name).iterdir():
        assert PROMPT.encode() not in file.read_bytes()


def test_calls_within_a_call_are_its_attempts_and_failures_are_classified(tmp_path: Path) -> None:
    """A gateway's span with an SDK's two spans below it, one of which failed; other spans between them."""
    text = exported(
        span("tool", 9, 0, 0, 9000, attributes={"x": "y"}),
        span("gateway", 1, 9, 0, 3000, attributes=NEW),
        span("inner", 5, 1, 0, 2900, attributes={}),
        span("try 2", 3, 5, 1200, 2900, attributes=NEW),
        span(
            "try 1",
            2,
            5,
            100,
            1100,
            attributes={**NEW, "error.type": "RateLimitError", "http.response.status_code": 429},
            status={"code": 2, "message": "slow down"},
        ),
    )
    source = made(tmp_path, written(tmp_path, text.replace('"resourceSpans"', '"resourceSpans"') + "\n", "t.jsonl"))
    (call,) = rows(tmp_path, source, "operation")
    assert (call["attempts"], call["caller"], call["parent_span_id"]) == (2, "agent", f"{9:016x}")
    attempts = rows(tmp_path, source, "attempt")
    assert [(row["seq"], row["code"], row["status"], row["latency_ms"]) for row in attempts] == [
        (1, "RateLimited", 429, 1000),
        (2, None, None, 1700),
    ]
    (error,) = rows(tmp_path, source, "error_event")
    assert (error["code"], error["message"]) == ("RateLimited", "slow down")


def test_our_own_traces_come_back_as_the_rows_they_were_made_of(tmp_path: Path) -> None:
    """What is sent to a collector can be read in again, as the collector writes it to a file."""
    service = pytest.importorskip("opentelemetry.proto.collector.trace.v1.trace_service_pb2")
    operation: dict[str, Any] = {
        "operation_id": 42 << 40,
        "at": BEGAN,
        "kind": "chat",
        "requested_model": None,
        "profile": "b",
        "model": "m",
        "outcome": "ok",
        "asked": "a,b",
        "attempts": 2,
        "latency_ms": 2500.0,
        "writer_id": "w",
        "user_name": "ann",
    }
    tries: list[dict[str, Any]] = [
        {"attempt_id": 1, "at": BEGAN, "profile": "a", "outcome": "error", "code": "ApiError", "reason": "api_error",
         "status": 529, "latency_ms": 1000.0, "cause": "first", "message": "busy"},
        {"attempt_id": 2, "at": BEGAN + 1_500_000, "profile": "b", "model": "m", "outcome": "ok", "reason": "answered",
         "status": 200, "latency_ms": 900.0, "cause": "failover", "limiter_wait_ms": 100.0, "backoff_ms": 400.0,
         "input_tokens": 7, "output_tokens": 3},
    ]  # fmt: skip
    call = spans.TracedCall(**operation)
    attempts = [spans.TracedAttempt(operation_id=call.operation_id, **one) for one in tries]
    body = spans.request(spans.of_call(call, attempts, {"a": "openai", "b": "anthropic"}), "w")
    told = json_of(service.ExportTraceServiceRequest.FromString(body))
    source = made(tmp_path, written(tmp_path, json.dumps(told), "ours.json"))
    (read,) = rows(tmp_path, source, "operation")
    for name in ("at", "kind", "profile", "model", "outcome", "asked", "attempts", "latency_ms", "user_name"):
        assert read[name] == operation[name], name
    back = rows(tmp_path, source, "attempt")
    for one, row in zip(tries, back, strict=True):
        for name in ("profile", "outcome", "status", "latency_ms", "cause"):
            assert row[name] == one[name], name
    assert back[0]["code"] == "ApiError"
    assert [round(row["retry_after_s"], 3) for row in rows(tmp_path, source, "limit_event")] == [0.4, 0.1]


def json_of(request: Any) -> Any:
    """OTLP's JSON: that of protobuf, but ids in hex and enums as numbers."""
    json_format = pytest.importorskip("google.protobuf.json_format")

    def told(value: Any, name: str = "") -> Any:
        if isinstance(value, dict):
            return {name: told(inner, name) for name, inner in value.items()}
        if isinstance(value, list):
            return [told(inner) for inner in value]
        return base64.b64decode(value).hex() if name in ("traceId", "spanId", "parentSpanId") else value

    return told(json_format.MessageToDict(request, use_integers_for_enums=True))


def test_litellms_records_become_calls(tmp_path: Path) -> None:
    """One that was answered and one that failed; its lines in JSON are lines of a log."""
    good = {
        "id": "chatcmpl-1",
        "trace_id": "t1",
        "call_type": "acompletion",
        "stream": True,
        "response_cost": 0.0125,
        "status": "success",
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "startTime": 1772361045.25,
        "endTime": 1772361046.75,
        "completionStartTime": 1772361045.5,
        "model": "claude-x",
        "model_group": "fast",
        "custom_llm_provider": "anthropic",
        "metadata": {"user_api_key_alias": "team-a", "user_api_key_hash": "88dc28d0f030c55ed4ab77ed8faf098196cb1c05"},
        "messages": [{"role": "user", "content": PROMPT}],
        "response": {"choices": [{"message": {"content": PROMPT}}]},
        "api_base": f"https://x/?api_key={KEY}",
    }
    bad = good | {
        "status": "failure",
        "error_str": f"litellm.RateLimitError: {KEY} slow down",
        "error_information": {"error_code": "429", "error_class": "RateLimitError", "llm_provider": "anthropic"},
    }
    line = {"message": "Router: cooling down", "level": "ERROR", "timestamp": "2026-03-01T10:30:45.1"}
    text = "\n".join(map(json.dumps, (good, bad, line, {"standard_logging_object": good})))
    source = made(tmp_path, written(tmp_path, text, "litellm.jsonl"))
    assert (source.kind, source.lines, source.left) == ("litellm", 4, 0)
    calls = rows(tmp_path, source, "operation")
    assert [row["outcome"] for row in calls] == ["ok", "error", "ok"]
    assert (calls[0]["cost_usd"], calls[0]["latency_ms"], calls[0]["user_name"]) == (0.0125, 1500, "team-a")
    attempt = rows(tmp_path, source, "attempt")[1]
    assert (attempt["code"], attempt["reason"], attempt["status"]) == ("RateLimited", "rate_limited", 429)
    assert rows(tmp_path, source, "imported_log")[0]["message"] == "Router: cooling down"
    for file in (tmp_path / "sources" / source.name).iterdir():
        data = file.read_bytes()
        assert PROMPT.encode() not in data
        assert KEY.encode() not in data


def test_a_bundle_is_a_source(tmp_path: Path) -> None:
    """Its rows and its log; JSON has ids as text and times in ISO."""
    bundle = tmp_path / "tundra-bundle.zip"
    call = {
        "operation_id": "7433821025101414400",
        "at": "2026-03-01T10:30:46.1Z",
        "outcome": "error",
        "code": "Timeout",
    }
    with zipfile.ZipFile(bundle, "w") as out:
        out.writestr("ISSUE.md", "# x")
        out.writestr("doctor.json", "{}")
        out.writestr("tables/operation.json", json.dumps([call, {"operation_id": "x"}]))
        out.writestr("tables/../../etc.json", "[]")
        out.writestr("daemon.log", "2026-03-01T10:30:46.1Z warning  tundra.router  no answer  operation_id=1\nnoise\n")
    source = made(tmp_path, bundle)
    assert (source.kind, source.left) == ("bundle", 2)
    (row,) = rows(tmp_path, source, "operation")
    assert (row["operation_id"], row["code"]) == (7433821025101414400, "Timeout")
    (line,) = rows(tmp_path, source, "imported_log")
    assert (line["severity"], line["message"]) == ("warning", "no answer operation_id=1")
