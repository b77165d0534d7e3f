"""The API table of pseudo-terminals: what each method of `t.ptys` asks. No I/O.

Routes: `GET|POST /api/ptys`, `GET|DELETE /api/ptys/{id}`, `GET …/{id}/transcript?since=SEQ`, which as an event stream
follows the output (`output` {"seq", "text"}, then `exit` with the row of the PTY), `GET …/events`, `POST …/input`,
`…/size`, `…/interrupt`, `…/expect`, `…/secret`; `GET /api/ptys/search`; `POST /api/shells/{owner}/cells`;
`POST /api/clean`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack

import msgspec

from tundra_nb.errors import TundraError, UsageError
from tundra_nb.frames import frames
from tundra_nb.protocol import ptys as routes
from tundra_nb.protocol.live import LIVE
from tundra_nb.protocol.ptys import Matched
from tundra_nb.protocol.words import EVENTS
from tundra_nb.types import Column

from . import api, times
from .call import CALL_TIMEOUT, STREAM_TIMEOUT, Call, Flow, HttpAnswer, call
from .pty_story import PtyStory
from .results import Document

if TYPE_CHECKING:
    import pandas as pd

Command = str | Sequence[str]
Program = Literal["bash", "zsh"]
Cwd = str | os.PathLike[str] | None
Pattern = str | re.Pattern[str] | type
"""A regular expression, or pexpect's `EOF` or `TIMEOUT`, also as the words."""

QUEUE_TIMEOUT = 3600.0
"""Longest wait for a free PTY: the setting `pty.queue_seconds` ends it before."""
INPUT_TIMEOUT = 600.0
"""Seconds of silence while a program is slow to read what is typed."""
_FLAGS = {re.IGNORECASE: "i", re.MULTILINE: "m", re.DOTALL: "s", re.VERBOSE: "x", re.ASCII: "a"}


class StartOptions(TypedDict, total=False):
    """Under which circumstances a program starts; see `Client.run`."""

    cwd: Cwd
    env: Mapping[str, str] | None
    with_keys: Collection[str]


class RunOptions(StartOptions, total=False):
    """Keyword arguments of `run`; see `Client.run`."""

    timeout: float | None
    persistent: bool


class CellOptions(StartOptions, total=False):
    """Keyword arguments of `sh`; see `Client.sh`."""

    program: Program
    fresh: bool
    timeout: float | None


class OpenOptions(StartOptions, total=False):
    """Keyword arguments of `Ptys.open`; `rows` and `columns` of the screen."""

    rows: int | None
    columns: int | None
    persistent: bool


class SpawnOptions(RunOptions, OpenOptions, total=False):
    """All that can be said of a program in a PTY."""


def listing() -> Call[pd.DataFrame]:
    """The PTYs that are open."""
    return call(routes.LISTING, decode=lambda answer: api.frame_of("ptys", answer))


def ids() -> Call[list[str]]:
    """The ids of the PTYs that are open."""
    return call(
        routes.LISTING, decode=lambda answer: [str(row["pty_id"]) for row in answer.json()["rows"]], timeout=2.0
    )


def spawn(
    command: Command,
    *,
    kind: Literal["command", "terminal"] = "command",
    owner: str = "",
    wait: float = 0.0,
    **options: Unpack[SpawnOptions],
) -> Call[Document]:
    """Start a command in a PTY: text runs by the shell, a list as it is.

    With an `owner` it ends when that no longer follows it, unless it is `persistent`. `wait`: seconds to wait for a
    free one.
    """
    body = routes.SpawnBody(
        command=command if isinstance(command, str) else list(command),
        kind=kind,
        owner="" if options.get("persistent") else owner,
        wait=wait,
        **_given(options),
    )
    return call(routes.SPAWN, decode=api.document, body=body, timeout=wait + CALL_TIMEOUT)


def cell(owner: str, text: str, **options: Unpack[CellOptions]) -> Call[None]:
    """Run a cell in the owner's shell: events `shell`, `output` …, `end`."""
    return call(
        routes.CELL,
        decode=lambda _: None,
        body=routes.CellBody(cell=text, **_given(options)),
        accept=EVENTS,
        timeout=STREAM_TIMEOUT,
        owner=owner,
    )


