"""Sends traces to a collector, from rows that are stored: a thread of the store worker.

Calls lose nothing by it: it reads what is written already. What was settled stands in a file beside the history, a list
of ids that only grows until it is packed; not in the store, because a table there would be pulled, merged and
committed with it. After a crash or an outage it goes on with what is not settled, at most `BACK_SECONDS` back. A batch
whose answer was lost is sent once more, with the same ids.
"""

from __future__ import annotations

import collections
import datetime as dt
import email.utils
import functools
import gzip
import http.client
import io
import logging
import operator
import os
import re
import socket
import ssl
import struct
import threading
import time
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from tundra_nb.protocol.query import Condition, FrameQuery
from tundra_nb.runtime.id_layout import NODE_BITS, SEQUENCE_BITS, id_floor
from tundra_nb.types import columns

from . import otlp, spans
from .spans import TracedAttempt, TracedCall

log = logging.getLogger("tundra.history")

BACK_SECONDS = 24 * 3600.0
"""Older calls are not sent any more."""
LONGEST_SECONDS = 1_000
"""No call ends later after its beginning: the longest deadline, and a margin."""
BATCH_CALLS = 512
"""Most calls of one request; fewer while a collector finds them too large."""
DELAY_SECONDS = 1.0
"""How long calls are gathered into one request."""
MOST_QUEUED = 200_000
"""Ids of calls that wait for a collector; the oldest are dropped beyond that."""
MOST_FRESH = 10_000
"""Calls whose rows are kept until they are sent; of all others they are read from the store."""
POST_SECONDS = 10.0
"""For a whole exchange, from the connection to the end of the answer: as long as OpenTelemetry's own exporters wait."""
PIECE_BYTES = 16_384
"""So much is sent in one go."""
ANSWER_BYTES = 16_384
"""As much of an answer is read: it is a number and a few words."""
STOP_SECONDS = 1.0
"""Longest that the end of the daemon waits for the collector."""
PAUSES = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
RETRIED = frozenset({408, 429, 500, 502, 503, 504})
LONGEST_PAUSE = 60.0
"""Longest that a collector may ask for."""
SMALLER_SECONDS = 0.05
"""How soon a request that was too large is sent in smaller ones."""
_TOO_LARGE = "the collector answers 413: the spans of a single call are too large for it"
_PAGE = re.compile(rb"\s*<[!?A-Za-z]")
"""How a web page begins. Protobuf may begin with a blank and `<` too (60 bytes of field 1); a tag comes behind it."""
PACK_BYTES = 1 << 20
"""The file of what is settled is packed when it is larger."""
PROVIDERS_SECONDS = 30.0


def _picking(table: str, names: Sequence[str]) -> Callable[[tuple[Any, ...]], tuple[Any, ...]]:
    """Takes the values of these columns out of a stored row."""
    there = [column.name for column in columns(table)]
    return operator.itemgetter(*map(there.index, names))


_call_of = _picking("operation", TracedCall._fields)
_attempt_of = _picking("attempt", TracedAttempt._fields)

Rows = Callable[[FrameQuery], list[dict[str, Any]]]


class Traces(msgspec.Struct, frozen=True, kw_only=True):
    """Where traces go."""

    endpoint: str = ""
    """Empty: nowhere."""
    headers: dict[str, str] = {}
    ratio: float = 1.0
    since_us: int = 0
    """When they were asked for: at the very first time nothing before that is sent."""


class TraceStats(msgspec.Struct, frozen=True, kw_only=True):
    """How the sender stands. Numbers are of its present life; calls, not spans, where nothing else is said."""

    endpoint: str
    sent: int = 0
    sent_spans: int = 0
    unsampled: int = 0
    dropped: int = 0
    """Too old, too many, or refused by the collector for what they are."""
    rejected_spans: int = 0
    """Left out by a collector that took the rest of their batch."""
    waiting: int = 0
    """Owed now: those on their way, too."""
    repeated: int = 0
    """Sent once more, because nobody knew whether they had arrived."""
    problem: str | None = None
    """Why nothing can be sent now."""
    refused: str | None = None
    """Why the collector has refused the last traces for good."""
    refused_size: bool = False
    """It did so for their size: also one call alone was too large."""


