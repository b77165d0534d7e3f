"""Profiles and what protects them: providers, models, limits, breakers, settings, keys."""

from __future__ import annotations

from typing import Any

import msgspec

from .endpoint import Endpoint, Rows
from .live import BreakerRow, KeyRow, LimitRow, ModelRow, ProviderRow, SettingRow
from .versions import Message


class ModelsQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Whose models; all profiles' when left out."""

    profile: str | None = None


class ProviderBody(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A profile to write into the settings file: any key of `[[profile]]`, checked as the file is."""

    name: str | None = None
    kind: str | None = None
    base_url: str | None = None
    model: str | None = None
    api_key_env: str | None = None
    priority: int | None = None


class ParkBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Why a profile is taken out."""

    reason: str = ""


class SettingBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A setting to change."""

    path: str
    """`breaker.failures`, `profile.NAME.rpm`."""
    value: Any
    """None takes it out of the file."""
    reason: Message = ""
    on: str | None = None
    """Only propose it, on this branch."""


class SettingRows(Rows[SettingRow], frozen=True):
    """Settings in force, and the file they come from."""

    file: str


class KeyRows(Rows[KeyRow], frozen=True):
    """Key variables, and the salt of their fingerprints."""

    salt: str | msgspec.UnsetType = msgspec.UNSET


PROVIDERS = Endpoint(
    method="GET", path="/api/providers", summary="profiles with their live state", answer=Rows[ProviderRow]
)
ADD_PROVIDER = Endpoint(
    method="POST",
    path="/api/providers",
    summary="write a profile into the settings file",
    body=ProviderBody,
    answer=ProviderRow,
    status=201,
)
REMOVE_PROVIDER = Endpoint(
    method="DELETE",
    path="/api/providers/{name}",
    summary="take a profile out of the settings file",
    answer=dict[str, Any],
)
TEST_PROVIDER = Endpoint(
    method="POST",
    path="/api/providers/{name}/test",
    summary="ask a profile's provider for its models: whether it answers, how long that took, or what is wrong",
    answer=dict[str, Any],
)
RECHECK_PROVIDER = Endpoint(
    method="POST",
    path="/api/providers/{name}/recheck",
    summary="look again whether a parked profile can be used",
    answer=dict[str, Any],
)
PARK_PROVIDER = Endpoint(
    method="POST",
    path="/api/providers/{name}/park",
    summary="take a profile out until it is rechecked",
    body=ParkBody,
    answer=ProviderRow,
)
MODELS = Endpoint(
    method="GET", path="/api/models", summary="what each profile can reach", query=ModelsQuery, answer=Rows[ModelRow]
)
LIMITS = Endpoint(
    method="GET", path="/api/limits", summary="buckets of the limiter, and the providers' own", answer=Rows[LimitRow]
)
BREAKERS = Endpoint(method="GET", path="/api/breakers", summary="the breaker of each profile", answer=Rows[BreakerRow])
RESET_BREAKER = Endpoint(
    method="POST", path="/api/breakers/{name}/reset", summary="close a breaker now", answer=BreakerRow
)
SETTINGS = Endpoint(
    method="GET", path="/api/settings", summary="every setting in force with its source", answer=SettingRows
)
SET_SETTING = Endpoint(
    method="POST", path="/api/settings", summary="change a setting", body=SettingBody, answer=dict[str, Any]
)
KEYS = Endpoint(method="GET", path="/api/keys", summary="key variables, by fingerprint only", answer=KeyRows)
OFFER_KEYS = Endpoint(
    method="POST",
    path="/api/keys",
    summary="hand keys to the daemon, which holds them in memory only",
    body=dict[str, str],
    answer=KeyRows,
)
