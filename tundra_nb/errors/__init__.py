"""Every error tundra_nb raises on purpose, and how each is handled.

    TundraError
    ├── ProviderError          one attempt at a provider failed
    │   ├── HttpError            no answer: DNS, connect, TLS, reset
    │   ├── Timeout              a deadline passed; says which
    │   ├── ParseError           the answer could not be read
    │   ├── RateLimited          429
    │   ├── Unsupported          the model cannot do this, or does not exist
    │   ├── Parked               taken out by hand
    │   └── ApiError             any other error status
    │       ├── RequestRejected    400, 409, 413, 422: the request is wrong
    │       ├── KeyRejected        401, 403
    │       ├── QuotaSpent         402, insufficient_quota, spend limit
    │       ├── Redirected         3xx: the address has moved; never followed
    │       └── Moderated          content policy
    ├── LimitExceeded          our own limiter refused
    ├── BreakerOpen            our own breaker refused
    ├── AllProvidersExhausted  no candidate profile answered
    ├── Cancelled              the caller went away
    ├── PtyError
    │   ├── AtCapacity
    │   ├── HandleNotFound
    │   └── SpawnFailed
    ├── StoreError             the history's database cannot serve
    │   ├── StoreUnavailable
    │   ├── StoreDamaged
    │   └── StoreBusy
    ├── QueryRefused           SQL that writes, or reaches files
    ├── RefNotFound            no such commit, branch or tag
    ├── UsageError             bad input, refused before anything was sent
    ├── TransportError         client ↔ Jupyter server lost or malformed
    ├── IpcError               client ↔ daemon: absent, refused, version, died
    ├── ConfigError            settings, environment or installation
    │   └── KeyMissing           a profile's key variable is not set
    └── InternalError          a defect of ours

An error is a frozen set of *facts*; its message and hint are built from them in the class. `to_wire` and `from_wire`
carry it from the daemon to a kernel and back into the same class. Classes that share a `code` (the word users look up)
differ in how the router treats them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, ClassVar, Literal

Severity = Literal["critical", "high", "medium", "low", "info"]


@dataclasses.dataclass(eq=False, kw_only=True)
class TundraError(Exception):
    """Base of all errors raised on purpose.

    The class attributes say how an error is handled; the dataclass fields are its facts, each a JSON value.
    """

    code: ClassVar[str] = "TundraError"
    """Stable word that users look up with `explain`."""
    severity: ClassVar[Severity] = "medium"
    http_status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False
    """The same call on the same profile may succeed after a pause."""
    fails_over: ClassVar[bool] = False
    """Another profile may succeed."""
    trips_breaker: ClassVar[bool] = False
    """Counts as a failure of the profile."""
    parks: ClassVar[bool] = False
    """The profile stays unusable until settings change or it is rechecked."""
    guide: ClassVar[str] = "index"
    """Page of `tundra_nb/guide/errors` that explains it."""

    @property
    def message(self) -> str:
        """One sentence of cause."""
        return self.code

    @property
    def hint(self) -> str:
        """One sentence of remedy."""
        return f"`%tundra explain {self.code}` tells more."

    @property
    def reason(self) -> str:
        """The cause in one stable snake_case word, for filters and columns."""
        return "".join("_" + c.lower() if c.isupper() else c for c in type(self).__name__).lstrip("_")

    @property
    def facts(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.facts)

    def _render_traceback_(self) -> list[str]:
        """What IPython shows instead of a traceback: one line, the hint, where to read on."""
        lines = [f"{self.code}: {self.message}"]
        if self.hint:
            lines.append(f"  → {self.hint}")
        lines.append(f"  %tundra explain {self.code}")
        return lines

    def to_wire(self) -> dict[str, Any]:
        """The JSON body of an error answer."""
        return {
            "code": self.code,
            "type": type(self).__name__,
            "message": self.message,
            "reason": self.reason,
            "hint": self.hint,
            "retryable": self.retryable,
            "retry_after": getattr(self, "retry_after", None),
            "severity": self.severity,
            "guide": f"errors/{self.guide}",
            "facts": self.facts,
        }


# --- one attempt at a provider


@dataclasses.dataclass(eq=False, kw_only=True)
class ProviderError(TundraError):
    """One attempt at a provider failed."""

    profile: str
    fails_over: ClassVar[bool] = True
    guide: ClassVar[str] = "providers"


@dataclasses.dataclass(eq=False, kw_only=True)
class HttpError(ProviderError):
    """No answer: DNS, connect, TLS, reset. `kind` is one of dns, connect, tls, proxy, reset, protocol."""

    host: str
    kind: str = "connect"
    cause: str = ""
    code: ClassVar[str] = "HttpError"
    http_status: ClassVar[int] = 502
    retryable: ClassVar[bool] = True
    trips_breaker: ClassVar[bool] = True

    @property
    def message(self) -> str:
        what = {
            "dns": "the name of {host} cannot be resolved",
            "connect": "cannot connect to {host}",
            "tls": "no secure connection to {host}",
            "proxy": "the proxy in front of {host} refused",
            "reset": "{host} closed the connection",
            "protocol": "{host} does not speak HTTP",
        }.get(self.kind, "cannot reach {host}")
        return f"{self.profile}: {what.format(host=self.host)}" + (f" ({self.cause})" if self.cause else "")

    @property
    def hint(self) -> str:
        return {
            "dns": "Check base_url of the profile, and the network.",
            "connect": "Is the server running? Check base_url of the profile.",
            "tls": "Check the certificate, or set SSL_CERT_FILE to your private CA.",
            "proxy": "Check HTTPS_PROXY and NO_PROXY in the environment that started the daemon.",
        }.get(self.kind, "Usually passes by itself; the call may be repeated.")

    @property
    def reason(self) -> str:
        return self.kind


@dataclasses.dataclass(eq=False, kw_only=True)
class Timeout(ProviderError):
    """A deadline passed. `deadline` is one of connect, idle, total, operation, command, expect."""

    profile: str = ""
    deadline: str
    seconds: float
    code: ClassVar[str] = "Timeout"
    http_status: ClassVar[int] = 504
    trips_breaker: ClassVar[bool] = True

    @property
    def message(self) -> str:
        what = {
            "connect": "no connection within {s:g} s",
            "idle": "nothing arrived for {s:g} s",
            "total": "the answer took longer than {s:g} s",
            "operation": "the whole operation took longer than {s:g} s",
            "command": "the command ran longer than {s:g} s",
            "expect": "nothing that was expected appeared within {s:g} s",
        }.get(self.deadline, "longer than {s:g} s")
        who = f"{self.profile}: " if self.profile else ""
        return f"{who}{what.format(s=self.seconds)} ({self.deadline} deadline)"

    @property
    def hint(self) -> str:
        if self.deadline == "command":
            return "Give a longer `timeout`, or run it in `%%tundra sh`."
        if self.deadline == "expect":
            return "Look at `%tundra pty show ID` for what the program says instead, or give a longer `timeout`."
        if self.deadline == "operation":
            return "Raise `router.deadline_seconds`, or look at `%tundra why last` for where the time went."
        return f"Raise `deadlines.{self.deadline}_seconds` if such answers are normal here."

    @property
    def reason(self) -> str:
        return f"timeout_{self.deadline}"


@dataclasses.dataclass(eq=False, kw_only=True)
class ParseError(ProviderError):
    """The answer could not be read: HTML, broken JSON, bad encoding, a stream that was cut."""

    problem: str
    excerpt: str = ""
    code: ClassVar[str] = "ParseError"
    severity: ClassVar[Severity] = "low"
    http_status: ClassVar[int] = 502
    trips_breaker: ClassVar[bool] = True

    @property
    def message(self) -> str:
        return f"{self.profile}: {self.problem}" + (f": {self.excerpt!r}" if self.excerpt else "")

    @property
    def hint(self) -> str:
        return "Check that base_url points at the API, not at a web page or a login proxy."


@dataclasses.dataclass(eq=False, kw_only=True)
class RateLimited(ProviderError):
    """The provider answered 429. `retry_after` in seconds, None when it did not say."""

    retry_after: float | None = None
    detail: str = ""
    code: ClassVar[str] = "RateLimited"
    http_status: ClassVar[int] = 429
    retryable: ClassVar[bool] = True

    @property
    def message(self) -> str:
        wait = f", again in {self.retry_after:.3g} s" if self.retry_after is not None else ""
        return f"{self.profile}: rate limited by the provider (429){wait}" + (f": {self.detail}" if self.detail else "")

    @property
    def hint(self) -> str:
        return "Wait, lower `rpm`/`tpm` of the profile, or add a second profile to fail over to."


@dataclasses.dataclass(eq=False, kw_only=True)
class Unsupported(ProviderError):
    """The model does not exist here, or cannot do what was asked.

    `kind`: model, tools, vision, stream, json, context.
    """

    kind: str
    model: str = ""
    detail: str = ""
    nearest: str | None = None
    status: int | None = None
    code: ClassVar[str] = "Unsupported"
    http_status: ClassVar[int] = 422

    @property
    def message(self) -> str:
        what = {
            "model": f"model {self.model!r} not found",
            "tools": f"{self.model!r} takes no tools",
            "vision": f"{self.model!r} takes no images",
            "stream": f"{self.model!r} does not stream",
            "json": f"{self.model!r} has no JSON mode",
            "context": f"the prompt is too long for {self.model!r}",
        }.get(self.kind, self.kind)
        return f"{self.profile}: {what}" + (f" ({self.detail})" if self.detail else "")

    @property
    def hint(self) -> str:
        if self.nearest:
            return f"Did you mean {self.nearest!r}? `%tundra models` lists what each profile has."
        if self.kind == "context":
            return "Shorten the prompt, or add a profile whose model has a larger context."
        return "`%tundra models` lists what each profile has."

    @property
    def reason(self) -> str:
        return f"unsupported_{self.kind}"


@dataclasses.dataclass(eq=False, kw_only=True)
class ApiError(ProviderError):
    """An error status that is the provider's fault or unknown: 408, 5xx, 529 and anything unlisted."""

    status: int
    detail: str = ""
    field: str | None = None
    retry_after: float | None = None
    code: ClassVar[str] = "ApiError"
    http_status: ClassVar[int] = 502
    retryable: ClassVar[bool] = True
    trips_breaker: ClassVar[bool] = True

    @property
    def message(self) -> str:
        return f"{self.profile}: {self._what} ({self.status})" + (f": {self.detail}" if self.detail else "")

    _what: ClassVar[str] = "the provider failed"

    @property
    def hint(self) -> str:
        return "Usually passes by itself; a second profile would take over meanwhile."


