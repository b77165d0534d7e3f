"""Pseudo-terminals: `/api/ptys`, persistent shells, and what earlier daemons left."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from .endpoint import Endpoint, Rows
from .live import HitRow, LeftRow, PtyRow
from .words import BYTES, EVENTS

COLUMNS, ROWS = 80, 24
MAX_HITS = 1000
MAX_OFFSET = (1 << 63) - 1
Offset = Annotated[int, msgspec.Meta(ge=0, le=MAX_OFFSET)]
"""Bytes of the output so far."""
MOST_US = 253_402_300_799_999_999
"""The end of the year 9999, microseconds since the epoch."""


class Start(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """Under which circumstances a program starts."""

    cwd: str | None = None
    env: dict[str, str] | None = None
    """Set beside the daemon's variables."""
    rows: int = ROWS
    columns: int = COLUMNS
    timeout: float | None = None
    """Seconds it may take."""
    with_keys: list[str] = []
    """Names of variables that it gets although they hold keys."""


class SpawnBody(Start, frozen=True, kw_only=True):
    """A command to start: text runs by the shell, a list as it is."""

    command: str | list[str]
    kind: Literal["command", "terminal"] = "command"
    owner: str = ""
    """Who follows it (`?owner=` of the transcript); when nobody does any more, it ends. Empty: nobody has to."""
    persistent: bool = False
    """It ends by itself only, whoever goes."""
    wait: float = 0.0
    """Seconds to wait for a free terminal, at most `pty.queue_seconds`."""


class CellBody(Start, frozen=True, kw_only=True):
    """A cell to run in the owner's shell; what it starts under counts for a new shell."""

    cell: str
    program: Literal["bash", "zsh"] = "bash"
    fresh: bool = False
    """End the shell of before first."""


class InputBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is typed; a line wants its newline."""

    text: str


class SizeBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The new size of the screen."""

    rows: int
    columns: int


class SecretBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A variable's name and its value, typed only while the terminal does not echo."""

    name: str
    value: str


class ExpectBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Wait for one of `patterns`. `EOF` and `TIMEOUT` among them stand for pexpect's."""

    patterns: list[str]
    timeout: float | None = 30.0
    """Seconds; None waits for ever."""


class CleanBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Whether only to look."""

    dry: bool = True


class ListingQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which PTYs."""

    ended: bool = False
    """Those too that were ended by others, until somebody deletes them."""


class TranscriptQuery(msgspec.Struct, frozen=True, kw_only=True):
    """The first offset, and who follows."""

    since: Offset = 0
    owner: str = ""
    """A PTY that has this owner ends when nobody follows it with it any more."""


class SocketQuery(msgspec.Struct, frozen=True, kw_only=True):
    """How a viewer looks."""

    since: Offset | None = None
    """First offset; left out: the last screenful."""
    reset: bool = False
    """Begin with ESC c and the last screenful, as JupyterLab's own terminal wants it."""
    own: bool = False
    """Also tell `seq`, `missed`, `ended`."""
    viewer: str = ""
    """Its name in the history."""


class EndQuery(msgspec.Struct, frozen=True, kw_only=True):
    """What its viewers see."""

    dismiss: bool = False
    """Take it out of the list at once; else it stands there, with why it ended, until it is deleted again."""


class LostBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A client's line to the daemon that broke and is back: what the client saw."""

    peer: str
    """What the client is: kernel, cli, python."""
    code: Literal["TransportError", "IpcError"]
    reason: str
    message: str
    at: Annotated[int, msgspec.Meta(ge=0, le=MOST_US)]
    """When, microseconds since the epoch."""


class SearchQuery(msgspec.Struct, frozen=True, kw_only=True):
    """A regular expression over all transcripts."""

    pattern: str = ""
    limit: Annotated[int, msgspec.Meta(ge=1, le=MAX_HITS)] = MAX_HITS


