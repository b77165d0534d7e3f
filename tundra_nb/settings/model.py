"""The settings as values: every key with its default and unit, the presets, the vendors."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from tundra_nb.types import ProviderKind

MOST = 1e12
"""No amount is larger."""
MOST_COUNT = 1_000_000_000
"""No count is larger, nor a number of seconds: those are 31 years, and clocks still reckon with them."""
PositiveFloat = Annotated[float, msgspec.Meta(gt=0, le=MOST)]
NonNegativeFloat = Annotated[float, msgspec.Meta(ge=0, le=MOST)]
PositiveInt = Annotated[int, msgspec.Meta(ge=1, le=MOST_COUNT)]
NonNegativeInt = Annotated[int, msgspec.Meta(ge=0, le=MOST_COUNT)]
PositiveSeconds = Annotated[float, msgspec.Meta(ge=0.001, le=MOST_COUNT)]
NonNegativeSeconds = Annotated[float, msgspec.Meta(ge=0, le=MOST_COUNT)]
Days = Annotated[float, msgspec.Meta(gt=0, le=36_500)]
Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]
AUTO = "auto"
"""What programs at the gateway call whichever profile fits; no profile's own name."""
NAME_CHARACTERS = 64
PROFILE_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
DATABASE = r"^[A-Za-z0-9_][A-Za-z0-9_-]{0,63}$"
ENDPOINT = r"^(https?://[^\s/@]+(/[^\s]*)?)?$"
DATE = r"^\d{4}-\d{2}-\d{2}$"
FORMS = {
    PROFILE_NAME: "a name of letters, digits, `.`, `_` and `-`, the first of them a letter or digit",
    DATABASE: "a name of at most 64 letters, digits, `_` and `-`, the first of them no `-`",
    ENDPOINT: "an address that begins with http:// or https://, without a user",
    DATE: "a date such as 2023-06-01",
}
"""What these patterns ask for, in words."""


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class StoreSettings(Section, frozen=True):
    """The database of the history."""

    engine: Literal["doltlite", "dolt"] = "doltlite"
    """`doltlite`: embedded, one file in the data directory; `dolt`: a Dolt sql-server, the rest is for it."""
    host: str = "127.0.0.1"
    """Machine of the Dolt server; `tundra dolt start` manages one on this machine only."""
    port: Port = 3307
    """Ours is not 3306, because that is MySQL's."""
    database: Annotated[str, msgspec.Meta(pattern=DATABASE)] = "tundra"
    """Name of the database on that server; made when it is missing and we manage the server."""
    user: str = "root"
    """Who logs in; a server that we manage has its own login."""
    password_env: str = ""
    """Name of the variable that holds the password; empty: no password."""
    reader_user: str = ""
    """Who reads for free SQL: a login that may SELECT and nothing else. Empty: `user` does, guarded by checks alone."""
    reader_password_env: str = ""
    """Name of the variable that holds the reader's password."""
    tls: bool = False
    """Encrypt, and refuse a server whose certificate is not for this host, or not signed by an authority we trust."""
    ca_file: str = ""
    """Certificates of the authorities that may have signed it; empty: those of the system."""
    commit_rows: PositiveInt = 1000
    """A Dolt commit after so many new rows …"""
    commit_seconds: PositiveSeconds = 60.0
    """… or so many seconds, whichever comes first."""
    reserve_mb: NonNegativeFloat = 64.0
    """Disk kept free for the spool: transcripts and recordings stop before it."""


class RouterSettings(Section, frozen=True):
    """Retries, failover, and how long a call may take in all."""

    retries: NonNegativeInt = 2
    """Per profile, after the first attempt. Both vendors' SDKs use 2."""
    backoff_seconds: PositiveSeconds = 0.5
    """First pause; doubles each time, times a random 0.75 to 1, as both vendors' SDKs do."""
    backoff_cap_seconds: PositiveSeconds = 8.0
    """Longest pause between two attempts that no provider asked for."""
    max_wait_seconds: NonNegativeSeconds = 20.0
    """Longest wait for a bucket or a Retry-After before moving on."""
    deadline_seconds: PositiveSeconds = 900.0
    """The whole operation, all attempts and waits."""
    failover: Literal["any", "same-vendor"] = "any"
    """`same-vendor`: the text never goes to another vendor than the first candidate's."""


