"""Output of one session: from the terminal through the mask into ring and transcript, and out to any number of viewers.

A viewer is a cursor into the byte stream, not a queue: waiting for it holds nothing back and costs no memory. What the
ring has let go of comes from the transcript.
"""

from __future__ import annotations

import asyncio
import codecs
import os
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

from .mask import Masker
from .ring import Ring
from .spawn import Size
from .transcript import TranscriptWriter, read_file

DRAIN_READS = 64
"""After the leader's exit: the kernel holds four reads' worth, and a surviving child may go on for ever."""
SHORT_READ_BYTES = 512
"""A short read has most likely emptied the kernel's buffer: no second call to be told so."""
TAIL_BYTES = 1 << 18
"""Where a live viewer goes on after a gap: so far before the end."""
CHUNK_BYTES = 1 << 16
LONGEST_CHARACTER = 3
"""Bytes of a UTF-8 character after its first."""
_CONTINUATION = bytes(range(0x80, 0xC0))


class Chunk(NamedTuple):
    """Bytes `start … next` of the stream; `missed` bytes before them are lost to this reader."""

    data: bytes
    start: int
    next: int
    missed: int


class PtyOutput:
    """Fed by the reader (`fill`), flushed by the pool's tick.

    Args:
        master: the terminal.
        masker: known secrets.
        transcript: where all of it goes.
        on_dirty: told when something waits for `tick`.
    """

    def __init__(self, master: int, masker: Masker, transcript: TranscriptWriter, on_dirty: Callable[[], None]) -> None:
        self._master = master
        self._masker = masker
        self._transcript = transcript
        self._on_dirty = on_dirty
        self._ring: Ring | None = Ring()
        self._end = 0
        self._has_exited = False
        self._waiting: set[asyncio.Future[None]] = set()
        self._fills = 0
        self._fills_at_tick = 0
        self._began = time.monotonic()
        self.touched = self._began
        """When the last byte came, monotonic seconds."""

    @property
    def end(self) -> int:
        """Offset after the newest byte that may be shown."""
        return self._end

    @property
    def start(self) -> int:
        """Offset of the oldest byte in memory."""
        return self._ring.start if self._ring is not None else self._end

    @property
    def is_finished(self) -> bool:
        """Nothing more will come."""
        return self._ring is None

    @property
    def problem(self) -> str:
        """Why the transcript is not whole, empty when it is."""
        return self._transcript.problem

    def mask(self, secrets: Mapping[str, str]) -> None:
        """Replace the set of known secrets; what a chunk border holds back is settled under the old one."""
        self._show(self._masker.finish())
        self._masker = Masker(secrets)

    def mask_text(self, text: str) -> str:
        return self._masker.text(text)

    def fill(self, reads: int) -> int:
        """Read at most `reads` times without blocking; return the bytes, -1 at the end of file."""
        if self._ring is None:
            return -1
        total = 0
        for _ in range(reads):
            space = self._ring.space()
            try:
                count = os.readv(self._master, [space])
            except BlockingIOError:
                break
            except OSError:  # EIO: no process has the terminal open
                count = 0
            if count == 0:
                total = total or -1
                break
            total += count
            self._take(space, count)
            if count < SHORT_READ_BYTES:
                break
        if total > 0:
            self._fills += 1
            self.touched = time.monotonic()
            self._transcript.mark(self.touched - self._began, self._end)
            self._wake()
            self._on_dirty()
        return total

    def tick(self) -> bool:
        """Write to disk, and decide about a chunk that ended in half a secret. True when it wants another tick."""
        if self._ring is None:
            return False
        if self._masker.is_holding and self._fills == self._fills_at_tick:
            self._show(self._masker.idle())
        self._fills_at_tick = self._fills
        self.flush()
        return self._masker.is_holding

    def flush(self) -> None:
        """Bring the transcript up to `end`."""
        if self._ring is not None:
            self._transcript.append(self._ring.unflushed())

    def mark_size(self, size: Size) -> None:
        self._transcript.mark_size(time.monotonic() - self._began, size)
        self._on_dirty()

    def mark_exited(self) -> None:
        """The leader is dead: take what the kernel still holds. What else may come is from processes that outlive
        it.
        """
        for _ in range(DRAIN_READS):
            if self.fill(1) <= 0:
                break
        self._show(self._masker.idle())  # who waits for the exit does not wait for what may come after it
        self._has_exited = True
        self._wake()

    def finish(self) -> None:
        """No more output: everything goes to disk and the memory is given back."""
        if self._ring is None:
            return
        self._show(self._masker.finish())
        self.flush()
        self._ring = None
        self._transcript.close()
        self._wake()

    def read(self, since: int, limit: int = CHUNK_BYTES) -> Chunk:
        """What is there from offset `since`, at once; from the transcript when it is older than the ring."""
        since = max(0, min(since, self._end))
        if self._ring is not None and since >= self._ring.start:
            data = self._ring.read(since, limit)
            return Chunk(data, since, since + len(data), 0)
        if since < self._transcript.end:
            if self._ring is None:
                data = read_file(self._transcript.path, since, limit)
            else:
                data = self._transcript.read(since, limit)
            if data:
                return Chunk(data, since, since + len(data), 0)
        if self._ring is None:
            return Chunk(b"", self._end, self._end, self._end - since)
        oldest = self._ring.start
        data = self._ring.read(oldest, limit)
        return Chunk(data, oldest, oldest + len(data), oldest - since)

    async def more(self, since: int, *, to_exit: bool = False) -> bool:
        """Wait until there is something after `since`; False when there never will be (or not before the exit)."""
        while self._end <= since:
            if self._ring is None or (to_exit and self._has_exited):
                return False
            future = asyncio.get_running_loop().create_future()
            self._waiting.add(future)
            try:
                await future
            finally:
                self._waiting.discard(future)
        return True

    def _take(self, space: memoryview, count: int) -> None:
        assert self._ring is not None
        if self._masker:
            data = bytes(space[:count])
            shown = self._masker.feed(data)
            if shown is not data:
                self._show(shown)
                return
        self._ring.commit(count)
        self._end = self._ring.end
        if self._ring.is_block_full:
            self.flush()

    def _show(self, data: bytes) -> None:
        if self._ring is None or not data:
            return
        while data:
            data = data[self._ring.write(data) :]
            if self._ring.is_block_full:
                self.flush()
        self._end = self._ring.end
        self._transcript.mark(time.monotonic() - self._began, self._end)
        self._wake()

    def _wake(self) -> None:
        for future in self._waiting:
            if not future.done():
                future.set_result(None)


