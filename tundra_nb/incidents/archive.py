"""An incident as one zip: written masked, read only after every member is proved.

manifest.json            format, versions, the incident, and SHA-256 and size of every other member
ro-crate-metadata.json   the same for research archives
NAME.ipynb, NAME.html    the notebook, and how it reads without a kernel
tables/TABLE.parquet     rows of the window at the pin; versioned tables whole
rows.json                a hash of each row, so that a changed one can be named
changes/TABLE.json       the change log of the versioned tables
recordings/DAY/…         recorded exchanges of the window that are on this machine
environment.txt          what was installed
REDACTIONS.md            what was masked where
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import hashlib
import importlib.metadata
import io
import json
import os
import re
import shutil
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal
from zoneinfo import ZoneInfo

import msgspec

from tundra_nb._version import __version__
from tundra_nb.client import api
from tundra_nb.client.incidents import EPOCH, window_us
from tundra_nb.client.results import Document
from tundra_nb.doctor import bundle as support
from tundra_nb.doctor.place import Subject
from tundra_nb.errors import TundraError, UsageError
from tundra_nb.frames import frames
from tundra_nb.protocol.digest import digest, digest_of
from tundra_nb.runtime.recordings import inside
from tundra_nb.runtime.telemetry.redact import Redactor
from tundra_nb.types import FRAME_VERSION, KEY_OF, TABLES, VERSIONED_TABLES

from .notebook import FORMAT as NOTEBOOK_FORMAT
from .notebook import check_place, library, not_written, slug, telling
from .story import story
from .verify import sha_of

if TYPE_CHECKING:
    import pyarrow as pa

    from tundra_nb.client.sync import Client

FORMAT = 1
MANIFEST = "manifest.json"
ROWS = "rows.json"
CRATE = "ro-crate-metadata.json"
HASHED_ROWS = 200_000
"""Rows of a table that have a hash each; of longer tables only the file has one."""
AFTER = dt.timedelta(minutes=15)
"""How long after the window what belongs to its calls may have happened."""
MOST_BYTES = 4_000_000_000
MOST_RATIO = 400
"""How much larger than packed a member may be, beyond …"""
FREE_BYTES = 16_000_000
"""… this size: what is larger by more is a bomb."""
MOST_MEMBERS = 200_000
MOST_LIST_BYTES = 32_000_000
"""Largest size of a zip's own list of its members, which is read whole."""
MOST_ROWS = 50_000_000
"""Of one table: Parquet packs one value any number of times into a few bytes."""
MOST_TEXT_BYTES = 4_000_000_000
"""Of one column of texts, for the same reason."""
MOST_CHANGES = 500
"""Changes of settings, and of profiles, that the source of an imported incident keeps: the last."""
Scalar = str | int | float | bool | None
MEMBER = re.compile(
    r"manifest\.json|ro-crate-metadata\.json|rows\.json|environment\.txt|REDACTIONS\.md"
    r"|[a-z0-9][a-z0-9-]{0,80}\.(?:ipynb|html)|tables/[a-z_]{1,40}\.parquet|changes/[a-z_]{1,40}\.json"
    r"|recordings/\d{4}-\d\d-\d\d/\d{1,20}-\d{1,20}\.json"
)
"""What may be in an archive."""
KINDS = {
    ".ipynb": "application/x-ipynb+json",
    ".html": "text/html",
    ".json": "application/json",
    ".parquet": "application/vnd.apache.parquet",
    ".md": "text/markdown",
    ".txt": "text/plain",
}


class Member(msgspec.Struct, frozen=True):
    """What the manifest says of another member."""

    sha256: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
    bytes: Annotated[int, msgspec.Meta(ge=0)]


class MadeBy(msgspec.Struct, frozen=True, rename={"version": "tundra-nb"}):
    """Which program wrote an archive."""

    version: str
    frame_version: int = 0


class ManifestHead(msgspec.Struct, frozen=True):
    """What a manifest of every format has."""

    format: Annotated[int, msgspec.Meta(ge=1)]
    made_by: MadeBy


class Incident(msgspec.Struct, frozen=True):
    """What is needed of the incident; the rest of its row is kept as it came."""

    incident_id: int | str
    title: Annotated[str, msgspec.Meta(min_length=1, max_length=1000)]
    ref: Annotated[str, msgspec.Meta(min_length=1)]
    since: Annotated[dt.datetime, msgspec.Meta(tz=True)]
    until: Annotated[dt.datetime, msgspec.Meta(tz=True)]


