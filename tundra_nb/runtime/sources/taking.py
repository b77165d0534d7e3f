"""Takes the rows that are read out of a file: masked, cleaned, with keys in the order of time, into Parquet tables."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tundra_nb.errors import UsageError
from tundra_nb.protocol.sources import Importing
from tundra_nb.runtime.history.contract import Stop
from tundra_nb.runtime.id_layout import id_floor
from tundra_nb.runtime.telemetry.redact import Redactor
from tundra_nb.terminal.escapes import IN_TEXT
from tundra_nb.types import KEY_OF, TABLE_OF, Column, columns

from .tables import stored_schema

GROUP_ROWS = 20_000
"""Rows of a table held until they are written."""
MOST_ROWS = 50_000_000
LEAST_UNDERSTOOD = 0.01
"""Share of the lines; with less, the file is of another kind …"""
TELLING_LINES = 200_000
"""… which so many lines tell."""
FORMS = "Auto-Tundra's log (text or JSON), OTLP JSON, LiteLLM's JSON, a bundle of `tundra bundle`, our own tables"
SAMPLE = 10
"""Pieces that were not understood, of which the record of the source shows the beginnings."""
SAMPLE_CHARS = 160
TEXT_CHARS = 255
LONG_CHARS = 16_384
TOLD_EVERY = 5_000
"""Lines between two words about the progress."""
LATE = 1 << 21
"""Keys of rows that come out of order, in the upper half of their millisecond's."""
GIVEN = re.compile(
    r"""((?:password|passwd|passphrase|pwd|secret|token|api[_-]?key)\\?["']?\s*[:=]\s*\\?["']?)(?!<)[^\s"'\\,;&]+""",
    re.IGNORECASE,
)
"""A secret with its name before it, however short: a sample is shown to people, and needs no such value."""
YEAR_2200_US = 7_258_118_400_000_000


