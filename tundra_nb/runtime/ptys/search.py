"""Search over transcripts, in a process of its own: a bad pattern can keep `re` busy for ever, the GIL in its hands.

    python -P -m tundra_nb.runtime.ptys.search FOLDER LIMIT      pattern on standard input, one JSON line per hit

`found` is the daemon's side: it starts that process and ends it at its deadline.
"""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from tundra_nb.errors import UsageError

from . import transcript

DEADLINE_SECONDS = 10.0
LINE_CHARACTERS = 2000
"""Longest line of a hit that is shown: progress bars and floods have lines without end."""
READ_LIMIT_BYTES = 1 << 20


class SearchHits(NamedTuple):
    """Hits, newest session first."""

    rows: list[dict[str, Any]]
    """`pty_id`, `at` (microseconds), `command`, `offset` (bytes), `line`."""
    is_cut: bool
    """There may be more: the limit or the deadline was reached."""


def _no_pattern(pattern: str, why: str) -> UsageError:
    return UsageError(
        problem=f"{pattern!r} is not a regular expression: {why}",
        field="pattern",
        remedy="Escape what is meant literally with `re.escape`.",
    )


async def found(folder: Path, pattern: str, limit: int, deadline: float = DEADLINE_SECONDS) -> SearchHits:
    """Lines of all transcripts in a folder that match.

    Args:
        folder: of the transcripts.
        pattern: a regular expression.
        limit: at most so many hits.
        deadline: seconds; what was found by then is returned.

    Raises:
        UsageError: `pattern` is no regular expression.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-P", "-m", __name__, str(folder), str(limit)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=READ_LIMIT_BYTES,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    rows: list[dict[str, Any]] = []
    is_late = False
    try:
        async with asyncio.timeout(deadline):
            process.stdin.write(pattern.encode())
            process.stdin.close()
            async for line in process.stdout:
                row = msgspec.json.decode(line)
                if "error" in row:
                    raise _no_pattern(pattern, row["error"])
                rows.append(row)
    except TimeoutError:
        is_late = True
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
    return SearchHits(rows, is_cut=is_late or len(rows) >= limit)


def main(folder: Path, limit: int) -> None:
    """Print the hits, or what is wrong with the pattern. Even compiling one may take for ever, so it is done here."""
    try:
        pattern = re.compile(sys.stdin.read().encode())
    except (re.error, RecursionError, OverflowError) as exc:
        sys.stdout.buffer.write(msgspec.json.encode({"error": str(exc)}) + b"\n")
        return
    heads: dict[str, transcript.TranscriptHead | None] = {}
    for hit in transcript.search(folder, pattern, limit):
        if hit.pty_id not in heads:
            heads[hit.pty_id] = _head(folder, hit.pty_id)
        head = heads[hit.pty_id]
        row = {
            "pty_id": hit.pty_id,
            "at": head.at_us if head else None,
            "command": head.command if head else None,
            "offset": hit.offset,
            "line": hit.line[:LINE_CHARACTERS],
        }
        sys.stdout.buffer.write(msgspec.json.encode(row) + b"\n")
        sys.stdout.buffer.flush()


def _head(folder: Path, pty_id: str) -> transcript.TranscriptHead | None:
    try:
        return transcript.read_index(folder / f"{pty_id}.jsonl")[0]
    except (OSError, msgspec.DecodeError):
        return None


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