@dataclasses.dataclass(eq=False, kw_only=True)
class RequestRejected(ApiError):
    """400, 409, 413, 422: the same request would be refused everywhere."""

    http_status: ClassVar[int] = 400
    severity: ClassVar[Severity] = "low"
    retryable: ClassVar[bool] = False
    fails_over: ClassVar[bool] = False
    trips_breaker: ClassVar[bool] = False
    _what: ClassVar[str] = "the request was rejected"

    @property
    def hint(self) -> str:
        return f"Correct the field {self.field!r}." if self.field else "Correct the request; see the provider's words."


@dataclasses.dataclass(eq=False, kw_only=True)
class KeyRejected(ApiError):
    """401 or 403: the key is wrong or may not do this. `variable` is where the key came from, never its value."""

    variable: str = ""
    severity: ClassVar[Severity] = "high"
    retryable: ClassVar[bool] = False
    trips_breaker: ClassVar[bool] = False
    parks: ClassVar[bool] = True
    _what: ClassVar[str] = "the key was rejected"

    @property
    def message(self) -> str:
        where = f" from {self.variable}" if self.variable else ""
        return f"{self.profile}: the key{where} was rejected ({self.status})" + (
            f": {self.detail}" if self.detail else ""
        )

    @property
    def hint(self) -> str:
        name = self.variable or "api_key_env"
        return f"Profile parked. Correct {name}, then `%tundra providers recheck {self.profile}`."


