"""Profiles and what protects them: providers, models, limits, breakers, settings, keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from tundra_nb import errors, settings
from tundra_nb.daemon.answers import iso, json_response
from tundra_nb.daemon.routing import read_body, read_params, route
from tundra_nb.errors.spans import dated
from tundra_nb.protocol import profiles as api
from tundra_nb.runtime.telemetry.redact import refuse_key
from tundra_nb.settings import variables

if TYPE_CHECKING:
    from tundra_nb.daemon.context import Daemon
    from tundra_nb.runtime.profiles import ProfileSlot


LATELY = ("key_rejected", "answered_s_ago", "failed_s_ago", "failure")
"""Fields of a card that only the status tells: what came of the last attempts."""


def routes(daemon: Daemon) -> list[BaseRoute]:
    runtime = daemon.runtime

    async def providers(request: Request) -> Response:
        cards = [profile_card(daemon, slot) for slot in runtime.slots.values()]
        return json_response({"rows": [{n: v for n, v in card.items() if n not in LATELY} for card in cards]})

    async def add(request: Request) -> Response:
        body = await read_body(request, dict[str, Any])
        for field in ("name", "base_url"):
            refuse_key(runtime.redactor.text, str(body.get(field, "")), field)
        await runtime.versioning.add_profile(body, author=daemon.user(request))
        return json_response(profile_card(daemon, runtime.slots[body["name"]]), status=201)

    async def recheck(request: Request) -> Response:
        return json_response(await runtime.profiles.recheck(request.path_params["name"]))

    async def test(request: Request) -> Response:
        return json_response(await runtime.profiles.test(_slot(daemon, request).profile.name))

    async def remove(request: Request) -> Response:
        name = request.path_params["name"]
        await runtime.versioning.remove_profile(name, author=daemon.user(request))
        return json_response({"removed": name})

    async def park(request: Request) -> Response:
        slot = _slot(daemon, request)
        body = await read_body(request, api.ParkBody)
        runtime.profiles.park(slot.profile.name, errors.Parked(profile=slot.profile.name, cause=body.reason))
        return json_response(profile_card(daemon, slot))

    async def models(request: Request) -> Response:
        wanted = read_params(request, api.ModelsQuery).profile
        names = [runtime.profiles.slot(wanted).profile.name] if wanted else list(runtime.slots)
        return json_response({"rows": await runtime.profiles.models(names)})

    async def limits(request: Request) -> Response:
        return json_response({"rows": runtime.profiles.limit_rows(daemon.os_user)})

    async def breakers(request: Request) -> Response:
        return json_response({"rows": [breaker_card(daemon, slot) for slot in runtime.slots.values()]})

    async def reset(request: Request) -> Response:
        slot = _slot(daemon, request)
        slot.breaker.reset()
        return json_response(breaker_card(daemon, slot))

    async def all_settings(request: Request) -> Response:
        rows = [msgspec.structs.asdict(line) for line in settings.lines(runtime.loaded)]
        return json_response({"rows": rows, "file": str(runtime.loaded.file)})

    async def set_setting(request: Request) -> Response:
        body = await read_body(request, api.SettingBody)
        if isinstance(body.value, str):
            refuse_key(runtime.redactor.text, body.value, "value")
        found = await runtime.versioning.set_setting(
            body.path, body.value, author=daemon.user(request), reason=body.reason, branch=body.on
        )
        if body.path.startswith("gateway.") and body.on is None and (problem := await daemon.doors.followed()):
            found |= {"problem": daemon.doors.trouble, "hint": problem.hint}
        return json_response(found)

    async def keys(request: Request) -> Response:
        return json_response({"salt": runtime.redactor.salt.hex(), "rows": key_cards(daemon)})

    async def offer(request: Request) -> Response:
        body = await read_body(request, dict[str, str])
        for variable in body:
            variables.check(variable, "variable")
        runtime.profiles.offer(body)
        runtime.terminals.pool.refresh_secrets()
        return json_response({"rows": key_cards(daemon)})

    return [
        route(api.PROVIDERS, providers),
        route(api.ADD_PROVIDER, add),
        route(api.REMOVE_PROVIDER, remove),
        route(api.TEST_PROVIDER, test),
        route(api.RECHECK_PROVIDER, recheck),
        route(api.PARK_PROVIDER, park),
        route(api.MODELS, models),
        route(api.LIMITS, limits),
        route(api.BREAKERS, breakers),
        route(api.RESET_BREAKER, reset),
        route(api.SETTINGS, all_settings),
        route(api.SET_SETTING, set_setting),
        route(api.KEYS, keys),
        route(api.OFFER_KEYS, offer),
    ]


def profile_card(daemon: Daemon, slot: ProfileSlot) -> dict[str, Any]:
    """A profile with its live state. `state`: ready, cooling, parked, breaker_open, disabled."""
    runtime, profile = daemon.runtime, slot.profile
    unavailable = runtime.profiles.unavailable(profile.name)
    return {
        "profile": profile.name,
        "kind": profile.kind,
        "base_url": profile.base_url,
        "model": profile.model or slot.provider.chosen_model,
        "priority": profile.priority,
        "enabled": profile.enabled,
        "state": runtime.profiles.state(profile.name),
        "reason": dated(str(unavailable), runtime.clock.now_us()) if unavailable else "",
        "hint": unavailable.hint if unavailable else "",
        "cooling_s": (cooling := getattr(unavailable, "retry_after", None)),
        "cooling_until": _at(daemon, cooling),
        "key_variable": profile.api_key_env,
        "key_present": runtime.keys.get(profile.api_key_env) is not None if profile.api_key_env else None,
        "key_rejected": isinstance(unavailable, errors.KeyRejected),
        "rpm": profile.rpm,
        "tpm": profile.tpm,
        "answered_s_ago": _ago(daemon, slot.answered_at),
        "failed_s_ago": _ago(daemon, slot.failed_at) if slot.failure is not None else None,
        "failure": _failure(daemon, slot),
    }


def _ago(daemon: Daemon, moment: float | None) -> float | None:
    return None if moment is None else round(daemon.runtime.clock.monotonic() - moment, 3)


def _at(daemon: Daemon, seconds: float | None) -> str | None:
    """The point of time that is so many seconds ahead: what is saved is read later."""
    return None if seconds is None else iso(daemon.runtime.clock.now_us() + int(seconds * 1e6))


def _failure(daemon: Daemon, slot: ProfileSlot) -> dict[str, str] | None:
    """Why the last attempt failed, when it did."""
    error = slot.failure
    if error is None:
        return None
    failed_us = daemon.runtime.clock.now_us() - int((_ago(daemon, slot.failed_at) or 0.0) * 1e6)
    message = dated(str(error), failed_us)
    return {"code": error.code, "reason": error.reason, "message": message, "hint": error.hint}


def breaker_card(daemon: Daemon, slot: ProfileSlot) -> dict[str, Any]:
    open_for = slot.breaker.open_for
    return {
        "profile": slot.profile.name,
        "state": slot.breaker.state,
        "open_for_s": open_for,
        "probe_at": _at(daemon, open_for or None),
        "failures": slot.breaker.failures,
    }


def key_cards(daemon: Daemon) -> list[dict[str, Any]]:
    """The key variables that profiles name, with a salted fingerprint of each value that is there."""
    keys = daemon.runtime.keys
    return [
        {
            "variable": variable,
            "profiles": names,
            "present": keys.get(variable) is not None,
            "fingerprint": keys.fingerprint(variable),
        }
        for variable, names in daemon.runtime.profiles.key_users().items()
    ]


def _slot(daemon: Daemon, request: Request) -> ProfileSlot:
    return daemon.runtime.profiles.slot(request.path_params["name"])
