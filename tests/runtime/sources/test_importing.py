"""Files of other programs become sources."""

from __future__ import annotations

import bz2
import datetime as dt
import gzip
import itertools
import json
import lzma
import os
import re
import socket
import sys
import zipfile
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tundra_nb.errors import ConfigError, QueryRefused, StoreDamaged, UsageError
from tundra_nb.protocol.query import Condition, FrameQuery, checked
from tundra_nb.protocol.sources import Importing, Source
from tundra_nb.runtime.history import arrow, grouping
from tundra_nb.runtime.history.contract import Stop
from tundra_nb.runtime.history.query import ungrouped
from tundra_nb.runtime.sources.importing import import_
from tundra_nb.runtime.sources.place import SourcesFolder
from tundra_nb.runtime.sources.tables import SourceTables
from tundra_nb.runtime.sources.taking import TELLING_LINES
from tundra_nb.runtime.sources.worker import _trouble
from tundra_nb.runtime.telemetry.redact import Redactor

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

CANARY = "canary-7f3a9c2e51"
KEY = "sk-ant-canary0123456789abcdef"

TEXT = """\
2026-03-01T10:30:45.123456Z  INFO at_daemon: crates/at-daemon/src/main.rs:25: logging initialised service="at-daemon"
2026-03-01T10:30:46.100000Z  WARN at_intelligence: circuit open, trying next provider profile=local-runtime
2026-03-01T10:30:46.200000Z  WARN at_x: call failed, trying next provider profile=anthropic error=API error (status 529)
2026-03-01T10:30:47.000000Z ERROR at_daemon::orchestrator: phase failed error=AllProvidersExhausted
2026-03-01T10:30:48.000000Z  WARN at_harness::rate_limiter: rate limit exceeded key="global" retry_after=1.5s
2026-03-01T10:30:49.000000Z  WARN at_harness::circuit_breaker: circuit breaker transitioning Closed -> Open failures=5
2026-03-01T10:30:50.000000Z ERROR request{method=GET uri=/api/status}: at_bridge: LlmError::Timeout after 30s
"""


def made(tmp_path: Path, file: Path | str, **more: Any) -> Source:
    """Import a file in this process."""
    redactor = Redactor(b"0" * 16)
    redactor.register("ANTHROPIC_API_KEY", KEY)
    given: dict[str, Any] = {"name": None, "about": {}, "link": False, "on_progress": lambda _: None} | more
    return import_(SourcesFolder(tmp_path / "sources"), str(file), redactor=redactor, stop=Stop(), **given)


def rows(tmp_path: Path, source: Source, table: str, *where: Condition, **more: Any) -> list[dict[str, Any]]:
    """Rows of a source."""
    tables = SourceTables(tmp_path / "sources" / source.name, source)
    query = checked(FrameQuery(table=table, where=list(where), **more))
    if query.is_grouped:
        return arrow.rows(grouping.grouped(tables.frame(ungrouped(query), Stop()), query).batches)
    return arrow.rows(tables.frame(query, Stop()).batches)


def written(tmp_path: Path, text: str | bytes, name: str = "daemon.log") -> Path:
    """A file with this text."""
    file = tmp_path / name
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


def test_a_log_of_the_originals_becomes_calls_attempts_breakers_limits_and_errors(tmp_path: Path) -> None:
    """Every line is kept; what it says of profiles, breakers and limits is rows of the history's own tables."""
    source = made(tmp_path, written(tmp_path, TEXT))
    assert (source.kind, source.lines, source.left) == ("tracing", 7, 0)
    first = rows(tmp_path, source, "imported_log")[0]
    assert (first["logger"], first["message"]) == ("at_daemon", 'logging initialised service="at-daemon"')
    (call,) = rows(tmp_path, source, "operation")
    assert (call["outcome"], call["code"], call["asked"]) == (
        "error",
        "AllProvidersExhausted",
        "local-runtime,anthropic",
    )
    attempts = rows(tmp_path, source, "attempt")
    assert [(row["profile"], row["outcome"], row["code"]) for row in attempts] == [
        ("local-runtime", "refused", "CircuitBreakerError::Open"),
        ("anthropic", "error", "ApiError"),
    ]
    assert {row["operation_id"] for row in attempts} == {call["operation_id"]}
    (limit,) = rows(tmp_path, source, "limit_event")
    assert (limit["tier"], limit["retry_after_s"]) == ("global", 1.5)
    (breaker,) = rows(tmp_path, source, "breaker_event")
    assert (breaker["old_state"], breaker["new_state"], breaker["failures"]) == ("closed", "open", 5)
    errors = rows(tmp_path, source, "error_event")
    assert [row["code"] for row in errors][-1] == "Timeout"
    assert errors[2]["operation_id"] == call["operation_id"]


