"""What is left in the caller's narrowest buckets, in the headers that its SDK knows."""

from __future__ import annotations

import datetime as dt

from tundra_nb.runtime.relayed import Relayed
from tundra_nb.runtime.resilience.limiter import Narrowest

from .paths import Dialect


def limit_headers(request: Relayed, family: Dialect) -> list[tuple[bytes, bytes]]:
    """Limit, rest and reset of requests and tokens; nothing where they are not limited."""
    entry = request.entry
    if entry is None or entry.reservation is None:
        return []
    found: list[tuple[bytes, bytes]] = []
    for resource, bucket in (
        (b"requests", entry.reservation.narrowest_requests),
        (b"tokens", entry.reservation.narrowest_tokens),
    ):
        if bucket is not None:
            found += _openai(resource, bucket) if family == "openai" else _anthropic(resource, bucket)
    return found


def _openai(resource: bytes, bucket: Narrowest) -> list[tuple[bytes, bytes]]:
    return [
        (b"x-ratelimit-limit-" + resource, b"%d" % bucket.burst),
        (b"x-ratelimit-remaining-" + resource, b"%d" % max(bucket.level, 0)),
        (b"x-ratelimit-reset-" + resource, b"%.3fs" % bucket.full_after),
    ]


def _anthropic(resource: bytes, bucket: Narrowest) -> list[tuple[bytes, bytes]]:
    at = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=min(bucket.full_after, 1e8))
    prefix = b"anthropic-ratelimit-" + resource
    return [
        (prefix + b"-limit", b"%d" % bucket.burst),
        (prefix + b"-remaining", b"%d" % max(bucket.level, 0)),
        (prefix + b"-reset", at.strftime("%Y-%m-%dT%H:%M:%SZ").encode()),
    ]