class InterruptedPty(PtyRow, frozen=True, kw_only=True):
    """The PTY, with the last signal that was needed."""

    signal: str


class Typed(msgspec.Struct, frozen=True, kw_only=True):
    """`warning`: a line that the terminal will cut."""

    warning: str | None


class Matched(msgspec.Struct, frozen=True):
    """What `expect` found: which pattern, the text before it, what matched, and its groups."""

    index: int
    before: str
    after: str
    groups: tuple[str | None, ...] = ()

    def __str__(self) -> str:
        return self.before + self.after


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """When output came and what sizes the screen had; `head`: command, folder, first size."""

    head: dict[str, Any]
    events: list[dict[str, Any]]


class PtyListing(Rows[PtyRow], frozen=True, kw_only=True):
    """The PTYs, and the room that their transcripts take."""

    transcripts: dict[str, int]


class Hits(Rows[HitRow], frozen=True, kw_only=True):
    """Lines found, newest session first."""

    truncated: bool


class Leftovers(Rows[LeftRow], frozen=True, kw_only=True):
    """What was found, and whether it is gone now."""

    removed: bool


LISTING = Endpoint(method="GET", path="/api/ptys", summary="the open PTYs", query=ListingQuery, answer=PtyListing)
SPAWN = Endpoint(
    method="POST", path="/api/ptys", summary="start a command in a PTY", body=SpawnBody, answer=PtyRow, status=201
)
SEARCH = Endpoint(
    method="GET",
    path="/api/ptys/search",
    summary="lines of all transcripts that match",
    query=SearchQuery,
    answer=Hits,
)
CLEAN = Endpoint(
    method="POST", path="/api/clean", summary="what earlier daemons left", body=CleanBody, answer=Leftovers
)
INFO = Endpoint(method="GET", path="/api/ptys/{id}", summary="one PTY", answer=PtyRow)
END = Endpoint(
    method="DELETE",
    path="/api/ptys/{id}",
    summary="end a PTY and every process of its session",
    query=EndQuery,
    answer=PtyRow,
)
LOST = Endpoint(
    method="POST",
    path="/api/connections",
    summary="write down a line to the daemon that broke and is back",
    body=LostBody,
    answer=dict[str, Any],
)
INTERRUPT = Endpoint(
    method="POST", path="/api/ptys/{id}/interrupt", summary="interrupt what runs", answer=InterruptedPty
)
INPUT = Endpoint(method="POST", path="/api/ptys/{id}/input", summary="type text", body=InputBody, answer=Typed)
SIZE = Endpoint(method="POST", path="/api/ptys/{id}/size", summary="resize the screen", body=SizeBody, answer=PtyRow)
EXPECT = Endpoint(
    method="POST",
    path="/api/ptys/{id}/expect",
    summary="wait for a pattern, from the last match on",
    body=ExpectBody,
    answer=Matched,
)
SECRET = Endpoint(
    method="POST",
    path="/api/ptys/{id}/secret",
    summary="type a secret once the program does not show what is typed",
    body=SecretBody,
    answer=dict[str, Any],
)
TRANSCRIPT = Endpoint(
    method="GET",
    path="/api/ptys/{id}/transcript",
    summary="the output so far; as events it is followed: `output`, `missed`, then `exit`",
    query=TranscriptQuery,
    media=(BYTES, EVENTS),
)
TIMING = Endpoint(
    method="GET", path="/api/ptys/{id}/events", summary="when output came and how the screen was resized", answer=Timing
)
CELL = Endpoint(
    method="POST",
    path="/api/shells/{owner}/cells",
    summary="run a cell in a persistent shell: events `shell`, `output`, then `end` or `error`",
    body=CellBody,
    media=(EVENTS,),
)
SOCKET = Endpoint(
    method="WS",
    path="/api/ptys/{id}/ws",
    summary="a terminal, live, in terminado's messages",
    query=SocketQuery,
    media=(),
)