def test_the_same_file_twice_is_the_same_source(tmp_path: Path) -> None:
    """By its content, whatever it is called."""
    first = made(tmp_path, written(tmp_path, TEXT))
    second = made(tmp_path, written(tmp_path, TEXT, "copy.log"))
    assert (second.name, second.again, first.again) == (first.name, True, False)
    assert SourcesFolder(tmp_path / "sources").names() == [first.name]


def test_a_second_name_for_a_file_that_is_imported_is_refused_not_ignored(tmp_path: Path) -> None:
    file = written(tmp_path, TEXT)
    made(tmp_path, file, name="first")
    assert made(tmp_path, file, name="first").again
    with pytest.raises(UsageError, match="imported already, as source 'first'"):
        made(tmp_path, file, name="other")


def test_what_was_imported_is_not_imported_again_with_the_folder_around_it(tmp_path: Path) -> None:
    source = made(tmp_path, written(tmp_path, TEXT))
    for folder in (tmp_path, tmp_path / "sources", tmp_path / "sources" / source.name):
        for link in (False, True):
            with pytest.raises(UsageError, match="holds what was imported already"):
                made(tmp_path, folder, name="again", link=link)


def test_a_folder_that_cannot_be_read_is_not_told_as_one_of_ours(tmp_path: Path) -> None:
    ours = tmp_path / "sources"
    told = _trouble(ours, "/x", PermissionError(13, "Permission denied", "/x/secret"))
    assert "/x cannot be read: /x/secret: Permission denied" in str(told)
    assert isinstance(_trouble(ours, "/x", PermissionError(13, "Permission denied", str(ours / "a"))), ConfigError)


def test_a_source_names_the_file_that_it_was_unpacked_from(tmp_path: Path) -> None:
    assert made(tmp_path, written(tmp_path, TEXT), origin="/home/a/incident.zip").file == "/home/a/incident.zip"


def test_a_short_secret_with_its_name_is_not_shown_in_the_sample(tmp_path: Path) -> None:
    lines = "what is password=hunter2 doing here\n" + '{"pwd": "abc", "x": 1}\n'
    source = made(tmp_path, written(tmp_path, TEXT + lines))
    assert source.left == 2
    assert "password=<secret> doing" in source.sample[0]
    assert "abc" not in source.sample[1]


def test_another_file_of_the_same_name_gets_another_name(tmp_path: Path) -> None:
    """A number is put behind; a name that a person gives is refused."""
    made(tmp_path, written(tmp_path, TEXT))
    assert made(tmp_path, written(tmp_path, TEXT + TEXT)).name == "daemon-2"
    with pytest.raises(UsageError, match="there already"):
        made(tmp_path, written(tmp_path, TEXT * 3), name="daemon")
    with pytest.raises(UsageError, match="no name"):
        made(tmp_path, written(tmp_path, TEXT * 4), name="../x")


def test_the_json_form_gives_the_same_rows(tmp_path: Path) -> None:
    """Fields stand in `fields`, spans beside them."""
    lines = [
        {
            "timestamp": "2026-03-01T10:30:46.1Z",
            "level": "WARN",
            "fields": {"message": "rate limit exceeded, trying next provider", "profile": "a"},
            "target": "at_intelligence::api_profiles",
            "span": {"name": "call", "request_id": "r1"},
            "spans": [{"name": "call", "request_id": "r1"}],
        },
        {
            "timestamp": "2026-03-01T10:30:46.2Z",
            "level": "WARN",
            "fields": {"message": "call timed out, trying next provider", "profile": "b", "timeout": "30s"},
            "target": "at_intelligence::api_profiles",
            "spans": [{"name": "call", "request_id": "r1"}],
        },
        {"timestamp": "2026-03-01T10:30:47Z", "level": "ERROR", "message": "boom", "target": "at_daemon"},
    ]
    source = made(tmp_path, written(tmp_path, "\n".join(map(json.dumps, lines))))
    attempts = rows(tmp_path, source, "attempt")
    assert [(row["code"], row["latency_ms"]) for row in attempts] == [
        ("RateLimitError::Exceeded", None),
        ("Timeout", 30_000.0),
    ]
    (call,) = rows(tmp_path, source, "operation")
    assert call["outcome"] == "interrupted"
    assert "does not say how it ended" in call["message"]
    assert rows(tmp_path, source, "error_event")[-1]["code"] == "Unclassified"


