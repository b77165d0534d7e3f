"""Recordings: what is kept, where, how long, and that no secret is in it."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import stat
import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.runtime.calls import Calls, calls
from tundra_nb.errors import TundraError
from tundra_nb.runtime import rows
from tundra_nb.runtime.clock import Ids
from tundra_nb.runtime.providers import exchange
from tundra_nb.runtime.recordings import Recording, Recordings, frames_of, inside
from tundra_nb.settings import RecordSettings, RouterSettings
from tundra_nb.testing.clock import VirtualClock
from tundra_nb.testing.scripted_provider import ScriptedStep
from tundra_nb.types import Ask, Exchange

CHAT = "/v1/chat/completions"
CANARY = "sk-canary-9876543210fedcba"


def kept_in(folder: Path, **settings: Any) -> Recordings:
    return Recordings(folder, lambda: RecordSettings(**settings), lambda: 0, VirtualClock())


def with_files(c: Calls, recordings: Recordings) -> None:
    object.__setattr__(c.profiles.journal, "keep", recordings.keep)


@pytest.mark.anyio
@pytest.mark.parametrize("streamed", [True, False])
async def test_an_attempt_is_kept_with_the_time_of_each_piece_in_a_file_for_its_owner_only(
    tmp_path: Path, streamed: bool
) -> None:
    recordings = kept_in(tmp_path / "r")
    async with calls("only", record=RecordSettings(content="all")) as c:
        with_files(c, recordings)
        c.servers["only"].script(CHAT, ScriptedStep(text="one two three", gap=0.03))
        await c.ask(f"my key is {CANARY}", stream=streamed)
        (row,) = c.of(Exchange)
    await asyncio.to_thread(recordings.close)
    assert (row.request, row.response) == ("", "")
    assert row.recording
    file = tmp_path / "r" / row.recording
    assert [stat.S_IMODE(path.stat().st_mode) for path in (file, file.parent)] == [0o600, 0o700]
    assert hashlib.sha256(file.read_bytes()).hexdigest() == row.sha256
    assert CANARY not in file.read_text()
    told = msgspec.json.decode(file.read_bytes(), type=Recording)
    assert (told.status, told.outcome, told.is_whole) == (200, "ok", True)
    times = [when for when, _ in told.frames]
    assert times == sorted(times)
    assert len(times) > 1 or not streamed
    assert "my key is" in told.request
    text = "".join(piece for _, piece in told.frames)
    assert len(text.encode()) == row.response_bytes
    assert "[DONE]" in text if streamed else "one two three" in text


@pytest.mark.anyio
@pytest.mark.parametrize("fails", [False, True])
async def test_a_long_answer_is_masked_while_the_loop_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    """It is whole, masked, and written before the caller has it: but by no thread that others wait for."""
    by: set[int] = set()

    def watched(arrivals: Any, redact: Any) -> Any:
        by.add(threading.get_ident())
        return frames_of(arrivals, redact)

    monkeypatch.setattr(rows, "frames_of", watched)
    recordings = kept_in(tmp_path / "r")
    async with calls("only", record=RecordSettings(content="all"), router=RouterSettings(retries=0)) as c:
        with_files(c, recordings)
        long = f"{CANARY} " + "word " * 20_000
        c.servers["only"].script(CHAT, ScriptedStep(text=long, cut=200_000 if fails else None))
        with pytest.raises(TundraError) if fails else contextlib.nullcontext():
            await c.ask("hi", stream=True)
        (row,) = c.of(Exchange)
    await asyncio.to_thread(recordings.close)
    assert by
    assert threading.get_ident() not in by
    assert row.recording
    told = msgspec.json.decode((tmp_path / "r" / row.recording).read_bytes(), type=Recording)
    assert told.outcome == ("error" if fails else "ok")
    text = "".join(piece for _, piece in told.frames)
    assert text.count("word") > 500
    assert CANARY not in text


@pytest.mark.anyio
@pytest.mark.parametrize("long", ["request", "answer"])
async def test_what_is_too_long_to_be_masked_is_not_kept_but_its_size_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, long: str
) -> None:
    for module in (rows, exchange):
        monkeypatch.setattr(module, "LONGEST_RECORDED_BYTES", 50_000)
    recordings = kept_in(tmp_path / "r")
    async with calls("only", record=RecordSettings(content="all")) as c:
        with_files(c, recordings)
        words = "word " * 20_000
        c.servers["only"].script(CHAT, ScriptedStep(text=words if long == "answer" else "short"))
        await c.ask(words if long == "request" else "hi")
        (row,) = c.of(Exchange)
    await asyncio.to_thread(recordings.close)
    assert (row.recording, row.request, row.response) == (None, "", "")
    assert ((row.response_bytes if long == "answer" else row.request_bytes) or 0) > 100_000


@pytest.mark.anyio
async def test_a_single_call_asks_for_it_whatever_the_setting_says() -> None:
    async with calls("only", router=RouterSettings(retries=0)) as c:
        message = [{"role": "user", "content": "hi"}]
        await c.operations.ask(Ask(messages=message), user="me")
        assert c.of(Exchange) == []
        await c.operations.ask(Ask(messages=message, record=True), user="me")
        c.servers["only"].script(CHAT, ScriptedStep(status=500, text="broken"))
        with pytest.raises(TundraError):
            await c.operations.ask(Ask(messages=message, record=True), user="me")
        assert len(c.of(Exchange)) == 2


def test_a_secret_across_two_pieces_is_masked_and_a_character_across_them_is_whole() -> None:
    def redact(text: str) -> str:
        return text.replace("secret", "<s>")

    euro = "€".encode()
    assert frames_of([(0.5, b"a" + euro[:1]), (1.0, euro[1:] + b" secret")], redact) == (
        [(500.0, "a"), (1000.0, "€ <s>")],
        True,
    )
    assert frames_of([(0.5, b"my sec"), (1.0, b"ret")], redact) == ([(1000.0, "my <s>")], False)
    assert frames_of([], redact) == ([], True)


def made(ids: Ids, clock: VirtualClock) -> Recording:
    key = str(ids.next())
    return Recording(
        operation_id=key,
        attempt_id=key,
        at=clock.now_us(),
        profile="p",
        kind="local",
        outcome="ok",
        request="x" * 1000,
        frames=[],
    )


def test_old_ones_and_too_many_go_and_those_of_an_incident_stay(tmp_path: Path) -> None:
    clock = VirtualClock()
    settings = RecordSettings(days=2, max_mb=0.003)
    recordings = Recordings(tmp_path, lambda: settings, lambda: 0, clock)
    ids = Ids(clock)
    names = []
    for _ in range(6):
        names.append(recordings.keep(made(ids, clock)).name)
        clock.advance(86_400 / 4)
    recordings.close()
    assert recordings.sweep() == 0, "nothing before the incidents are known"
    at = clock.now_us() - int(1.5 * 86_400e6)
    recordings.windows = [(at - 1000, at + 1000)]
    assert recordings.sweep() > 0
    left = sorted(f"{file.parent.name}/{file.name}" for file in tmp_path.glob("*/*.json"))
    assert names[0] in left
    assert names[1] not in left
    assert names[-1] in left
    recordings.windows = []
    clock.advance(10 * 86_400)
    recordings.sweep()
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_loses_the_recording_and_nothing_else(tmp_path: Path) -> None:
    clock = VirtualClock()
    recordings = Recordings(tmp_path / "r", RecordSettings, lambda: 1 << 60, clock)
    kept = recordings.keep(made(Ids(clock), clock))
    assert recordings.read(kept.name) is None
    recordings.close()
    assert not list(tmp_path.glob("r/*/*"))


@pytest.mark.parametrize("name", ["../x.json", "a/../../x", "/etc/passwd", "day", "", "a/b/c", "./x", "day/\0"])
def test_a_name_from_a_row_leads_nowhere_else(tmp_path: Path, name: str) -> None:
    assert inside(tmp_path, name) is None


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "day").mkdir()
    (tmp_path / "day" / "x.json").symlink_to("/etc/passwd")
    assert inside(tmp_path, "day/x.json") is None
