"""Provider calls: ours beside bare aiohttp, plain httpx, and litellm's Router where it is installed.

    python -m tests.benchmarks calls

Each row's candidates take turns in one run; the median of the rounds is shown as a ratio to the peer. Four tables:
inside the daemon's runtime, from a client process over the socket, many calls on a slow provider, and failover.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib.util
import json
import logging
import os
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import uvloop

from tests.benchmarks.homes import home, lagging_daemon
from tests.benchmarks.table import Table
from tundra_nb import paths, settings
from tundra_nb.client.aio import AsyncClient
from tundra_nb.runtime.runtime import Runtime
from tundra_nb.runtime.telemetry.redact import Redactor
from tundra_nb.testing.scripted_provider import ScriptedStep, scripted_process
from tundra_nb.types import Ask

JSON = {"content-type": "application/json"}
MESSAGES = [{"role": "user", "content": "Say hi"}]
BODY = {"model": "m", "messages": MESSAGES}
Call = Callable[[], Awaitable[object]]
ROUNDS = 3
FLIGHT = 256
SLOW_SECONDS = 0.2


async def timed(call: Call, concurrent: int, count: int) -> tuple[float, float, float]:
    """Median seconds of a call, calls per second, CPU seconds of this process per call."""
    times: list[float] = []
    left = iter(range(count))

    async def caller() -> None:
        for _ in left:
            began = time.perf_counter()
            await call()
            times.append(time.perf_counter() - began)

    cpu, began = time.process_time(), time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(concurrent)))
    wall = time.perf_counter() - began
    return statistics.median(times), count / wall, (time.process_time() - cpu) / count


def configured(base_urls: Sequence[str]) -> str:
    """Settings with a profile per address, and with limits, breakers and records on, none of which is ever reached."""
    profiles = "".join(
        f'[[profile]]\nname = "p{number}"\nkind = "openai"\nbase_url = "{url}"\nmodel = "m"\npriority = {number}\n'
        for number, url in enumerate(base_urls)
    )
    limits = "[limits.global]\nrate = 1e6\nburst = 1e6\n"
    return f"{limits}[breaker]\nfailures = 1000000\n[router]\nretries = 0\n{profiles}"


async def open_runtime(folder: Path, base_urls: Sequence[str]) -> Runtime:
    config = folder / "tundra.toml"
    config.write_text(configured(base_urls))
    environ = dict(os.environ) | {"TUNDRA_DATA_DIR": str(folder)}
    return Runtime(settings.load(config, environ), paths.find(folder, environ), environ, redactor=Redactor())


Figures = tuple[float, float, float]


async def in_turns(
    candidates: Sequence[Call], concurrent: int, counts: Sequence[int], rounds: int = ROUNDS
) -> list[Figures]:
    """For each candidate the medians over the rounds of p50, rate and CPU."""
    figures: list[list[Figures]] = [[] for _ in candidates]
    for _ in range(rounds):
        for side, call in enumerate(candidates):
            figures[side].append(await timed(call, concurrent, counts[side]))
    return [tuple(statistics.median(column) for column in zip(*rows, strict=True)) for rows in figures]


def asked(client: httpx.AsyncClient, base_url: str) -> Call:
    """One call by plain httpx."""

    async def call() -> None:
        response = await client.post(f"{base_url}/chat/completions", json=BODY)
        response.raise_for_status()
        response.json()

    return call


def http_client() -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=1000, max_keepalive_connections=1000)
    return httpx.AsyncClient(limits=limits, timeout=60)


@contextlib.asynccontextmanager
async def aiohttp_session() -> AsyncIterator[aiohttp.ClientSession]:
    """As little as aiohttp can be asked to do."""
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar()) as session:
        yield session


async def compare() -> Table:
    """The table of ratios inside the daemon. The peer's JSON is encoded and decoded too."""
    table = Table("provider calls, inside the daemon, to bare aiohttp")
    with tempfile.TemporaryDirectory() as folder, scripted_process(pieces=100) as provider:
        runtime = await open_runtime(Path(folder), [provider.base_url])
        async with runtime, aiohttp_session() as client:
            url = f"{provider.base_url}/chat/completions"

            async def theirs() -> None:
                async with client.post(url, data=json.dumps(BODY), headers=JSON) as response:
                    json.loads(await response.read())

            async def ours() -> None:
                await runtime.operations.ask(Ask(messages=MESSAGES), user="bench")

            async def their_stream() -> None:
                async with client.post(url, data=json.dumps(BODY | {"stream": True}), headers=JSON) as response:
                    async for line in response.content:
                        if line.startswith(b"data: {"):
                            json.loads(line[6:])

            async def take(_: object) -> None:
                return

            async def our_stream() -> None:
                await runtime.operations.ask(Ask(messages=MESSAGES, stream=True), user="bench", on_piece=take)

            for label, pair, concurrent, counts, goals in (
                ("call c=1", (theirs, ours), 1, (1000, 1000), {"p50": "≤ 1.6", "cpu": "≤ 1.8"}),
                ("call c=32", (theirs, ours), 32, (4000, 4000), {"rate": "≥ 0.55"}),
                ("call c=256", (theirs, ours), 256, (4096, 4096), {"rate": "≥ 0.55"}),
                ("stream of 100 c=1", (their_stream, our_stream), 1, (60, 60), {}),
                ("stream of 100 c=32", (their_stream, our_stream), 32, (320, 320), {"rate": "≥ 0.85"}),
            ):
                peer, mine = await in_turns(pair, concurrent, counts)
                for name, base, figure in zip(("p50", "rate", "cpu"), peer, mine, strict=True):
                    if name in goals or name != "p50":
                        table.add(f"{label}: {name}", base, figure, figure / base, goals.get(name, ""))
            before = (await timed(ours, 1, 200))[0]
            await timed(ours, 256, 512)
            after = (await timed(ours, 1, 200))[0]
            table.add("one caller after a burst", before, after, after / before, "≤ 1.2")
            if (router := litellm_router([provider.base_url])) is not None:
                await timed(router, 1, 20)  # it loads half of itself at its first call
                gc.freeze()  # what it has loaded is not to be gone through during our calls
                for concurrent, counts, index, goal in (
                    (1, (40, 300), 0, "≤ 0.06"),
                    (32, (100, 4000), 1, "≥ 25"),
                    (256, (256, 4096), 1, "≥ 20"),
                ):
                    peer, mine = await in_turns((router, ours), concurrent, counts)
                    what = f"litellm Router c={concurrent}: {('p50', 'rate')[index]}"
                    table.add(what, peer[index], mine[index], mine[index] / peer[index], goal)
    return table


