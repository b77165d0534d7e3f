"""One file or folder into one source."""

from __future__ import annotations

import bz2
import datetime as dt
import gzip
import hashlib
import lzma
import os
import re
import shutil
import stat
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import msgspec

from tundra_nb.errors import UsageError
from tundra_nb.protocol.sources import NAME, Importing, Source
from tundra_nb.runtime.history.contract import Stop
from tundra_nb.runtime.telemetry.redact import Redactor

from .forms import packed
from .forms.lines import LineReader
from .place import RECORD, UNFINISHED, SourcesFolder
from .taking import Taker

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

START_BYTES = 512
XZ_MEMORY_BYTES = 128 << 20
"""What unpacking may take; xz itself needs 65 MiB for what its highest level packed."""
HASH_BYTES = 4 << 20
COPY_BYTES = 1 << 20
GUNZIPPED_BYTES = 8 << 30
RATIO = 100
RATIO_FROM_BYTES = 64 << 20
"""Logs pack 10 to 50 to one; what packs better than `RATIO` and is longer than this is made to fill a disk."""

OnProgress = Callable[[Importing], None]


def import_(
    place: SourcesFolder,
    path: str,
    *,
    name: str | None,
    about: Mapping[str, Any],
    link: bool,
    origin: str | None = None,
    redactor: Redactor,
    on_progress: OnProgress,
    stop: Stop,
) -> Source:
    """Make a source of a file or folder; the one that is there already when it was imported before.

    Args:
        place: where sources are.
        path: the file or folder.
        name: how it is called; after the file when left out.
        about: kept in its record.
        link: a folder of Parquet tables that is read where it is.
        origin: the file that `path` was unpacked from, told in its place.
        redactor: masks what is taken over.
        on_progress: told how far it is.
        stop: ends it; nothing is left behind then.

    Raises:
        UsageError: no such file, a name that is taken, or nothing in it is understood.
    """
    began = time.monotonic()
    try:
        file = Path(path).expanduser()
    except RuntimeError as exc:
        raise UsageError(problem=f"{path!r} is no path: {exc}", field="path") from exc  # the home of nobody
    _check(file, name, link)
    _check_apart(file, place)
    size, sha256 = _identity(file, on_progress, stop)
    for known in place.all():
        if known.sha256 == sha256:
            if name not in (None, known.name):
                raise UsageError(
                    problem=f"this file is imported already, as source {known.name!r}",
                    field="name",
                    remedy=f"Look at it with `--in {known.name}`; for another name, `%tundra sources remove"
                    f" {known.name}` first.",
                )
            return msgspec.structs.replace(known, again=True)
    chosen = _name(place, name, file)
    place.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=place.folder))
    taker = Taker(made, redactor, on_progress, stop, size)
    try:
        parts = packed.linked(file.resolve(), taker) if link else _read(file, taker)
        source = Source(
            name=chosen,
            kind=max(taker.by_kind, key=lambda kind: taker.by_kind[kind]),
            file=redactor.text(origin) if origin else str(file.resolve()),
            sha256=sha256,
            size_bytes=size,
            at=dt.datetime.now(dt.UTC).isoformat(timespec="microseconds"),
            since=_iso(taker.since_us),
            until=_iso(taker.until_us),
            rows=dict(sorted(taker.rows.items())),
            lines=taker.lines,
            left=taker.left,
            sample=taker.sample,
            about=redactor.data(dict(about)),
            parts=parts,
            seconds=round(time.monotonic() - began, 3),
        )
        (made / RECORD).write_bytes(msgspec.json.format(msgspec.json.encode(source), indent=2))
        os.rename(made, place.folder / chosen)
    except BaseException:
        taker.abandon()
        shutil.rmtree(made, ignore_errors=True)
        raise
    return source


def _read(file: Path, taker: Taker) -> dict[str, list[str]]:
    if file.is_dir():
        packed.read_folder(file, taker)
        return taker.finish()
    with file.open("rb") as stream:
        start = stream.read(START_BYTES)
        magic = start[:6]
        stream.seek(0)
        if magic.startswith(b"PK"):
            packed.read_zip(file, taker)
        elif magic.startswith(b"PAR1"):
            raise UsageError(
                problem="a Parquet file by itself does not say which table it is",
                field="path",
                remedy="Put it into a folder as `tables/TABLE.parquet`, and import the folder.",
            )
        elif packer := next((packer for begin, packer in PACKERS.items() if magic.startswith(begin)), None):
            _read_packed(packer, stream, taker)
        else:
            LineReader(taker).read(stream, stream.tell)
    if taker.lines == 0:
        raise UsageError(problem="the file is empty", field="path")
    try:
        taker.refuse_foreign()
    except UsageError as exc:
        if b"\0" not in start or start.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise
        remedy = f"If it is packed, unpack it first. {exc.remedy}"
        raise UsageError(problem="the file is not understood: it is no text", field="path", remedy=remedy) from exc
    return taker.finish()


def _unxz(stream: IO[bytes]) -> IO[bytes]:
    lzma.LZMADecompressor(memlimit=XZ_MEMORY_BYTES).decompress(stream.read(START_BYTES))
    stream.seek(0)
    return lzma.LZMAFile(stream)


