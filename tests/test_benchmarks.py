"""What `make bench ARGS=--check` goes by."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from tests.benchmarks.table import ROWS, Row, Table, read_rows, worse


def row(ratio: float, goal: str) -> Row:
    return Row("calls", "rate", 1.0, ratio, ratio, goal)


@pytest.mark.parametrize(
    ("ratio", "goal", "is_worse"),
    [
        (0.41, "≥ 0.55", False),  # a fifth less than 0.5 is still within what runs differ by
        (0.39, "≥ 0.55", True),
        (0.59, "≤ 0.55", False),
        (0.61, "≤ 0.55", True),
        (9.0, "", False),  # nobody said which way is better
    ],
)
def test_a_ratio_is_worse_beyond_a_fifth_the_wrong_way(ratio: float, goal: str, is_worse: bool) -> None:
    assert bool(worse([row(ratio, goal)], {"calls · rate": 0.5})) is is_worse


def test_a_row_that_nothing_is_kept_of_is_not_worse() -> None:
    assert worse([row(0.1, "≥ 1")], {}) == []


def test_rows_of_all_tables_are_read_back_with_their_verdicts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ROWS, str(tmp_path / "rows"))
    table = Table("calls")
    table.add("rate", 1.0, 2.0, 2.0, "≥ 1")
    table.add("p50", 1.0, 2.0, 2.0, "≤ 1")
    assert [(each.name, each.verdict) for each in read_rows(tmp_path / "rows")] == [
        ("calls · rate", "met"), ("calls · p50", "MISSED"),
    ]  # fmt: skip
    assert "MISSED" in str(table)


def test_kept_ratios_are_of_rows_that_the_benchmarks_have() -> None:
    kept = Path(__file__).parent / "benchmarks" / "ratios.json"
    assert all(" · " in name for name in msgspec.json.decode(kept.read_bytes(), type=dict[str, float]))
