"""The record of a daemon is read across versions."""

from __future__ import annotations

import json

from tundra_nb.protocol import record


def test_a_later_versions_record_is_read() -> None:
    written = {"pid": 7, "socket": "/s", "host": "h", "api": 3, "version": "9.0", "state": "draining", "new": [1]}
    found = record.read(json.dumps(written).encode())
    assert found is not None
    assert (found.pid, found.api, found.state) == (7, 3, "draining")


def test_a_half_written_record_is_none() -> None:
    assert record.read(b"") is None
    assert record.read(b'{"pid": 7, "soc') is None
    assert record.read(b"\xff\xfe") is None
