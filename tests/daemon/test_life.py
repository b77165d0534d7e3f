"""Who keeps the daemon alive, on a virtual clock."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tundra_nb.daemon.life import Life, counting_use
from tundra_nb.errors import IpcError
from tundra_nb.paths import Paths
from tundra_nb.protocol.record import DaemonRecord

RECORD = DaemonRecord(
    pid=7, socket="/s", host="h", api=1, version="0", data_dir="/d", started_by="kernel", started_at=0.0, state="ready"
)


class Time:
    """A clock that moves when somebody sleeps, and does at set moments what happens then."""

    def __init__(self) -> None:
        self.now = 100.0
        self.plan: list[tuple[float, Any]] = []

    def monotonic(self) -> float:
        return self.now

    def at(self, seconds: float, what: Any) -> None:
        self.plan.append((100.0 + seconds, what))
        self.plan.sort(key=lambda item: item[0])

    async def sleep(self, seconds: float) -> None:
        assert seconds > 0, "a sleep of nothing would spin"
        until = self.now + seconds
        while self.plan and self.plan[0][0] <= until:
            self.now, what = self.plan.pop(0)
            what()
        self.now = until

    @property
    def passed(self) -> float:
        return self.now - 100.0


def paths_in(folder: Path) -> Paths:
    return Paths(data_dir=folder, socket=folder / "s", connection_file=folder / "c")


def made(folder: Path = Path("/nowhere")) -> tuple[Life, Time]:
    time = Time()
    return Life(RECORD, paths_in(folder), time.monotonic), time


def idle_after(life: Life, time: Time, after: float) -> float:
    asyncio.run(life.idle(after, time.sleep))
    return time.passed


def test_an_unused_daemon_is_idle_after_exactly_the_set_time() -> None:
    life, time = made()
    assert idle_after(life, time, 600) == 600


def test_the_time_counts_from_the_last_detachment() -> None:
    life, time = made()
    stack = contextlib.ExitStack()
    stack.enter_context(life.attached("kernel"))
    time.at(1000, stack.close)
    assert idle_after(life, time, 600) == 1600


def test_a_call_is_use_and_a_look_at_the_status_is_not() -> None:
    life, time = made()

    def request(path: str) -> None:
        with life.request(path):
            pass

    time.at(100, lambda: request("/api/operations"))
    time.at(500, lambda: request("/api/status"))
    time.at(550, lambda: request("/metrics"))
    assert idle_after(life, time, 600) == 700


def test_a_stream_that_names_nobody_does_not_attach() -> None:
    life, time = made()
    with life.attached(""), life.request("/api/events"):
        assert life.attached_count == 0
        assert idle_after(life, time, 600) == 600


def test_a_pty_delays_the_end_until_shortly_after_its_own() -> None:
    life, time = made()
    life.living_ptys = lambda: int(time.passed < 2000)
    assert 2000 <= idle_after(life, time, 600) <= 2005


@given(st.lists(st.tuples(st.floats(0, 5000), st.floats(0.1, 2000), st.booleans()), max_size=8), st.floats(1, 1000))
def test_it_never_ends_while_used_and_always_within_the_set_time_after(
    uses: list[tuple[float, float, bool]], after: float
) -> None:
    life, time = made()
    for begin, length, attaches in uses:
        stack = contextlib.ExitStack()
        use = life.attached("kernel") if attaches else life.request("/v1/messages")
        time.at(begin, lambda stack=stack, use=use: stack.enter_context(use))
        time.at(begin + length, stack.close)
    ended = idle_after(life, time, after)
    last = 0.0
    for begin, length, _ in sorted(uses):
        if begin > last + after:
            break  # it had ended before this use began
        last = max(last, begin + length)
    assert ended == pytest.approx(last + after)


def test_a_program_is_refused_while_a_call_is_under_way_and_told_why(tmp_path: Path) -> None:
    life, _ = made(tmp_path)
    with life.request("/api/operations"), life.attached("kernel"), life.attached("kernel"), life.attached("cli"):
        with pytest.raises(IpcError) as caught:
            life.request_stop()
        assert caught.value.kind == "busy"
        assert caught.value.message == "the daemon (pid 7) is in use: 1 cli, 2 kernel, 1 requests"
        assert not life.stopping.is_set()
        found = life.request_stop(hold=True)
        assert (found.attached, found.requests) == ({"cli": 1, "kernel": 2}, 1)
    assert life.stopping.is_set()
    assert not life.hurry.is_set()
    assert paths_in(tmp_path).held.exists()


def test_streams_are_ended_once_however_often_it_is_told_to_stop() -> None:
    life, _ = made()
    ended: list[None] = []
    life.end_streams = lambda: ended.append(None)
    life.stop("first")
    life.stop("second", force=True)
    assert (life.reason, len(ended), life.hurry.is_set()) == ("first", 1, True)


def test_its_repr_tells_its_state() -> None:
    life, _ = made()
    with life.attached("kernel"):
        assert repr(life) == "<Life running: 1 attached, 0 requests, 0 PTYs>"
    life.stop("over")
    assert repr(life) == "<Life stopping: 0 attached, 0 requests, 0 PTYs>"


@pytest.mark.anyio
async def test_a_request_that_fails_is_no_longer_counted() -> None:
    life, _ = made()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert "1 requests" in repr(life)
        raise ValueError

    async def never() -> Any:
        raise AssertionError

    with pytest.raises(ValueError, match=r"^$"):
        await counting_use(app, life)({"type": "http", "path": "/v1/models"}, never, never)  # type: ignore[arg-type]
    assert "0 requests" in repr(life)
