"""The span that the caller of `ask` is in, where this process traces with OpenTelemetry; nothing of it is imported."""

from __future__ import annotations

import sys


def traceparent() -> dict[str, str]:
    """The header that makes a call's spans children of the caller's; none where there is no span."""
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return {}
    found = trace.get_current_span().get_span_context()
    if not found.is_valid:
        return {}
    return {"traceparent": f"00-{found.trace_id:032x}-{found.span_id:016x}-{int(found.trace_flags) & 255:02x}"}