class Viewer:
    """A cursor into an output.

    Args:
        output: whose.
        since: first offset wanted.
        is_live: rather skip than lag: when the ring has passed the cursor, go on shortly before the end and say what
            was missed. Otherwise everything comes, from the transcript if need be.
        to_exit: the stream ends when the leader has exited, not only when the whole session is gone.
    """

    def __init__(self, output: PtyOutput, since: int = 0, *, is_live: bool = False, to_exit: bool = False) -> None:
        self._output = output
        self.is_live = is_live
        self._to_exit = to_exit
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self.cursor = since

    async def read(self, limit: int = CHUNK_BYTES) -> Chunk | None:
        """The next chunk as soon as there is one; None at the end of the stream. Cancelling loses nothing."""
        if not await self._output.more(self.cursor, to_exit=self._to_exit):
            return None
        missed = 0
        if self.is_live and self.cursor < self._output.start and not self._output.is_finished:
            resumed = max(self._output.start, self._output.end - TAIL_BYTES)
            missed, self.cursor = resumed - self.cursor, resumed
        chunk = self._output.read(self.cursor, limit)
        self.cursor = chunk.next
        return chunk._replace(missed=chunk.missed + missed)

    async def read_text(self, limit: int = CHUNK_BYTES) -> tuple[str, int, int] | None:
        """Text, offset after it (without bytes of a character that is still incomplete), bytes missed before it."""
        chunk = await self.read(limit)
        if chunk is None:
            rest = self._decoder.decode(b"", final=True)
            self._decoder.reset()
            return (rest, self.cursor, 0) if rest else None
        data, missed = chunk.data, chunk.missed
        if missed:
            missed += len(self._decoder.getstate()[0])
            self._decoder.reset()
            # The gap may end in the middle of a character.
            whole = data.lstrip(_CONTINUATION) if len(data) > LONGEST_CHARACTER else data
            cut = min(len(data) - len(whole), LONGEST_CHARACTER)
            data, missed = data[cut:], missed + cut
        text = self._decoder.decode(data)
        return text, chunk.next - len(self._decoder.getstate()[0]), missed