def info(pty_id: str) -> Call[Document]:
    """The row of one PTY."""
    return call(routes.INFO, decode=api.document, id=pty_id)


def end(pty_id: str) -> Call[Document]:
    """End a PTY and every process of its session."""
    return call(routes.END, decode=api.document, id=pty_id)


def interrupt(pty_id: str) -> Call[Document]:
    """Interrupt what runs in a PTY; `signal` of the answer is the last one that was needed."""
    return call(routes.INTERRUPT, decode=api.document, id=pty_id)


def output(pty_id: str, since: int = 0) -> Call[bytes]:
    """The output so far as bytes, from a sequence number (byte offset) on."""
    return call(
        routes.TRANSCRIPT,
        decode=lambda answer: answer.body,
        query=routes.TranscriptQuery(since=since),
        accept="*/*",
        id=pty_id,
    )


def text(pty_id: str) -> Call[str]:
    """The output so far as a person reads it: without escape codes, line ends as in files."""
    from tundra_nb.terminal.ansi import plain

    return call(routes.TRANSCRIPT, decode=lambda answer: plain(_decoded(answer)), accept="*/*", id=pty_id)


def raw(pty_id: str) -> Call[str]:
    """The output so far with its escape codes, line ends as in files."""
    return call(routes.TRANSCRIPT, decode=_decoded, accept="*/*", id=pty_id)


def follow(pty_id: str, since: int = 0, owner: str = "") -> Call[None]:
    """The output as events, until the PTY ends. A PTY that has an `owner` ends when that no longer follows it."""
    return call(
        routes.TRANSCRIPT,
        decode=lambda _: None,
        query=routes.TranscriptQuery(since=since, owner=owner),
        accept=EVENTS,
        timeout=STREAM_TIMEOUT,
        id=pty_id,
    )


def events(pty_id: str) -> Call[pd.DataFrame]:
    """When output came, up to which offset, and what sizes the screen had. `attrs["head"]`: command and first size."""
    return call(routes.TIMING, decode=_events, id=pty_id)


def timing(pty_id: str) -> Call[Document]:
    """The same as the daemon keeps it, for exports: `head` and `events`."""
    return call(routes.TIMING, decode=api.document, id=pty_id)


def send(pty_id: str, typed: str) -> Call[Document]:
    """Type text into a PTY; a line wants its newline. `warning` of the answer: a line that the terminal will cut."""
    return call(routes.INPUT, decode=api.document, body=routes.InputBody(typed), timeout=INPUT_TIMEOUT, id=pty_id)


def expect(pty_id: str, patterns: Pattern | Sequence[Pattern], timeout: float | None = 30.0) -> Call[Matched]:
    """Wait for the first of the patterns; goes on where the last `expect` matched.

    Args:
        pty_id: where.
        patterns: regular expressions in which `.` matches line ends too; `EOF` and `TIMEOUT` are pexpect's.
        timeout: seconds; None waits for ever.

    Raises:
        Timeout: nothing matched in time, and TIMEOUT is not among the patterns.
        HandleNotFound: the program has ended, and EOF is not among the patterns.
    """
    listed = [patterns] if isinstance(patterns, str | re.Pattern | type) else list(patterns)
    return call(
        routes.EXPECT,
        decode=lambda answer: msgspec.json.decode(answer.body, type=Matched),
        body=routes.ExpectBody(patterns=[_pattern(pattern) for pattern in listed], timeout=timeout),
        timeout=None if timeout is None else timeout + CALL_TIMEOUT,
        id=pty_id,
    )


def send_secret(pty_id: str, name: str, environ: Mapping[str, str] | None = None) -> Call[Document]:
    """Type the value of a variable of *this* process, and Enter, once the program has switched the echo off.

    The value goes over the daemon's socket only; from then on it is masked in output, transcript and log.

    Raises:
        UsageError: it is not set here, or the terminal still shows what is typed; nothing was sent.
    """
    value = (os.environ if environ is None else environ).get(name)
    if not value:
        raise UsageError(
            problem=f"{name} is not set here",
            field=name,
            remedy=f"Set it in the environment of this process (pid {os.getpid()}) first.",
        )
    body = routes.SecretBody(name, value)
    return call(routes.SECRET, decode=lambda answer: Document(answer.json()), body=body, id=pty_id)


