"""One attempt at a provider failed; and a profile that a person took out."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from .base import Severity, TundraError
from .spans import span


@dataclasses.dataclass(eq=False, kw_only=True)
class ProviderError(TundraError):
    """One attempt at a provider failed."""

    profile: str
    fails_over: ClassVar[bool] = True


def tls_remedy(cause: str) -> str:
    """What to do about a connection that could not be secured, by OpenSSL's words."""
    if any(word in cause for word in ("WRONG_VERSION_NUMBER", "UNKNOWN_PROTOCOL", "HTTP_REQUEST")):
        return "Nobody speaks TLS at that port: write http:// in base_url, or the port that does."
    if "expired" in cause or "not yet valid" in cause:
        return "Renew the server's certificate, unless it is this computer's clock that is wrong."
    if "mismatch" in cause or "not valid for" in cause:
        return "The certificate is for another name: write that one in base_url."
    return "Check the certificate, or set SSL_CERT_FILE to your private CA, then `tundra daemon restart`."


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
            "tls": tls_remedy(self.cause),
            "proxy": "Check HTTPS_PROXY and NO_PROXY in the environment that started the daemon.",
        }.get(self.kind, "Usually passes by itself; the call may be repeated.")

    @property
    def reason(self) -> str:
        return self.kind


@dataclasses.dataclass(eq=False, kw_only=True)
class Timeout(ProviderError):
    """A deadline passed. `deadline` is one of connect, idle, total, models, operation, command, expect."""

    profile: str = ""
    deadline: str
    seconds: float
    code: ClassVar[str] = "Timeout"
    http_status: ClassVar[int] = 504
    trips_breaker: ClassVar[bool] = True

    @property
    def message(self) -> str:
        what = {
            "connect": "no connection within {s}",
            "idle": "nothing arrived for {s}",
            "total": "the answer took longer than {s}",
            "models": "no list of models within {s}",
            "operation": "the whole operation took longer than {s}",
            "command": "the command ran longer than {s}",
            "expect": "nothing that was expected appeared within {s}",
        }.get(self.deadline, "longer than {s}")
        who = f"{self.profile}: " if self.profile else ""
        return f"{who}{what.format(s=span(self.seconds))} ({self.deadline} deadline)"

    @property
    def hint(self) -> str:
        if self.deadline == "command":
            return "Give a longer `timeout`, or run it in `%%tundra sh`."
        if self.deadline == "expect":
            return "Look at `%tundra pty show ID` for what the program says instead, or give a longer `timeout`."
        if self.deadline == "operation":
            return "Raise `router.deadline_seconds`, or look at `%tundra why last` for where the time went."
        if self.deadline == "models":
            return "Is it the server that the profile means, and does it answer? `%tundra doctor --for network` looks."
        return f"Raise `deadlines.{self.deadline}_seconds` if such answers are normal here."

    @property
    def reason(self) -> str:
        return f"timeout_{self.deadline}"


@dataclasses.dataclass(eq=False, kw_only=True)
class ParseError(ProviderError):
    """The answer could not be read: HTML, broken JSON, bad encoding, a stream that was cut."""

    problem: str
    excerpt: str = ""
    is_cut: bool = False
    """It began well, and ended before its end."""
    code: ClassVar[str] = "ParseError"
    severity: ClassVar[Severity] = "low"
    http_status: ClassVar[int] = 502
    trips_breaker: ClassVar[bool] = True

    @property
    def message(self) -> str:
        return f"{self.profile}: {self.problem}" + (f": {self.excerpt!r}" if self.excerpt else "")

    @property
    def hint(self) -> str:
        if self.is_cut:
            return (
                "Ask again. When `tundra calls --by profile,code` shows it often, something between here and the"
                " provider ends long answers."
            )
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
        wait = f", again in {span(self.retry_after)}" if self.retry_after is not None else ""
        return f"{self.profile}: rate limited by the provider (429){wait}" + (f": {self.detail}" if self.detail else "")

    @property
    def hint(self) -> str:
        return "Wait, lower `rpm`/`tpm` of the profile, or add a second profile to fail over to."


@dataclasses.dataclass(eq=False, kw_only=True)
class Unsupported(ProviderError):
    """The model does not exist here, or cannot do what was asked.

    `kind`: model, tools, vision, stream, json, context, field (something in the request has no words in its form).
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
            "field": "the request cannot be said in its form",
        }.get(self.kind, self.kind)
        return f"{self.profile}: {what}" + (f" ({self.detail})" if self.detail else "")

    @property
    def hint(self) -> str:
        meant = f"Did you mean {self.nearest!r}? " if self.nearest else ""
        if self.kind == "context":
            return "Shorten the prompt, or add a profile whose model has a larger context."
        if self.kind == "field":
            return "Leave the field out, or add a profile of the form that knows it."
        if self.profile == "gateway":
            return (
                f"{meant}Ask for `auto`, or give the name a meaning: `%tundra settings set gateway.models.MODEL=auto`."
            )
        return f"{meant}`%tundra models` lists what each profile has."

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
        return (
            "Usually passes by itself. Other profiles are asked meanwhile; add one of another provider where all fail."
        )


@dataclasses.dataclass(eq=False, kw_only=True)
class RequestRejected(ApiError):
    """400, 409, 413, 422 and their like: the same request would be refused everywhere."""

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
class Forbidden(ApiError):
    """Refused whatever the key: a country, a network, a firewall before the provider, a policy of the account."""

    severity: ClassVar[Severity] = "high"
    retryable: ClassVar[bool] = False
    trips_breaker: ClassVar[bool] = False
    _what: ClassVar[str] = "calls from here are refused"

    @property
    def hint(self) -> str:
        return "Not the key: a country, network, firewall or policy is refused. Ask from elsewhere, or another profile."


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
        if not self.location:
            return f"{self.profile}: status {self.status} came instead of an answer, and names no other address"
        return f"{self.profile}: the address redirects to {self.location} ({self.status}), which is not followed"

    @property
    def hint(self) -> str:
        if not self.location:
            return (
                "What answers at base_url of the profile is a web server or a cache: give the provider's own address."
            )
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
