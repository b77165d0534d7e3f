"""How an id is put together: milliseconds << 22 | node << 12 | sequence. Apart, for programs that make none."""

from __future__ import annotations

NODE_BITS = 10
SEQUENCE_BITS = 12
MAX_NODE = (1 << NODE_BITS) - 1


def id_floor(at_us: int) -> int:
    """The smallest id that can belong to a time (microseconds): turns a time window into a key range."""
    return (at_us // 1000) << (NODE_BITS + SEQUENCE_BITS)
