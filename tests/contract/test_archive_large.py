"""A hundred million archived rows by profile and hour, within 2 GB, asked in a process whose memory is told."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tundra_nb.runtime.archive import copying
from tundra_nb.runtime.archive.place import DAY_US, ArchiveFolder, day_of
from tundra_nb.runtime.history.contract import Stop
from tundra_nb.runtime.sources.tables import stored_schema
from tundra_nb.types import FRAME_VERSION

pytestmark = [pytest.mark.soak, pytest.mark.timeout(3600)]

DAYS = 30
EACH = 333_334
FIRST = 20_000 * DAY_US
MOST_MB = 2_000
ASK = """
import json, resource, sys, time
from pathlib import Path
from tundra_nb.protocol.query import FrameQuery
from tundra_nb.runtime.archive.reading import ArchiveReading, TablePiece
from tundra_nb.runtime.history.contract import Stop
from tundra_nb.types import FRAME_VERSION
folder, files, rows = Path(sys.argv[1]), json.loads(sys.argv[2]), int(sys.argv[3])
piece = TablePiece(files=files, frame_version=FRAME_VERSION, rows=rows)
began = time.monotonic()
reading = ArchiveReading(folder, {"operation": piece})
frame = reading.grouped(FrameQuery(table="operation", by=["profile", "hour"]), Stop(600))
counted = sum(sum(batch.column("count").to_pylist()) for batch in frame.batches)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
told = {"rows": counted, "peak_mb": peak, "seconds": time.monotonic() - began, "approximate": frame.meta["approximate"]}
print(json.dumps(told))
"""


def day(number: int, chance: np.random.Generator) -> pa.RecordBatch:
    """Calls of one day, in the order of their keys."""
    at = FIRST + number * DAY_US + np.sort(chance.integers(0, DAY_US, EACH))
    words = {"profile": ["main", "spare", "local"], "outcome": ["ok"] * 9 + ["error"]}
    made = {
        "operation_id": (at // 1000 << 22) + np.arange(EACH) % 4096,
        "at": at,
        "latency_ms": chance.random(EACH) * 1e4,
        "input_tokens": chance.integers(0, 4_000, EACH),
        "cost_usd": chance.random(EACH) / 100,
        **{name: np.array(values)[chance.integers(0, len(values), EACH)] for name, values in words.items()},
    }
    schema = stored_schema("operation")
    arrays = [
        pa.array(made[field.name]).cast(field.type)
        if field.name in made
        else pa.nulls(EACH, field.type)
        if field.nullable
        else pa.array(np.ones(EACH)).cast(field.type)
        for field in schema
    ]
    return pa.record_batch(arrays, schema=schema)


@pytest.mark.parametrize(("times", "is_approximate"), [(1, False), (10, True)])
def test_many_rows_by_profile_and_hour_take_less_than_two_gigabytes(
    tmp_path: Path, times: int, is_approximate: bool
) -> None:
    """Quantiles are exact for 10 million and approximate for 100 million: the same files, read ten times."""
    chance = np.random.default_rng(7)
    folder = ArchiveFolder(tmp_path)
    files = [
        part.file
        for number in range(DAYS)
        for part in copying.copy(
            folder, "operation", day_of(FIRST + number * DAY_US), iter([day(number, chance)]), FRAME_VERSION, Stop()
        )
    ]
    rows = DAYS * EACH * times
    command = [sys.executable, "-c", ASK, str(tmp_path), json.dumps(files * times), str(rows)]
    told = json.loads(subprocess.run(command, check=True, capture_output=True, text=True, timeout=900).stdout)
    print(told)
    assert (told["rows"], told["approximate"]) == (rows, is_approximate)
    assert told["peak_mb"] < MOST_MB