class Taker:
    """What a form gives its rows to; one per import.

    Args:
        folder: where the tables go.
        redactor: masks what is written.
        on_progress: told how far it is.
        stop: ends it.
        size_bytes: of the file.
    """

    def __init__(
        self,
        folder: Path,
        redactor: Redactor,
        on_progress: Callable[[Importing], None],
        stop: Stop,
        size_bytes: int,
    ) -> None:
        self._folder = folder
        self._redactor = redactor
        self._on_progress = on_progress
        self._stop = stop
        self._size_bytes = size_bytes
        self.done_bytes = 0
        self.lines = 0
        self.left = 0
        self.sample: list[str] = []
        self.by_kind: dict[str, int] = {}
        """How many lines or records were understood, by the form they had."""
        self.since_us: int | None = None
        self.until_us: int | None = None
        self.rows: dict[str, int] = {}
        self._held: dict[str, list[tuple[Any, ...]]] = {}
        self._writers: dict[str, pq.ParquetWriter] = {}
        self._newest: dict[str, int] = {}
        self._unsorted: set[str] = set()
        self._keys: dict[str, tuple[int, int, int]] = {}
        """By table: the latest millisecond's first key, how many it has, how many rows came late."""

    def key(self, table: str, at_us: int) -> int:
        """A key for a row of this time: the same file gives the same keys each time."""
        floor = id_floor(at_us)
        last, count, late = self._keys.get(table, (-1, 0, 0))
        if floor > last:
            self._keys[table] = (floor, 1, late)
            return floor
        if floor == last:
            self._keys[table] = (last, count + 1, late)
            return floor + count % LATE
        self._keys[table] = (last, count, late + 1)
        return floor + LATE + late % LATE

    def add(self, row: msgspec.Struct) -> None:
        """One row."""
        table = TABLE_OF[type(row)]
        values = msgspec.structs.astuple(row)
        texts = [value for value in values if type(value) is str]
        whole = "\0".join(texts)
        is_plain = all(text.isprintable() and len(text) <= TEXT_CHARS for text in texts)
        if not is_plain or self._redactor.text(whole) is not whole:
            values = tuple(
                self._text(value, column) if type(value) is str else value
                for value, column in zip(values, columns(table), strict=True)
            )
        key = int(getattr(row, KEY_OF[table]))
        if key < self._newest.get(table, -1):
            self._unsorted.add(table)
        self._newest[table] = key
        self.seen(int(row.at))  # type: ignore[attr-defined]  # every row has its time
        held = self._held.setdefault(table, [])
        held.append(values)
        if len(held) >= GROUP_ROWS:
            self._flush(table)

    def _text(self, text: str, column: Column) -> str:
        """Cleaned before it is masked: an escape code within a key must not hide it."""
        most = LONG_CHARS if column.type == "long_text" else TEXT_CHARS
        return shortened(self._redactor.text(cleaned(text)), most)

    def _kept(self, text: str | None, column: Column) -> str | None:
        """A text of a history's own table as it is, so that its rows prove the same here; what shows it cleans it."""
        if text is None:
            return None
        seen = cleaned(text)
        if self._redactor.text(seen) != seen:
            return self._text(text, column)
        return shortened(self._redactor.text(text), LONG_CHARS if column.type == "long_text" else TEXT_CHARS)

    def add_batch(self, table: str, batch: pa.Table) -> None:
        """Rows of a table that have its columns already."""
        wanted = stored_schema(table)
        made = []
        for field in wanted:
            if field.name not in batch.schema.names:
                if not field.nullable:
                    raise _wrong(table, f"has no column {field.name}")
                made.append(pa.nulls(batch.num_rows, field.type))
                continue
            column = batch.column(field.name)
            if isinstance(column, pa.ChunkedArray):
                column = column.combine_chunks()
            try:
                column = column.cast(field.type)
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as exc:
                raise _wrong(table, f"column {field.name} is no {field.type}") from exc
            if not field.nullable and column.null_count:
                raise _wrong(table, f"column {field.name} lacks values")
            made.append(self._clean_column(table, field.name, column) if pa.types.is_string(field.type) else column)
        rows = pa.table(made, schema=wanted)
        if rows.num_rows:
            keys = rows.column(KEY_OF[table]).combine_chunks()
            if rows.num_rows > 1 and pc.any(pc.less(keys[1:], keys[:-1])).as_py():
                self._unsorted.add(table)
            if keys[0].as_py() < self._newest.get(table, -1):
                self._unsorted.add(table)
            self._newest[table] = keys[-1].as_py()
            ends = pc.min_max(rows.column("at").cast(pa.int64()))
            self.seen(ends["min"].as_py())
            self.seen(ends["max"].as_py())
        self._write(table, rows)

    def _clean_column(self, table: str, name: str, column: pa.Array) -> pa.Array:
        told = next(c for c in columns(table) if c.name == name)
        coded = column.dictionary_encode()
        words = coded.dictionary.to_pylist()
        clean = [self._kept(word, told) for word in words]
        return column if clean == words else pa.array(clean, pa.string()).take(coded.indices)

    def seen(self, at_us: int) -> None:
        """Something happened then."""
        self.since_us = at_us if self.since_us is None else min(self.since_us, at_us)
        self.until_us = at_us if self.until_us is None else max(self.until_us, at_us)

    def line(self, kind: str) -> None:
        """A line or record of this form was understood."""
        self.by_kind[kind] = self.by_kind.get(kind, 0) + 1
        self._count()

    def not_understood(self, text: str) -> None:
        """A line or record was not."""
        self.left += 1
        if len(self.sample) < SAMPLE:
            masked = GIVEN.sub(r"\1<secret>", self._redactor.text(cleaned(text)))
            self.sample.append(shortened(masked, SAMPLE_CHARS))
        self._count()

    def _count(self) -> None:
        self.lines += 1
        if self.lines % TOLD_EVERY == 0:
            self.tell("reading")
        if self.lines == TELLING_LINES:
            self.refuse_foreign()

    def refuse_foreign(self) -> None:
        """Refuse a file of another kind.

        Raises:
            UsageError: hardly a line so far was understood.
        """
        if self.lines - self.left < self.lines * LEAST_UNDERSTOOD or not self.by_kind:
            first = f", for example {self.sample[0]!r}" if self.sample else ""
            raise UsageError(
                problem=f"{self.left:,} of {self.lines:,} lines are not understood{first}",
                field="path",
                remedy=f"Understood are: {FORMS}.",
            )

    def tell(self, doing: str) -> None:
        """Say how far it is; here an import ends that nobody waits for any more."""
        self._stop.renew()
        if self._stop.is_due:
            raise self._stop.error()
        rows = sum(self.rows.values()) + sum(map(len, self._held.values()))
        self._on_progress(
            Importing(doing=doing, done_bytes=self.done_bytes, size_bytes=self._size_bytes, lines=self.lines, rows=rows)
        )

    def finish(self) -> dict[str, list[str]]:
        """Write what is left and put each table in the order of its key; the files by table."""
        for table in list(self._held):
            self._flush(table)
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()
        for table in sorted(self._unsorted):
            self._sort(self._folder / f"{table}.parquet", KEY_OF[table])
        return {table: [f"{table}.parquet"] for table in self.rows}

    def _sort(self, file: Path, key: str) -> None:
        """Put a table in the order of its key, holding only those rows before which others may still come: few where a
        log is out of order by moments, or is several that were put one behind the other.
        """
        made = file.with_suffix(".sorted")
        with pq.ParquetFile(file) as table, pq.ParquetWriter(made, table.schema_arrow, compression="zstd") as out:
            column = table.schema_arrow.names.index(key)
            lowest = [table.metadata.row_group(i).column(column).statistics.min for i in range(table.num_row_groups)]
            order = sorted(range(len(lowest)), key=lowest.__getitem__)
            held = table.schema_arrow.empty_table()
            for group, following in zip(order, [*order[1:], None], strict=True):
                self.tell("sorting")
                held = pa.concat_tables([held, table.read_row_group(group)])
                ready, later = held, held.slice(0, 0)
                if following is not None:
                    is_ready = pc.less(held[key], lowest[following])
                    ready, later = held.filter(is_ready), held.filter(pc.invert(is_ready))
                    if ready.num_rows < GROUP_ROWS:
                        continue
                out.write_table(ready.sort_by(key), row_group_size=GROUP_ROWS)
                held = later
        made.replace(file)

    def abandon(self) -> None:
        """Close what is open; the folder is thrown away."""
        for writer in self._writers.values():
            writer.close()

    def _flush(self, table: str) -> None:
        held = self._held.pop(table, [])
        wanted = stored_schema(table)
        if not held:
            return
        arrays = [pa.array(values, field.type) for values, field in zip(zip(*held, strict=True), wanted, strict=True)]
        self._write(table, pa.table(arrays, schema=wanted))

    def _write(self, table: str, rows: pa.Table) -> None:
        if not rows.num_rows:
            return
        if table not in self._writers:
            self._writers[table] = pq.ParquetWriter(self._folder / f"{table}.parquet", rows.schema, compression="zstd")
        self._writers[table].write_table(rows)
        self.rows[table] = self.rows.get(table, 0) + rows.num_rows
        if sum(self.rows.values()) > MOST_ROWS:
            raise UsageError(
                problem=f"the file has more than {MOST_ROWS:,} rows", field="path", remedy="Import a part of it."
            )


def cleaned(text: str) -> str:
    """Text of strangers without what a terminal obeys."""
    if text.isprintable():
        return text
    return IN_TEXT.sub("", text).encode("utf-8", "replace").decode()


def shortened(text: str, most: int) -> str:
    """No longer than a column takes."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def plausible(at_us: int) -> bool:
    """Whether a time can be kept as one."""
    return 0 <= at_us < YEAR_2200_US


def _wrong(table: str, problem: str) -> UsageError:
    return UsageError(
        problem=f"these are no tables of ours: {table} {problem}", field="path", remedy="`%tundra import --help`"
    )
