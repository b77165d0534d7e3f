"""The ring holds the newest bytes at their offsets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tundra_nb.runtime.ptys.ring import BLOCK_BYTES, Ring

sizes = st.lists(st.integers(1, 90_000), max_size=12)


def fill(ring: Ring, data: bytes) -> bytes:
    """Write all of it; return what a persister that takes full blocks has got."""
    kept = b""
    while data:
        data = data[ring.write(data) :]
        if ring.is_block_full:
            kept += b"".join(map(bytes, ring.unflushed()))
    return kept


@given(sizes, st.integers(1, 4))
def test_what_is_in_reach_is_read_back_and_everything_is_persisted_once(writes: list[int], blocks: int) -> None:
    ring = Ring(blocks * BLOCK_BYTES)
    whole, kept = b"", b""
    for number, size in enumerate(writes):
        data = bytes((number * 31 + offset * 7) % 251 for offset in range(size))
        whole += data
        kept += fill(ring, data)
        assert ring.end == len(whole)
        assert 0 <= ring.start <= ring.end
        assert ring.read(ring.start, 1 << 30) == whole[ring.start :]
        middle = (ring.start + ring.end) // 2
        assert ring.read(middle, 1000) == whole[middle : middle + 1000]
    kept += b"".join(map(bytes, ring.unflushed()))
    assert kept == whole
    assert ring.unflushed() == []


def test_memory_stays_within_the_capacity() -> None:
    ring = Ring(4 * BLOCK_BYTES)
    for _ in range(1000):
        fill(ring, b"x" * 5000)
    assert ring.end - ring.start <= 4 * BLOCK_BYTES
    assert sum(len(block.buffer) for block in ring._blocks) <= 4 * BLOCK_BYTES


def test_an_idle_ring_costs_one_page() -> None:
    assert len(Ring().space()) == 4096


def test_an_offset_out_of_reach_is_an_error() -> None:
    ring = Ring()
    fill(ring, b"abc")
    with pytest.raises(IndexError, match="outside"):
        ring.read(4, 1)
    assert repr(ring) == "<Ring 0 … 3>"


def test_space_filled_in_place_is_read_back() -> None:
    ring = Ring()
    space = ring.space()
    space[:3] = b"abc"
    ring.commit(3)
    assert ring.read(0, 10) == b"abc"