class About(msgspec.Struct, frozen=True):
    """What the source of an imported incident keeps."""

    ref: str
    commit: str
    incident: Incident
    changed_before: str = ""
    changed_meanwhile: str = ""


class Manifest(ManifestHead, frozen=True):
    """The manifest of an archive of `FORMAT`."""

    about: dict[str, Any]
    """Checked to be `About`."""
    members: dict[str, Member]
    tables: dict[str, Annotated[int, msgspec.Meta(ge=0)]]
    """Rows by table."""
    digests: dict[str, str]
    """Of these rows."""
    whole: bool = False

    @property
    def notebook(self) -> str:
        """The member that is the notebook."""
        return next(name for name in self.members if name.endswith(".ipynb"))


class CratePart(msgspec.Struct, frozen=True, rename={"id": "@id", "type": "@type"}):
    """What is needed of a part of an RO-Crate."""

    id: str
    type: str
    sha256: str = ""


class Crate(msgspec.Struct, frozen=True, rename={"graph": "@graph"}):
    """What is needed of an RO-Crate."""

    graph: list[CratePart]


class NotebookFile(msgspec.Struct, frozen=True):
    """The least that a notebook is."""

    nbformat: Literal[4]
    cells: list[dict[str, Any]]


class _Masked:
    """Masks whatever goes in, and counts what it masked where."""

    def __init__(self, client: Client) -> None:
        paths = client.link.paths
        self.known: list[tuple[str, str]] = []
        self.redactor = Redactor()
        if paths is not None:
            with contextlib.suppress(TundraError, OSError):
                self.known = support.secrets(Subject(paths, os.environ))
        for name, value in self.known:
            self.redactor.register(name, value)
        self.counts: dict[str, int] = {}

    def text(self, member: str, text: str) -> str:
        masked = self.redactor.text(text)
        if masked is not text and masked != text:
            self.counts[member] = self.counts.get(member, 0) + 1
        return masked

    def table(self, member: str, table: pa.Table) -> pa.Table:
        import pyarrow as pa

        for place, field in enumerate(table.schema):
            kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
            if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
                continue
            values = table.column(place).cast(kind).to_pylist()
            masked = [None if value is None else self.text(member, value) for value in values]
            if masked != values:
                table = table.set_column(place, field.name, pa.array(masked, kind))
        return table

    def check(self, member: str, data: bytes) -> None:
        """Refuse what still holds a known secret in any of its spellings.

        Raises:
            UsageError: it does; nothing is written.
        """
        for name, secret in self.known:
            if any(spelling.encode() in data for spelling in support.spellings(secret)):
                raise UsageError(
                    problem=f"{member} holds the value of {name}: nothing was written",
                    field="out",
                    remedy="If that value is a common word, as a password should not be, take another. Else this is a"
                    " defect: please report it with `%tundra bundle`.",
                )


def export(
    client: Client,
    wanted: str,
    out: str | None = None,
    *,
    whole: bool = False,
    force: bool = False,
    on_progress: Callable[[str], None] | None = None,
) -> Document:
    """See `client.incidents.Incidents.export`."""
    with telling(on_progress) as tell:
        return _exported(client, wanted, out, tell, whole=whole, force=force)


