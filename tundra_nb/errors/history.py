"""The history's database, and questions to it that are refused."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from .base import Severity, TundraError


@dataclasses.dataclass(eq=False, kw_only=True)
class StoreError(TundraError):
    """The history's database cannot serve. `problem` is a sentence, `remedy` another, `kind` the stable word."""

    problem: str
    remedy: str = ""
    kind: str = "store"
    code: ClassVar[str] = "StoreError"
    severity: ClassVar[Severity] = "high"
    http_status: ClassVar[int] = 503

    @property
    def message(self) -> str:
        return self.problem

    @property
    def hint(self) -> str:
        return self.remedy or "Events wait in the spool and are delivered once it is back."

    @property
    def reason(self) -> str:
        return self.kind


@dataclasses.dataclass(eq=False, kw_only=True)
class StoreUnavailable(StoreError):
    """Cannot be reached or used now: not running, refused, wrong server, access, read-only."""

    code: ClassVar[str] = "StoreUnavailable"
    retryable: ClassVar[bool] = True


@dataclasses.dataclass(eq=False, kw_only=True)
class StoreDamaged(StoreError):
    """The database is damaged, newer than this program, or half-way through a migration."""

    code: ClassVar[str] = "StoreDamaged"
    severity: ClassVar[Severity] = "critical"
    http_status: ClassVar[int] = 500


@dataclasses.dataclass(eq=False, kw_only=True)
class ArchiveDamaged(StoreDamaged):
    """A file of the archive is not what was written. The history, of which it is a copy, is whole."""

    kind: str = "archive_damaged"
    code: ClassVar[str] = "ArchiveDamaged"
    severity: ClassVar[Severity] = "medium"


@dataclasses.dataclass(eq=False, kw_only=True)
class StoreBusy(StoreError):
    """The store did not answer in time: a long query passed its deadline, or the writer is far behind."""

    code: ClassVar[str] = "StoreBusy"
    retryable: ClassVar[bool] = True


@dataclasses.dataclass(eq=False, kw_only=True)
class QueryRefused(TundraError):
    """SQL that writes, reaches files, names what is not ours, or does not parse."""

    problem: str
    code: ClassVar[str] = "QueryRefused"
    severity: ClassVar[Severity] = "low"
    http_status: ClassVar[int] = 400

    @property
    def message(self) -> str:
        return self.problem

    @property
    def hint(self) -> str:
        return "One SELECT or WITH over the history's tables; `select * from operation limit 5` is a start."


@dataclasses.dataclass(eq=False, kw_only=True)
class RefNotFound(TundraError):
    """No commit, branch or tag of this name."""

    ref: str
    nearest: str | None = None
    begins: str | None = None
    """When the history begins; only where `ref` is a time before that."""
    code: ClassVar[str] = "RefNotFound"
    severity: ClassVar[Severity] = "low"
    http_status: ClassVar[int] = 404

    @property
    def message(self) -> str:
        if self.begins is not None:
            return f"the history begins at {self.begins}, after {self.ref}"
        return f"no commit, branch, tag or time {self.ref!r}"

    @property
    def hint(self) -> str:
        if self.begins is not None:
            return "Give a later time; `%tundra commits` lists the commits with theirs."
        also = f"Did you mean {self.nearest!r}? " if self.nearest else ""
        return also + "`%tundra commits` lists the commits; also `HEAD~2`, `yesterday`, `14:00`."
