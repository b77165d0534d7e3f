"""The daemon's side of `matcher`: processes that match, kept for the next dialogue, killed at the deadline."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec

from tundra_nb.errors import UsageError

from . import matcher

IDLE = 2
"""Processes that are kept for the next dialogue; 7 MB each."""
AT_ONCE = 32
"""Dialogues that wait for a pattern at the same time; one more waits for its turn, within its deadline."""
LINE_BYTES = 1 << 24
"""Longest answer: groups may hold the whole window, each of them."""


class TooSlow(Exception):
    """A pattern was still at work when the deadline was over; its process has been ended."""


class Matcher:
    """One process, with the patterns of one dialogue."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.is_usable = True

    async def compile(self, patterns: Sequence[str], timeout: float | None) -> None:  # noqa: ASYNC109
        """Take these patterns.

        Raises:
            UsageError: one is no regular expression.
            TooSlow: compiling them took longer than `timeout` seconds.
        """
        self._check(await self._ask({"patterns": list(patterns)}, timeout))

    async def search(self, text: str, timeout: float | None) -> dict[str, Any] | None:  # noqa: ASYNC109
        """`index`, `start`, `end` and `groups` of the match that begins first; None when nothing matches.

        Raises:
            TooSlow: it took longer than `timeout` seconds.
            UsageError: a pattern that needs more memory than it may have.
        """
        answer = await self._ask({"text": text}, timeout)
        self._check(answer)
        return answer

    def kill(self) -> None:
        self.is_usable = False
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    async def aclose(self) -> None:
        """End the process and reap it."""
        self.kill()
        await self._process.wait()

    async def _ask(self, request: dict[str, Any], timeout: float | None) -> dict[str, Any] | None:  # noqa: ASYNC109
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        is_over = False
        try:
            async with asyncio.timeout(timeout):
                self._process.stdin.write(msgspec.json.encode(request) + b"\n")
                await self._process.stdin.drain()
                line = await self._process.stdout.readline()
            is_over = True
        except TimeoutError:
            raise TooSlow from None
        except (BrokenPipeError, ConnectionResetError, ValueError):  # it died, or gave a line without end
            line = b""
        finally:
            if not is_over:  # its answer is still to come: it can serve nobody else
                self.kill()
        if not line:
            self.kill()
            raise UsageError(
                problem="the process that matches patterns has ended",
                field="pattern",
                remedy="Use a simpler pattern: this one needs more memory than it may have.",
            )
        answer: dict[str, Any] | None = msgspec.json.decode(line)
        return answer

    @staticmethod
    def _check(answer: dict[str, Any] | None) -> None:
        if answer is not None and "error" in answer:
            what = repr(answer["pattern"]) if answer["pattern"] is not None else "a pattern"
            raise UsageError(
                problem=f"{what} is not a regular expression: {answer['error']}",
                field="pattern",
                remedy="Escape what is meant literally with `re.escape`.",
            )


class Matchers:
    """The matchers of one daemon; `aclose` ends them."""

    def __init__(self) -> None:
        self._idle: list[Matcher] = []
        self._turns = asyncio.Semaphore(AT_ONCE)

    @contextlib.asynccontextmanager
    async def one(self, patience: float | None) -> AsyncIterator[Matcher]:
        """A matcher of one's own while the block runs; one that was killed is not used again.

        Raises:
            TooSlow: there was none within `patience` seconds.
        """
        try:
            async with asyncio.timeout(patience):
                await self._turns.acquire()
        except TimeoutError:
            raise TooSlow from None
        try:
            made = self._idle.pop() if self._idle else await self._start()
            try:
                yield made
            except BaseException:
                # Cancelled, or killed: nobody knows where it is.
                await asyncio.shield(made.aclose())
                raise
            if made.is_usable and len(self._idle) < IDLE:
                self._idle.append(made)
            else:
                await made.aclose()
        finally:
            self._turns.release()

    async def aclose(self) -> None:
        """End the idle ones. The others end with their dialogues."""
        idle, self._idle = self._idle, []
        for made in idle:
            await made.aclose()

    @staticmethod
    async def _start() -> Matcher:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-I", "-S", matcher.__file__),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={"PATH": os.defpath},
            limit=LINE_BYTES,
        )
        return Matcher(process)
