"""What calls return besides DataFrames: status, the story of an operation, a shell command's end."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from tundra_nb.errors import from_wire
from tundra_nb.frames import frames
from tundra_nb.types import Column

if TYPE_CHECKING:
    import pandas as pd

Row = dict[str, Any]


class Document(Mapping[str, Any]):
    """A read-only JSON object whose fields are also attributes."""

    def __init__(self, fields: Mapping[str, Any]) -> None:
        self._fields = dict(fields)

    def __getitem__(self, name: str) -> Any:
        return self._fields[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["_fields"][name]
        except KeyError:
            raise AttributeError(name) from None

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self._fields})

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self._fields.items())})"


class Status(Document):
    """The daemon's state at one moment: `pid`, `version`, `store`, `profiles`, `breakers`, `next_step` and more."""

    def __repr__(self) -> str:
        profiles = len(self.get("profiles") or ())
        return f"<tundra daemon {self.get('pid')}, version {self.get('version')}, profiles: {profiles}>"


class DaemonStatus(Document):
    """Whether the daemon runs: `running`, `state`, `pid`, `socket`, `version`, `engine`, `data_dir` and more."""


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One link of the causal chain of an operation."""

    after_ms: float
    """Since the operation began."""
    took_ms: float | None
    what: str
    """asked, wait, refused, attempt, breaker, parked, failover, answered, failed."""
    profile: str | None
    outcome: str
    """One stable word: an attempt's outcome and reason, a breaker's new state, a limiter's decision."""
    detail: str
    cost_usd: float | None = None


class Why(Document):
    """One operation with everything that happened in it: `operation`, `attempts`, `limit_events`, `breaker_events`,
    `errors`: rows as mappings, ids as text, times as ISO text.
    """

    def __init__(self, fields: Mapping[str, Any], source: str | None = None) -> None:
        super().__init__(fields)
        self.source = source
        """The imported source that was asked for by name."""
        if not isinstance(fields.get("operation"), Mapping):
            raise TypeError("the story of an operation has no operation")

    @property
    def operation_id(self) -> str:
        return str(self["operation"]["operation_id"])

    @property
    def steps(self) -> list[Step]:
        """The causal chain, in order of time."""
        return _steps(self)

    @property
    def frame(self) -> pd.DataFrame:
        """The causal chain as a DataFrame with one row per step."""
        return frames.from_rows(
            [msgspec.to_builtins(step) for step in self.steps],
            (
                Column("after_ms", "float", nullable=False),
                Column("took_ms", "float", nullable=True),
                Column("what", "category", nullable=False),
                Column("profile", "category", nullable=True),
                Column("outcome", "text", nullable=False),
                Column("detail", "text", nullable=False),
                Column("cost_usd", "float", nullable=True),
            ),
            meta={"operation_id": self.operation_id},
        )

    def __repr__(self) -> str:
        op = self["operation"]
        return f"<operation {self.operation_id}: {op.get('outcome')}, {op.get('attempts', 0)} attempts>"


class Stories(Document):
    """The causal chains of several calls, by their ids."""


class Last(Why):
    """The same, for a short view: what happened and the next step."""


