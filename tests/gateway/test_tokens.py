"""What a token may be made with."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tundra_nb.daemon.gateway.tokens import Tokens
from tundra_nb.errors import UsageError
from tundra_nb.protocol.doors import NewTokenBody


@pytest.mark.parametrize("field", ["rpm", "tpm", "usd_per_day"])
@pytest.mark.parametrize("number", [float("nan"), float("inf"), 1e308, 0.0, -1.0])
def test_a_limit_that_limits_nothing_is_refused(tmp_path: Path, field: str, number: float) -> None:
    tokens = Tokens(tmp_path / "tokens.json", time.time)
    with pytest.raises(UsageError, match=field):
        tokens.new(NewTokenBody(name="a", **{field: number}), ())  # type: ignore[arg-type]
    assert tokens.rows() == []