PACKERS: dict[bytes, Callable[[IO[bytes]], Any]] = {
    b"\x1f\x8b": lambda stream: gzip.GzipFile(fileobj=stream),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\x00": _unxz,
    b"\x28\xb5\x2f\xfd": zstd.ZstdFile,
}
"""What opens a packed log, by the bytes that it begins with."""


def _read_packed(packer: Callable[[IO[bytes]], Any], stream: IO[bytes], taker: Taker) -> None:
    try:
        with packer(stream) as unpacked:
            _refuse_bomb(unpacked, stream, taker)
    except (EOFError, OSError, zlib.error, lzma.LZMAError, zstd.ZstdError) as exc:
        raise UsageError(problem=f"the packed file cannot be read: {exc}", field="path", remedy="Is it whole?") from exc
    stream.seek(0)
    with packer(stream) as unpacked:
        LineReader(taker).read(unpacked, stream.tell)


def _refuse_bomb(unpacked: IO[bytes], stream: IO[bytes], taker: Taker) -> None:
    """Unpack a file once for its length alone: that takes a second where understanding its lines takes minutes.

    Raises:
        UsageError: it goes further than a log would.
    """
    length = 0
    while part := unpacked.read(COPY_BYTES):
        length += len(part)
        taker.tell("reading")
        behind = max(1, stream.tell())
        if length > RATIO_FROM_BYTES and length > min(GUNZIPPED_BYTES, behind * RATIO):
            raise UsageError(
                problem=f"the file unpacks to {length / 1e6:,.0f} MB and more out of {behind / 1e6:,.1f}:"
                " it is not read on",
                field="path",
                remedy="If it is meant, unpack it and import the file.",
            )


def _check(file: Path, name: str | None, link: bool) -> None:
    try:
        mode = file.stat().st_mode
    except OSError as exc:
        raise UsageError(problem=f"{file} cannot be read: {exc.strerror}", field="path") from exc
    except ValueError as exc:  # a NUL, or half a character
        raise UsageError(problem=f"{str(file)!r} is no path: {exc}", field="path") from exc
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise UsageError(problem=f"{file} is neither a file nor a folder", field="path")
    if link and not stat.S_ISDIR(mode):
        raise UsageError(problem="only a folder of tables can be linked", field="link")
    if not os.access(file, os.R_OK):
        raise UsageError(problem=f"{file} cannot be read: permission denied", field="path")
    if stat.S_ISREG(mode):
        try:
            with file.open("rb") as opened:
                opened.read(1)
        except OSError as exc:  # a file of the kernel's that only looks like one
            raise UsageError(problem=f"{file} cannot be read: {exc.strerror}", field="path") from exc
    if name is not None and not re.fullmatch(NAME, name):
        raise UsageError(
            problem=f"{name[:64]!r} is no name for a source",
            field="name",
            remedy="Lower-case letters, digits, dots, dashes and underscores, at most 64.",
        )


def _check_apart(file: Path, place: SourcesFolder) -> None:
    """Sources of sources would count what is in them twice."""
    whole, ours = file.resolve(), place.folder.resolve()
    if whole.is_relative_to(ours) or (whole.is_dir() and ours.is_relative_to(whole)):
        raise UsageError(
            problem=f"{file} holds what was imported already ({ours})",
            field="path",
            remedy="Import a file or folder of its own; the history itself needs no import: `%tundra calls`.",
        )


def _identity(file: Path, on_progress: OnProgress, stop: Stop) -> tuple[int, str]:
    """Size and SHA-256 of a file, or over the files of a folder."""
    whole = hashlib.sha256()
    members = [(file, "")]
    if file.is_dir():
        members = [(member, member.relative_to(file).as_posix()) for member, _ in packed.files(file)]
    size = sum(member.stat().st_size for member, _ in members)
    done = 0
    for member, name in members:
        if name:
            whole.update(f"{name}\0{member.stat().st_size}\0".encode())
        with member.open("rb") as stream:
            while part := stream.read(HASH_BYTES):
                whole.update(part)
                done += len(part)
                stop.renew()
                if stop.is_due:
                    raise stop.error()
                on_progress(Importing(doing="hashing", done_bytes=done, size_bytes=size))
    return size, whole.hexdigest()


def _name(place: SourcesFolder, name: str | None, file: Path) -> str:
    known = set(place.names())
    if name is not None:
        if name in known or (place.folder / name).exists():
            raise UsageError(
                problem=f"source {name!r} is there already, of another file",
                field="name",
                remedy=f"Give another name, or `%tundra sources remove {name}`.",
            )
        return name
    stem = re.sub(r"[^a-z0-9._-]+", "-", file.name.lower().partition(".")[0] or "source").strip("-._")[:56] or "source"
    chosen, number = stem, 2
    while chosen in known or (place.folder / chosen).exists():
        chosen, number = f"{stem}-{number}", number + 1
    return chosen


def _iso(at_us: int | None) -> str | None:
    if at_us is None:
        return None
    return dt.datetime.fromtimestamp(at_us / 1e6, dt.UTC).isoformat(timespec="microseconds")