def _exported(
    client: Client, wanted: str, out: str | None, tell: Callable[[str], None], *, whole: bool, force: bool
) -> Document:
    tell("reading the incident")
    found, notebook = _wanted(client, wanted)
    name = slug(found["title"])
    file = Path(out).expanduser() if out else Path(f"incident-{name}.zip")
    check_place(file)
    if file.exists() and not force:
        raise UsageError(problem=f"{file} is there already", field="out", remedy="Give another name, or `--force`.")
    masked = _Masked(client)
    members: dict[str, bytes] = {}
    tell("making a page of its notebook")
    book = _masked_book(masked, f"incident-{name}.ipynb", notebook)
    members[f"incident-{name}.ipynb"] = book.encode()
    members[f"incident-{name}.html"] = masked.text(f"incident-{name}.html", html_of(book)).encode()
    tables, hashes, digests = {}, {}, {}
    for table_name in TABLES:
        tell(f"reading {table_name}")
        table = masked.table(f"tables/{table_name}.parquet", _table(client, table_name, found, whole))
        if not table.num_rows:
            continue
        tables[table_name] = table.num_rows
        digests[table_name] = digest(table)
        if table.num_rows <= HASHED_ROWS:
            hashes[table_name] = _row_hashes(table)
        members[f"tables/{table_name}.parquet"] = _parquet(table)
        if table_name == "exchange":
            members |= dict(_recordings(client, table, masked))
    members[ROWS] = _json(hashes)
    for table_name in VERSIONED_TABLES:
        with contextlib.suppress(TundraError):
            log: Any = client.versions.history(table_name)
            told = masked.text(f"changes/{table_name}.json", log.to_json(orient="records", date_format="iso"))
            members[f"changes/{table_name}.json"] = told.encode()
    members["environment.txt"] = "".join(
        f"{name}=={version}\n"
        for name, version in sorted({(d.metadata["Name"], d.version) for d in importlib.metadata.distributions()})
    ).encode()
    incident = {key: value for key, value in found.items() if key != "source"} | {"notebook": f"incident-{name}.ipynb"}
    figures = story(client, str(found["incident_id"]))
    about = {
        "ref": found["ref"],
        "commit": found["ref"],
        "incident": incident,
        "changed_before": figures["changed before"],
        "changed_meanwhile": figures.get("changed meanwhile", ""),
    }
    members["REDACTIONS.md"] = _report(masked).encode()
    members[CRATE] = _crate(found, members)
    manifest = {
        "format": FORMAT,
        "made_by": {"tundra-nb": __version__, "frame_version": FRAME_VERSION, "notebook_format": NOTEBOOK_FORMAT},
        "whole": whole,
        "about": json.loads(masked.text(MANIFEST, json.dumps(about))),
        "tables": tables,
        "digests": digests,
        "members": {
            name: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
            for name, data in sorted(members.items())
        },
    }
    members = {MANIFEST: _json(manifest), **dict(sorted(members.items()))}
    tell(f"writing {file}")
    for member, data in members.items():
        masked.check(member, data)
    _write(file, members, _window(found)[1])
    return Document(
        {
            "file": str(file),
            "size_bytes": file.stat().st_size,
            "rows": tables,
            "recordings": sum(name.startswith("recordings/") for name in members),
            "masked": masked.counts or "nothing more",
        }
    )


def _wanted(client: Client, wanted: str) -> tuple[Document, Path]:
    """The incident, and its notebook's file.

    Raises:
        UsageError: there is no such incident, or its notebook is not where it was.
    """
    if wanted.endswith(".ipynb"):
        notebook = Path(wanted)
        try:
            told = json.loads(notebook.read_text())["metadata"]["tundra"]["incident"]
        except (OSError, ValueError, KeyError, TypeError):
            raise UsageError(problem=f"{wanted} is no incident's notebook", field="incident") from None
        return client.incidents.find(str(told)), notebook
    found = client.incidents.find(wanted)
    notebook = Path(found.get("notebook") or f"incident-{slug(found['title'])}.ipynb")
    if not notebook.is_file():
        raise UsageError(
            problem=f"the notebook of {found['title']!r} is not at {notebook}",
            field="incident",
            remedy="Give its file: `%tundra incident export FILE.ipynb`.",
        )
    return found, notebook


def _window(found: Document) -> tuple[dt.datetime, dt.datetime]:
    begin, end = window_us(found)
    return EPOCH + dt.timedelta(microseconds=begin), EPOCH + dt.timedelta(microseconds=end)


def _table(client: Client, name: str, found: Document, whole: bool) -> pa.Table:
    """Rows of a table at the pin."""
    begin, end = _window(found)
    if whole or name in VERSIONED_TABLES or name == "writer":
        call = api.history(name, "all", at=found["ref"])
    else:
        call = api.history(name, between=(begin, end + AFTER), at=found["ref"])
    raw = dataclasses.replace(call, decode=lambda answer: frames.read_arrow(answer.body))
    table: pa.Table = client._do(raw)  # noqa: SLF001 - the same call, its rows as they came
    return table


