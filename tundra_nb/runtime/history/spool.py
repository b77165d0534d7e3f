"""The spool: an append-only log of events that survives `kill -9` of whoever writes it.

The daemon appends, the store worker follows. A spool is a folder of numbered segments; a segment is a row of frames:

    length (u32) | CRC-32 of the payload (u32) | payload: msgpack of one `types.Event`

One append is one `write`, made before the caller gets its answer. There is no fsync per event: the promise is against
the death of processes, not of the machine. A writer never appends to a segment of an earlier life, so that a torn tail
can only stand at the end of a segment, where the reader steps over it. The newest segment is never deleted, so that
numbers only grow and a saved place stays comparable.
"""

from __future__ import annotations

import errno
import math
import os
import random
import socket
import struct
import threading
import uuid
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import msgspec

from tundra_nb.errors import StoreUnavailable
from tundra_nb.runtime.id_layout import MAX_ID, MAX_NODE
from tundra_nb.types import (
    KEY_OF,
    REPLACED_TABLES,
    TABLE_OF,
    AgentRun,
    AgentRunOpened,
    Attempt,
    AttemptOpened,
    Column,
    Event,
    Mark,
    NewestId,
    Operation,
    OperationOpened,
    columns,
)

SEGMENT_BYTES = 8 << 20
"""A new segment is begun after so many bytes: small enough to be freed soon, large enough to be rare."""
MAX_FRAME_BYTES = 256 << 20
"""A longer length field is damage, not an event."""
READ_BYTES = 1 << 20
SHORT_TEXT = 255
"""Characters that `types.Text` and `types.Category` hold; a payload of fewer bytes needs no check."""

WRITER_CHARACTERS = 12

_HEADER = struct.Struct("<II")
_SUFFIX = ".spool"
_IDENTITY = "owner.json"
# the first bytes of a float64 in msgpack that is infinite or not a number: exponent bits all set
_NOT_FINITE = (b"\xcb\x7f\xf0", b"\xcb\xff\xf0", b"\xcb\x7f\xf8", b"\xcb\xff\xf8")

Ended = Operation | Attempt | AgentRun
"""What ends a mark."""
_ID_OF: dict[type[msgspec.Struct], str] = {
    **{row: KEY_OF[table] for row, table in TABLE_OF.items() if table not in REPLACED_TABLES},
    OperationOpened: "operation_id",
    AttemptOpened: "attempt_id",
    AgentRunOpened: "run_id",
}
"""Where each kind of event has its time-ordered id."""
_ROLE: dict[type[msgspec.Struct], tuple[str, bool | None]] = {
    kind: (name, True if kind in get_args(Mark) else False if kind in get_args(Ended) else None)
    for kind, name in _ID_OF.items()
}
"""The same, and whether an event opens a mark (True) or ends one (False)."""


class SpoolPlace(msgspec.Struct, frozen=True, order=True):
    """A position between two frames. Places of one spool are ordered, also across segments."""

    segment: int
    offset: int


START = SpoolPlace(0, 0)


class Identity(msgspec.Struct, frozen=True):
    """Who writes this spool: `owner` names its saved place in a store, `node` keeps its ids apart from others'."""

    owner: str
    node: int
    where: str = ""
    """The folder that it was made for; a copy of the folder is another writer."""
    life: int = 0
    """When the daemon of now began, µs since 1970; each life's is later than that of the one before …"""
    life_before: int = 0
    """… which was this."""

    @property
    def writer_id(self) -> str:
        """What stands in the rows that this daemon writes."""
        return writer_id(self.owner)


class Batch(msgspec.Struct):
    """What `SpoolReader.read` found. `odd`: indexes of events with long text or non-finite numbers, to be looked at."""

    events: list[Event]
    odd: list[int]
    place: SpoolPlace
    """Behind the last of `events`."""


