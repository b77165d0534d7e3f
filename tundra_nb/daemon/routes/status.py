"""`GET /api/status`: one card that tells how everything is, and what to do next."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from tundra_nb import errors
from tundra_nb._version import API, __version__
from tundra_nb.daemon.answers import iso, json_response, json_rows
from tundra_nb.daemon.routes.profiles import breaker_card, profile_card
from tundra_nb.daemon.routing import read_params, route
from tundra_nb.protocol import status as api
from tundra_nb.runtime.history.query import Condition, FrameQuery
from tundra_nb.runtime.suggestions import suggestions

if TYPE_CHECKING:
    from tundra_nb.daemon.context import Daemon

LAST_ERRORS = 5
RECENT_SECONDS = 600.0
"""How long a failure is news."""
SHOWN_UNDER_WAY = 20
CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR")


AWAY = {
    "share": "Meanwhile this daemon keeps to its part of each limit (`limits.shared.when_away`).",
    "closed": "Meanwhile nothing passes (`limits.shared.when_away`).",
    "open": "Meanwhile nothing limits the shared tiers (`limits.shared.when_away`).",
}


def routes(daemon: Daemon) -> list[BaseRoute]:
    async def status(request: Request) -> Response:
        return json_response(await card(daemon, brief=read_params(request, api.StatusQuery).brief))

    return [route(api.STATUS, status)]


async def card(daemon: Daemon, *, brief: bool = False) -> dict[str, Any]:
    """Everything `%tundra status` shows. `brief` leaves out what must be asked of the store."""
    runtime, life = daemon.runtime, daemon.life
    await runtime.limiter.look()
    profiles = [profile_card(daemon, slot) for slot in runtime.slots.values()]
    told: dict[str, Any] = {
        "version": __version__,
        "api": API,
        "pid": life.info.pid,
        "uptime_s": life.uptime,
        "started_by": life.info.started_by,
        "data_dir": str(runtime.paths.data_dir),
        "config_file": str(runtime.loaded.file),
        "engine": runtime.loaded.settings.store.engine,
        "attached": life.attached_by,
        "running": len(runtime.running),
        "under_way": under_way(daemon),
        "store": msgspec.to_builtins(runtime.history.stats()),
        "profiles": profiles,
        "breakers": [breaker_card(daemon, slot) for slot in runtime.slots.values()],
        "limits": runtime.profiles.limit_rows(daemon.os_user),
        "shared_limits": msgspec.to_builtins(runtime.limiter.state),
        "faults": runtime.drills.brief(),
        "certificates": {name: path for name in CERTIFICATES if (path := runtime.environ.get(name))},
        "ptys": runtime.pty_counts(),
        "problems": msgspec.to_builtins(
            [*life.problems.list(), *runtime.history.troubles.of("traces"), *runtime.in_force.problems.list()]
        ),
        "over": msgspec.to_builtins(
            [*life.problems.over(), *runtime.history.troubles.over(), *runtime.in_force.problems.over()]
        ),
    }
    if (problem := runtime.history.problem) is not None:
        told["store"]["error"] = _worded(problem)
    if brief:
        return told
    told["last_errors"] = await _last_errors(daemon, told)
    told["suggested"] = await _suggested(daemon) if not profiles else []
    told["next_steps"] = _next_steps(told)
    told["next_step"] = next(iter(told["next_steps"]), "")
    return told


def under_way(daemon: Daemon) -> list[dict[str, Any]]:
    """The calls under way, the oldest first."""
    runtime = daemon.runtime
    now = runtime.clock.monotonic()
    calls = [call.card(now) for call in list(runtime.running.values())[:SHOWN_UNDER_WAY]]
    return [call | {"at": iso(call["at"])} for call in calls]


async def _suggested(daemon: Daemon) -> list[dict[str, str]]:
    runtime = daemon.runtime
    return await suggestions(runtime.transport, runtime.clock, {s.profile.base_url for s in runtime.slots.values()})


async def _last_errors(daemon: Daemon, told: dict[str, Any]) -> list[dict[str, Any]]:
    try:
        query = FrameQuery(
            table="error_event",
            where=[  # mistyped words were answered at once
                Condition("code", "ne", errors.UsageError.code),
                *daemon.runtime.history.own_or_unsigned,
            ],
            newest_first=True,
            limit=LAST_ERRORS,
        )
        rows = await daemon.runtime.history.rows(query)
    except errors.TundraError as error:
        told["store"]["error"] = _worded(error)
        return []
    return json_rows(rows)


def _worded(error: errors.TundraError) -> dict[str, str]:
    return {"code": error.code, "message": str(error), "hint": error.hint}


def _next_steps(told: dict[str, Any]) -> list[str]:
    """What to do, all of it, worst first."""
    made = [str(problem["hint"]) for problem in told["problems"] if problem["hint"]]
    if not told["profiles"]:
        if not told["suggested"]:
            return [*made, errors.NoProfile().hint]
        found = told["suggested"][0]
        return [
            *made,
            (
                f"{found['what']} answers at {found['base_url']}. To use it:\n"
                f"    %tundra providers add local --kind local --base-url {found['base_url']}\n"
                "    %tundra status\n"
                "    %tundra ask Say hi"
            ),
        ]
    if error := told["store"].get("error"):
        made.append(str(error["hint"]))
    parked = [profile for profile in told["profiles"] if profile["state"] == "parked"]
    made += [str(profile["hint"]) for profile in parked]
    for profile in told["profiles"]:
        failure = profile["failure"]
        if failure and profile["state"] != "parked" and profile["failed_s_ago"] < RECENT_SECONDS:
            made.append(f"{profile['profile']} failed: {failure['hint'] or failure['message']}")
    if (shared := told["shared_limits"]) and shared["problem"]:
        made.append(
            f"The server of shared limits ({shared['url']}) has been away for {shared['since']:.0f} s: "
            f"{shared['problem'].rstrip('.')}. " + AWAY[shared["scope"]]
        )
    made += [
        f"A drill is on: faults may be injected into {drill['profile']}. `%tundra fault stop` ends it."
        for drill in told["faults"]
    ]
    made += [
        f"{breaker['profile']} is probed again at {breaker['probe_at'] or 'the next call'}; "
        "`%tundra why last` tells what failed."
        for breaker in told["breakers"]
        if breaker["state"] == "open"
    ]
    return list(dict.fromkeys(made))
