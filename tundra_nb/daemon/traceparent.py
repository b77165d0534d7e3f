"""The caller's trace, by the W3C's `traceparent`."""

from __future__ import annotations

import re

from tundra_nb.runtime.telemetry.unsampled import UNSAMPLED

_TRACEPARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
SAMPLED = 1
"""The flag."""


def trace_of(given: bytes) -> tuple[str | None, str | None]:
    """Trace and span of the caller, the span with a mark behind it where the caller does not sample the trace.

    By the standard's rules: later versions may say more behind the flags, version `ff` and ids of zeros are none.
    """
    if not given:
        return None, None
    match = _TRACEPARENT.fullmatch(given.strip())
    if match is None or match[1] == b"ff" or (match[1] == b"00" and match[5]):
        return None, None
    if not match[2].strip(b"0") or not match[3].strip(b"0"):
        return None, None
    mark = "" if int(match[4], 16) & SAMPLED else UNSAMPLED
    return match[2].decode(), match[3].decode() + mark
