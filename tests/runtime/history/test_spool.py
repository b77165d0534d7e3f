"""The spool: nothing acknowledged is lost, nothing torn is believed."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tundra_nb.errors import StoreUnavailable
from tundra_nb.runtime.history import spool as spools
from tundra_nb.runtime.history.spool import Identity, Spool, SpoolPlace, SpoolReader
from tundra_nb.types import Attempt, AttemptOpened, Note, Operation, OperationOpened


def note(n: int, body: str = "b") -> Note:
    return Note(note_id=n, at=n, author="a", subject="s", body=body)


def read_all(folder: Path) -> list[int]:
    reader = SpoolReader(folder)
    found: list[int] = []
    while (batch := reader.read(100)).events:
        found += [event.note_id for event in batch.events if isinstance(event, Note)]
    reader.close()
    return found


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    made = Spool(tmp_path / "spool", segment_bytes=500)
    made.open()
    yield made
    made.close()


def test_events_come_back_in_order_across_segments(spool: Spool, tmp_path: Path) -> None:
    for n in range(100):
        spool.append(note(n))
    assert len(spools.segments(tmp_path / "spool")) > 3
    assert read_all(tmp_path / "spool") == list(range(100))


def test_a_reader_starts_again_at_a_saved_place(spool: Spool, tmp_path: Path) -> None:
    for n in range(50):
        spool.append(note(n))
    with contextlib.closing(SpoolReader(tmp_path / "spool")) as first:
        seen = len(first.read(20).events)
    with contextlib.closing(SpoolReader(tmp_path / "spool", first.place)) as again:
        assert again.read(100).events[0] == note(seen)


def test_a_reader_at_the_end_waits_for_more(spool: Spool, tmp_path: Path) -> None:
    with contextlib.closing(SpoolReader(tmp_path / "spool")) as reader:
        assert reader.read(10).events == []
        spool.append(note(1))
        assert len(reader.read(10).events) == 1
        assert reader.place == spool.end
        assert reader.read(10).events == []


@pytest.mark.parametrize("extra", [1, 7, 300, 1 << 21, -5])
def test_what_somebody_else_does_to_the_newest_segment_holds_up_no_later_event(tmp_path: Path, extra: int) -> None:
    """Bytes are added to it, or some are cut off."""
    spool = Spool(tmp_path / "spool")
    spool.open()
    with contextlib.closing(spool), contextlib.closing(SpoolReader(tmp_path / "spool")) as reader:
        spool.append(note(1))
        assert reader.read(10).events == [note(1)]
        (segment,) = (tmp_path / "spool").glob("*.spool")
        size = segment.stat().st_size
        if extra > 0:
            with segment.open("ab") as file:
                file.write(random.Random(extra).randbytes(extra))
        else:
            os.truncate(segment, size + extra)
        assert reader.read(10).events == []
        spool.append(note(2))
        spool.append(note(3))
        assert reader.read(10).events == [note(2), note(3)]
        assert reader.place == spool.end
        assert reader.damaged_bytes == max(0, extra)


def test_a_later_life_begins_a_new_segment_behind_a_torn_tail(spool: Spool, tmp_path: Path) -> None:
    spool.append(note(1))
    spool.close()
    (segment,) = (tmp_path / "spool").glob("*.spool")
    with segment.open("ab") as file:
        file.write(b"\x20\x00\x00\x00half a frame")
    again = Spool(tmp_path / "spool")
    again.open()
    again.append(note(2))
    again.close()
    assert read_all(tmp_path / "spool") == [1, 2]


@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_damage_anywhere_costs_only_the_frames_it_touches(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("spool")
    made = Spool(folder)
    made.open()
    ends = []
    for n in range(20):
        made.append(note(n, "x" * (n % 7)))
        ends.append(made.end.offset)
    made.close()
    (segment,) = folder.glob("*.spool")
    content = bytearray(segment.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    size = data.draw(st.integers(1, 40))
    for index in range(at, min(at + size, len(content))):
        content[index] ^= 0xFF
    segment.write_bytes(content)
    later = Spool(folder)
    later.open()
    later.append(note(99))
    later.close()
    starts = [0, *ends]
    whole = [n for n in range(20) if ends[n] <= at or starts[n] >= at + size]
    assert read_all(folder) == [*whole, 99]


@given(cut=st.integers(0, 400))
@settings(max_examples=30, deadline=None)
def test_a_cut_at_any_byte_keeps_every_whole_frame(cut: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("spool")
    made = Spool(folder)
    made.open()
    ends = []
    for n in range(10):
        made.append(note(n))
        ends.append(made.end.offset)
    made.close()
    (segment,) = folder.glob("*.spool")
    os.truncate(segment, min(cut, ends[-1]))
    again = Spool(folder)
    again.open()
    again.close()
    assert read_all(folder) == [n for n in range(10) if ends[n] <= cut]


def test_what_was_begun_and_not_ended_is_found_at_open(tmp_path: Path) -> None:
    first = Spool(tmp_path)
    first.open()
    first.append(
        OperationOpened(operation_id=1, at=1), AttemptOpened(attempt_id=2, operation_id=1, seq=1, at=1, profile="p")
    )
    first.append(OperationOpened(operation_id=3, at=1), Operation(operation_id=3, at=1, outcome="ok"))
    first.append(AttemptOpened(attempt_id=4, operation_id=1, seq=2, at=1, profile="p"))
    first.append(Attempt(attempt_id=2, operation_id=1, seq=1, at=1, profile="p", outcome="error"))
    first.close()
    second = Spool(tmp_path)
    second.open()
    assert second.unfinished() == [
        OperationOpened(operation_id=1, at=1),
        AttemptOpened(attempt_id=4, operation_id=1, seq=2, at=1, profile="p"),
    ]
    assert second.attempts_of(1) == 2
    assert second.attempts_of(3) == 0
    second.close()


def test_attempts_that_ended_count_for_an_unfinished_operation(tmp_path: Path) -> None:
    first = Spool(tmp_path)
    first.open()
    first.append(OperationOpened(operation_id=1, at=1))
    first.append(AttemptOpened(attempt_id=2, operation_id=1, seq=1, at=1, profile="p"))
    first.append(Attempt(attempt_id=2, operation_id=1, seq=1, at=1, profile="p", outcome="error"))
    first.close()
    second = Spool(tmp_path)
    second.open()
    assert second.unfinished() == [OperationOpened(operation_id=1, at=1)]
    assert second.attempts_of(1) == 1
    second.close()


def test_passed_segments_are_dropped_up_to_the_first_open_operation(spool: Spool, tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    for n in range(30):
        spool.append(note(n))
    spool.append(OperationOpened(operation_id=7, at=1))
    holding = spool.end.segment
    for n in range(30, 60):
        spool.append(note(n))
    assert spool.drop_passed(SpoolPlace(2, 0)) == 1
    spool.drop_passed(spool.end)
    assert spools.segments(folder)[0] == holding
    spool.append(Operation(operation_id=7, at=1, outcome="ok"))
    spool.drop_passed(spool.end)
    assert spools.segments(folder) == [spool.end.segment]


def test_a_full_disk_is_a_typed_error_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    code = f"""
import resource, signal, sys
from pathlib import Path
from tundra_nb.errors import StoreUnavailable
from tundra_nb.runtime.history.spool import Spool
from tundra_nb.types import Note
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
spool = Spool(Path({str(tmp_path)!r}))
spool.open()
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
kept = 0
try:
    while True:
        spool.append(Note(note_id=kept, at=1, author="a", subject="s", body="x" * 50))
        kept += 1