class DeadlineSettings(Section, frozen=True):
    """Deadlines of one attempt. A flat 30 s would cut ordinary long answers, so: connect, idle and total."""

    connect_seconds: PositiveSeconds = 10.0
    """Until the connection stands: name, TCP and TLS."""
    idle_seconds: PositiveSeconds = 30.0
    """Between the bytes of an answer, and of a streamed one to its first byte."""
    total_seconds: PositiveSeconds = 600.0
    """Time from the request to the last byte of the answer."""


class AnswerSettings(Section, frozen=True):
    """How long an answer may be; what is longer is broken off, because a stream without end would fill the memory."""

    max_mb: PositiveFloat = 128.0
    """Bytes of an answer as it is read, unpacked where it came compressed."""
    max_tokens: PositiveFloat = 16_000_000
    """Its text and reasoning, reckoned at four bytes a token."""


class BreakerSettings(Section, frozen=True):
    """Circuit breaker of each profile."""

    failures: PositiveInt = 5
    """Consecutive failures that open it."""
    successes: PositiveInt = 2
    """Consecutive successful probes that close it."""
    open_seconds: PositiveSeconds = 30.0
    """How long it refuses before it lets a probe through."""


class TierSettings(Section, frozen=True):
    """Token bucket of one tier."""

    enabled: bool = True
    """Whether this tier limits at all."""
    rate: PositiveFloat = 50.0
    """Requests per second."""
    burst: PositiveFloat = 100.0
    """Requests at once."""
    tokens_per_minute: PositiveFloat | None = None
    """Tokens per minute, and at once; not set: tokens are not limited in this tier."""


class SharedLimitsSettings(Section, frozen=True):
    """Limits that daemons share on a Valkey (7.2 or newer) or Redis (7 or newer) server; needs `tundra-nb[shared]`."""

    url: str = ""
    """`valkey://host:6379`, with TLS `valkeys://`; never with a password. Empty: every daemon limits by itself."""
    user: str = ""
    """Who logs in; empty: the server's default user."""
    password_env: str = ""
    """Name of the variable that holds the password; empty: no password."""
    ca_file: str = ""
    """Certificates to check the server's by, for `valkeys://`; empty: the system's."""
    budget: str = "default"
    """Daemons with the same budget share; rates and bursts must be the same for all of them."""
    tiers: tuple[Literal["global", "user", "profile"], ...] = ("global", "user", "profile")
    """Which tiers are shared, of those that are on; the others stay with each daemon."""
    deadline_seconds: PositiveSeconds = 0.25
    """How long a decision may take before the server counts as away."""
    when_away: Literal["share", "closed", "open"] = "share"
    """`share`: this daemon's part of each limit, which begins empty; `closed`: refuse; `open`: no limit."""
    daemons: PositiveInt = 1
    """Among how many a limit is shared out before the server was reached for the first time."""


class LimitsSettings(Section, frozen=True, rename={"global_": "global"}):
    """The limiter's tiers. Only `global` is on by default; a profile's `rpm`/`tpm` switch its own tier on."""

    global_: TierSettings = TierSettings()
    user: TierSettings = TierSettings(enabled=False, rate=10.0, burst=50.0)
    profile: TierSettings = TierSettings(enabled=False, rate=5.0, burst=20.0)
    shared: SharedLimitsSettings = SharedLimitsSettings()