def litellm_router(base_urls: Sequence[str]) -> Call | None:
    """A call by litellm's Router, with a fallback from each deployment to the next; None where it is not installed."""
    if importlib.util.find_spec("litellm") is None:
        return None
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # without it the import asks the network
    litellm: Any = importlib.import_module("litellm")
    litellm.suppress_debug_info = True
    models = [
        {
            "model_name": f"m{number}",
            "litellm_params": {"model": "openai/m", "api_base": base_url, "api_key": "none", "max_retries": 0},
        }
        for number, base_url in enumerate(base_urls)
    ]
    fallbacks = [{f"m{number}": [f"m{number + 1}"]} for number in range(len(base_urls) - 1)]
    router = litellm.Router(model_list=models, fallbacks=fallbacks, num_retries=0, allowed_fails=10**9)

    async def call() -> None:
        await router.acompletion(model="m0", messages=MESSAGES)

    return call


async def from_a_client() -> Table:
    """The table of ratios for a program that asks the daemon over its socket."""
    table = Table("provider calls, from a client process over the socket, to plain httpx")
    with (
        scripted_process() as provider,
        home(configured([provider.base_url])) as env,
        lagging_daemon(env) as blocking,
    ):
        async with AsyncClient(env["TUNDRA_DATA_DIR"], start=False) as client, http_client() as http:

            async def ours() -> None:
                await client.ask("Say hi")

            async def ours_blocking() -> None:
                blocking.ask("Say hi")

            theirs = asked(http, provider.base_url)
            peer, mine, simple = await in_turns((theirs, ours, ours_blocking), 1, (300, 300, 300))
            table.add("AsyncClient c=1: p50", peer[0], mine[0], mine[0] / peer[0], "≤ 1.3")
            table.add("Client c=1: p50", peer[0], simple[0], simple[0] / peer[0], "≤ 1.2")
            peer, mine = await in_turns((theirs, ours), 32, (400, 2000))
            table.add("AsyncClient c=32: rate", peer[1], mine[1], mine[1] / peer[1], "≥ 4.5")
    return table


async def slow_upstream() -> Table:
    """256 calls in flight on a provider that takes its time: how much of the ideal rate is reached."""
    table = Table(f"{FLIGHT} in flight on a provider that takes {SLOW_SECONDS * 1000:.0f} ms, to the ideal rate")
    ideal = FLIGHT / SLOW_SECONDS
    with tempfile.TemporaryDirectory() as folder, scripted_process(delay=SLOW_SECONDS) as provider:
        async with await open_runtime(Path(folder), [provider.base_url]) as runtime:

            async def ours() -> None:
                await runtime.operations.ask(Ask(messages=MESSAGES), user="bench")

            for waves, goal in ((4, "≥ 0.8"), (20, "≥ 0.92")):
                _, rate, _ = await timed(ours, FLIGHT, FLIGHT * waves)
                table.add(f"{waves} waves: rate", ideal, rate, rate / ideal, goal)
    return table


async def failover() -> Table:
    """The first profile fails, the second answers: beside a loop over two URLs by hand."""
    table = Table("failover to the second profile: p50, to a loop by hand over httpx")
    for label, status in (("429", 429), ("500", 500), ("refused", 0)):
        with tempfile.TemporaryDirectory() as folder, scripted_process() as good, scripted_process() as bad:
            bad.script("*", ScriptedStep(status=status or 500, repeat=0))
            urls = ["http://127.0.0.1:9/v1" if not status else bad.base_url, good.base_url]
            async with await open_runtime(Path(folder), urls) as runtime, http_client() as http:
                calls = [asked(http, url) for url in urls]

                async def by_hand(calls: Sequence[Call] = calls) -> None:
                    for call in calls:
                        with contextlib.suppress(httpx.HTTPError):
                            await call()
                            return

                async def ours(runtime: Runtime = runtime) -> None:
                    reply = await runtime.operations.ask(Ask(messages=MESSAGES), user="bench")
                    assert reply.attempts == 2, "both were asked"

                candidates: list[Call] = [by_hand, ours]
                if (router := litellm_router(urls)) is not None:
                    candidates.append(router)
                peer, mine, *others = await in_turns(candidates, 1, (100, 100, 30))
                table.add(label, peer[0], mine[0], mine[0] / peer[0], "≤ 1.2")
                for other in others:
                    table.add(f"{label}, litellm Router", peer[0], other[0], other[0] / peer[0])
    return table


def main() -> None:
    """Measure and print."""
    logging.getLogger("tundra").addHandler(logging.NullHandler())  # else each failure that is made is written here
    gc.freeze()  # as the daemon does once it is ready
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        for part in (compare, from_a_client, slow_upstream, failover):
            print(runner.run(part()), end="\n\n", flush=True)


if __name__ == "__main__":
    main()
