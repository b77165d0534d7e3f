"""Terminals as the daemon offers them: the pool, deadlines of commands, and one persistent shell per notebook.

A shell belongs to an *owner* (a kernel). It does not fall under the idle rule: it ends when its owner has been gone for
`OWNER_GONE_SECONDS`, so that a reconnecting kernel finds it again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator, Collection, Iterator, Mapping, Sequence

from tundra_nb.errors import UsageError
from tundra_nb.runtime.ptys.expect import Dialogue
from tundra_nb.runtime.ptys.pool import PtyPool
from tundra_nb.runtime.ptys.pty import Pty
from tundra_nb.runtime.ptys.shell import CellEnd, Program, Shell
from tundra_nb.runtime.ptys.spawn import Size

OWNER_GONE_SECONDS = 60.0
"""How long a shell outlives the kernel it belongs to."""


class Terminals:
    """What the terminal routes use. Opened and closed with its pool."""

    def __init__(self, pool: PtyPool, *, owner_gone_seconds: float = OWNER_GONE_SECONDS) -> None:
        self.pool = pool
        self._gone_seconds = owner_gone_seconds
        self._alarms: dict[str, asyncio.Task[None]] = {}
        self._timed_out: set[str] = set()
        self._shells: dict[str, Shell] = {}
        self._starting = asyncio.Lock()
        self._owners: dict[str, int] = {}
        self._farewells: dict[str, asyncio.Task[None]] = {}
        self._dialogues: dict[str, Dialogue] = {}

    async def aclose(self) -> None:
        """End everything: deadlines, shells, the pool."""
        for task in (*self._alarms.values(), *self._farewells.values()):
            task.cancel()
        await self.pool.aclose()

    # --- commands ----------------------------------------------------------------------------------------------------

    async def spawn(
        self,
        command: str | Sequence[str],
        *,
        cwd: str | None,
        env: Mapping[str, str] | None,
        size: Size,
        user: str,
        kind: str,
        timeout: float | None,  # noqa: ASYNC109 - a deadline for the command, not for this coroutine
        with_keys: Collection[str],
    ) -> Pty:
        """Start a command; with `timeout` it is interrupted after so many seconds, with more and more force."""
        if timeout is not None and timeout <= 0:
            raise UsageError(problem=f"timeout {timeout:g} is not a positive number of seconds", field="timeout")
        pty = await self.pool.spawn(
            command,
            cwd=cwd,
            env=env,
            size=size,
            kind="terminal" if kind == "terminal" else "command",
            user=user,
            with_keys=with_keys,
        )
        if timeout is not None:
            self._alarms[pty.id] = asyncio.create_task(self._end_after(pty, timeout), name=f"ptys.timeout.{pty.id}")
        return pty

    def is_timed_out(self, pty: Pty) -> bool:
        """Whether the command was ended by its own deadline."""
        return pty.id in self._timed_out

    async def _end_after(self, pty: Pty, seconds: float) -> None:
        try:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(pty.exited.wait(), seconds)
                return
            self._timed_out.add(pty.id)
            await pty.interrupt()
        finally:
            del self._alarms[pty.id]

    # --- dialogues ---------------------------------------------------------------------------------------------------

    def dialogue(self, pty_id: str) -> Dialogue:
        """The dialogue with a PTY: it goes on where the last `expect` matched."""
        pty = self.pool.find(pty_id)
        for known in [known for known in self._dialogues if known not in {open_.id for open_ in self.pool.list()}]:
            if known != pty.id:
                del self._dialogues[known]
        return self._dialogues.setdefault(pty.id, Dialogue(pty))

    # --- shells ------------------------------------------------------------------------------------------------------

    async def run_cell(
        self,
        owner: str,
        cell: str,
        *,
        program: Program,
        fresh: bool,
        timeout: float | None,  # noqa: ASYNC109 - a deadline for the cell
        cwd: str | None,
        env: Mapping[str, str] | None,
        size: Size,
        user: str,
        with_keys: Collection[str],
    ) -> AsyncGenerator[bytes | CellEnd | Shell, None]:
        """Run a cell in the owner's shell: the shell it runs in, pieces of output, then how the cell ended.

        Closing the generator before the end interrupts the cell. `fresh` ends the shell of before; so does another
        `program`, and environment or keys can only be given to a new one.
        """
        shell = await self._shell(
            owner, program, fresh=fresh, cwd=cwd, env=env, size=size, user=user, with_keys=with_keys
        )
        yield shell
        try:
            async with contextlib.aclosing(shell.run(cell, timeout)) as pieces:
                async for piece in pieces:
                    yield piece
        finally:
            if shell.is_busy:
                await shell.interrupt()

    async def _shell(
        self,
        owner: str,
        program: Program,
        *,
        fresh: bool,
        cwd: str | None,
        env: Mapping[str, str] | None,
        size: Size,
        user: str,
        with_keys: Collection[str],
    ) -> Shell:
        async with self._starting:
            shell = self._shells.get(owner)
            if shell is not None and (fresh or shell.is_ended or shell.program != program):
                del self._shells[owner]
                await shell.aclose()
                shell = None
            if shell is None:
                shell = await Shell.start(
                    self.pool, program, cwd=cwd or os.getcwd(), env=env, size=size, user=user, with_keys=with_keys
                )
                self._shells[owner] = shell
            elif env or with_keys:
                raise UsageError(
                    problem="the shell is running already; environment and keys are given to a new one",
                    remedy="Add `--fresh`.",
                )
            return shell

    # --- owners ------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def owned_by(self, owner: str) -> Iterator[None]:
        """While the block runs, the owner is there; its shell ends some time after the last block has."""
        self._owners[owner] = self._owners.get(owner, 0) + 1
        if (farewell := self._farewells.pop(owner, None)) is not None:
            farewell.cancel()
        try:
            yield
        finally:
            self._owners[owner] -= 1
            if not self._owners[owner]:
                del self._owners[owner]
                if owner in self._shells:
                    self._farewells[owner] = asyncio.create_task(self._end_shell(owner), name=f"ptys.farewell.{owner}")

    async def _end_shell(self, owner: str) -> None:
        await asyncio.sleep(self._gone_seconds)
        del self._farewells[owner]
        if (shell := self._shells.pop(owner, None)) is not None:
            await shell.aclose()