@pytest.mark.parametrize("times", [400, pytest.param(14_286, marks=pytest.mark.check, id="100,000 lines")])
def test_counts_match_a_plain_grep(tmp_path: Path, times: int) -> None:
    """Whatever the lines are, each level and each known line is counted as grep counts it."""
    text = TEXT * times + "not a line of a log\n" * 3
    source = made(tmp_path, written(tmp_path, text))
    by_level = {row["severity"]: row["count"] for row in rows(tmp_path, source, "imported_log", by=["severity"])}
    assert by_level == {
        "info": len(re.findall(r"^\S+ +INFO ", text, re.MULTILINE)),
        "warning": len(re.findall(r"^\S+ +WARN ", text, re.MULTILINE)),
        "error": len(re.findall(r"^\S+ +ERROR ", text, re.MULTILINE)),
    }
    assert len(rows(tmp_path, source, "limit_event")) == text.count("rate limit exceeded key")
    assert len(rows(tmp_path, source, "breaker_event")) == text.count("circuit breaker transitioning")
    assert len(rows(tmp_path, source, "attempt")) == text.count("trying next provider")
    assert source.left == 3
    assert source.sample == ["not a line of a log"] * 3


def test_windows_conditions_limits_and_order_mean_what_they_mean_in_the_history(tmp_path: Path) -> None:
    """The same query, on a source."""
    source = made(tmp_path, written(tmp_path, TEXT))
    assert len(rows(tmp_path, source, "imported_log", Condition("severity", "in", ["error"]))) == 2
    assert len(rows(tmp_path, source, "imported_log", Condition("message", "contains", "circuit"))) == 2
    assert len(rows(tmp_path, source, "error_event", Condition("profile", "null", True))) == 4
    assert len(rows(tmp_path, source, "operation", Condition("profile", "eq", "local-runtime"))) == 1
    assert len(rows(tmp_path, source, "operation", Condition("profile", "eq", "anthropic"))) == 0
    newest = rows(tmp_path, source, "imported_log", limit=2, newest_first=True)
    assert [row["severity"] for row in newest] == ["error", "warning"]
    since = 1_772_361_048_000_000
    assert len(rows(tmp_path, source, "imported_log", since_us=since)) == 3
    assert len(rows(tmp_path, source, "imported_log", until_us=since)) == 4
    assert rows(tmp_path, source, "note") == []


def test_free_sql_reads_a_source_and_nothing_else(tmp_path: Path) -> None:
    """In the embedded engine's dialect, behind the same fence."""
    source = made(tmp_path, written(tmp_path, TEXT))
    tables = SourceTables(tmp_path / "sources" / source.name, source)
    frame = tables.sql("select severity, count(*) as n from imported_log group by 1 order by 1", None, Stop())
    assert arrow.rows(frame.batches) == [
        {"severity": "error", "n": 2},
        {"severity": "info", "n": 1},
        {"severity": "warning", "n": 4},
    ]
    for text in ("delete from operation", "select load_extension('x')", "select * from pragma_database_list"):
        with pytest.raises(QueryRefused):
            tables.sql(text, None, Stop())
    with pytest.raises(UsageError, match="no commits"):
        tables.check_at("HEAD~1")


