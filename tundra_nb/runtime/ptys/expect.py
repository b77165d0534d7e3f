"""Dialogues with a program: pexpect's own matcher, fed from the session's output.

pexpect reads its descriptor itself, which would steal bytes from ring and viewers; so only its matching is used
(`SpawnBase`, `Expecter`), and index, before, after and groups are the same as with `pexpect.spawn`.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Sequence
from typing import Any

import msgspec
import pexpect
from pexpect.expect import Expecter, searcher_re
from pexpect.spawnbase import SpawnBase

from tundra_nb.errors import HandleNotFound, Timeout, UsageError

from .pty import Pty

WINDOW_CHARACTERS = 1 << 16
"""How far back a match may begin. Without a window, searching is quadratic."""
STEP_CHARACTERS = WINDOW_CHARACTERS // 2
"""More at a time, and pexpect would drop the older half of the window before it was searched."""
MAX_BEFORE_CHARACTERS = 1 << 20
ECHO_POLL_SECONDS = 0.005
ECHO_SECONDS = 5.0
"""How long a program may take from its question to switching the echo off."""

Pattern = str | re.Pattern[str] | type[pexpect.EOF] | type[pexpect.TIMEOUT]


class Matched(msgspec.Struct, frozen=True):
    """What `expect` found."""

    index: int
    """Which pattern."""
    before: str
    """At most a million characters."""
    after: str
    """What matched; empty for EOF and TIMEOUT."""
    groups: tuple[str | None, ...]


class Dialogue:
    """A position in a session's output from which patterns are searched.

    Args:
        pty: the session.
        since: offset to begin at; the session's start by default.
    """

    def __init__(self, pty: Pty, since: int = 0) -> None:
        self._pty = pty
        self._viewer = pty.viewer(since, to_exit=True)
        self._text: Any = SpawnBase(encoding="utf-8", codec_errors="replace", searchwindowsize=WINDOW_CHARACTERS)
        self._ahead = ""
        self._is_searching = False

    async def expect(self, patterns: Pattern | Sequence[Pattern], timeout: float | None = 30.0) -> Matched:  # noqa: ASYNC109
        """Wait for the first of the patterns.

        Args:
            patterns: regular expressions (`.` matches line ends too), `pexpect.EOF`, `pexpect.TIMEOUT`.
            timeout: seconds; None waits for ever.

        Raises:
            Timeout: nothing matched in time, and TIMEOUT is not among the patterns.
            HandleNotFound: the program has ended, and EOF is not among the patterns.
            UsageError: a pattern that is no regular expression, or another `expect` is waiting.
        """
        if self._is_searching:
            raise UsageError(problem="another expect is waiting on this PTY", remedy="Give all patterns to one call.")
        searcher = _searcher(patterns)
        expecter: Any = Expecter(self._text, searcher)
        self._is_searching = True
        try:
            return await self._search(expecter, searcher, timeout)
        finally:
            self._is_searching = False

    async def send(self, text: str) -> str:
        """Type `text`; returns a warning or an empty string."""
        return await self._pty.write(text.encode())

    async def send_secret(self, name: str, value: str, timeout: float = ECHO_SECONDS) -> None:  # noqa: ASYNC109
        """Type a secret and Enter, once the program has switched the echo off. From here on it is masked everywhere.

        Raises:
            UsageError: the terminal still shows what is typed; nothing was sent.
        """
        self._pty.mask({name: value})
        deadline = time.monotonic() + timeout
        while self._pty.is_echoing:
            if time.monotonic() >= deadline:
                raise UsageError(
                    problem=f"the terminal shows what is typed, so {name} was not sent",
                    remedy="Wait for the password prompt first, with `expect`.",
                )
            await asyncio.sleep(ECHO_POLL_SECONDS)
        await self._pty.write(value.encode() + b"\n")

    async def _search(self, expecter: Any, searcher: Any, timeout: float | None) -> Matched:  # noqa: ASYNC109
        deadline = None if timeout is None else time.monotonic() + timeout
        index = expecter.existing_data()
        while index is None:
            if not self._ahead:
                left = None if deadline is None else deadline - time.monotonic()
                try:
                    got = await asyncio.wait_for(self._viewer.read_text(), left)
                except TimeoutError:
                    if searcher.timeout_index < 0:
                        raise Timeout(deadline="expect", seconds=timeout or 0.0) from None
                    index = expecter.timeout()
                    break
                if got is None:
                    if searcher.eof_index < 0:
                        raise HandleNotFound(pty_id=self._pty.id, ended=self._pty.ending)
                    index = expecter.eof()
                    break
                self._ahead = got[0]
            step, self._ahead = self._ahead[:STEP_CHARACTERS], self._ahead[STEP_CHARACTERS:]
            index = expecter.new_data(step)
            self._trim()
            # Under a flood there is always more: let others have their turn.
            await asyncio.sleep(0)
        return self._matched(index)

    def _matched(self, index: int) -> Matched:
        text = self._text
        is_text = isinstance(text.after, str)
        return Matched(
            index=index,
            before=text.before[-MAX_BEFORE_CHARACTERS:],
            after=text.after if is_text else "",
            groups=tuple(text.match.groups()) if is_text else (),
        )

    def _trim(self) -> None:
        held = self._text._before  # noqa: SLF001 - pexpect keeps all of it for ever
        if held.tell() > 2 * MAX_BEFORE_CHARACTERS:
            rest = held.getvalue()[-MAX_BEFORE_CHARACTERS:]
            self._text._before = self._text.buffer_type()  # noqa: SLF001 - the same
            self._text._before.write(rest)  # noqa: SLF001 - the same


def _searcher(patterns: Pattern | Sequence[Pattern]) -> Any:
    listed = [patterns] if isinstance(patterns, str | re.Pattern | type) else list(patterns)
    compiled: list[Any] = []
    for pattern in listed:
        try:
            compiled.append(re.compile(pattern, re.DOTALL) if isinstance(pattern, str) else pattern)
        except re.error as exc:
            raise UsageError(
                problem=f"{pattern!r} is not a regular expression: {exc}",
                field="pattern",
                remedy="Escape what is meant literally with `re.escape`.",
            ) from exc
    return searcher_re(compiled)