class Settled:
    """Ids of calls that need no sending any more: everything below `low`, and those in `ids`."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.low = 0
        self.ids: set[int] = set()

    def load(self, since_us: int) -> None:
        """Read the file; at the very first time everything before `since_us` is settled."""
        try:
            data = self._file.read_bytes()
        except FileNotFoundError:
            data = b""
        numbers = struct.unpack(f"<{len(data) // 8}q", data[: len(data) // 8 * 8])
        if numbers:
            self.low, self.ids = numbers[0], set(numbers[1:])
        else:
            self.low = id_floor(since_us)
        self._write(self.low)

    def add(self, ids: Sequence[int]) -> None:
        self.ids.update(ids)
        with self._file.open("ab") as stream:
            stream.write(struct.pack(f"<{len(ids)}q", *ids))

    def pack(self, low: int) -> None:
        """Forget what is below, when the file is long."""
        if self._file.stat().st_size > PACK_BYTES:
            self._write(max(low, self.low))

    def __contains__(self, key: int) -> bool:
        return key < self.low or key in self.ids

    def _write(self, low: int) -> None:
        self.low = low
        self.ids = {key for key in self.ids if key >= low}
        made = self._file.with_suffix(".new")
        made.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with open(os.open(made, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as stream:
            stream.write(struct.pack(f"<{len(self.ids) + 1}q", low, *sorted(self.ids)))
        os.replace(made, self._file)


class Sender(threading.Thread):
    """Reads calls by `rows` and posts them; `offer` tells of those that were stored just now.

    Args:
        traces: where they go.
        rows: answers a query over the store.
        writer_id: of this daemon: others' calls are theirs to send.
        settled: file for what needs no sending any more.
        ready: waits until the store can be read; raises when the worker ends first.
        on_stats: told how it stands, from this thread and from that of `offer`.
    """

    def __init__(
        self,
        traces: Traces,
        rows: Rows,
        writer_id: str,
        settled: Path,
        ready: Callable[[], None],
        on_stats: Callable[[TraceStats], None],
    ) -> None:
        super().__init__(name="trace-sender", daemon=True)
        self._traces = traces
        self._rows = rows
        self._writer_id = writer_id
        self._settled = Settled(settled)
        self._ready = ready
        self._on_stats = on_stats
        self._changed = threading.Condition()
        self._queue: collections.deque[int] = collections.deque()
        self._on_the_way = 0
        """Calls that were taken from the queue, and whose answer is not here yet."""
        self._stopping = False
        self._stop_at = 0.0
        self._stats = self._told = TraceStats(endpoint=_shown(traces.endpoint))
        self._providers: dict[str, str] = {}
        self._providers_at = -PROVIDERS_SECONDS
        self._most = BATCH_CALLS
        self._unsure: set[int] = set()
        self._fresh_calls: dict[int, tuple[Any, ...]] = {}
        self._fresh_attempts: dict[int, list[tuple[Any, ...]]] = {}
        """Rows that were stored just now, by call: what is sent at once is not read again."""

    def offer(self, rows: Mapping[str, Sequence[tuple[Any, ...]]]) -> None:
        """These rows are stored, by table. From any thread; never waits for the collector."""
        with self._changed:
            if len(self._fresh_calls) + len(self._fresh_attempts) > MOST_FRESH:
                self._fresh_calls.clear()
                self._fresh_attempts.clear()
            for row in rows.get("attempt", ()):
                self._fresh_attempts.setdefault(row[1], []).append(row)
            if calls := rows.get("operation"):
                for row in calls:
                    self._fresh_calls[row[0]] = row
                self._queue.extend(row[0] for row in calls)
                self._bound()
                self._tell()
                self._changed.notify_all()

    def stop(self) -> None:
        """End; what is not sent then is sent by the next life. Waits at most `STOP_SECONDS`."""
        with self._changed:
            self._stopping = True
            self._stop_at = time.monotonic() + STOP_SECONDS
            self._changed.notify_all()
        self.join(STOP_SECONDS + 0.5)

    # --- the thread ---

    def run(self) -> None:
        try:
            self._ready()
            self._settled.load(self._traces.since_us)
            self._recover()
            self._follow()
        except Exception as exc:  # the top of the thread: calls go on without traces
            log.exception("the sender of traces ended by a defect")
            self._tell(problem=f"the sender ended: {exc!r}")

    def _recover(self) -> None:
        """Take up what an earlier life left."""
        now_us = time.time_ns() // 1000
        back_us = now_us - int(BACK_SECONDS * 1e6)
        mine = [Condition("writer_id", "eq", self._writer_id)]
        low_us = (self._settled.low >> (NODE_BITS + SEQUENCE_BITS)) * 1000
        names = ["operation_id"]
        found = self._rows(FrameQuery(table="operation", since_us=max(low_us, back_us), where=mine, columns=names))
        if low_us < back_us:
            old = self._rows(
                FrameQuery(table="operation", since_us=low_us, until_us=back_us, where=mine, columns=names)
            )
            left = [row["operation_id"] for row in old if row["operation_id"] not in self._settled]
            self._tell(dropped=self._stats.dropped + len(left))
            self._settled.add(left)
        ids = [row["operation_id"] for row in found if row["operation_id"] not in self._settled]
        with self._changed:
            known = set(self._queue)
            self._queue.extendleft(reversed([key for key in ids if key not in known]))
            self._bound()
            self._tell()

    def _follow(self) -> None:
        failures = 0
        while True:
            batch = self._next(0.0 if failures else DELAY_SECONDS)
            if not batch:
                return
            answer = self._send(batch)
            if answer is None:
                failures = 0
                self._settled.add(batch)
                if not self._queue:
                    self._settled.pack(id_floor(time.time_ns() // 1000 - LONGEST_SECONDS * 1_000_000))
                continue
            self._unsure.update(batch)
            with self._changed:
                self._queue.extendleft(reversed(batch))
                self._on_the_way = 0
                self._bound()
                if self._stopping:
                    return
                self._tell(problem=answer[0] or None)
            pause = answer[1] or PAUSES[min(failures, len(PAUSES) - 1)]
            failures += 1
            with self._changed:
                if self._changed.wait_for(lambda: self._stopping, pause):
                    return

    def _next(self, delay: float) -> list[int]:
        """The calls to send next; none at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._stopping)
            if delay and not self._stopping:
                self._changed.wait_for(lambda: len(self._queue) >= self._most or self._stopping, delay)
            if self._stopping and time.monotonic() >= self._stop_at:
                return []
            self._on_the_way = min(self._most, len(self._queue))
            return [self._queue.popleft() for _ in range(self._on_the_way)]

    def _send(self, batch: Sequence[int]) -> tuple[str, float] | None:
        """Send these; None when they are settled, else why not and after how long again (0: as ever)."""
        oldest = id_floor(time.time_ns() // 1000 - int(BACK_SECONDS * 1e6))
        ids = [key for key in dict.fromkeys(batch) if key not in self._settled]
        wanted = [key for key in ids if key >= oldest]
        dropped = len(ids) - len(wanted)
        calls, attempts = self._fresh(wanted)
        calls += self._calls([key for key in wanted if key not in attempts])
        dropped += len(wanted) - len(calls)
        sampled = [call for call in calls if spans.is_sampled(call, self._traces.ratio)]
        unsampled = len(calls) - len(sampled)
        made = self._spans(sampled, attempts) if sampled else []
        refused = None
        if asked := bool(made):
            answer = self._post(spans.request(made, self._writer_id), len(batch), len(made))
            if isinstance(answer, tuple):
                return answer
            refused = answer
        if refused:
            dropped += len(sampled)
            sampled, made = [], []
        again = len(self._unsure & set(wanted)) if self._unsure else 0
        self._unsure.difference_update(batch)
        self._most = min(BATCH_CALLS, self._most * 2)
        with self._changed:
            stats = self._stats
            self._on_the_way = 0
            self._tell(
                problem=None,
                refused=refused if asked else stats.refused,
                refused_size=refused == _TOO_LARGE if asked else stats.refused_size,
                sent=stats.sent + len(sampled),
                sent_spans=stats.sent_spans + len(made),
                unsampled=stats.unsampled + unsampled,
                dropped=stats.dropped + dropped,
                repeated=stats.repeated + again,
            )
        return None

    def _fresh(self, ids: Sequence[int]) -> tuple[list[TracedCall], dict[int, list[TracedAttempt]]]:
        """The calls whose rows are all here, and their attempts by call."""
        calls, attempts = [], {}
        with self._changed:
            for key in ids:
                row, tries = self._fresh_calls.pop(key, None), self._fresh_attempts.pop(key, [])
                if row is None:
                    continue
                call = TracedCall._make(_call_of(row))
                if call.writer_id == self._writer_id and len(tries) == call.attempts:
                    calls.append(call)
                    attempts[key] = [TracedAttempt._make(_attempt_of(one)) for one in tries]
        return calls, attempts

    def _calls(self, ids: Sequence[int]) -> list[TracedCall]:
        if not ids:
            return []
        where = [Condition("operation_id", "in", list(ids)), Condition("writer_id", "eq", self._writer_id)]
        since = _at_us(min(ids)) - 1_000_000
        query = FrameQuery(table="operation", since_us=since, where=where, columns=list(TracedCall._fields))
        return [TracedCall(**row) for row in self._rows(query)]

    def _spans(self, calls: Sequence[TracedCall], fresh: Mapping[int, list[TracedAttempt]]) -> list[bytes]:
        by_call = dict(fresh)
        if read := [call for call in calls if call.operation_id not in fresh]:
            self._read_attempts(read, by_call)
        if time.monotonic() - self._providers_at >= PROVIDERS_SECONDS:
            kinds = self._rows(FrameQuery(table="profile", columns=["name", "kind"]))
            self._providers = {row["name"]: row["kind"] for row in kinds}
            self._providers_at = time.monotonic()
        made = []
        for call in calls:
            made += spans.of_call(call, by_call.get(call.operation_id, ()), self._providers)
        return made

    def _read_attempts(self, calls: Sequence[TracedCall], into: dict[int, list[TracedAttempt]]) -> None:
        since = min(call.at for call in calls) - 1_000_000
        where = [Condition("operation_id", "in", [call.operation_id for call in calls])]
        query = FrameQuery(table="attempt", since_us=since, where=where, columns=list(TracedAttempt._fields))
        for row in self._rows(query):
            into.setdefault(row["operation_id"], []).append(TracedAttempt(**row))

    def _post(self, body: bytes, calls: int, count: int) -> tuple[str, float] | str | None:
        """Send `count` spans of so many calls.

        None: taken; why it is refused for good; or why not now ("": nothing is wrong), and after how long again.
        """
        url = urllib.parse.urlsplit(self._traces.endpoint)
        path = url.path.rstrip("/")
        path = path if path.endswith("/v1/traces") else f"{path}/v1/traces"
        left = POST_SECONDS if not self._stopping else max(0.05, self._stop_at - time.monotonic())
        until = time.monotonic() + left
        headers = {"Content-Type": otlp.MEDIA_TYPE, "Content-Encoding": "gzip", **self._traces.headers}
        port = url.port or (443 if url.scheme == "https" else 80)
        connection: http.client.HTTPConnection
        if url.scheme == "https":
            connection = http.client.HTTPSConnection(str(url.hostname), port, timeout=left, context=self._tls)
        else:
            connection = http.client.HTTPConnection(str(url.hostname), port, timeout=left)
        try:
            connection.connect()
            with connection.sock as sock:
                connection.sock = _Peer(sock, until)
                connection.request("POST", path, gzip.compress(body, 1), headers)
                answer = connection.getresponse()
                told = answer.read(ANSWER_BYTES)
        except TimeoutError:
            return f"{_shown(self._traces.endpoint)} gives no whole answer within {left:.2g} s", 0.0
        except (OSError, http.client.HTTPException) as exc:
            return f"{_shown(self._traces.endpoint)} cannot be reached: {exc or type(exc).__name__}", 0.0
        finally:
            connection.close()
        if answer.status in RETRIED:
            return f"the collector answers {answer.status}", _pause(answer.headers.get("Retry-After", ""))
        if answer.status == 413 and calls > 1:
            self._most = calls // 2
            log.info("the collector answers 413 to %s calls: fewer are sent at once", calls)
            return "", SMALLER_SECONDS
        if answer.status >= 300:
            log.warning("the collector refuses spans with %s: %s", answer.status, told[:200].decode("utf-8", "replace"))
            return _TOO_LARGE if answer.status == 413 else f"the collector answers {answer.status}"
        if _PAGE.match(told):  # a login page, or that of a proxy: no collector writes one
            return f"{_shown(self._traces.endpoint)} answers with a web page: is that the collector?", 0.0
        rejected, why = otlp.rejected(told)
        if rejected := min(rejected, count):
            log.warning("the collector took a batch but for %s spans: %s", rejected, why)
            self._tell(rejected_spans=self._stats.rejected_spans + rejected)
        return None

    @functools.cached_property
    def _tls(self) -> ssl.SSLContext:
        return ssl.create_default_context()  # reads all authorities: 10 ms

    def _bound(self) -> None:
        over = len(self._queue) - MOST_QUEUED
        if over > 0:
            for _ in range(over):
                self._queue.popleft()
            self._stats = msgspec.structs.replace(self._stats, dropped=self._stats.dropped + over)

    def _tell(self, **changes: Any) -> None:
        with self._changed:
            waiting = len(self._queue) + self._on_the_way
            told, self._told = self._told, msgspec.structs.replace(self._stats, waiting=waiting, **changes)
            self._stats = self._told
            if self._stats.problem and self._stats.problem != told.problem:
                log.warning("traces wait: %s", self._stats.problem)
            if self._stats != told:
                self._on_stats(self._stats)


class _Peer(io.RawIOBase):
    """A connected socket, as `http.client` needs it, for one exchange that ends at a moment, however it drips.

    A time limit of the socket itself holds for each wait anew, so that a byte now and then would keep it for ever.
    """

    def __init__(self, sock: socket.socket, until: float) -> None:
        super().__init__()
        self._sock = sock
        self._until = until

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(self)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._limit()
        return self._sock.recv_into(buffer)

    def sendall(self, data: bytes) -> None:
        for at in range(0, len(data), PIECE_BYTES):
            self._limit()
            self._sock.sendall(data[at : at + PIECE_BYTES])

    def close(self) -> None:
        """Nothing: `http.client` does so before it reads the rest of an answer. Whoever connected closes."""

    def _limit(self) -> None:
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._sock.settimeout(left)


def _at_us(key: int) -> int:
    return (key >> (NODE_BITS + SEQUENCE_BITS)) * 1000


def _pause(told: str) -> float:
    """The seconds that a `Retry-After` asks for, as a number or a date; 0 where it says nothing that can be read."""
    try:
        if told.isdecimal():
            asked = float(told)
        else:
            at = email.utils.parsedate_to_datetime(told)
            asked = (at.replace(tzinfo=at.tzinfo or dt.UTC) - dt.datetime.now(dt.UTC)).total_seconds()
    except (ValueError, TypeError, IndexError, OverflowError):  # what the standard library raises for odd dates
        return 0.0
    return min(max(asked, 0.0), LONGEST_PAUSE)


def _shown(endpoint: str) -> str:
    """An endpoint without what may be a secret in it."""
    url = urllib.parse.urlsplit(endpoint)
    return f"{url.scheme}://{url.hostname or ''}{f':{url.port}' if url.port else ''}"
