"""Dialogues with a program: patterns are searched in the session's output, as pexpect does it.

Index, before, after and groups are those of `pexpect.spawn`. pexpect itself is not used for it: it reads its
descriptor, which would steal bytes from ring and viewers, and it matches where it stands. The patterns are the user's,
and one like `(a+)+$` never ends: they run in a process of their own (`matchers`), which is killed at the deadline.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import Iterator, Sequence

import pexpect

from tundra_nb.errors import HandleNotFound, Timeout, UsageError
from tundra_nb.protocol.ptys import Matched

from .keyboard import MAX_CANONICAL_BYTES
from .matchers import Matcher, Matchers, TooSlow
from .pty import Pty

WINDOW_CHARACTERS = 1 << 16
"""How far back a match may begin. Without a window, searching is quadratic."""
STEP_CHARACTERS = WINDOW_CHARACTERS // 2
"""More at a time, and the older half of the window would be dropped before it was searched."""
MAX_BEFORE_CHARACTERS = 1 << 20
PATTERN_SECONDS = 30.0
"""Longest that one step of a search may take, where the whole has no deadline."""
START_SECONDS = 5.0
"""Longest wait for a process to search with, where the deadline itself is shorter."""
LEAST_SECONDS = 0.2
"""For one step of a search, also at the very deadline: an ordinary pattern takes less than a millisecond."""
ECHO_POLL_SECONDS = 0.005
ECHO_SECONDS = 5.0
"""How long a program may take from its question to switching the echo off."""
_FLAGS = {re.IGNORECASE: "i", re.MULTILINE: "m", re.DOTALL: "s", re.VERBOSE: "x", re.ASCII: "a"}

Special = type[pexpect.EOF] | type[pexpect.TIMEOUT]
Pattern = str | re.Pattern[str] | Special


class _Wanted:
    """The patterns of one `expect`, and where EOF and TIMEOUT stand among them."""

    def __init__(self, patterns: Pattern | Sequence[Pattern]) -> None:
        listed = [patterns] if isinstance(patterns, str | re.Pattern | type) else list(patterns)
        self.texts: list[str] = []
        self.places: list[int] = []
        self.eof = self.timeout = -1
        for place, pattern in enumerate(listed):
            if pattern is pexpect.EOF:
                self.eof = place
            elif pattern is pexpect.TIMEOUT:
                self.timeout = place
            else:
                assert isinstance(pattern, str | re.Pattern)
                self.texts.append(_text(pattern))
                self.places.append(place)


class Dialogue:
    """A position in a session's output from which patterns are searched.

    Args:
        pty: the session.
        matchers: who searches.
        since: offset to begin at; the session's start by default.
    """

    def __init__(self, pty: Pty, matchers: Matchers, since: int = 0) -> None:
        self._pty = pty
        self._matchers = matchers
        self._viewer = pty.viewer(since, to_exit=True)
        self._older: list[str] = []
        """What was read since the last match, before …"""
        self._window = ""
        """… the part in which a match may begin."""
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
            UsageError: a pattern that is no regular expression or never comes to an end, or another `expect` is
                waiting.
        """
        with self._searching():
            wanted = _Wanted(patterns)
            try:
                async with self._matchers.one(None if timeout is None else max(timeout, START_SECONDS)) as matcher:
                    # Its start does not count: however short the time, what is there already is searched.
                    deadline = None if timeout is None else time.monotonic() + timeout
                    await matcher.compile(wanted.texts, _left(deadline))
                    return await self._search(matcher, wanted, deadline)
            except (TooSlow, TimeoutError) as exc:
                if timeout is None:
                    raise UsageError(
                        problem="a pattern has been searched for half a minute without coming to an end",
                        field="pattern",
                        remedy="Nested repeats such as `(a+)+` never do; write it without them.",
                    ) from exc
                if wanted.timeout < 0:
                    raise Timeout(deadline="expect", seconds=timeout or 0.0) from None
                return Matched(wanted.timeout, self._before(len(self._window)), "", ())

    async def send(self, text: str) -> str:
        """Type `text`; returns a warning or an empty string."""
        return await self._pty.write(text.encode())

    async def send_secret(self, name: str, value: str, timeout: float = ECHO_SECONDS) -> None:  # noqa: ASYNC109
        """Type a secret and Enter, once the program has switched the echo off. From here on it is masked everywhere.

        Raises:
            UsageError: the terminal still shows what is typed, or would cut the secret; nothing was sent.
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
        raw = value.encode() + b"\n"
        if (length := self._pty.cut_line(raw)) > 0:
            raise UsageError(
                problem=f"{name} has a line of {length:,} bytes; in line mode the terminal drops all beyond "
                f"{MAX_CANONICAL_BYTES:,}, so it was not sent",
                field=name,
                remedy="Give the program a file that holds it, or let the variable through with `--with-keys`.",
            )
        await self._pty.write(raw)

    @contextlib.contextmanager
    def _searching(self) -> Iterator[None]:
        if self._is_searching:
            raise UsageError(problem="another expect is waiting on this PTY", remedy="Give all patterns to one call.")
        self._is_searching = True
        try:
            yield
        finally:
            self._is_searching = False

    async def _search(self, matcher: Matcher, wanted: _Wanted, deadline: float | None) -> Matched:
        is_fresh = bool(self._window)
        while True:
            if is_fresh and wanted.texts:
                found = await matcher.search(self._window, _left(deadline))
                if found is not None:
                    start, end = found["start"], found["end"]
                    matched = Matched(
                        index=wanted.places[found["index"]],
                        before=self._before(start),
                        after=self._window[start:end],
                        groups=tuple(found["groups"]),
                    )
                    self._older, self._window = [], self._window[end:]
                    return matched
            if not self._ahead:
                async with asyncio.timeout(self._patience(deadline)):
                    got = await self._viewer.read_text()
                if got is None:
                    return self._at_end(wanted)
                self._ahead = got[0]
            step, self._ahead = self._ahead[:STEP_CHARACTERS], self._ahead[STEP_CHARACTERS:]
            self._take(step)
            is_fresh = True

    def _patience(self, deadline: float | None) -> float | None:
        if deadline is None or self._pty.end > self._viewer.cursor:
            return None  # there is something to read at once
        return max(0.0, deadline - time.monotonic())

    def _take(self, step: str) -> None:
        text = self._window + step
        if len(text) > WINDOW_CHARACTERS:
            self._older.append(text[:-WINDOW_CHARACTERS])
            text = text[-WINDOW_CHARACTERS:]
        self._window = text
        if len(self._older) > 2 * MAX_BEFORE_CHARACTERS // STEP_CHARACTERS:
            self._older = ["".join(self._older)[-MAX_BEFORE_CHARACTERS:]]

    def _before(self, end: int) -> str:
        return "".join([*self._older, self._window[:end]])[-MAX_BEFORE_CHARACTERS:]

    def _at_end(self, wanted: _Wanted) -> Matched:
        if wanted.eof < 0:
            raise HandleNotFound(pty_id=self._pty.id, ended=self._pty.ending)
        before = self._before(len(self._window))
        self._older, self._window = [], ""
        return Matched(wanted.eof, before, "", ())


def _text(pattern: str | re.Pattern[str]) -> str:
    if isinstance(pattern, str):
        return pattern
    flags = "".join(letter for flag, letter in _FLAGS.items() if pattern.flags & flag)
    return f"(?{flags}:{pattern.pattern})" if flags else pattern.pattern


def _left(deadline: float | None) -> float:
    return PATTERN_SECONDS if deadline is None else max(deadline - time.monotonic(), LEAST_SECONDS)