def resize(pty_id: str, rows: int, columns: int) -> Call[Document]:
    """Change the size of a PTY's screen."""
    return call(routes.SIZE, decode=api.document, body=routes.SizeBody(rows, columns), id=pty_id)


def why(pty_id: str) -> Flow[PtyStory]:
    """What happened to a PTY: who looked at it, when they were lost and what they missed, and why it ended."""
    steps = yield api.history("pty-history", "all", pty_id=pty_id)
    viewers = yield api.connections("all", pty=pty_id)
    return PtyStory.of(pty_id, steps, viewers)


def lost(peer: str, error: TundraError, at_us: int) -> Call[Document]:
    """Tell the daemon that the line to it broke, and is back."""
    body = routes.LostBody(
        peer=peer,
        code="TransportError" if error.code == "TransportError" else "IpcError",
        reason=error.reason,
        message=error.message,
        at=at_us,
    )
    return call(routes.LOST, decode=api.document, body=body)


def history(
    since: times.When | None = None,
    *,
    between: api.Window | None = None,
    at: str | None = None,
    limit: int | None = None,
    wait: float | None = None,
    source: str | None = None,
    all: bool = False,  # noqa: A002 - the option's name
) -> Call[pd.DataFrame]:
    """What happened to PTYs: starts, refusals, resizes, exits, kills, orphan ends."""
    return api.history("pty-history", since, between=between, at=at, limit=limit, wait=wait, source=source, all=all)


def search(pattern: str, limit: int = 1000) -> Call[pd.DataFrame]:
    """Lines of all transcripts, open and kept, that match a regular expression; newest session first.

    `attrs["truncated"]` says that there may be more.
    """
    return call(routes.SEARCH, decode=_hits, query=routes.SearchQuery(pattern=pattern, limit=limit))


def clean(dry: bool = True) -> Call[pd.DataFrame]:
    """What earlier daemons left: stray processes, dead sockets, old transcripts; removed unless `dry`."""
    return call(routes.CLEAN, decode=lambda answer: _rows(answer, LIVE["left"]), body=routes.CleanBody(dry=dry))


def _given(options: SpawnOptions | CellOptions) -> dict[str, Any]:
    made: dict[str, Any] = {name: value for name, value in options.items() if value is not None and value != ()}
    if "env" in made:
        made["env"] = dict(made["env"])
    if "with_keys" in made:
        made["with_keys"] = [made["with_keys"]] if isinstance(made["with_keys"], str) else list(made["with_keys"])
    return made


def _decoded(answer: HttpAnswer) -> str:
    return answer.body.decode("utf-8", errors="replace").replace("\r\n", "\n")


def _pattern(pattern: Pattern) -> str:
    if isinstance(pattern, re.Pattern):
        flags = "".join(letter for flag, letter in _FLAGS.items() if pattern.flags & flag)
        return f"(?{flags}:{pattern.pattern})" if flags else str(pattern.pattern)
    return pattern.__name__ if isinstance(pattern, type) else pattern


def _events(answer: HttpAnswer) -> pd.DataFrame:
    found = answer.json()
    rows = [
        {
            "seconds": mark["t"],
            "kind": "output" if "end" in mark else "resize",
            "offset": mark.get("end"),
            "columns": mark.get("columns"),
            "rows": mark.get("rows"),
        }
        for mark in found["events"]
    ]
    return frames.from_rows(rows, LIVE["timing"], meta={"head": found["head"]})


def _hits(answer: HttpAnswer) -> pd.DataFrame:
    return _rows(answer, LIVE["hits"])


def _rows(answer: HttpAnswer, columns: tuple[Column, ...]) -> pd.DataFrame:
    found = answer.json()
    more = {name: value for name, value in found.items() if name != "rows"}
    return frames.from_rows(found["rows"], columns, meta=more)
