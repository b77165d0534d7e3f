"""Transcripts survive full disks and torn ends, and can be searched."""

from __future__ import annotations

import re
from pathlib import Path

from tundra_nb.runtime.ptys import transcript
from tundra_nb.runtime.ptys.spawn import Size
from tundra_nb.runtime.ptys.transcript import TranscriptHead, TranscriptWriter


def head(name: str = "a") -> TranscriptHead:
    return TranscriptHead(name, "echo", "/tmp", 80, 24, 1_700_000_000_000_000)


def test_bytes_and_marks_are_read_back(tmp_path: Path) -> None:
    written = TranscriptWriter(tmp_path, head())
    written.mark(0.5, 3)
    written.mark(0.505, 5)  # closer than the index is fine: the mark moves
    written.mark_size(1.0, Size(100, 30))
    written.append([memoryview(b"abc"), memoryview(b"de")])
    assert written.read(1, 3) == b"bcd"
    written.close()
    assert transcript.read_file(written.path, 3, 100) == b"de"
    assert transcript.read_index(written.index_path) == (
        head(),
        [{"t": 0.5, "end": 5}, {"t": 1.0, "columns": 100, "rows": 30}],
    )


def test_a_torn_last_line_of_the_index_is_left_out(tmp_path: Path) -> None:
    written = TranscriptWriter(tmp_path, head())
    written.mark(0.5, 3)
    written.append([memoryview(b"abc")])
    written.close()
    with written.index_path.open("ab") as file:
        file.write(b'{"t": 0.7, "en')
    assert transcript.read_index(written.index_path)[1] == [{"t": 0.5, "end": 3}]


def test_a_transcript_ends_at_its_limit_and_says_so(tmp_path: Path) -> None:
    written = TranscriptWriter(tmp_path, head(), max_bytes=10)
    for _ in range(5):
        written.mark(0.1, 1)
        written.append([memoryview(b"123456")])
    written.close()
    assert written.path.stat().st_size == 12
    assert "10 bytes" in written.problem


def test_a_full_disk_ends_the_transcript_only(tmp_path: Path) -> None:
    written = TranscriptWriter(tmp_path, head())
    with open("/dev/full", "wb", buffering=0) as full:
        kept, written._file = written._file, full.fileno()
        written.append([memoryview(b"x")])
        written._file = kept
    written.append([memoryview(b"y")])
    written.close()
    assert "No space left" in written.problem


def test_search_finds_lines_with_their_offsets_newest_first(tmp_path: Path) -> None:
    for number, name in enumerate("ab"):
        written = TranscriptWriter(tmp_path, head(name))
        written.append([memoryview(b"one\r\nerror: %d\r\nlast error" % number)])
        written.close()
        import os

        os.utime(written.path, (number, number))
    hits = list(transcript.search(tmp_path, re.compile(rb"error")))
    assert [(hit.pty_id, hit.offset, hit.line) for hit in hits] == [
        ("b", 5, "error: 1"),
        ("b", 15, "last error"),
        ("a", 5, "error: 0"),
        ("a", 15, "last error"),
    ]
    assert len(list(transcript.search(tmp_path, re.compile(rb"error"), limit=1))) == 1
