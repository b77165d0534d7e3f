"""Bad input, lost connections, settings that cannot be used, and defects of ours."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from .base import Severity, TundraError


@dataclasses.dataclass(eq=False, kw_only=True)
class UsageError(TundraError):
    """Bad input, refused before anything was sent. `field` names it, `nearest` is the closest valid word."""

    problem: str
    field: str | None = None
    nearest: str | None = None
    remedy: str = ""
    code: ClassVar[str] = "UsageError"
    severity: ClassVar[Severity] = "low"
    http_status: ClassVar[int] = 400

    @property
    def message(self) -> str:
        return self.problem

    @property
    def hint(self) -> str:
        return f"Did you mean {self.nearest!r}?" if self.nearest else self.remedy


@dataclasses.dataclass(eq=False, kw_only=True)
class TransportError(TundraError):
    """Client ↔ Jupyter server: lost, or an answer that is not ours."""

    problem: str
    remedy: str = ""
    code: ClassVar[str] = "TransportError"
    http_status: ClassVar[int] = 502
    retryable: ClassVar[bool] = True

    @property
    def message(self) -> str:
        return self.problem

    @property
    def hint(self) -> str:
        return self.remedy or "Check TUNDRA_URL and TUNDRA_TOKEN, and that the Jupyter server runs."


@dataclasses.dataclass(eq=False, kw_only=True)
class IpcError(TundraError):
    """Client or bridge ↔ daemon. `kind`: absent, refused, version, died, host, stopped, busy, hung, descriptors."""

    kind: str
    problem: str
    remedy: str = ""
    retry_after: float | None = None
    """Seconds until the daemon is started again, where that is known."""
    code: ClassVar[str] = "IpcError"
    severity: ClassVar[Severity] = "high"
    http_status: ClassVar[int] = 503
    retryable: ClassVar[bool] = True

    @property
    def message(self) -> str:
        return self.problem

    @property
    def hint(self) -> str:
        return self.remedy or "`tundra daemon status` tells more; `tundra daemon start` starts it."

    @property
    def reason(self) -> str:
        return self.kind


@dataclasses.dataclass(eq=False, kw_only=True)
class ConfigError(TundraError):
    """Settings, environment or installation. `where` is a file and line, a key path, or a variable."""

    problem: str
    where: str = ""
    remedy: str = ""
    code: ClassVar[str] = "ConfigError"
    severity: ClassVar[Severity] = "critical"
    http_status: ClassVar[int] = 500

    @property
    def message(self) -> str:
        return f"{self.where}: {self.problem}" if self.where else self.problem

    @property
    def hint(self) -> str:
        return self.remedy or "`tundra settings` lists every setting with its default and source."


@dataclasses.dataclass(eq=False, kw_only=True)
class NoProfile(ConfigError):
    """The settings name no profile, so there is nobody to ask."""

    problem: str = "no profile is set up, so there is nobody to ask"
    keys: str = ""
    """Vendors' key variables that are set where this was asked; added there, for the daemon cannot see them."""
    severity: ClassVar[Severity] = "high"

    @property
    def restart(self) -> str:
        """What to do where there are keys already."""
        if not self.keys:
            return ""
        return (
            f"The daemon was started without {self.keys}: `%tundra daemon restart` makes profiles of the keys that are "
            "set here."
        )

    @property
    def hint(self) -> str:
        first = f"{self.restart}\nOr make" if self.keys else "Make"
        return f"""{first} one, for example for a local server, then ask again:
    %tundra providers add local --kind local --base-url http://127.0.0.1:8080/v1
    %tundra status
    %tundra ask Say hi"""


@dataclasses.dataclass(eq=False, kw_only=True)
class KeyMissing(ConfigError):
    """The key variable of a profile is not set where it was looked for."""

    problem: str = ""
    profile: str
    variable: str
    severity: ClassVar[Severity] = "high"
    fails_over: ClassVar[bool] = True
    parks: ClassVar[bool] = True

    @property
    def message(self) -> str:
        return (
            f"{self.profile}: {self.variable} is not set (looked in the environment the daemon was started with, "
            "and in keys offered to it); the profile is parked"
        )

    @property
    def hint(self) -> str:
        return (
            f"Set {self.variable} and run `tundra keys offer`, or set it before the daemon starts; "
            f"then `%tundra providers recheck {self.profile}`."
        )


@dataclasses.dataclass(eq=False, kw_only=True)
class InternalError(TundraError):
    """A defect of ours; the log has the traceback."""

    problem: str = "unexpected failure"
    code: ClassVar[str] = "InternalError"
    severity: ClassVar[Severity] = "high"
    http_status: ClassVar[int] = 500

    @property
    def message(self) -> str:
        return self.problem

    @property
    def hint(self) -> str:
        return "`tundra logs -n 50` has the traceback; please report it."