class Spool:
    """The writing side; one per data directory, guarded by the daemon's lock. Any thread may call `append`."""

    def __init__(self, folder: Path, *, segment_bytes: int = SEGMENT_BYTES) -> None:
        self._folder = folder
        self._segment_bytes = segment_bytes
        self._encode = msgspec.msgpack.Encoder().encode
        self._lock = threading.Lock()
        self._fd = -1
        self._segment = 0
        self._offset = 0
        self._broken = False
        self.newest_id = 0
        """The highest time-ordered id that this spool has ever held."""
        self._open_marks: dict[int, int] = {}
        self._unfinished: list[Mark] = []
        self._attempts: dict[int, int] = {}

    def __repr__(self) -> str:
        state = "closed" if self._fd < 0 else f"at {self._segment}:{self._offset}, {len(self._open_marks)} open"
        return f"<Spool {self._folder}: {state}>"

    def open(self) -> None:
        """Read what earlier lives left, then begin a new segment.

        Raises:
            StoreUnavailable: the folder cannot be written.
        """
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            left = segments(self._folder)
            marks: dict[int, tuple[Mark, int]] = {}
            attempts: dict[int, int] = {}
            for number in left:
                reader = SpoolReader(self._folder, SpoolPlace(number, 0), last=number)
                for event in _all(reader):
                    self.newest_id = _newer(self.newest_id, _newest_of(event))
                    if isinstance(event, Mark):
                        marks[_id_of(event)] = (event, number)
                    elif isinstance(event, Ended):
                        marks.pop(_id_of(event), None)
                    if isinstance(event, Attempt | AttemptOpened):
                        attempts[event.operation_id] = max(event.seq, attempts.get(event.operation_id, 0))
                    elif isinstance(event, Operation):
                        attempts.pop(event.operation_id, None)
                self.newest_id = max(self.newest_id, reader.newest_id)
            self._unfinished = [mark for mark, _ in marks.values()]
            self._attempts = {key: count for key, count in attempts.items() if key in marks}
            self._open_marks = {key: number for key, (_, number) in marks.items()}
            self._begin_segment(left[-1] + 1 if left else 1)
        except OSError as exc:
            raise _unwritable(self._folder, exc) from exc

    def close(self) -> None:
        """Close the file; everything appended is already with the kernel. May be called twice."""
        with self._lock:
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1

    @property
    def end(self) -> SpoolPlace:
        """Behind the last appended event."""
        with self._lock:
            return SpoolPlace(self._segment, self._offset)

    def unfinished(self) -> list[Mark]:
        """Operations and attempts that an earlier life began and never ended, as found by `open`."""
        return list(self._unfinished)

    def attempts_of(self, operation_id: int) -> int:
        """How many attempts an unfinished operation had, those that ended included."""
        return self._attempts.get(operation_id, 0)

    def append(self, *events: Event) -> None:
        """Write the events with one system call: all of them are there afterwards, or none.

        Raises:
            StoreUnavailable: the disk is full or the spool is closed; nothing was written.
        """
        parts: list[bytes] = []
        for event in events:
            try:
                payload = self._encode(event)
            except UnicodeEncodeError:
                payload = self._encode(_without_surrogates(event))
            parts += (_HEADER.pack(len(payload), zlib.crc32(payload)), payload)
        data = b"".join(parts)
        with self._lock:
            self._write(data)
            for event in events:
                name, is_open = _ROLE.get(type(event), ("", None))
                if not name:
                    continue
                key = getattr(event, name)
                self.newest_id = _newer(self.newest_id, key)
                if is_open:
                    self._open_marks[key] = self._segment
                elif is_open is False:
                    self._open_marks.pop(key, None)

    def drop_passed(self, place: SpoolPlace) -> int:
        """Delete the leading segments that lie wholly before `place` and hold no open mark; say how many.

        In order and without gaps: were a segment with the end of an operation deleted before the one with its
        beginning, the next start would take it for unfinished.
        """
        with self._lock:
            keep_from = min(self._open_marks.values(), default=self._segment)
            keep_from = min(keep_from, place.segment, self._segment)
        dropped = 0
        for number in segments(self._folder):
            if number >= keep_from:
                break
            os.unlink(self._folder / _name(number))
            dropped += 1
        return dropped

    def _write(self, data: bytes) -> None:
        if self._fd < 0:
            raise StoreUnavailable(problem="the spool is closed", remedy="The daemon is stopping.", kind="closed")
        try:
            seen = os.fstat(self._fd)
            if seen.st_nlink == 0:  # a write would succeed, into a file that nobody can read any more
                raise _deleted(self._folder)
            # another size: somebody else has written to it, and where it goes on is not where a reader expects it
            if self._broken or seen.st_size != self._offset or self._offset >= self._segment_bytes:
                self._begin_segment(self._segment + 1)
            written = os.write(self._fd, data)
            if written != len(data):  # the disk filled up in the middle
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # noqa: TRY301 - one way back for both
        except OSError as exc:
            try:
                os.ftruncate(self._fd, self._offset)
            except OSError:
                self._broken = True
            raise _unwritable(self._folder, exc) from exc
        self._offset += written

    def _begin_segment(self, number: int) -> None:
        fd = os.open(
            self._folder / _name(number), os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o600
        )
        if self._fd >= 0:
            os.close(self._fd)
        self._fd, self._segment, self._offset, self._broken = fd, number, 0, False
        if self.newest_id:  # the newest segment is never deleted, so a later life finds it there
            payload = self._encode(NewestId(newest_id=self.newest_id))
            self._offset = os.write(fd, _HEADER.pack(len(payload), zlib.crc32(payload)) + payload)


