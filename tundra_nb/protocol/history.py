"""The history as frames and by SQL."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from .endpoint import Endpoint, Rows
from .words import ARROW, JSON

MAX_ROWS = (1 << 63) - 2
"""Beyond it a number of rows does not fit where both engines keep one, with one row more to tell a cut."""
MOST_WAIT_SECONDS = 120
Limit = Annotated[int, msgspec.Meta(ge=1, le=MAX_ROWS)]
Wait = Annotated[float, msgspec.Meta(ge=0, le=MOST_WAIT_SECONDS)]
"""Seconds until a read must be answered though not all events are stored; left out: the daemon's own second."""


class FrameParams(msgspec.Struct, frozen=True, kw_only=True):
    """The window over a frame. Times are ISO 8601 or microseconds since 1970."""

    since: str | None = None
    """Included; the last 24 h when neither end is given, `all` for everything."""
    until: str | None = None
    """Not included."""
    at: str | None = None
    """The history as of a commit, branch, tag or time."""
    limit: Limit | None = None
    newest: bool = False
    """Newest first, so that `limit` keeps the newest."""
    columns: str | None = None
    """Names with commas between them; all when left out. Of groups: what is summed up (`latency_ms`, `input_tokens`,
    `output_tokens`, `cost_usd`, and of buckets the lowest level: `bucket_requests`, `bucket_tokens`)."""
    by: str | None = None
    """Names with commas between them: one row per group (columns, `minute`, `hour`, `day`, `latency_band`)."""
    every: int | None = None
    """Seconds: groups of such intervals too."""
    quantiles: str | None = None
    """Shares with commas between them: which quantiles of the latency a group has; `0.5,0.95` when left out."""
    wait: Wait | None = None
    """Seconds until it must be answered though not all events are stored."""
    source: str | None = None
    """Read this source instead of the history: all of it where no window is given."""
    all: bool = False
    """Also what other daemons wrote into a shared history; a view `at` a state always has them."""


class SqlBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One read-only statement. `limit`: rows at most. `archive`: over history and archive together, in DuckDB's SQL."""

    sql: str
    at: str | None = None
    limit: Limit | None = None
    wait: Wait | None = None
    source: str | None = None
    archive: bool = False


HISTORY = Endpoint(
    method="GET",
    path="/api/history/{frame}",
    summary="rows of a frame (`calls`, `errors`, …) or table",
    query=FrameParams,
    more="conditions `column.op=value` with eq, ne, lt, le, gt, ge, in, contains, prefix, null",
    answer=Rows[dict[str, Any]],
    media=(ARROW, JSON),
)
SQL = Endpoint(method="POST", path="/api/sql", summary="one read-only statement", body=SqlBody, media=(ARROW,))
