"""Groups calls or attempts: counts, errors, p50/p95 latency, tokens, cost (`calls --by profile,hour`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tundra_nb.errors import UsageError
from tundra_nb.nearest import nearest

if TYPE_CHECKING:
    import pandas as pd

TIMES = {"day": "D", "hour": "h", "minute": "min"}
"""Time groups, and pandas' name for flooring to them."""
COLUMNS = ("profile", "model", "outcome", "code", "kind", "requested_model", "user_name", "caller", "reason", "status")
GROUPS = (*COLUMNS, *TIMES)


def groups(by: str | Sequence[str]) -> tuple[str, ...]:
    """The names to group by.

    Raises:
        UsageError: one is unknown; names the nearest.
    """
    names = tuple(name.strip() for name in (by.split(",") if isinstance(by, str) else by) if name.strip())
    for name in names:
        if name not in GROUPS:
            raise UsageError(
                problem=f"cannot group by {name!r}",
                field="by",
                nearest=nearest(name, GROUPS),
                remedy=f"Known: {', '.join(GROUPS)}.",
            )
    if not names:
        raise UsageError(problem="`by` names nothing to group by", field="by", remedy=f"Known: {', '.join(GROUPS)}.")
    return names


def summarise(frame: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """One row per group that occurs, ordered by the groups; a missing value is a group of its own."""
    import pandas as pd

    for name in by:
        if name not in TIMES and name not in frame.columns:
            known = [known for known in GROUPS if known in TIMES or known in frame.columns]
            raise UsageError(
                problem=f"these rows have no {name!r}",
                field="by",
                nearest=nearest(name, known),
                remedy=f"Known: {', '.join(known)}.",
            )
    names = list(by)
    marked = frame.assign(
        **{name: frame["at"].dt.floor(TIMES[name]) for name in names if name in TIMES},
        _failed=(frame["outcome"] != "ok").astype("int64"),
    )
    grouped = marked.groupby(names, observed=True, dropna=False, sort=True)
    latency = grouped["latency_ms"]
    result = pd.DataFrame(
        {
            "count": grouped.size().astype("int64"),
            "errors": grouped["_failed"].sum().astype("int64"),
            "p50_ms": latency.quantile(0.5).astype("float64"),
            "p95_ms": latency.quantile(0.95).astype("float64"),
            "input_tokens": grouped["input_tokens"].sum().astype("int64"),
            "output_tokens": grouped["output_tokens"].sum().astype("int64"),
            "cost_usd": grouped["cost_usd"].sum().astype("float64"),
        }
    ).reset_index()
    result.insert(len(names) + 2, "error_rate", result["errors"] / result["count"])
    result.attrs.update(frame.attrs)
    return result