class PtySettings(Section, frozen=True):
    """Pseudo-terminals."""

    capacity: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 10
    """How many terminals may be open at once; one more is refused, and the holders are named."""
    queue_seconds: NonNegativeSeconds = 30.0
    """How long `run` waits for a free terminal."""
    grace_seconds: NonNegativeSeconds = 10.0
    """How long a terminal lives on after its last viewer left, and a command after whoever asked for it."""
    lab_grace_seconds: NonNegativeSeconds = 45.0
    """The same when that viewer was JupyterLab's own terminal, which takes its time to come back."""
    idle_seconds: PositiveSeconds = 300.0
    """Without output, input or CPU time of its processes."""
    ping_seconds: PositiveSeconds = 30.0
    """How often a viewer is asked whether it is still there (at the daemon's next start) …"""
    pong_seconds: PositiveSeconds = 10.0
    """… and how long it may take to answer."""
    transcript_days: Days = 7.0
    """How long transcripts are kept …"""
    transcripts_mb: PositiveFloat = 1024.0
    """… and how much all of them may take; those of ended terminals go, oldest first."""
    check: bool = False
    """Whether a failing `%tundra run` or `%%tundra sh` is an error of its cell, as with `--check`."""


class DaemonSettings(Section, frozen=True):
    """The daemon's own life."""

    idle_exit_seconds: PositiveSeconds = 600.0
    """It stops by itself when nobody has been attached for so long and no PTY lives."""


class LogSettings(Section, frozen=True):
    """Log lines of the daemon, in `logs/daemon.log` of the data directory."""

    filter: str = "info,tundra.daemon=debug"
    """Level, and level by logger: tundra.{daemon,server,router,limiter,breaker,providers,ptys,history,kernel}."""
    format: Literal["text", "json"] = "text"
    """`json`: one object per line, for programs."""
    file: bool = True
    """Keep `logs/daemon.log`."""
    max_mb: Annotated[float, msgspec.Meta(gt=0, le=10_000)] = 10.0
    """Size at which a new file is begun."""
    keep: Annotated[int, msgspec.Meta(ge=0, le=1000)] = 5
    """Older files beside the current one; none is kept longer than 30 days."""
    journald: bool = False
    """Also to the systemd journal, with fields: `journalctl TUNDRA_OPERATION_ID=…`."""
    stdout: bool = False
    """Also to standard output, as containers want it."""


class OtelSettings(Section, frozen=True):
    """Traces of calls, sent to an OpenTelemetry collector, and the names that they and metrics have."""

    endpoint: Annotated[str, msgspec.Meta(pattern=ENDPOINT)] = ""
    """OTLP over HTTP, such as `http://127.0.0.1:4318`. Empty: none are sent."""
    headers_env: str = ""
    """Name of the variable with headers for it, `name=value` with commas between."""
    ratio: Annotated[float, msgspec.Meta(ge=0, le=1)] = 1.0
    """Share of calls that are traced where the caller has no trace of its own; failures and failovers always are."""
    names: Literal["0.1.0", "1.41"] = "0.1.0"
    """Version of the GenAI conventions whose names `/metrics` has (at the daemon's next start); `1.41`: of before their
    own first release, for dashboards of that time. Those of spans are the same in both."""


class RecordSettings(Section, frozen=True):
    """What is kept of requests and answers beside the figures."""

    content: Literal["off", "errors", "all"] = "off"
    """`errors`, `all`: keep request and answer with the time of each piece, masked, in files of the data directory."""
    days: Days = 14.0
    """How long they are kept; those of an incident's window stay …"""
    max_mb: PositiveFloat = 1024.0
    """… and how much all of them may take: the oldest go first."""


