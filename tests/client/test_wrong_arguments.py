"""Arguments of a wrong kind are told as such, before a daemon is asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import tundra_nb
from tundra_nb.client.sync import Client
from tundra_nb.errors import UsageError


def test_a_url_is_no_data_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for connect in (tundra_nb.connect, tundra_nb.connect_async):
        with pytest.raises(UsageError, match="is a URL"):
            connect("http://127.0.0.1:1")
    assert not list(tmp_path.iterdir())


def test_values_of_a_wrong_kind_are_wrong_usage(tmp_path: Path) -> None:
    client: Any = Client(tmp_path / "data", start=False)
    for call in (
        lambda: client.errors(since=5),
        lambda: client.calls(between=5),
        lambda: client.calls(between=("1h",)),
        lambda: client.sql(5),
        lambda: client.sql(None),
    ):
        with pytest.raises(UsageError):
            call()
