"""`GET /metrics`: what Prometheus scrapes, made on a thread."""

from __future__ import annotations

import asyncio
import importlib
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from tundra_nb._version import __version__
from tundra_nb.daemon.routing import route
from tundra_nb.protocol import metrics as api

Labels = tuple[tuple[str, str], ...]
Values = dict[Labels, float]

if TYPE_CHECKING:
    from tundra_nb.daemon.context import Daemon
    from tundra_nb.runtime.telemetry.exposition import Gauge


def routes(daemon: Daemon) -> list[BaseRoute]:
    async def page(request: Request) -> Response:
        await daemon.runtime.limiter.look()
        gauges = state(daemon)
        accept = request.headers.get("accept", "")

        def made() -> tuple[bytes, str]:
            exposition = importlib.import_module("tundra_nb.runtime.telemetry.exposition")
            found: tuple[bytes, str] = exposition.render(daemon.runtime.metrics, gauges, accept)
            return found

        body, media = await asyncio.to_thread(made)
        return Response(body, headers={"content-type": media})

    return [route(api.PAGE, page)]


def state(daemon: Daemon) -> list[Gauge]:
    """What is so at this moment, rather than counted."""
    runtime, life = daemon.runtime, daemon.life
    store = runtime.history.stats()
    ptys = runtime.pty_counts()
    states: Values = {
        (("profile", name), ("state", state)): float(slot.breaker.state == state)
        for name, slot in runtime.slots.items()
        for state in ("closed", "half_open", "open")
    }
    ready: Values = {(("profile", name),): float(runtime.profiles.unavailable(name) is None) for name in runtime.slots}
    problems: Values = {(("what", problem.what),): 1.0 for problem in life.problems.list()}
    shared = runtime.limiter.state
    scopes: Values = (
        {(("scope", scope),): float(shared.scope == scope) for scope in ("team", "share", "closed", "open")}
        if shared is not None
        else {}
    )
    lost = life.problems.lost + runtime.history.troubles.lost
    losses: Values = {(("what", what),): float(lost[what]) for what in ("log_lines", "journal_lines", "rows", "traces")}
    one: Labels = ()
    return [
        ("tundra_build_info", "version of the daemon", {(("version", __version__),): 1.0}),
        ("tundra_uptime_seconds", "since the start of the daemon", {one: life.uptime}),
        ("tundra_operations_running", "calls under way", {one: float(len(runtime.running))}),
        ("tundra_attached", "open event streams of kernels and notebooks", {one: float(life.attached_count)}),
        ("tundra_breaker_state", "1 for the state that a breaker is in", states),
        ("tundra_profile_ready", "1 for a profile that would be asked now", ready),
        ("tundra_shared_limits", "1 for whose limits hold: the team's, or while their server is away", scopes),
        ("tundra_ptys_open", "terminals in the pool", {one: float(ptys["open"])}),
        ("tundra_ptys_capacity", "terminals that the pool may hold", {one: float(ptys["capacity"])}),
        (
            "tundra_store_waiting_bytes",
            "events in the spool that are not stored yet",
            {one: float(store.waiting_bytes)},
        ),
        (
            "tundra_store_ready",
            "1 when the store worker is ready and writes",
            {one: float(store.state == "ready" and store.error is None)},
        ),
        ("tundra_store_restarts", "store workers that were replaced", {one: float(store.restarts)}),
        (
            "tundra_store_requests",
            "requests to the store worker since the start of the daemon",
            {(("method", method),): float(count) for method, count in sorted(runtime.history.requests.items())},
        ),
        (
            "tundra_traces_waiting",
            "calls whose traces wait for the collector",
            {one: float((store.traces or {}).get("waiting", 0))},
        ),
        ("tundra_lost_total", "what was lost for good: lines of logs, rows of the history, traces of calls", losses),
        ("tundra_problem", "1 for each thing that is wrong with the daemon itself", problems),
    ]
