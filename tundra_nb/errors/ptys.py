"""Pseudo-terminals that cannot be started, found or afforded."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from .base import Severity, TundraError


@dataclasses.dataclass(eq=False, kw_only=True)
class PtyError(TundraError):
    """Base of terminal errors."""


@dataclasses.dataclass(eq=False, kw_only=True)
class AtCapacity(PtyError):
    """All slots of the pool are taken. `holders`: one line per slot (id, command, seconds, idle)."""

    capacity: int
    holders: list[str]
    waiting: int = 0
    """Callers that wait for a slot already."""
    code: ClassVar[str] = "AtCapacity"
    severity: ClassVar[Severity] = "high"
    http_status: ClassVar[int] = 503
    retryable: ClassVar[bool] = True

    @property
    def message(self) -> str:
        waiting = "one caller waits" if self.waiting == 1 else f"{self.waiting} callers wait"
        queue = f" and {waiting}" if self.waiting else ""
        return f"all {self.capacity} PTYs are in use{queue}: " + "; ".join(self.holders)

    @property
    def hint(self) -> str:
        return "`%tundra pty kill ID` frees one; `pty.capacity` raises the limit."


@dataclasses.dataclass(eq=False, kw_only=True)
class HandleNotFound(PtyError):
    """No PTY with this id is open. `ended` says how it ended, when it is still remembered."""

    pty_id: str
    nearest: str | None = None
    ended: str = ""
    code: ClassVar[str] = "HandleNotFound"
    severity: ClassVar[Severity] = "low"
    http_status: ClassVar[int] = 404

    @property
    def message(self) -> str:
        return f"PTY {self.pty_id} has ended: {self.ended}" if self.ended else f"no PTY {self.pty_id}"

    @property
    def hint(self) -> str:
        also = f"Did you mean {self.nearest}? " if self.nearest else ""
        return also + "`%tundra pty list` shows the open ones, `%tundra pty-history` the ended."


@dataclasses.dataclass(eq=False, kw_only=True)
class SpawnFailed(PtyError):
    """The command could not be started.

    `kind`: not_found, not_executable, cwd, ptys, descriptors, arguments, processes, other.
    """

    command: str
    kind: str
    cause: str
    code: ClassVar[str] = "SpawnFailed"
    http_status: ClassVar[int] = 422

    @property
    def message(self) -> str:
        return f"cannot start {self.command!r}: {self.cause}"

    @property
    def hint(self) -> str:
        return {
            "not_found": "Check the name and PATH; PATH is the daemon's, or what `env` gives.",
            "not_executable": "`chmod +x` it, or name its interpreter.",
            "cwd": "`cwd` must be an existing directory that you may enter.",
            "ptys": "The system is out of PTYs: end some, or raise kernel.pty.max.",
            "descriptors": "The daemon is out of file descriptors: end PTYs, or raise `ulimit -n`.",
            "arguments": "Shorten the command or its environment, or put it into a file.",
            "processes": "The process limit (`ulimit -u`) is reached: end processes first.",
        }.get(self.kind, "See the operating system's reason.")

    @property
    def reason(self) -> str:
        return f"spawn_{self.kind}"


@dataclasses.dataclass(eq=False, kw_only=True)
class CommandFailed(PtyError):
    """A command or cell ended badly, and `--check` (or the setting `pty.check`) makes that an error."""

    command: str
    ending: str
    """exit code 1, ended by SIGKILL."""
    pty_id: str
    code: ClassVar[str] = "CommandFailed"
    severity: ClassVar[Severity] = "low"
    http_status: ClassVar[int] = 422

    @property
    def message(self) -> str:
        return f"{self.command!r}: {self.ending}"

    @property
    def hint(self) -> str:
        return f"`%tundra pty show {self.pty_id} --text` shows its output; without `--check` it is no error."
