"""How an id is put together: milliseconds << 22 | node << 12 | sequence. Apart, for programs that make none."""

from __future__ import annotations

NODE_BITS = 10
SEQUENCE_BITS = 12
MAX_NODE = (1 << NODE_BITS) - 1
MAX_ID = (1 << 63) - 1
"""What both engines hold; its milliseconds are those of September 2039."""
LAST_MS = (MAX_ID >> (NODE_BITS + SEQUENCE_BITS)) - (1 << 34)
"""The latest time that is told by an id. Ids of later times count on from here: 200 days are left for them, at 4,096 a
millisecond."""


def id_floor(at_us: int) -> int:
    """The smallest id that can belong to a time (microseconds): turns a time window into a key range."""
    return min(at_us // 1000, LAST_MS) << (NODE_BITS + SEQUENCE_BITS)