@dataclasses.dataclass(eq=False, kw_only=True)
class QuotaSpent(ApiError):
    """402, `insufficient_quota`, spend limit: paying helps, waiting does not."""

    severity: ClassVar[Severity] = "high"
    retryable: ClassVar[bool] = False
    trips_breaker: ClassVar[bool] = False
    parks: ClassVar[bool] = True
    _what: ClassVar[str] = "the quota of this key is spent"

    @property
    def hint(self) -> str:
        return f"Profile parked. Raise the spend limit, then `%tundra providers recheck {self.profile}`."


@dataclasses.dataclass(eq=False, kw_only=True)
class Redirected(ApiError):
    """3xx: the address has moved. Not followed, because a key goes only to the host of its profile."""

    location: str = ""
    retryable: ClassVar[bool] = False
    _what: ClassVar[str] = "the address redirects"

    @property
    def message(self) -> str:
        where = f" to {self.location}" if self.location else ""
        return f"{self.profile}: the address redirects{where} ({self.status}), which is not followed"

    @property
    def hint(self) -> str:
        return "Correct base_url of the profile; the key is sent nowhere else."


@dataclasses.dataclass(eq=False, kw_only=True)
class Moderated(ApiError):
    """The provider's content policy refused the prompt."""

    http_status: ClassVar[int] = 400
    severity: ClassVar[Severity] = "low"
    retryable: ClassVar[bool] = False
    fails_over: ClassVar[bool] = False
    trips_breaker: ClassVar[bool] = False
    _what: ClassVar[str] = "refused by the provider's content policy"

    @property
    def hint(self) -> str:
        return "Change the prompt; other providers are not asked."


