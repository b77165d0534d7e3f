"""Whose shell lives how long, what the idle rule spares, and what becomes of a cell that nobody reads any more."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tundra_nb.errors import HandleNotFound, UsageError
from tundra_nb.runtime.clock import Ids, SystemClock
from tundra_nb.runtime.ptys.pool import PtyPool
from tundra_nb.runtime.ptys.shell import CellEnd, Shell
from tundra_nb.runtime.ptys.spawn import Size
from tundra_nb.runtime.terminals import Terminals
from tundra_nb.settings import PtySettings

pytestmark = pytest.mark.anyio

GONE_SECONDS = 0.2
DEFAULTS: dict[str, Any] = {
    "cwd": None, "env": None, "size": Size(), "user": "joe", "timeout": None, "with_keys": ()
}  # fmt: skip


@pytest.fixture
async def terminals(tmp_path: Path) -> AsyncIterator[Terminals]:
    clock = SystemClock()
    pool = PtyPool(
        PtySettings(idle_seconds=0.4),
        tmp_path / "ptys",
        ids=Ids(clock),
        clock=clock,
        on_event=lambda _: None,
        secrets=dict,
        key_variables=frozenset,
        environ={"PATH": os.environ["PATH"], "HOME": "/tmp"},
        adopter=None,
    )
    made = Terminals(pool, owner_gone_seconds=GONE_SECONDS)
    await made.open()
    yield made
    await made.aclose()


def cell(terminals: Terminals, text: str, owner: str = "me") -> AsyncGenerator[bytes | CellEnd | Shell, None]:
    options: dict[str, Any] = {"env": None, "size": Size(), "user": "joe", "with_keys": (), "cwd": "/tmp"}
    return terminals.run_cell(owner, text, program="bash", fresh=False, timeout=None, **options)


async def ran(terminals: Terminals, text: str, owner: str = "me") -> tuple[bytes, int | None]:
    output, code = b"", None
    async for piece in cell(terminals, text, owner):
        if isinstance(piece, bytes):
            output += piece
        elif isinstance(piece, CellEnd):
            code = piece.exit_code
    return output, code


async def until_closed(terminals: Terminals) -> None:
    async with asyncio.timeout(5):
        while terminals.pool.list():  # noqa: ASYNC110 - the pool has no event for it
            await asyncio.sleep(0.02)


async def test_a_shell_ends_some_time_after_its_last_owner_has_gone(terminals: Terminals) -> None:
    with terminals.owned_by("me"), terminals.owned_by("me"):
        await ran(terminals, "word=kept")
        await asyncio.sleep(2 * GONE_SECONDS)
        assert (await ran(terminals, "echo $word"))[0] == b"kept\r\n"
    await until_closed(terminals)


async def test_an_owner_that_returns_in_time_finds_its_shell(terminals: Terminals) -> None:
    with terminals.owned_by("me"):
        await ran(terminals, "word=kept")
    await asyncio.sleep(GONE_SECONDS / 4)
    with terminals.owned_by("me"):
        await asyncio.sleep(2 * GONE_SECONDS)
        assert (await ran(terminals, "echo $word"))[0] == b"kept\r\n"


async def test_an_owner_that_never_attached_leaves_no_shell(terminals: Terminals) -> None:
    await ran(terminals, "true")
    await until_closed(terminals)


async def test_each_owner_has_a_shell_of_its_own(terminals: Terminals) -> None:
    with terminals.owned_by("a"), terminals.owned_by("b"):
        await ran(terminals, "word=a", "a")
        assert (await ran(terminals, "echo [$word]", "b"))[0] == b"[]\r\n"


async def test_closing_the_reader_of_a_cell_interrupts_the_cell(terminals: Terminals) -> None:
    with terminals.owned_by("me"):
        async with contextlib.aclosing(cell(terminals, "echo go; sleep 4711")) as pieces:
            async for piece in pieces:
                if isinstance(piece, bytes):
                    break
        async with asyncio.timeout(4):
            assert await ran(terminals, "echo alive") == (b"alive\r\n", 0)


async def test_a_cell_that_is_refused_does_not_disturb_the_one_that_runs(terminals: Terminals) -> None:
    with terminals.owned_by("me"):
        first = asyncio.create_task(ran(terminals, "echo go; read x; echo got $x"))
        async with asyncio.timeout(5):
            while not (found := terminals.pool.list()) or b"go" not in found[0].read(0).data:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        with pytest.raises(UsageError, match="still running"):
            await ran(terminals, "echo no")
        await asyncio.sleep(0.05)
        await found[0].write(b"yes\n")
        assert await first == (b"go\r\nyes\r\ngot yes\r\n", 0)


async def test_the_idle_rule_ends_terminals_only(terminals: Terminals) -> None:
    terminal = await terminals.spawn("sleep 4711", kind="terminal", **DEFAULTS)
    busy = await terminals.spawn("while :; do :; done", kind="terminal", **DEFAULTS)
    command = await terminals.spawn("sleep 4711", kind="command", **DEFAULTS)
    async with asyncio.timeout(5):
        await terminal.released.wait()
    with pytest.raises(HandleNotFound, match=r"idle for 0\.4 s"):
        terminals.pool.get(terminal.id)
    assert {pty.id for pty in terminals.pool.list()} == {busy.id, command.id}


async def test_an_interrupted_terminal_lives_on_and_an_interrupted_command_does_not(terminals: Terminals) -> None:
    terminal = await terminals.spawn(
        "trap 'echo caught' INT; echo go; while :; do :; done", kind="terminal", **DEFAULTS
    )
    async with asyncio.timeout(5):
        while b"go" not in terminal.read(0).data:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert await terminals.interrupt(terminal.id) == "SIGINT"
    async with asyncio.timeout(5):
        while b"caught" not in terminal.read(0).data:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert not terminal.exited.is_set()
    command = await terminals.spawn("sleep 4711", kind="command", **DEFAULTS)
    assert await terminals.interrupt(command.id) == "SIGINT"
    assert command.exited.is_set()
