"""A reply: its text, and who answered at what cost."""

from __future__ import annotations

from collections.abc import Sequence

from tundra_nb.types import Reply

from .blocks import Block, Code, Para, Prose, Styled, duration, money


def blocks(reply: Reply) -> Sequence[Block]:
    """The text as Markdown, and the line on who answered."""
    made: list[Block] = [Prose(reply.text)] if reply.text else []
    made += [Code(f"{call.name}({call.arguments})") for call in reply.tool_calls]
    return [*made, Para(Styled(summary(reply), "dim"))]


def summary(reply: Reply) -> str:
    """One line: who answered, attempts, usage, cost, time."""
    told = [f"{reply.profile} · {reply.model}"]
    if reply.failed_over_from:
        told.append(f"after {', '.join(reply.failed_over_from)}")
    told.append(f"{reply.attempts} attempt{'s' if reply.attempts != 1 else ''}")
    usage = reply.usage
    if usage.input_tokens is not None or usage.output_tokens is not None:
        told.append(f"{usage.input_tokens or 0:,} → {usage.output_tokens or 0:,} tokens")
    if reply.cost_usd is not None:
        told.append(money(reply.cost_usd))
    if reply.latency_ms:
        told.append(duration(reply.latency_ms / 1000))
    if reply.waited_ms:
        told.append(f"waited {duration(reply.waited_ms / 1000)}")
    if reply.stop_reason in ("length", "max_tokens"):
        told.append("cut at max_tokens")
    told += reply.remarks
    return " · ".join(told)