class SpoolReader:
    """The following side: reads events from a place on, across segments, over torn tails. For one thread.

    With `last`, reading ends behind that segment, which is taken for finished.
    """

    def __init__(self, folder: Path, place: SpoolPlace = START, *, last: int | None = None) -> None:
        self._folder = folder
        self._last = last
        self._fd = -1
        self._decode = msgspec.msgpack.Decoder(Event).decode
        self.place = place
        self.newest_id = 0
        """The highest id that the heads of the segments read so far tell of."""
        self.damaged_bytes = 0
        """Bytes stepped over because they hold no whole, valid frame."""
        self.unknown_events = 0
        """Valid frames that this version cannot read (written by a newer one)."""

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def read(self, max_events: int) -> Batch:
        """Read what is there, up to `max_events` and about a megabyte; an empty batch means the end for now."""
        events: list[Event] = []
        odd: list[int] = []
        while not events:
            # The order matters: a segment is known to be finished only if a later one existed before it was read.
            later = self._later_segment()
            if self._fd < 0 and not self._open_segment(later):
                break
            data = self._read_some()
            used = self._take_frames(data, events, odd, max_events)
            if not events and later is not None:
                if used < len(data):
                    used = self._resync(data, used)
                if used == 0:
                    if self.place.segment == self._last:
                        break
                    self.close()
                    self.place = SpoolPlace(later, 0)
                    continue
            elif not events and used == 0:
                break
            self.place = SpoolPlace(self.place.segment, self.place.offset + used)
        return Batch(events, odd, self.place)

    def _take_frames(self, data: bytes, events: list[Event], odd: list[int], max_events: int) -> int:
        at, size = 0, len(data)
        suspicious = any(pattern in data for pattern in _NOT_FINITE)
        while at + 8 <= size and len(events) < max_events:
            length, crc = _HEADER.unpack_from(data, at)
            stop = at + 8 + length
            if stop > size:
                break
            payload = data[at + 8 : stop]
            if zlib.crc32(payload) != crc:
                break
            at = stop
            try:
                event = self._decode(payload)
            except msgspec.MsgspecError:
                self.unknown_events += 1
                continue
            if isinstance(event, NewestId):
                self.newest_id = _newer(self.newest_id, event.newest_id)
                continue
            if length > SHORT_TEXT or (suspicious and any(pattern in payload for pattern in _NOT_FINITE)):
                odd.append(len(events))
            events.append(event)
        return at

    def _read_some(self) -> bytes:
        data = os.pread(self._fd, READ_BYTES, self.place.offset)
        if len(data) == READ_BYTES:
            (length, _) = _HEADER.unpack_from(data)
            if READ_BYTES < length + 8 <= MAX_FRAME_BYTES:
                data = _pread_all(self._fd, length + 8, self.place.offset)
        return data

    def _resync(self, data: bytes, start: int) -> int:
        """In a finished segment: skip damage up to the next valid frame, or all of `data`."""
        for at in range(start + 1, len(data) - 8):
            length, crc = _HEADER.unpack_from(data, at)
            stop = at + 8 + length
            if length > 0 and stop <= len(data) and zlib.crc32(data[at + 8 : stop]) == crc:
                self.damaged_bytes += at - start
                return at
        self.damaged_bytes += len(data) - start
        return len(data)

    def _later_segment(self) -> int | None:
        if self._last is not None:
            return self.place.segment + 1
        return next((number for number in segments(self._folder) if number > self.place.segment), None)

    def _open_segment(self, later: int | None) -> bool:
        path = self._folder / _name(self.place.segment)
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            if later is None:
                return False
            self.place = SpoolPlace(later, 0)
            return self._open_segment(None)
        return True


def identity(folder: Path) -> Identity:
    """Who this spool belongs to; made up at the first call and kept in the folder.

    A folder that was copied (`cp`, an image, a template of a home) is another writer: it has another number in its
    file system, and another path or host. One that moved, or whose container was given another name, stays the same.
    """
    known = kept_identity(folder)
    if known is None:
        return new_identity(folder)
    where = _where(folder)
    if known.where == where:
        return known
    old, new = known.where.split(" ", 1), where.split(" ", 1)
    if not known.where or old[0] == new[0] or old[1] == new[1]:
        return save_identity(folder, msgspec.structs.replace(known, where=where))
    return new_identity(folder)


def kept_identity(folder: Path) -> Identity | None:
    """What the folder's file says, be the folder the one that it was made for or a copy."""
    try:
        return msgspec.json.decode((folder / _IDENTITY).read_bytes(), type=Identity)
    except (FileNotFoundError, msgspec.MsgspecError):
        return None