def _masked_book(masked: _Masked, member: str, file: Path) -> str:
    """The notebook, masked; an output in which something was masked says of itself what it shows now."""
    nbformat = library("nbformat")
    text = file.read_text()
    if masked.text(member, text) == text:
        return text
    book = nbformat.reads(text, as_version=4)
    for cell in book.cells:
        cell.source = masked.redactor.text(cell.source)
        for output in cell.get("outputs", ()):
            if "text" in output:
                output.text = masked.redactor.text("".join(output.text))
            for kind, value in output.get("data", {}).items():
                if isinstance(value, str):
                    output.data[kind] = masked.redactor.text(value)
            shown = output.get("metadata", {}).get("tundra", {}).get("shown")
            for kind in shown or ():
                shown[kind] = sha_of(str(output.data.get(kind)))
    return masked.redactor.text(str(nbformat.writes(book)))


def html_of(book: str) -> str:
    """How a notebook reads without a kernel and without network."""
    exporter = library("nbconvert").HTMLExporter(
        require_js_url="", mathjax_url="", mermaid_js_url="", jquery_url="", embed_images=True
    )
    body, _ = exporter.from_notebook_node(library("nbformat").reads(book, as_version=4))
    return str(body)


def _recordings(client: Client, exchanges: pa.Table, masked: _Masked) -> Iterator[tuple[str, bytes]]:
    paths = client.link.paths
    if paths is None:
        return
    for row in exchanges.select(["recording", "sha256"]).to_pylist():
        file = inside(Path(paths.recordings), row["recording"]) if row["recording"] else None
        if file is None or not file.is_file():
            continue
        data = file.read_bytes()
        member = f"recordings/{row['recording']}"
        if hashlib.sha256(data).hexdigest() == row["sha256"] and masked.text(member, data.decode()) == data.decode():
            yield member, data


def _row_hashes(table: pa.Table) -> list[str]:
    """A hash of each row, the same whatever class the installed pyarrow has for time zones."""
    utc = ZoneInfo("UTC")
    rows = (
        tuple(value.astimezone(utc) if isinstance(value, dt.datetime) else value for value in row.values())
        for row in table.to_pylist()
    )
    return [hashlib.sha256(repr(row).encode()).hexdigest()[:16] for row in rows]


def _parquet(table: pa.Table) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    data: bytes = sink.getvalue().to_pybytes()
    return data


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=1, sort_keys=True, default=str).encode()


def _report(masked: _Masked) -> str:
    lines = [f"- {member}: {count} texts" for member, count in sorted(masked.counts.items())]
    told = "\n".join(lines) or "Nothing more than what is masked in the history already."
    return (
        "# What was masked\n\nKeys are masked where they arise: history, recordings and notebook hold none. "
        f"This archive was masked once more, by value and by what keys look like.\n\n{told}\n"
    )


def _crate(found: Document, members: Mapping[str, bytes]) -> bytes:
    """RO-Crate 1.1 metadata, dated by the incident, so that the same incident gives the same file."""
    parts = [
        {
            "@id": name,
            "@type": "File",
            "contentSize": len(data),
            "encodingFormat": KINDS.get(Path(name).suffix, "application/octet-stream"),
            "sha256": hashlib.sha256(data).hexdigest(),
        }
        for name, data in sorted(members.items())
    ]
    root = {
        "@id": "./",
        "@type": "Dataset",
        "name": found["title"],
        "description": f"Incident {found['ref']}, {found['since']} to {found['until']}",
        "datePublished": found["until"],
        "license": "as agreed with whoever gave it",
        "hasPart": [{"@id": part["@id"]} for part in parts],
    }
    head = {
        "@id": CRATE,
        "@type": "CreativeWork",
        "about": {"@id": "./"},
        "conformsTo": {"@id": "https://w3id.org/ro/crate/1.1"},
    }
    return _json({"@context": "https://w3id.org/ro/crate/1.1/context", "@graph": [head, root, *parts]})


def _write(file: Path, members: Mapping[str, bytes], dated: dt.datetime) -> None:
    """Write the zip in one step: what was there stays whole until the new one is.

    Raises:
        UsageError: the disk is full, or the folder cannot be written.
    """
    draft = file.with_name(f".{file.name}.new")
    try:
        with (
            open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as out,
            zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as zipped,
        ):
            for name, data in members.items():
                info = zipfile.ZipInfo(name, dated.timetuple()[:6])
                info.external_attr = 0o600 << 16
                info.compress_type = zipfile.ZIP_DEFLATED
                zipped.writestr(info, data)
        draft.replace(file)
    except OSError as exc:
        draft.unlink(missing_ok=True)
        raise not_written(file, exc) from exc


