"""Terminals as the daemon offers them: the pool, deadlines of commands, and one persistent shell per notebook.

command     ends by itself, by its deadline, or by an interrupt that grows harder; one that has an owner also ends
            `pty.grace_seconds` after its owner has stopped following it, because nobody else waits for it
terminal    ends after its last viewer, or when it has been idle (`ptys.life`)
shell       belongs to an *owner* (a kernel) and ends when that has been gone for `OWNER_GONE_SECONDS`, so that a
            reconnecting kernel finds it again
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import signal
from collections.abc import AsyncGenerator, Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tundra_nb.errors import HandleNotFound, TundraError, UsageError
from tundra_nb.runtime.ptys import leftovers, search, transcript
from tundra_nb.runtime.ptys.expect import Dialogue
from tundra_nb.runtime.ptys.life import Transition
from tundra_nb.runtime.ptys.matchers import Matchers
from tundra_nb.runtime.ptys.pool import PtyPool
from tundra_nb.runtime.ptys.pty import Pty
from tundra_nb.runtime.ptys.shell import CellEnd, Program, Shell
from tundra_nb.runtime.ptys.spawn import Size
from tundra_nb.runtime.ptys.viewers import Viewers

FIRST_LOOK_SECONDS = 60.0
"""How soon the owner of a command must begin to follow it."""
OWNER_GONE_SECONDS = 60.0
"""How long a shell outlives the kernel it belongs to."""

_log = logging.getLogger("tundra.ptys")


class Terminals:
    """What the terminal routes use. Opened and closed with its pool."""

    def __init__(
        self,
        pool: PtyPool,
        *,
        record: Callable[[str, Transition], None] = lambda *_: None,
        owner_gone_seconds: float = OWNER_GONE_SECONDS,
    ) -> None:
        self.pool = pool
        self._gone_seconds = owner_gone_seconds
        self._alarms: dict[str, asyncio.Task[None]] = {}
        self._timed_out: set[str] = set()
        self._followers: dict[str, int] = {}
        self._forsaken: dict[str, asyncio.Task[None]] = {}
        self._shells: dict[str, Shell] = {}
        self._starting = asyncio.Lock()
        self._owners: dict[str, int] = {}
        self._farewells: dict[str, asyncio.Task[None]] = {}
        self._dialogues: dict[str, Dialogue] = {}
        self._matchers = Matchers()
        self._interrupting: set[asyncio.Task[str]] = set()
        self.viewers = Viewers(pool, record)

    async def open(self) -> None:
        """Open the pool, and begin to apply the rules of viewers and idleness."""
        await self.pool.open()
        self.viewers.open()

    async def aclose(self) -> None:
        """End everything: deadlines, shells, the pool."""
        tasks: list[asyncio.Task[Any]] = [*self._alarms.values(), *self._farewells.values(), *self._interrupting]
        tasks += self._forsaken.values()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.viewers.aclose()
        await self.pool.aclose()
        await self._matchers.aclose()

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
        owner: str = "",
        persistent: bool = False,
        wait: float = 0.0,
    ) -> Pty:
        """Start a command; with `timeout` it is interrupted after so many seconds, with more and more force.

        With an `owner` it ends when that no longer follows it, without one after its viewers; `persistent` it does
        neither. `wait`: seconds to wait for a free slot.
        """
        if timeout is not None and timeout <= 0:
            raise UsageError(problem=f"timeout {timeout:g} is not a positive number of seconds", field="timeout")
        pty = await self.pool.spawn(
            command,
            cwd=cwd,
            env=env,
            size=size,
            kind="terminal" if kind == "terminal" else "command",
            keep="always" if persistent else "owner" if owner else "viewers",
            user=user,
            with_keys=with_keys,
            wait=min(wait, self.pool.settings.queue_seconds),
        )
        if pty.life.keep == "owner":
            self._expect_owner(pty, FIRST_LOOK_SECONDS)
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
            await self._end_command(pty)
        finally:
            del self._alarms[pty.id]

    async def interrupt(self, pty_id: str) -> str:
        """Interrupt what runs in a session; returns the last signal, empty when nothing ran.

        A command and a shell's cell get INT, then TERM, then KILL, until they have ended; a command that is still there
        then is ended with its whole session. A terminal gets what Ctrl-C would send, once: its programs decide.
        """
        pty = self.pool.get(pty_id)
        for shell in self._shells.values():
            if shell.pty is pty:
                return await shell.interrupt()
        if pty.kind == "terminal":
            return signal.SIGINT.name if pty.signal_job(signal.SIGINT) else ""
        return await self._end_command(pty)

    async def _end_command(self, pty: Pty) -> str:
        last = await pty.interrupt()
        if not pty.exited.is_set():  # the foreground job was not the leader
            with contextlib.suppress(HandleNotFound):
                await self.pool.release(pty.id, "interrupted")
        return last

    @contextlib.contextmanager
    def followed(self, pty: Pty) -> Iterator[None]:
        """While the block runs, the owner of a command follows it; some time after the last block it is ended."""
        self._followers[pty.id] = self._followers.get(pty.id, 0) + 1
        if (alarm := self._forsaken.pop(pty.id, None)) is not None:
            alarm.cancel()
        try:
            yield
        finally:
            self._followers[pty.id] -= 1
            if not self._followers[pty.id]:
                del self._followers[pty.id]
                if pty.life.keep == "owner" and not pty.exited.is_set():
                    self._expect_owner(pty, self.pool.settings.grace_seconds)

    def _expect_owner(self, pty: Pty, seconds: float) -> None:
        self._forsaken[pty.id] = asyncio.create_task(self._end_forsaken(pty, seconds), name=f"ptys.owner.{pty.id}")

    async def _end_forsaken(self, pty: Pty, seconds: float) -> None:
        try:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(pty.exited.wait(), seconds)
                return
            _log.info("PTY %s (%s) is ended: whoever asked for it has been gone for %g s", pty.id, pty.command, seconds)
            with contextlib.suppress(HandleNotFound):
                await self.pool.release(pty.id, "whoever asked for it has gone")
        finally:
            if self._forsaken.get(pty.id) is asyncio.current_task():
                del self._forsaken[pty.id]

    # --- what is on disk ---------------------------------------------------------------------------------------------

    async def search(self, pattern: str, limit: int) -> search.SearchHits:
        """Lines of the transcripts, of open sessions too, that match; newest session first."""
        for pty in self.pool.list():
            pty.output.flush()
        return await search.found(self.pool.transcripts, pattern, limit)

    def transcript_of(self, pty_id: str) -> Path:
        """The transcript of a session that the pool no longer remembers: of an earlier daemon, or long ended.

        Raises:
            HandleNotFound: retention has deleted it, or there never was one.
        """
        path = self.pool.transcripts / f"{pty_id}.out"
        if not re.fullmatch(r"[0-9a-z]{1,32}", pty_id) or not path.exists():
            self.pool.find(pty_id)  # raises, naming the nearest
        return path

    def events_of(self, pty_id: str) -> tuple[transcript.TranscriptHead, list[dict[str, Any]]]:
        """Times and window sizes of such a session. Reads a file."""
        return transcript.read_index(self.transcript_of(pty_id).with_suffix(".jsonl"))

    async def clean(self, socket_folder: Path, *, is_dry: bool) -> list[leftovers.Leftover]:
        """What earlier daemons left; removed unless `is_dry`."""
        pool = self.pool
        live = frozenset(pty.id for pty in pool.list())
        found = await asyncio.to_thread(
            leftovers.look,
            pool.transcripts,
            pool.instance,
            socket_folder,
            pool.settings.transcript_days,
            live,
            is_space_needed=pool.budget.is_disk_short or pool.budget.over_bytes > 0,
        )
        if not is_dry:
            await asyncio.to_thread(leftovers.remove, found)
            await asyncio.to_thread(pool.budget.scan)
        return found

    # --- dialogues ---------------------------------------------------------------------------------------------------

    def dialogue(self, pty_id: str) -> Dialogue:
        """The dialogue with a PTY: it goes on where the last `expect` matched."""
        pty = self.pool.find(pty_id)
        for known in [known for known in self._dialogues if known not in {open_.id for open_ in self.pool.list()}]:
            if known != pty.id:
                del self._dialogues[known]
        return self._dialogues.setdefault(pty.id, Dialogue(pty, self._matchers))

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
        with self.owned_by(owner):
            shell = await self._shell(
                owner, program, fresh=fresh, cwd=cwd, env=env, size=size, user=user, with_keys=with_keys
            )
            yield shell
            is_over = False
            try:
                async with contextlib.aclosing(shell.run(cell, timeout)) as pieces:
                    async for piece in pieces:
                        yield piece
                is_over = True
            except TundraError:  # refused, or interrupted by its own deadline
                is_over = True
                raise
            finally:
                if not is_over:
                    self._interrupt_soon(shell)

    def _interrupt_soon(self, shell: Shell) -> None:
        """The reader of a cell has gone, perhaps by cancellation: no time to wait for it here."""
        task = asyncio.create_task(shell.interrupt(), name=f"ptys.interrupt.{shell.pty.id}")
        self._interrupting.add(task)
        task.add_done_callback(self._interrupting.discard)

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