def new_identity(folder: Path) -> Identity:
    """Make up a writer that no history knows.

    The node number is random: a shared database tells its daemons apart by it, and corrects it when two are equal.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        where = _where(folder)
    except OSError as exc:
        raise _unwritable(folder, exc) from exc
    return save_identity(folder, Identity(uuid.uuid4().hex, random.SystemRandom().randint(0, MAX_NODE), where))


def begin_life(folder: Path, known: Identity, now_us: int) -> Identity:
    """Note that another daemon begins to write this spool."""
    life = max(now_us, known.life + 1)
    return save_identity(folder, msgspec.structs.replace(known, life=life, life_before=known.life))


def _where(folder: Path) -> str:
    """The folder's number in its file system; then host and path."""
    return f"{folder.stat().st_ino} {socket.gethostname()}:{folder.resolve()}"


def save_identity(folder: Path, new: Identity) -> Identity:
    """Keep the identity, atomically."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = folder / f"{_IDENTITY}.new"
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as file:
            file.write(msgspec.json.encode(new))
        draft.replace(folder / _IDENTITY)
    except OSError as exc:
        raise _unwritable(folder, exc) from exc
    return new


def writer_id(owner: str) -> str:
    """A daemon's name in the rows it writes: the beginning of its `owner`."""
    return owner[:WRITER_CHARACTERS]


def segments(folder: Path) -> list[int]:
    """Numbers of the segments in a spool's folder, ascending."""
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    return sorted(
        int(name[: -len(_SUFFIX)]) for name in names if name.endswith(_SUFFIX) and name[: -len(_SUFFIX)].isdigit()
    )


def read_segment(folder: Path, number: int) -> Iterator[Event]:
    """All readable events of one finished segment."""
    return _all(SpoolReader(folder, SpoolPlace(number, 0), last=number))


def _all(reader: SpoolReader) -> Iterator[Event]:
    try:
        while (batch := reader.read(10_000)).events:
            yield from batch.events
    finally:
        reader.close()


def repaired(event: Event) -> Event:
    """The same event as both engines can hold it: non-finite numbers become null (or 0), short text is cut."""
    changes: dict[str, object] = {}
    for column in _columns_of(event):
        value = getattr(event, column.name)
        if isinstance(value, float) and not math.isfinite(value):
            changes[column.name] = None if column.nullable else 0.0
        elif column.type in ("text", "category") and value is not None and len(value) > SHORT_TEXT:
            changes[column.name] = value[: SHORT_TEXT - 1] + "…"
    return msgspec.structs.replace(event, **changes) if changes else event


def _newest_of(event: Event) -> int:
    """The time-ordered id that an event has; 0 for rows whose key is something else."""
    name = _ID_OF.get(type(event))
    return getattr(event, name) if name is not None else 0


def _newer(newest: int, key: int) -> int:
    """The higher of the two; an id that no database holds (earlier versions made such after 2039) is none."""
    return key if newest < key <= MAX_ID else newest


def _id_of(event: Mark | Ended) -> int:
    return int(getattr(event, _ID_OF[type(event)]))


def _columns_of(event: Event) -> tuple[Column, ...]:
    table = TABLE_OF.get(type(event))
    return columns(table) if table else ()


def _without_surrogates(event: Event) -> Event:
    """Msgpack is strict UTF-8; terminal output and file names may hold lone surrogates."""
    changes = {
        name: value.encode("utf-8", "replace").decode("utf-8")
        for name, value in msgspec.structs.asdict(event).items()
        if isinstance(value, str)
    }
    return msgspec.structs.replace(event, **changes)


def _name(number: int) -> str:
    return f"{number:010d}{_SUFFIX}"


def _pread_all(fd: int, size: int, offset: int) -> bytes:
    parts: list[bytes] = []
    while size > 0 and (part := os.pread(fd, size, offset)):
        parts.append(part)
        size -= len(part)
        offset += len(part)
    return b"".join(parts)


def _deleted(folder: Path) -> StoreUnavailable:
    return StoreUnavailable(
        problem=f"events cannot be recorded: the files of {folder} were deleted while the daemon ran",
        remedy="`tundra daemon restart` begins anew; `tundra restore` brings a backup of the history back.",
        kind="spool_deleted",
    )


def _unwritable(folder: Path, exc: OSError) -> StoreUnavailable:
    if exc.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return StoreUnavailable(
            problem=f"no space left to record events in {folder}",
            remedy="Free disk space; `tundra clean` shows what can go.",
            kind="disk_full",
        )
    return StoreUnavailable(
        problem=f"cannot write events to {folder}: {exc.strerror or exc}",
        remedy="Check the permissions of the data directory, or choose another with TUNDRA_DATA_DIR.",
        kind="spool_unwritable",
    )