# --- reading


def check(file: Path) -> Manifest:
    """Prove an archive: what is in it, and that each member is what was exported. Nothing is unpacked.

    Returns:
        Its manifest.

    Raises:
        UsageError: it is none, it is damaged, or somebody has changed it; names the member, and the row where it can.
    """
    try:
        with _opened(file) as zipped:
            return _checked(zipped, file)
    except FileNotFoundError:
        raise UsageError(problem=f"there is no file {file}", field="file") from None
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError, zlib.error) as exc:
        raise _refused(file, f"it cannot be read: {exc}") from exc


class _Reader(io.BufferedReader):
    """A file of which no more than `most` bytes are read at once."""

    most: int | None = MOST_LIST_BYTES

    def read(self, size: int | None = -1, /) -> bytes:
        if self.most is not None and size is not None and size > self.most:
            raise zipfile.BadZipFile("the list of its members is too long")
        return super().read(size)


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[zipfile.ZipFile]:
    """An archive to read. Devices and pipes have no end, so they are not even opened.

    Raises:
        UsageError: it is no file, or too large.
    """
    told = file.stat()
    if not stat.S_ISREG(told.st_mode):
        raise UsageError(problem=f"{file} is no file, but {_kind(told.st_mode)}", field="file")
    if told.st_size > MOST_BYTES:
        raise _refused(file, f"it is too large ({told.st_size / 1e9:,.1f} GB)")
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
    with _Reader(io.FileIO(os.open(file, flags))) as packed, zipfile.ZipFile(packed) as zipped:
        packed.most = None  # members are read in pieces
        yield zipped


def _kind(mode: int) -> str:
    if stat.S_ISDIR(mode):
        return "a folder"
    return "a pipe" if stat.S_ISFIFO(mode) else "a socket" if stat.S_ISSOCK(mode) else "a device"


def _refused(file: Path, why: str) -> UsageError:
    return UsageError(
        problem=f"{file.name} is refused: {why}; nothing was imported",
        field="file",
        remedy="Ask whoever exported it for it again.",
    )


def _checked(zipped: zipfile.ZipFile, file: Path) -> Manifest:
    infos = zipped.infolist()
    names = [info.filename for info in infos]
    if MANIFEST not in names:
        raise _refused(file, "it is no archive of an incident (it has no manifest.json)")
    if len(infos) > MOST_MEMBERS or sum(info.file_size for info in infos) > MOST_BYTES:
        raise _refused(file, "it is too large")
    if len(set(names)) != len(names):
        raise _refused(file, "two of its members have the same name")
    for info in infos:
        kind = info.external_attr >> 16
        if not MEMBER.fullmatch(info.filename) or (kind and stat.S_IFMT(kind) not in (0, stat.S_IFREG)):
            raise _refused(file, f"the member {info.filename[:100]!r} does not belong in it")
        if info.flag_bits & 1:
            raise _refused(file, f"the member {info.filename!r} is encrypted")
        if info.file_size > FREE_BYTES and info.file_size > MOST_RATIO * max(info.compress_size, 1):
            raise _refused(file, f"the member {info.filename!r} is far larger than it is packed")
    manifest = _manifest(zipped, file)
    told = manifest.members
    if missing := sorted(told.keys() - set(names)):
        raise _refused(file, f"the member {missing[0]!r} is missing")
    if more := sorted(set(names) - told.keys() - {MANIFEST}):
        raise _refused(file, f"the member {more[0]!r} is not in its manifest")
    for name in sorted(told):
        sha = hashlib.sha256()
        size = 0
        with zipped.open(name) as member:
            while piece := member.read(1 << 20):
                sha.update(piece)
                size += len(piece)
                if size > told[name].bytes:
                    break
        if sha.hexdigest() != told[name].sha256 or size != told[name].bytes:
            raise _refused(file, f"{name} is not what was exported{_which_row(zipped, name, told)}")
    for table in sorted(manifest.tables):
        if wrong := _wrong_rows(zipped, table, manifest):
            raise _refused(file, wrong)
    if CRATE in told and (wrong := _wrong_crate(zipped, told)):
        raise _refused(file, wrong)
    try:
        msgspec.json.decode(_read(zipped, manifest.notebook, FREE_BYTES * 4), type=NotebookFile)
    except (ValueError, RecursionError) as exc:
        raise _refused(file, f"{manifest.notebook} is no notebook ({exc})") from exc
    return manifest


