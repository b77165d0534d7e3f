"""A table of ratios with goals beside them; and what a run's ratios are compared by."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

ROWS = "TUNDRA_BENCH_ROWS"
"""Names the file that every row is also written to, a JSON document a line, for whoever puts runs together."""
SLACK = 0.2
"""A ratio may be so much worse than the one that is kept."""


class Row(msgspec.Struct, frozen=True):
    """One ratio and its goal: `≤ 0.5`, `≥ 12`, or "" for a figure that has none."""

    table: str
    what: str
    peer: float
    ours: float
    ratio: float
    goal: str = ""

    @property
    def name(self) -> str:
        return f"{self.table} · {self.what.strip()}"

    @property
    def is_less_better(self) -> bool:
        return self.goal.startswith("≤")

    @property
    def verdict(self) -> str:
        """`met`, `MISSED`, or "" without a goal."""
        if not self.goal:
            return ""
        number = float(self.goal.split()[1])
        return "met" if (self.ratio <= number if self.is_less_better else self.ratio >= number) else "MISSED"

    def __str__(self) -> str:
        return f"{self.what:44} {self.peer:12.6g} {self.ours:12.6g} {self.ratio:9.3g}  {self.goal} {self.verdict}"


class Table:
    """Rows of: what, peer's figure, ours, ratio, goal, whether the goal is met."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.rows: list[Row] = []

    def add(self, what: str, peer: float, ours: float, ratio: float, goal: str = "") -> None:
        row = Row(self.title, what, peer, ours, ratio, goal)
        self.rows.append(row)
        if file := os.environ.get(ROWS):
            with Path(file).open("ab") as stream:
                stream.write(msgspec.json.encode(row) + b"\n")

    def __str__(self) -> str:
        head = f"{'':44} {'peer':>12} {'ours':>12} {'ratio':>9}  goal"
        return "\n".join([self.title, head, *map(str, self.rows)])


def read_rows(file: Path) -> list[Row]:
    """What a run has written; of rows of one name the last."""
    rows = [msgspec.json.decode(line, type=Row) for line in file.read_bytes().splitlines()]
    return list({row.name: row for row in rows}.values())


def worse(rows: list[Row], kept: dict[str, float]) -> list[str]:
    """What is worse by more than `SLACK` than what is kept, in words. Rows without a goal know no worse."""
    found = []
    for row in rows:
        before = kept.get(row.name)
        if before is None or not row.goal:
            continue
        limit = before * (1 + SLACK) if row.is_less_better else before * (1 - SLACK)
        if row.ratio > limit if row.is_less_better else row.ratio < limit:
            found.append(f"{row.name}: {row.ratio:.3g}, was {before:.3g} (goal {row.goal})")
    return found
