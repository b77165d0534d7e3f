"""What is counted for Prometheus: cheap numbers, made from the same events that the history keeps.

Counting is a few dictionary steps per event on the loop. The text is made by `exposition`, on a thread, when somebody
asks for it; until then nothing of Prometheus is imported.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from tundra_nb.types import Attempt, BreakerEvent, LimitEvent, Operation

from . import genai

MAX_SETS = 40
"""Label sets per metric: a scrape of more takes longer than it may, and names of models come from outside. What comes
later is counted under `other`."""
OTHER = "other"
LABEL_CHARS = 128
"""Of one label: a histogram repeats it in each of some twenty lines. What cannot be printed is replaced."""
Labels = tuple[str, ...]


class Exemplar(msgspec.Struct, frozen=True, gc=False):
    """One measured case that a bucket points to: a call, its trace if it has one, and when it was measured, in µs."""

    operation_id: int
    trace_id: str | None
    value: float
    at: int


class Cell:
    """One label set of a histogram: how many fell into each bucket, their sum, and the last case in each."""

    __slots__ = ("counts", "exemplars", "total")

    def __init__(self, buckets: int) -> None:
        self.counts = [0] * buckets
        self.exemplars: list[Exemplar | None] = [None] * buckets
        self.total = 0.0


class Family:
    """One metric with labels; the number of label sets is bounded."""

    def __init__(self, name: str, help_text: str, labels: Sequence[str], buckets: Sequence[float] = ()) -> None:
        self.name = name
        self.help = help_text
        self.labels = tuple(labels)
        self.buckets = tuple(buckets)
        self.values: dict[Labels, float] = {}
        self.cells: dict[Labels, Cell] = {}

    @property
    def is_histogram(self) -> bool:
        return bool(self.buckets)

    def add(self, labels: Labels, amount: float = 1.0) -> None:
        """Count on."""
        values = self.values
        if labels not in values:
            labels = self._bounded(labels, values)
        values[labels] = values.get(labels, 0.0) + amount

    def observe(self, labels: Labels, value: float, exemplar: Exemplar | None = None) -> None:
        """Measure once."""
        cell = self.cells.get(labels)
        if cell is None:
            labels = self._bounded(labels, self.cells)
            cell = self.cells.setdefault(labels, Cell(len(self.buckets) + 1))
        at = bisect.bisect_left(self.buckets, value)
        cell.counts[at] += 1
        cell.total += value
        if exemplar is not None:
            cell.exemplars[at] = exemplar

    def _bounded(self, labels: Labels, known: Mapping[Labels, object]) -> Labels:
        labels = tuple(map(_label, labels))
        return labels if labels in known or len(known) < MAX_SETS else (OTHER,) * len(labels)


def _label(told: str) -> str:
    if len(told) <= LABEL_CHARS and told.isprintable():
        return told
    return "".join(char if char.isprintable() else "\ufffd" for char in told[:LABEL_CHARS])


class Metrics:
    """Everything that is counted.

    Args:
        kind_of: tells the kind of a profile: its provider's name in the conventions.
        now: the time in microseconds.
        names: what the conventions call things.
    """

    def __init__(
        self, kind_of: Callable[[str], str], now: Callable[[], int], names: genai.Names = genai.LATEST
    ) -> None:
        self._kind_of = kind_of
        self._now = now
        self._takes: dict[type, Callable[[Any], None]] = {
            Attempt: self._attempt,
            Operation: self._operation,
            LimitEvent: lambda event: self.limits.add((event.tier, event.decision)),
            BreakerEvent: lambda event: self.breakers.add((event.profile, event.old_state, event.new_state)),
        }
        call = ("gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model")
        self.operations = Family(
            "tundra_operations", "calls by how they ended", ("outcome", "code", "caller", "profile")
        )
        self.operation_seconds = Family(
            "tundra_operation_duration_seconds",
            "time of a call, waits, retries and failovers included",
            ("outcome", "profile"),
            genai.LONG_BUCKETS,
        )
        self.waited_seconds = Family("tundra_operation_waited_seconds", "time that calls spent waiting", ("profile",))
        self.attempts = Family("tundra_attempts", "attempts by how they ended", ("profile", "outcome", "reason"))
        self.attempt_seconds = Family(
            genai.prometheus(names.duration, "seconds"),
            "time of one request to a provider",
            (*call, "error_type"),
            genai.DURATION_BUCKETS,
        )
        self.first_chunk_seconds = Family(
            genai.prometheus(names.first_chunk, "seconds"),
            "time from the request to the first data of the answer",
            call,
            genai.DURATION_BUCKETS,
        )
        self.tokens = {
            name: Family(genai.prometheus(metric), f"{name.replace('_', ' ')} of answered calls", call)
            for name, metric in names.tokens.items()
        }
        self.usage_sizes: Family | None = None
        if names.usage_sizes:
            self.usage_sizes = Family(
                genai.prometheus(names.usage_sizes),
                "tokens of answered calls",
                (*call, "gen_ai_token_type"),
                genai.TOKEN_BUCKETS,
            )
        self.cost_usd = Family("tundra_cost_usd", "what answered calls cost, where a price is known", ("profile",))
        self.limits = Family("tundra_limiter_decisions", "waits, refusals and corrections", ("tier", "decision"))
        self.breakers = Family("tundra_breaker_moves", "moves of breakers", ("profile", "old_state", "new_state"))

    def families(self) -> Iterator[Family]:
        """All, in order of the page."""
        for value in vars(self).values():
            if isinstance(value, Family):
                yield value
            elif value is self.tokens:
                yield from self.tokens.values()

    def count(self, event: Any) -> None:
        """Take one event of the history into account."""
        take = self._takes.get(type(event))
        if take is not None:
            take(event)

    def _operation(self, event: Operation) -> None:
        profile = event.profile or ""
        self.operations.add((event.outcome, event.code or "", event.caller or "", profile))
        if event.waited_ms:
            self.waited_seconds.add((profile,), event.waited_ms / 1000)
        if event.latency_ms is not None:
            seconds = event.latency_ms / 1000
            exemplar = Exemplar(event.operation_id, event.trace_id, seconds, self._now())
            self.operation_seconds.observe((event.outcome, profile), seconds, exemplar)

    def _attempt(self, event: Attempt) -> None:
        self.attempts.add((event.profile, event.outcome, event.reason or ""))
        call = (genai.CHAT, self._kind_of(event.profile), event.model or "")
        if event.latency_ms is not None:
            seconds = event.latency_ms / 1000
            exemplar = Exemplar(event.operation_id, None, seconds, self._now())
            self.attempt_seconds.observe((*call, event.code or ""), seconds, exemplar)
        if event.first_byte_ms is not None:
            self.first_chunk_seconds.observe(call, event.first_byte_ms / 1000)
        for name, family in self.tokens.items():
            if count := getattr(event, name):
                family.add(call, count)
        if self.usage_sizes:
            for count, kind in ((event.input_tokens, "input"), (event.output_tokens, "output")):
                if count is not None:
                    self.usage_sizes.observe((*call, kind), count)
        if event.cost_usd:
            self.cost_usd.add((event.profile,), event.cost_usd)
