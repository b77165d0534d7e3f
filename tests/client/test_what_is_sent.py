"""Numbers that JSON does not have never become "not given" on their way to the daemon."""

from __future__ import annotations

import math

import pytest

from tundra_nb.client import api
from tundra_nb.client.call import Call
from tundra_nb.errors import UsageError
from tundra_nb.protocol import doors


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, float("1e999")])
def test_a_number_that_is_not_finite_is_refused_by_name(number: float) -> None:
    for body, field in (
        (doors.NewTokenBody(name="a", usd_per_day=number), "usd_per_day"),
        ({"outer": [{"inner": number}]}, "inner"),
    ):
        with pytest.raises(UsageError, match="not a finite number") as caught:
            _ = Call(method="POST", path="/api/x", decode=lambda answer: answer, body=body).payload
        assert caught.value.field == field
    with pytest.raises(UsageError, match="not a finite number"):
        _ = api.set_setting("breaker.failures", number).payload
    assert api.set_setting("breaker.failures", 1.5).payload