def _manifest(zipped: zipfile.ZipFile, file: Path) -> Manifest:
    """The manifest, every field of it of its type.

    Raises:
        UsageError: it is not, or it is of a newer version than this one.
    """
    try:
        data = _read(zipped, MANIFEST, 64_000_000)
        head = msgspec.json.decode(data, type=ManifestHead)
        if head.format > FORMAT or head.made_by.frame_version > FRAME_VERSION:
            raise UsageError(
                problem=f"{file.name} was made by tundra-nb {head.made_by.version[:40]}; its format {head.format} with"
                f" frames {head.made_by.frame_version} is newer than this one ({__version__}) reads:"
                f" format {FORMAT} with frames {FRAME_VERSION}",
                field="file",
                remedy="Upgrade: `pip install -U tundra-nb`.",
            )
        manifest = msgspec.json.decode(data, type=Manifest)
        about = msgspec.convert(manifest.about, About)
    except (ValueError, RecursionError) as exc:
        raise _refused(file, f"its manifest.json cannot be read ({exc})") from exc
    if about.incident.until <= about.incident.since:
        raise _refused(file, "its manifest.json cannot be read (the window ends before it begins)")
    if sum(name.endswith(".ipynb") for name in manifest.members) != 1:
        raise _refused(file, "it has not one notebook")
    there = {Path(member).stem for member in manifest.members if member.startswith("tables/")}
    for name in sorted(there | manifest.tables.keys() | manifest.digests.keys()):
        if name not in there:
            raise _refused(file, f"its manifest.json tells of a table {name[:40]!r} that is not in it")
        if name not in manifest.tables or name not in manifest.digests:
            raise _refused(file, f"its manifest.json has not both rows and digest of the table {name[:40]!r}")
    return manifest


def _wrong_rows(zipped: zipfile.ZipFile, table: str, manifest: Manifest) -> str:
    """In what a table is not what the manifest says of it, in words; empty where it is."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    member, told = f"tables/{table}.parquet", manifest.tables[table]
    try:
        packed = pa.BufferReader(_read(zipped, member, MOST_BYTES))
        schema = pq.read_schema(packed)
        rows = pq.ParquetFile(packed, read_dictionary=schema.names)
        if (count := rows.metadata.num_rows) != told or count > MOST_ROWS:
            return f"{member} has {count:,} rows, and its manifest.json says {told:,} of at most {MOST_ROWS:,}"
        found = digest_of(count, ((name, _bounded(rows.read([name]).column(0))) for name in schema.names))
    except (pa.ArrowException, ValueError, OSError) as exc:
        return f"{member} cannot be read ({str(exc)[:200]})"
    if found != manifest.digests[table]:
        return f"the rows of {member} have not the digest that its manifest.json has of them"
    return ""


def _bounded(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column whose texts are not too long together, when every row has its own.

    Raises:
        ValueError: they are.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_dictionary(column.type):
        sizes = (pc.sum(pc.binary_length(one.dictionary).take(one.indices)).as_py() or 0 for one in column.chunks)
        if sum(sizes) > MOST_TEXT_BYTES:
            raise ValueError("its texts are too long")
    return column


def _wrong_crate(zipped: zipfile.ZipFile, told: Mapping[str, Member]) -> str:
    """What the list for research archives says otherwise than the manifest, in words; empty where nothing."""
    try:
        parts = msgspec.json.decode(_read(zipped, CRATE, FREE_BYTES * 4), type=Crate).graph
    except (ValueError, RecursionError) as exc:
        return f"its {CRATE} cannot be read ({exc})"
    listed = {part.id: part.sha256 for part in parts if part.type == "File"}
    for name in sorted(listed.keys() | told.keys() - {CRATE}):
        if name not in told or listed.get(name) != told[name].sha256:
            return f"{CRATE} and manifest.json do not say the same of {name[:100]!r}"
    return ""


def _which_row(zipped: zipfile.ZipFile, name: str, told: Mapping[str, Member]) -> str:
    """The first row of a changed table that differs, in words; empty where that cannot be said."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not name.startswith("tables/"):
        return ""
    table = name.removeprefix("tables/").removesuffix(".parquet")
    try:
        rows_json = _read(zipped, ROWS, 256_000_000)
        if hashlib.sha256(rows_json).hexdigest() != told[ROWS].sha256:
            return ""
        expected = json.loads(rows_json).get(table, [])
        present = pq.read_table(pa.BufferReader(_read(zipped, name, MOST_BYTES)))
        hashes = _row_hashes(present)
    except (pa.ArrowException, ValueError, KeyError, OSError, zipfile.BadZipFile):
        return ""
    if not expected:
        return ""
    for place, sha in enumerate(hashes):
        if place >= len(expected) or sha != expected[place]:
            key = KEY_OF.get(table, "")
            row = present.slice(place, 1).to_pylist()[0]
            return f": row {place + 1:,} ({key} {row.get(key)}) was changed or added"
    return f": {len(expected) - len(hashes):,} rows are missing" if len(hashes) < len(expected) else ""


