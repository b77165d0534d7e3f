"""OTLP's binary form, read back by the messages of `opentelemetry-proto`."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tundra_nb.runtime.telemetry import otlp

service = pytest.importorskip(
    "opentelemetry.proto.collector.trace.v1.trace_service_pb2", reason="opentelemetry-proto is not installed"
)

TEXT = st.text(st.characters(codec="utf-8"), max_size=300)
PLAIN = st.one_of(TEXT, st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False))
VALUES = st.one_of(st.none(), PLAIN, st.lists(TEXT, max_size=3).map(tuple))
TIMES = st.integers(0, 2**53)


@given(
    attributes=st.dictionaries(TEXT, VALUES, max_size=8),
    name=TEXT,
    ids=st.tuples(st.binary(min_size=16, max_size=16), st.binary(min_size=8, max_size=8)),
    parent=st.sampled_from([b"", b"\1" * 8]),
    times=st.tuples(TIMES, TIMES),
    error=st.none() | TEXT,
    kind=st.integers(1, 5),
)
def test_whatever_is_written_is_read_back_as_it_was(
    attributes: dict[str, Any],
    name: str,
    ids: tuple[bytes, bytes],
    parent: bytes,
    times: tuple[int, int],
    error: str | None,
    kind: int,
) -> None:
    one = otlp.span(
        trace_id=ids[0].hex(),
        span_id=ids[1].hex(),
        parent_id=parent.hex(),
        name=name,
        kind=kind,
        began_us=times[0],
        ended_us=times[1],
        attributes=otlp.attributes(attributes),
        error=error,
    )
    read = service.ExportTraceServiceRequest.FromString(otlp.request([one, one], {"service.name": "x"}, "scope", "1"))
    (resource,) = read.resource_spans
    assert [(pair.key, pair.value.string_value) for pair in resource.resource.attributes] == [("service.name", "x")]
    (scope,) = resource.scope_spans
    assert (scope.scope.name, scope.scope.version) == ("scope", "1")
    span, again = scope.spans
    assert span == again
    assert (span.trace_id, span.span_id, span.parent_span_id) == (*ids, parent)
    assert (span.name, span.kind) == (name, kind)
    assert (span.start_time_unix_nano, span.end_time_unix_nano) == (times[0] * 1000, times[1] * 1000)
    assert (span.status.code, span.status.message) == ((0, "") if error is None else (2, error))
    told = {pair.key: value_of(pair.value) for pair in span.attributes}
    wanted = {key: value for key, value in attributes.items() if value is not None}
    assert told == wanted
    assert {key: type(value) for key, value in told.items()} == {key: type(value) for key, value in wanted.items()}


def value_of(value: Any) -> Any:
    kind = value.WhichOneof("value")
    inner = getattr(value, kind)
    return tuple(value_of(one) for one in inner.values) if kind == "array_value" else inner


@given(number=st.integers(-(2**63), 2**63 - 1), words=TEXT)
def test_spans_that_a_receiver_left_out_are_counted_with_its_reason(number: int, words: str) -> None:
    partial = service.ExportTracePartialSuccess(rejected_spans=number, error_message=words)
    answer = service.ExportTraceServiceResponse(partial_success=partial)
    assert otlp.rejected(answer.SerializeToString()) == (max(number, 0), words)


@given(answer=st.binary(max_size=40) | st.just(b'{"partialSuccess":{}}'))
def test_an_answer_that_cannot_be_read_rejects_nothing_and_raises_nothing(answer: bytes) -> None:
    number, words = otlp.rejected(answer)
    assert number >= 0
    assert isinstance(words, str)
