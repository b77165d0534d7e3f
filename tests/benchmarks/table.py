"""A table of ratios with goals beside them."""

from __future__ import annotations


class Table:
    """Rows of: what, peer's figure, ours, ratio, goal, whether the goal is met."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.rows: list[tuple[str, float, float, float, str]] = []

    def add(self, what: str, peer: float, ours: float, ratio: float, goal: str = "") -> None:
        self.rows.append((what, peer, ours, ratio, goal))

    def __str__(self) -> str:
        lines = [self.title, f"{'':44} {'peer':>12} {'ours':>12} {'ratio':>9}  goal"]
        for what, peer, ours, ratio, goal in self.rows:
            lines.append(f"{what:44} {peer:12.6g} {ours:12.6g} {ratio:9.3g}  {goal} {_verdict(ratio, goal)}")
        return "\n".join(lines)


def _verdict(ratio: float, goal: str) -> str:
    if not goal:
        return ""
    sign, number = goal.split()
    met = ratio <= float(number) if sign == "≤" else ratio >= float(number)
    return "met" if met else "MISSED"
