"""The lock and the connection record, within one process: an flock belongs to the open file, not to the process."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tundra_nb.daemon import connection
from tundra_nb.daemon.lock import Lock
from tundra_nb.errors import ConfigError, IpcError
from tundra_nb.protocol import record
from tundra_nb.protocol.record import DaemonRecord

RECORD = DaemonRecord(
    pid=7, socket="/s", host="h", api=1, version="0", data_dir="/d", started_by="kernel", started_at=0.0, state="ready"
)


def test_the_second_owner_is_refused_with_the_pid_of_the_first(tmp_path: Path) -> None:
    with Lock(tmp_path / "l") as first:
        first.write(RECORD)
        with pytest.raises(IpcError, match="pid 7 on h"), Lock(tmp_path / "l"):
            pass
    with Lock(tmp_path / "l"):
        pass


def test_an_owner_that_has_not_written_its_name_is_given_a_moment(tmp_path: Path) -> None:
    with Lock(tmp_path / "l"), pytest.raises(IpcError, match="another process holds"), Lock(tmp_path / "l", 0.1):
        pass


def test_an_owner_that_is_stopping_is_waited_for(tmp_path: Path) -> None:
    first = Lock(tmp_path / "l")
    with first:
        first.write(RECORD.in_state("stopping"))
        timer = threading.Timer(0.2, first.release)
        timer.start()
        with Lock(tmp_path / "l") as second:
            assert repr(second).endswith("held>")
        timer.join()


def test_an_owner_that_never_ends_its_stop_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    with Lock(tmp_path / "l") as first:
        first.write(RECORD.in_state("stopping"))
        with pytest.raises(IpcError, match="pid 7"), Lock(tmp_path / "l", patience=0.1):
            pass


def test_a_shorter_record_replaces_a_longer_one_whole(tmp_path: Path) -> None:
    with Lock(tmp_path / "l") as lock:
        lock.write(msgspec.structs.replace(RECORD, version="0" * 500))
        lock.write(RECORD)
        assert record.read((tmp_path / "l").read_bytes()) == RECORD
    assert (tmp_path / "l").read_text() == "", "a released lock names nobody"


def test_a_lock_file_that_cannot_be_opened_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be written"), Lock(tmp_path / "missing" / "l"):
        pass


def test_the_connection_file_is_private_and_replaced_in_one_step(tmp_path: Path) -> None:
    file = tmp_path / "new" / "c.json"
    connection.write(file, RECORD)
    connection.write(file, RECORD.in_state("stopping"))
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [path.name for path in file.parent.iterdir()] == ["c.json"], "no draft is left"
    assert record.read(file.read_bytes()) == RECORD.in_state("stopping")


def test_a_successors_connection_file_is_not_removed(tmp_path: Path) -> None:
    file = tmp_path / "c.json"
    connection.write(file, RECORD)
    connection.remove(file, pid=8)
    assert file.exists()
    connection.remove(file, pid=7)
    connection.remove(file, pid=7)
    assert not file.exists()


def test_fields_of_a_later_version_are_passed_over() -> None:
    text = RECORD.to_json().replace(b"{", b'{"colour": "blue", ', 1)
    assert record.read(text) == RECORD


@given(st.text(max_size=80) | st.just("[]") | st.just('{"pid": 1}') | st.just(os.devnull))
def test_any_text_is_read_as_a_record_or_as_none(text: str) -> None:
    assert record.read(text.encode("utf-8", "surrogatepass")) is None