def _steps(why: Why) -> list[Step]:
    op: Row = why["operation"]
    begin = _time(op.get("at"))
    steps: list[tuple[float, int, Step]] = []

    def add(rank: int, at: Any, **step: Any) -> None:
        after = 0.0 if begin is None else max(0.0, ((_time(at) or begin) - begin).total_seconds() * 1000)
        steps.append((after, rank, Step(after_ms=round(after, 3), **step)))

    asked = op.get("requested_model")
    add(
        0,
        op.get("at"),
        took_ms=None,
        what="asked",
        profile=None,
        outcome=str(op.get("kind") or "chat"),
        detail=f"model {asked}" if asked else "",
    )
    for row in why.get("limit_events") or ():
        add(
            1,
            row.get("at"),
            took_ms=_ms(row.get("retry_after_s")) if row.get("decision") == "wait" else None,
            what="wait" if row.get("decision") == "wait" else "limiter",
            profile=row.get("limit_key") if row.get("tier") == "profile" else None,
            outcome=str(row.get("decision")),
            detail=_limit_detail(row),
        )
    before: str | None = None
    for row in why.get("attempts") or ():
        profile = row.get("profile")
        if row.get("backoff_ms"):
            detail = "retry of the same profile" if profile == before else f"then {profile}"
            at = _time(row.get("at"))
            paused = at - dt.timedelta(milliseconds=row["backoff_ms"]) if at else None
            add(2, paused, took_ms=row["backoff_ms"], what="back-off", profile=before, outcome="waited", detail=detail)
        if before is not None and profile != before:
            add(
                3,
                row.get("at"),
                took_ms=None,
                what="failover",
                profile=profile,
                outcome="moved",
                detail=f"from {before}",
            )
        add(
            4,
            row.get("at"),
            took_ms=row.get("latency_ms"),
            what="attempt",
            profile=profile,
            outcome=_attempt_outcome(row),
            detail=_attempt_detail(row),
            cost_usd=row.get("cost_usd"),
        )
        before = profile
    for row in why.get("breaker_events") or ():
        parked = row.get("parked") and row.get("old_state") == row.get("new_state")
        add(
            5,
            row.get("at"),
            took_ms=None,
            what="parked" if parked else "breaker",
            profile=row.get("profile"),
            outcome="parked" if parked else f"{row.get('old_state')} → {row.get('new_state')}",
            detail=_cause(row.get("message")) or str(row.get("reason") or ""),
        )
    steps.sort(key=lambda item: item[:2])
    return [*(step for _, _, step in steps), _end(op)]


def _end(op: Row) -> Step:
    answered = op.get("outcome") == "ok"
    tokens = (
        f"{op.get('input_tokens')} → {op.get('output_tokens')} tokens" if op.get("output_tokens") is not None else ""
    )
    return Step(
        after_ms=op.get("latency_ms") or 0.0,
        took_ms=None,
        what="answered" if answered else str(op.get("outcome")),
        profile=op.get("profile"),
        outcome=str(op.get("code") or op.get("outcome")),
        detail=" · ".join(filter(None, [op.get("model") if answered else op.get("message"), tokens])),
        cost_usd=op.get("cost_usd"),
    )


def _attempt_outcome(row: Row) -> str:
    word = row.get("reason") if row.get("outcome") != "ok" else None
    return f"{row.get('outcome')}: {word}" if word else str(row.get("outcome"))


def _attempt_detail(row: Row) -> str:
    told = [
        f"#{row.get('seq')}",
        row.get("model"),
        f"status {row['status']}" if row.get("status") and row.get("outcome") != "ok" else None,
        f"retry after {row['retry_after_s']:g} s" if row.get("retry_after_s") is not None else None,
        f"limiter wait {row['limiter_wait_ms']:.0f} ms" if row.get("limiter_wait_ms") else None,
        f"breaker {row['breaker_state']}" if row.get("breaker_state") not in (None, "closed") else None,
        f"first byte {row['first_byte_ms']:.0f} ms" if row.get("first_byte_ms") is not None else None,
        row.get("message"),
    ]
    return " · ".join(str(part) for part in told if part)


def _limit_detail(row: Row) -> str:
    whose = f"{row.get('tier')} {row.get('limit_key') or ''}".strip()
    told = f"{whose}: {row.get('requested') or 0:g} {row.get('resource')}"
    if row.get("remaining") is not None:
        told += f", {row['remaining']:.3g} left"
    if row.get("retry_after_s") is not None:
        told += f", free after {row['retry_after_s']:.3g} s"
    return told


def _cause(message: Any) -> str:
    """A parked profile's row keeps the whole error, so that it can be restored; people read its message."""
    if not message:
        return ""
    try:
        return str(from_wire(msgspec.json.decode(message, type=dict[str, Any])))
    except msgspec.DecodeError:
        return str(message)


def _time(text: Any) -> dt.datetime | None:
    try:
        when = dt.datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return when if when.tzinfo else when.replace(tzinfo=dt.UTC)


def _ms(seconds: Any) -> float | None:
    return None if seconds is None else float(seconds) * 1000