def _read(zipped: zipfile.ZipFile, name: str, most: int) -> bytes:
    with zipped.open(name) as member:
        data = member.read(most + 1)
    if len(data) > most:
        raise ValueError(f"{name} is too large")
    return data


def _change_logs(zipped: zipfile.ZipFile, members: Iterable[str]) -> Iterator[tuple[str, Any]]:
    """By table what the last changes made of its rows: a source has the rows of its pin only."""
    for table in ("setting", "profile"):
        if (name := f"changes/{table}.json") in members:
            with contextlib.suppress(ValueError, RecursionError):  # one that is not ours tells nothing
                rows = msgspec.json.decode(_read(zipped, name, FREE_BYTES), type=list[dict[str, Scalar]])
                yield table, rows[-MOST_CHANGES:]


def import_(client: Client, path: str, *, name: str | None = None, out: str | None = None) -> Document:
    """See `client.incidents.Incidents.import_`."""
    file = Path(path).expanduser()
    manifest = check(file)
    incident = manifest.about["incident"]
    member = manifest.notebook
    target = Path(out).expanduser() if out else _free(Path(member))
    check_place(target)
    if target.exists():
        raise UsageError(problem=f"{target} is there already", field="out", remedy="Choose another name with `--out`.")
    whole = Path(tempfile.mkdtemp(prefix="tundra-incident-"))
    folder = whole / f"incident-{slug(incident['title'])}"  # the source is called after it
    try:
        with _opened(file) as zipped:
            for one in manifest.members:
                if one.startswith(("tables/", "recordings/")) or one == member:
                    place = folder / one
                    place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                    with zipped.open(one) as packed, place.open("wb") as plain:
                        shutil.copyfileobj(packed, plain, 1 << 20)
            about = manifest.about | {"changes": dict(_change_logs(zipped, manifest.members))}
        recorded = folder / "recordings"
        aside = whole / "recordings"
        if recorded.exists():
            recorded.rename(aside)
        notebook = (folder / member).read_bytes()
        (folder / member).unlink()
        source = client.sources.import_(folder, name=name, about=about, origin=str(file.absolute()))
        kept = 0
        if aside.exists() and client.link.paths is not None:
            kept = _keep_recordings(aside, client.link.paths.sources / str(source["name"]) / "recordings")
        _save(target, notebook)
    except OSError as exc:
        raise not_written(Path(exc.filename or target), exc) from exc
    finally:
        shutil.rmtree(whole, ignore_errors=True)
    return Document(
        {
            "title": incident["title"],
            "incident_id": incident["incident_id"],
            "ref": incident["ref"],
            "source": source["name"],
            "rows": manifest.tables,
            "recordings": kept,
            "notebook": str(target),
            "next": f"Read it, then `tundra verify {target} --trust`.",
        }
    )


def _keep_recordings(found: Path, folder: Path) -> int:
    count = 0
    for file in found.glob("*/*.json"):
        place = folder / file.parent.name / file.name
        place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        shutil.copyfile(file, place)
        place.chmod(0o600)
        count += 1
    return count


def _save(target: Path, data: bytes) -> None:
    draft = target.with_name(f".{target.name}.new")
    try:
        draft.write_bytes(data)
        draft.replace(target)
    except OSError:
        draft.unlink(missing_ok=True)
        raise


def _free(file: Path) -> Path:
    """A name that is not taken: an import never writes over a notebook."""
    number = 1
    found = file
    while found.exists():
        number += 1
        found = file.with_name(f"{file.stem}-{number}{file.suffix}")
    return found
