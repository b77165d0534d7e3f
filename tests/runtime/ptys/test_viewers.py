"""Viewers are cursors: they may come, go, lag and come back."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import pytest

from tundra_nb.runtime.ptys.output import TAIL_BYTES
from tundra_nb.runtime.ptys.pool import PtyPool
from tundra_nb.runtime.ptys.pty import Pty

# Every line differs, so that no shifted piece can pass for the right one.
FLOOD = "seq -f 'line %.0f of the flood, with some more words to make it longer' 1 60000"


async def wander(pty: Pty, dice: random.Random) -> bytes:
    """Read with detaching at random places and resuming at the offset reached."""
    data = bytearray()
    while True:
        viewer = pty.viewer(len(data))
        for _ in range(dice.randint(1, 8)):
            chunk = await viewer.read(dice.choice([100, 4096, 65536]))
            if chunk is None:
                return bytes(data)
            assert chunk.missed == 0
            assert chunk.start == len(data)
            data += chunk.data
        await asyncio.sleep(dice.choice([0, 0, 0.01, 0.1]))


@pytest.mark.anyio
async def test_100_readers_that_detach_and_resume_in_a_flood_get_the_transcript_byte_for_byte(pool: PtyPool) -> None:
    pty = await pool.spawn(FLOOD)
    got = await asyncio.gather(*(wander(pty, random.Random(seed)) for seed in range(100)))
    await pty.released.wait()
    whole = pty.transcript.read_bytes()
    assert len(whole) == pty.end > 3_000_000
    assert whole.count(b"\n") == 60_000
    assert all(data == whole for data in got)


@pytest.mark.anyio
async def test_a_live_viewer_that_lags_is_told_exactly_what_it_missed(pool: PtyPool) -> None:
    pty = await pool.spawn(FLOOD + "; sleep 1000")
    viewer = pty.viewer(is_live=True)
    first = await viewer.read(1000)
    assert first is not None
    while pty.end < 3_000_000:  # noqa: ASYNC110 - the condition is a byte count
        await asyncio.sleep(0.005)
    second = await viewer.read()
    assert second is not None
    assert second.missed == second.start - first.next
    assert second.start >= pty.end - TAIL_BYTES - 65536


@pytest.mark.anyio
async def test_a_character_cut_by_a_chunk_comes_whole_and_is_not_counted_before(pool: PtyPool) -> None:
    pty = await pool.spawn("stty -echo; printf '\\303'; read -r go; printf '\\244\\377!'")
    viewer = pty.viewer()
    first = await viewer.read_text()
    assert first is not None
    texts = [first]
    await pty.write(b"\n")
    while (got := await viewer.read_text()) is not None:
        texts.append(got)
    assert "".join(text for text, _, _ in texts) == "ä\ufffd!"
    assert texts[0][:2] == ("", 0)
    assert texts[-1][1] == 4


@pytest.mark.anyio
async def test_output_of_an_ended_session_is_still_there(pool: PtyPool) -> None:
    pty = await pool.spawn("echo kept")
    await pty.released.wait()
    assert pool.find(pty.id).read(0).data == b"kept\r\n"
    assert pty.read(2, 3).data == b"pt\r"
    assert pty.read(99).data == b""


@pytest.mark.anyio
async def test_a_viewer_of_a_deleted_transcript_is_told_that_all_is_missing(pool: PtyPool) -> None:
    pty = await pool.spawn("echo gone")
    await pty.released.wait()
    pty.transcript.unlink()
    assert pty.read(0).missed == pty.end


@pytest.mark.anyio
async def test_a_flood_does_not_delay_the_echo_of_another_session(make_pool: Callable[..., PtyPool]) -> None:
    async with make_pool(capacity=12) as pool:
        floods = [await pool.spawn("cat /dev/zero") for _ in range(6)]
        pty = await pool.spawn("stty -echo -icanon; echo up; cat")
        viewer = pty.viewer()
        await viewer.read()
        for _ in range(50):
            await pty.write(b"x")
            assert (await asyncio.wait_for(viewer.read(), 1)) is not None
        shares = [flood.end for flood in floods]
        assert min(shares) > 0
        assert max(shares) < 20 * min(shares)