@dataclasses.dataclass(eq=False, kw_only=True)
class Parked(ProviderError):
    """A person took the profile out with `providers park`."""

    cause: str = ""
    code: ClassVar[str] = "Parked"
    severity: ClassVar[Severity] = "info"
    http_status: ClassVar[int] = 503
    parks: ClassVar[bool] = True

    @property
    def message(self) -> str:
        return f"{self.profile}: parked by hand" + (f" ({self.cause})" if self.cause else "")

    @property
    def hint(self) -> str:
        return f"`%tundra providers recheck {self.profile}` takes it back in."


# --- our own refusals


@dataclasses.dataclass(eq=False, kw_only=True)
class LimitExceeded(TundraError):
    """Our limiter refused. `retry_after` is exact, in seconds; None = this cost can never be admitted."""

    tier: str
    key: str
    resource: str
    requested: float
    retry_after: float | None
    limit: float = 0.0
    code: ClassVar[str] = "RateLimitError::Exceeded"
    http_status: ClassVar[int] = 429
    retryable: ClassVar[bool] = True
    fails_over: ClassVar[bool] = True
    guide: ClassVar[str] = "limits"

    @property
    def message(self) -> str:
        whose = self.tier if self.key in ("", self.tier) else f"{self.tier} {self.key!r}"
        if self.retry_after is None:
            asked = f"{self.requested:g} {self.resource} at once"
            return f"{asked} is more than the {whose} limit ever admits ({self.limit:g})"
        return f"the {whose} limit of {self.resource} is reached, again in {self.retry_after:.3g} s"

    @property
    def hint(self) -> str:
        name = f"`limits.{self.tier}`" if self.tier != "profile" else "`rpm`/`tpm` of the profile"
        if self.retry_after is None:
            return f"Raise the burst in {name}, or ask for less (shorter prompt, smaller max_tokens)."
        return f"`%tundra limits` shows the buckets; raise {name} if this is normal load."


@dataclasses.dataclass(eq=False, kw_only=True)
class BreakerOpen(TundraError):
    """The breaker of the profile is open. `retry_after` seconds until it lets a probe through."""

    profile: str
    retry_after: float | None = None
    cause: str = ""
    code: ClassVar[str] = "CircuitBreakerError::Open"
    severity: ClassVar[Severity] = "high"
    http_status: ClassVar[int] = 503
    retryable: ClassVar[bool] = True
    fails_over: ClassVar[bool] = True
    guide: ClassVar[str] = "breakers"

    @property
    def message(self) -> str:
        wait = f", next probe in {self.retry_after:.3g} s" if self.retry_after else ""
        return f"{self.profile}: breaker open{wait}" + (f" (after {self.cause})" if self.cause else "")

    @property
    def hint(self) -> str:
        return f"It closes by itself when probes succeed; `%tundra breakers reset {self.profile}` closes it now."


@dataclasses.dataclass(eq=False, kw_only=True)
class AllProvidersExhausted(TundraError):
    """Every candidate failed. `causes` is the wire form of one error per profile, in the order tried."""

    causes: list[dict[str, Any]]
    retry_after: float | None = None
    code: ClassVar[str] = "AllProvidersExhausted"
    severity: ClassVar[Severity] = "high"
    http_status: ClassVar[int] = 503
    retryable: ClassVar[bool] = True
    guide: ClassVar[str] = "providers"

    @property
    def message(self) -> str:
        if not self.causes:
            return "no profile can be asked"
        told = "; ".join(f"{cause['code']} {cause['message']}" for cause in self.causes)
        return f"no profile answered: {told}"

    @property
    def hint(self) -> str:
        if len(self.causes) == 1:
            return str(self.causes[0]["hint"])
        return "`%tundra why last` shows each attempt; `%tundra status` shows parked and cooling profiles."


@dataclasses.dataclass(eq=False, kw_only=True)
class Cancelled(TundraError):
    """The caller went away, or pressed stop."""

    code: ClassVar[str] = "Cancelled"
    guide: ClassVar[str] = "providers"
    severity: ClassVar[Severity] = "info"
    http_status: ClassVar[int] = 499

    @property
    def message(self) -> str:
        return "cancelled by the caller"

    @property
    def hint(self) -> str:
        return ""


# --- terminals


@dataclasses.dataclass(eq=False, kw_only=True)
class PtyError(TundraError):
    """Base of terminal errors."""

    guide: ClassVar[str] = "ptys"