def test_keys_in_a_log_are_masked_and_escape_codes_are_gone(tmp_path: Path) -> None:
    """By value and by look, in rows, in the sample and on disk."""
    hostile = (
        f'2026-03-01T10:30:45Z ERROR at_daemon: bad \x1b[31mkey\x1b]0;pwned\x07 error="{KEY}"'
        ' auth="Bearer abcdefgh12345678"\n'
        f"2026-03-01T10:30:45Z ERROR at_daemon: split {KEY[:9]}\x1b[0m{KEY[9:]} and {KEY[:9]}\x01{KEY[9:]}\n"
        f"what is this {KEY[:5]}\x1b[1m{KEY[5:]} <script>alert(1)</script>\x1b[2J\n" + TEXT
    )
    source = made(tmp_path, written(tmp_path, hostile))
    whole = str([rows(tmp_path, source, table) for table in source.rows]) + str(source)
    assert KEY not in whole
    assert "abcdefgh12345678" not in whole
    assert "\x1b" not in whole
    assert "<ANTHROPIC_API_KEY:" in source.sample[0]
    for file in (tmp_path / "sources" / source.name).iterdir():
        assert KEY.encode() not in file.read_bytes()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "empty"),
        (b"\0" * 4096, "it is no text"),
        (b"PK\x03\x04broken", "zip cannot be read"),
        (b"\x1f\x8bbroken gzip", "packed file cannot be read"),
        (b"BZh9broken", "packed file cannot be read"),
        (lzma.compress(b"x" * 9000)[:60], "packed file cannot be read"),
        (b"\xfd7zXZ\x00broken", "packed file cannot be read"),
        (b"\x28\xb5\x2f\xfdbroken", "packed file cannot be read"),
        (b"\x7fELF\x02\0\0\n" * 50, "it is no text"),
        pytest.param(gzip.compress(gzip.compress(b"x" * 9000)), "not understood", id="packed twice"),
        (b"PAR1xxxx", "which table"),
        (b'{"resourceSpans": [\n', "cannot be read"),
        (b"[" * 100_000 + b"\n", "not understood"),
        (b"x" * (3 << 20), "not understood"),
        (b"\xff\xfe\n" * 50, "not understood"),
    ],
)
def test_what_is_no_log_is_refused_clearly_and_leaves_nothing(tmp_path: Path, content: bytes, told: str) -> None:
    """Empty, binary, cut off, nested without end: a sentence, and no source."""
    with pytest.raises(UsageError, match=told):
        made(tmp_path, written(tmp_path, content))
    assert list((tmp_path / "sources").iterdir()) == []


@pytest.mark.parametrize("path", ["\0", "a\0b", "\ud83d", "~nobody-of-this-name/x"])
def test_what_can_be_no_path_is_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(UsageError, match="is no path"):
        made(tmp_path, path)


def test_bombs_are_not_unpacked(tmp_path: Path) -> None:
    """A gzip and a zip that would fill the disk."""
    with pytest.raises(UsageError, match="not read on"):
        made(tmp_path, written(tmp_path, gzip.compress((b"x" * (1 << 19) + b"\n") * 160), "bomb.log.gz"))
    told: list[Importing] = []
    file = written(tmp_path, gzip.compress(TEXT.encode() * 100_000), "same.log.gz")
    with pytest.raises(UsageError, match="not read on"):
        made(tmp_path, file, on_progress=told.append)
    assert max(one.lines for one in told) == 0, "its lines are not even looked at"
    bomb = tmp_path / "bomb.zip"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("tables/operation.json", b" " * (80 << 20))
    with pytest.raises(UsageError, match="not read"):
        made(tmp_path, bomb)


def test_a_long_file_of_another_kind_is_refused_before_it_is_read_to_its_end(tmp_path: Path) -> None:
    """A packed file of a few MB may hold a hundred million lines."""
    content = gzip.compress(b"2024-01-01 INFO hello world this is a line\n" * (TELLING_LINES + 50_000))
    with pytest.raises(UsageError, match=f"{TELLING_LINES:,} of {TELLING_LINES:,} lines are not understood"):
        made(tmp_path, written(tmp_path, content, "hello.log.gz"))


def test_a_cut_off_log_is_taken_up_to_its_cut(tmp_path: Path) -> None:
    """The last line of a JSON log that broke off is left out and counted."""
    line = json.dumps({"timestamp": "2026-03-01T10:30:47Z", "level": "ERROR", "message": "boom", "target": "a"})
    source = made(tmp_path, written(tmp_path, f"{line}\n{line}\n{line[:30]}"))
    assert (source.lines, source.left) == (3, 1)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"\xef\xbb\xbf" + TEXT.encode(), id="UTF-8 with a mark"),
        pytest.param(TEXT.encode("utf-16"), id="UTF-16"),
        pytest.param(b"\xfe\xff" + TEXT.replace("\n", "\r\n").encode("utf-16-be"), id="UTF-16, big end first, CRLF"),
        pytest.param(TEXT.replace("\n", "\r\n").encode(), id="CRLF"),
        pytest.param(TEXT.replace("\n", "\r").encode(), id="CR"),
        pytest.param(TEXT.replace("\n", "\r\n", 3).replace("\n", "\r", 5).replace("\r\r", "\r\n").encode(), id="mixed"),
        pytest.param(b"\n\n" + TEXT.encode(), id="blank lines before"),
        pytest.param(gzip.compress(TEXT.encode("utf-16")), id="UTF-16, packed"),
        pytest.param(bz2.compress(TEXT.encode()), id="bzip2"),
        pytest.param(lzma.compress(TEXT.encode()), id="xz"),
        pytest.param(zstd.compress(TEXT.encode()), id="zstd"),
    ],
)
def test_a_log_is_read_whatever_its_encoding_and_line_ends(tmp_path: Path, content: bytes) -> None:
    plain = made(tmp_path / "plain", written(tmp_path, TEXT))
    source = made(tmp_path, written(tmp_path, content, "other.log"))
    assert (source.lines, source.left, source.rows) == (7, 0, plain.rows)
    for table in plain.rows:
        assert rows(tmp_path, source, table) == rows(tmp_path / "plain", plain, table)