class GatewaySettings(Section, frozen=True):
    """The gateway: `/v1` for programs that speak a vendor's own API."""

    listen: str = ""
    """Address and port, such as `127.0.0.1:4242`, where programs with a token reach `/v1`; port 0 chooses one and keeps
    it. Empty: only the socket and the Jupyter server."""
    tls_cert: str = ""
    """File with the certificate chain. Beyond loopback it is needed, with `tls_key`, unless `insecure` is true."""
    tls_key: str = ""
    """File with the certificate's private key."""
    insecure: bool = False
    """Listen beyond loopback without TLS: tokens and prompts then cross the network in the clear."""
    hold_seconds: PositiveSeconds = 20.0
    """How long a stream's 200 waits for the provider's first event: what fails until then is a true status."""
    max_body_mb: PositiveInt = 32
    """Longest request body."""
    budget_output_tokens: PositiveInt = 8192
    """Most output tokens of a call that sets no limit itself, where its token has a budget: what it can cost would not
    be known otherwise. Less where the rest of the day's budget covers only that."""
    models: dict[str, str] = {}
    """Other names for models: the name that programs send, and a profile, model or `profile/model` to ask instead."""


class ProfileSettings(Section, frozen=True):
    """One named way to reach one model."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=NAME_CHARACTERS, pattern=PROFILE_NAME)]
    """How commands and the history call it."""
    kind: ProviderKind
    """Whose API it speaks; `local`: a server of yours in the OpenAI form."""
    base_url: str = ""
    """Left out: the vendor's own host. With or without `/v1`, both are accepted."""
    model: str = ""
    """Left out: chosen from the provider's own model list."""
    api_key_env: str = ""
    """Name of the variable that holds the key. Left out: the vendor's usual one, at the vendor's own host only."""
    priority: Annotated[int, msgspec.Meta(ge=-MOST_COUNT, le=MOST_COUNT)] = 0
    """Lower is asked first."""
    rpm: PositiveFloat | None = None
    """Requests per minute; with `tpm` it replaces `limits.profile` for this profile."""
    tpm: PositiveFloat | None = None
    """Tokens per minute, input and output."""
    anthropic_version: Annotated[str, msgspec.Meta(pattern=DATE)] = "2023-06-01"
    """Which version of Anthropic's API is spoken; the newer ones take no temperature."""
    traceparent: bool = False
    """Tell the provider the call's place in its trace, in the header of this name: for a gateway of yours behind it."""
    enabled: bool = True
    """`false`: kept in the file, never asked."""


class Settings(Section, frozen=True):
    """All settings in force."""

    preset: Literal["development", "production", "high_throughput"] = "production"
    store: StoreSettings = StoreSettings()
    router: RouterSettings = RouterSettings()
    deadlines: DeadlineSettings = DeadlineSettings()
    answers: AnswerSettings = AnswerSettings()
    breaker: BreakerSettings = BreakerSettings()
    limits: LimitsSettings = LimitsSettings()
    pty: PtySettings = PtySettings()
    daemon: DaemonSettings = DaemonSettings()
    log: LogSettings = LogSettings()
    record: RecordSettings = RecordSettings()
    otel: OtelSettings = OtelSettings()
    gateway: GatewaySettings = GatewaySettings()
    profile: tuple[ProfileSettings, ...] = ()


PRESETS: dict[str, dict[str, Any]] = {
    "development": {
        "breaker": {"failures": 3, "successes": 1, "open_seconds": 10.0},
        "deadlines": {"idle_seconds": 60.0},
        "limits": {"global": {"rate": 100.0, "burst": 200.0}},
    },
    "production": {},
    "high_throughput": {
        "breaker": {"failures": 10, "successes": 2, "open_seconds": 30.0},
        "deadlines": {"idle_seconds": 45.0},
        "limits": {"global": {"rate": 200.0, "burst": 500.0}},
    },
}
"""What a preset fills where nothing is written; `production` is the defaults."""
VENDORS: dict[str, tuple[str, str]] = {
    "anthropic": ("https://api.anthropic.com", "ANTHROPIC_API_KEY"),
    "openrouter": ("https://openrouter.ai/api/v1", "OPENROUTER_API_KEY"),
    "openai": ("https://api.openai.com/v1", "OPENAI_API_KEY"),
}
"""Host and usual key variable of each vendor; also the order in which profiles are made from keys that are there."""