@dataclasses.dataclass(eq=False, kw_only=True)
class AtCapacity(PtyError):
    """All slots of the pool are taken. `holders`: one line per slot (id, command, seconds, idle)."""

    capacity: int
    holders: list[str]
    code: ClassVar[str] = "AtCapacity"
    severity: ClassVar[Severity] = "high"
    http_status: ClassVar[int] = 503
    retryable: ClassVar[bool] = True

    @property
    def message(self) -> str:
        return f"all {self.capacity} PTYs are in use: " + "; ".join(self.holders)

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


# --- history


@dataclasses.dataclass(eq=False, kw_only=True)
class StoreError(TundraError):
    """The history's database cannot serve. `problem` is a sentence, `remedy` another, `kind` the stable word."""

    problem: str
    remedy: str = ""
    kind: str = "store"
    code: ClassVar[str] = "StoreError"
    severity: ClassVar[Severity] = "high"
    http_status: ClassVar[int] = 503
    guide: ClassVar[str] = "store"

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
    guide: ClassVar[str] = "store"

    @property
    def message(self) -> str:
        return self.problem

    @property
    def hint(self) -> str:
        return "One SELECT, WITH or EXPLAIN over the history's tables; `select * from operation limit 5` is a start."


@dataclasses.dataclass(eq=False, kw_only=True)
class RefNotFound(TundraError):
    """No commit, branch or tag of this name."""

    ref: str
    nearest: str | None = None
    code: ClassVar[str] = "RefNotFound"
    severity: ClassVar[Severity] = "low"
    http_status: ClassVar[int] = 404
    guide: ClassVar[str] = "store"

    @property
    def message(self) -> str:
        return f"no commit, branch, tag or time {self.ref!r}"

    @property
    def hint(self) -> str:
        also = f"Did you mean {self.nearest!r}? " if self.nearest else ""
        return also + "`%tundra commits` lists the commits; also `HEAD~2`, `yesterday`, `14:00`."


# --- use, transport, configuration


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
    guide: ClassVar[str] = "usage"

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
    guide: ClassVar[str] = "daemon"

    @property
    def message(self) -> str:
        return self.problem

    @property
    def hint(self) -> str:
        return self.remedy or "Check TUNDRA_URL and TUNDRA_TOKEN, and that the Jupyter server runs."


@dataclasses.dataclass(eq=False, kw_only=True)
class IpcError(TundraError):
    """Client or bridge ↔ daemon. `kind`: absent, refused, version, died, host, stopped, busy."""

    kind: str
    problem: str
    remedy: str = ""
    retry_after: float | None = None
    """Seconds until the daemon is started again, where that is known."""
    code: ClassVar[str] = "IpcError"
    severity: ClassVar[Severity] = "high"
    http_status: ClassVar[int] = 503
    retryable: ClassVar[bool] = True
    guide: ClassVar[str] = "daemon"

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
    guide: ClassVar[str] = "settings"

    @property
    def message(self) -> str:
        return f"{self.where}: {self.problem}" if self.where else self.problem

    @property
    def hint(self) -> str:
        return self.remedy or "`tundra settings` lists every setting with its default and source."


@dataclasses.dataclass(eq=False, kw_only=True)
class KeyMissing(ConfigError):
    """The key variable of a profile is not set where it was looked for."""

    problem: str = ""
    profile: str
    variable: str
    severity: ClassVar[Severity] = "high"
    fails_over: ClassVar[bool] = True
    parks: ClassVar[bool] = True
    guide: ClassVar[str] = "settings"

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
    guide: ClassVar[str] = "daemon"
    severity: ClassVar[Severity] = "high"
    http_status: ClassVar[int] = 500

    @property
    def message(self) -> str:
        return self.problem

    @property
    def hint(self) -> str:
        return "`tundra logs -n 50` has the traceback; please report it."


def every_error() -> Iterator[type[TundraError]]:
    """All classes of the tree, parents first."""
    todo: list[type[TundraError]] = [TundraError]
    while todo:
        cls = todo.pop(0)
        yield cls
        todo += cls.__subclasses__()


def from_wire(body: dict[str, Any]) -> TundraError:
    """Rebuild the error that `to_wire` described; an unknown type becomes an `InternalError` with the same message."""
    facts = body.get("facts") or {}
    for cls in every_error():
        if cls.__name__ == body.get("type"):
            try:
                return cls(**facts)
            except TypeError:
                break
    return InternalError(problem=str(body.get("message") or "the daemon answered with an error of an unknown form"))


def _rebuild(cls: type[TundraError], facts: dict[str, Any]) -> TundraError:
    return cls(**facts)