def test_lines_that_end_with_returns_alone_are_read_however_many_there_are(tmp_path: Path) -> None:
    text = TEXT * 3000  # longer than the longest line
    source = made(tmp_path, written(tmp_path, text.replace("\n", "\r")))
    assert (source.lines, source.left) == (21_000, 0)


@pytest.mark.parametrize("kind", ["fifo", "device", "link to a device", "link to nothing", "socket"])
def test_what_is_neither_file_nor_folder_is_refused_at_once(tmp_path: Path, kind: str) -> None:
    """It is never opened: a pipe would wait, and `/dev/zero` never ends."""
    path = tmp_path / "x"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(path))
    elif kind == "device":
        path = Path("/dev/zero")
    else:
        path.symlink_to("/dev/zero" if kind == "link to a device" else "nothing")
    with pytest.raises(UsageError, match=r"neither a file nor a folder|No such file"):
        made(tmp_path, path)
    folder = tmp_path / "folder" / "tables"
    folder.mkdir(parents=True)
    if path.parent == tmp_path and path.is_symlink():
        (folder / "operation.parquet").symlink_to(path)
        with pytest.raises(UsageError):
            made(tmp_path, folder.parent)


def test_lines_of_ten_megabytes_neither_stop_an_import_nor_fill_memory(tmp_path: Path) -> None:
    """Of a log line that long nothing is kept; a JSON record that long is one, shortened."""
    record = {"timestamp": "2026-03-01T10:30:47Z", "level": "ERROR", "target": "a", "message": "z" * (10 << 20)}
    long = TEXT.splitlines()[0] + " " + "y" * (10 << 20)
    source = made(tmp_path, written(tmp_path, f"{TEXT}{long}\n{json.dumps(record)}\n{TEXT}"))
    assert (source.lines, source.left) == (16, 1)
    longest = max(len(row["message"]) for row in rows(tmp_path, source, "imported_log"))
    assert longest <= 16_384


GIGABYTE = 1_000_000_000
MEMORY_BYTES = 400_000_000
"""What an import may add to a process, however long the file."""


@pytest.mark.parametrize(
    ("size", "order"),
    [
        (3_000_000, "late"),
        (3_000_000, "two logs"),
        pytest.param(150_000_000, "late", marks=pytest.mark.soak),
        pytest.param(GIGABYTE, "late", marks=[pytest.mark.soak, pytest.mark.timeout(7200)]),
    ],
)
def test_a_long_log_is_read_in_bounded_memory_with_progress_and_ends_in_order(
    tmp_path: Path, size: int, order: str
) -> None:
    """Lines of the original's own, some of them late as threads write them, or two hosts' logs one behind the other."""
    file = tmp_path / "big.log"
    events = long_log(file, size, order)
    told: list[Importing] = []
    process = psutil.Process()
    before = process.memory_info().rss
    most = 0

    def heard(step: Importing) -> None:
        nonlocal most
        most = max(most, process.memory_info().rss)
        told.append(step)

    source = made(tmp_path, file, on_progress=heard)
    assert most - before < MEMORY_BYTES
    assert source.rows["imported_log"] == events
    assert [step.doing for step, after in itertools.pairwise(told) if step.doing != after.doing] == [
        "hashing",
        "reading",
    ]
    done = [step.done_bytes for step in told if step.doing == "reading"]
    assert done == sorted(done)
    assert done[-1] > 0.9 * file.stat().st_size
    last = -1
    stored = pq.ParquetFile(tmp_path / "sources" / source.name / "imported_log.parquet")
    for batch in stored.iter_batches(columns=["imported_log_id"]):
        keys = batch.column(0).to_numpy()
        assert last < keys[0]
        assert bool((keys[1:] > keys[:-1]).all())
        last = int(keys[-1])