except StoreUnavailable as exc:
    print(kept, exc.kind)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
spool.append(Note(note_id=kept, at=1, author="a", subject="s", body="after"))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    kept, kind = done.stdout.split()
    assert kind == "disk_full"
    assert read_all(tmp_path) == list(range(int(kept) + 1))


def test_a_folder_that_cannot_be_made_is_a_typed_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnavailable, match="cannot write"):
        Spool(tmp_path / "file" / "spool").open()


def test_appending_to_a_closed_spool_is_a_typed_error(spool: Spool) -> None:
    spool.close()
    spool.close()
    with pytest.raises(StoreUnavailable, match="closed"):
        spool.append(note(1))


def test_threads_may_append_at_once(spool: Spool, tmp_path: Path) -> None:
    def append(base: int) -> None:
        for n in range(200):
            spool.append(note(base + n))

    threads = [threading.Thread(target=append, args=(base,)) for base in (0, 1000, 2000, 3000)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(read_all(tmp_path / "spool")) == sorted(
        base + n for base in (0, 1000, 2000, 3000) for n in range(200)
    )


def test_a_writer_killed_at_any_moment_loses_nothing_it_acknowledged(tmp_path: Path) -> None:
    code = f"""
import contextlib
import os
import random
from pathlib import Path
from tundra_nb.runtime.history.spool import Spool
from tundra_nb.types import Note
spool = Spool(Path({str(tmp_path)!r}), segment_bytes=20_000)
spool.open()
n = 0
while True:
    spool.append(Note(note_id=n, at=1, author="a", subject="s", body="x" * (n % 100)))
    os.write(1, b"%d\\n" % n)
    n += 1
"""
    acknowledged = 0
    for round_number in range(1, 4):
        writer = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        assert writer.stdout is not None
        for _ in range(100 * round_number):
            line = writer.stdout.readline()
        writer.send_signal(signal.SIGKILL)
        rest = writer.stdout.read().splitlines()
        writer.wait()
        writer.stdout.close()
        last = int(rest[-1]) if rest and rest[-1].isdigit() else int(line)
        acknowledged += last + 1
        found = read_all(tmp_path)
        assert acknowledged <= len(found) <= acknowledged + round_number
        acknowledged = len(found)


def test_the_identity_is_kept(tmp_path: Path) -> None:
    first = spools.identity(tmp_path)
    assert spools.identity(tmp_path) == first
    spools.save_identity(tmp_path, Identity(first.owner, 5))
    assert spools.identity(tmp_path).node == 5
