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
    │       ├── RequestRejected    400, 409, 413, 422 …: the request is wrong
    │       ├── KeyRejected        401, 403
    │       ├── Forbidden          403 whatever the key: country, network, firewall, policy
    │       ├── QuotaSpent         402, insufficient_quota, spend limit
    │       ├── Redirected         3xx: the address has moved; never followed
    │       └── Moderated          content policy
    ├── LimitExceeded          our own limiter refused
    ├── BreakerOpen            our own breaker refused
    ├── AllProvidersExhausted  no candidate profile answered
    ├── TokenRefused           the gateway does not know who asks
    ├── BudgetSpent            the budget of a gateway token does not cover the call
    ├── Cancelled              the caller went away
    ├── PtyError
    │   ├── AtCapacity
    │   ├── HandleNotFound
    │   ├── SpawnFailed
    │   └── CommandFailed        it ended badly, and `--check` was asked for
    ├── StoreError             the history's database cannot serve
    │   ├── StoreUnavailable
    │   ├── StoreDamaged
    │   │   └── ArchiveDamaged
    │   └── StoreBusy
    ├── QueryRefused           SQL that writes, or reaches files
    ├── RefNotFound            no such commit, branch or tag
    ├── UsageError             bad input, refused before anything was sent
    ├── TransportError         client ↔ Jupyter server lost or malformed
    ├── IpcError               client ↔ daemon: absent, refused, version, died
    ├── ConfigError            settings, environment or installation
    │   ├── NoProfile            there is nobody to ask
    │   └── KeyMissing           a profile's key variable is not set
    └── InternalError          a defect of ours

An error is a frozen set of *facts*; its message and hint are built from them in the class. `to_wire` and `from_wire`
carry it from the daemon to a kernel and back into the same class. Classes that share a `code` (the word users look up)
differ in how the router treats them.
"""

from __future__ import annotations

from .base import Severity, TundraError
from .calls import AllProvidersExhausted, BreakerOpen, BudgetSpent, Cancelled, LimitExceeded, TokenRefused
from .history import ArchiveDamaged, QueryRefused, RefNotFound, StoreBusy, StoreDamaged, StoreError, StoreUnavailable
from .providers import (
    ApiError,
    Forbidden,
    HttpError,
    KeyRejected,
    Moderated,
    Parked,
    ParseError,
    ProviderError,
    QuotaSpent,
    RateLimited,
    Redirected,
    RequestRejected,
    Timeout,
    Unsupported,
)
from .ptys import AtCapacity, CommandFailed, HandleNotFound, PtyError, SpawnFailed
from .use import ConfigError, InternalError, IpcError, KeyMissing, NoProfile, TransportError, UsageError
from .wire import every_error, from_wire

__all__ = [
    "AllProvidersExhausted",
    "ApiError",
    "ArchiveDamaged",
    "AtCapacity",
    "BreakerOpen",
    "BudgetSpent",
    "Cancelled",
    "CommandFailed",
    "ConfigError",
    "Forbidden",
    "HandleNotFound",
    "HttpError",
    "InternalError",
    "IpcError",
    "KeyMissing",
    "KeyRejected",
    "LimitExceeded",
    "Moderated",
    "NoProfile",
    "Parked",
    "ParseError",
    "ProviderError",
    "PtyError",
    "QueryRefused",
    "QuotaSpent",
    "RateLimited",
    "Redirected",
    "RefNotFound",
    "RequestRejected",
    "Severity",
    "SpawnFailed",
    "StoreBusy",
    "StoreDamaged",
    "StoreError",
    "StoreUnavailable",
    "Timeout",
    "TokenRefused",
    "TransportError",
    "TundraError",
    "Unsupported",
    "UsageError",
    "every_error",
    "from_wire",
]