def long_log(file: Path, size: int, order: str) -> int:
    """Write a log of this many bytes; how many events it has."""
    lines = (Path(__file__).parent / "fixtures" / "tracing.log").read_text().splitlines()
    began = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)
    events = written = 0
    with file.open("w") as out:
        while written < size:
            for line in lines:
                if not line.startswith("20"):
                    written += out.write(f"{line}\n")
                    continue
                events += 1
                shift = -7 if order == "late" and events % 11 == 0 else 0
                at = began + dt.timedelta(milliseconds=events * 3 + shift)
                if order == "two logs" and written > size // 2:
                    at -= dt.timedelta(seconds=size / 1e5)
                written += out.write(f"{at:%Y-%m-%dT%H:%M:%S.%f}Z{line[27:]}\n")
    return events


def test_progress_is_told(tmp_path: Path) -> None:
    """Hashing and reading, with bytes and lines."""
    told: list[Importing] = []
    made(tmp_path, written(tmp_path, TEXT * 1000), on_progress=told.append)
    assert list(dict.fromkeys(step.doing for step in told)) == ["hashing", "reading", "sorting"]
    assert told[1].lines == 5000
    assert 0 < told[1].done_bytes <= told[1].size_bytes


def test_a_stopped_import_leaves_nothing(tmp_path: Path) -> None:
    """Nobody waits any more."""
    stop = Stop()

    def cancel(step: Importing) -> None:
        if step.doing == "reading":
            stop.cancel()

    file = written(tmp_path, TEXT * 3000)
    with pytest.raises(Exception, match="cancelled"):
        import_(
            SourcesFolder(tmp_path / "sources"),
            str(file),
            name=None,
            about={},
            link=False,
            redactor=Redactor(),
            on_progress=cancel,
            stop=stop,
        )
    assert list((tmp_path / "sources").iterdir()) == []


def test_our_own_tables_come_back_as_they_were(tmp_path: Path) -> None:
    """From a folder, from a zip, and linked in place; out of order they are put in order."""
    first = made(tmp_path, written(tmp_path, TEXT), about={"ref": "incident-1", "commit": "abc"})
    folder = tmp_path / "archive" / "tables"
    (folder / "operation").mkdir(parents=True)
    stored = pq.read_table(tmp_path / "sources" / first.name / "imported_log.parquet")
    pq.write_table(stored.take(pa.array(range(stored.num_rows - 1, -1, -1))), folder / "imported_log.parquet")
    pq.write_table(
        pq.read_table(tmp_path / "sources" / first.name / "operation.parquet"),
        folder / "operation" / "2026-03-01.parquet",
    )
    (folder / "other.parquet").write_bytes((folder / "imported_log.parquet").read_bytes())
    second = made(tmp_path, tmp_path / "archive")
    assert second.kind == "tables"
    assert second.rows == {"imported_log": 7, "operation": 1}
    packed = tmp_path / "packed.zip"
    with zipfile.ZipFile(packed, "w") as out:
        for file in folder.rglob("*.parquet"):
            out.write(file, f"x/tables/{file.relative_to(folder)}")
    third = made(tmp_path, packed)
    for table in ("imported_log", "operation"):
        assert rows(tmp_path, second, table) == rows(tmp_path, first, table) == rows(tmp_path, third, table)
    SourcesFolder(tmp_path / "sources").remove(second.name)
    linked = made(tmp_path, tmp_path / "archive", link=True, name="linked")
    assert rows(tmp_path, linked, "operation") == rows(tmp_path, first, "operation")
    assert not list((tmp_path / "sources" / "linked").glob("*.parquet"))
    (folder / "imported_log.parquet").unlink()
    with pytest.raises(StoreDamaged, match="gone"):
        rows(tmp_path, linked, "imported_log")


def test_tables_that_are_not_ours_are_refused(tmp_path: Path) -> None:
    """A column of another type, a column that is missing, no table of ours at all."""
    folder = tmp_path / "x"
    folder.mkdir()
    for table in ({"operation_id": ["a"], "at": [1]}, {"operation_id": [1]}, {"operation_id": [1], "at": [1]}):
        pq.write_table(pa.table(table), folder / "operation.parquet")
        with pytest.raises(UsageError):
            made(tmp_path, folder)
    (folder / "operation.parquet").write_bytes(b"PAR1 no parquet PAR1")
    with pytest.raises(UsageError, match="Parquet"):
        made(tmp_path, folder)
    (folder / "operation.parquet").unlink()
    with pytest.raises(UsageError, match="no tables of ours"):
        made(tmp_path, folder)
