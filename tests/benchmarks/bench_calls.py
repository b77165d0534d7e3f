"""Provider calls: ours inside the daemon's runtime, beside plain httpx on the same scripted server in the same run.

    python -m tests.benchmarks calls

Each row's candidates take turns; the median of the rounds is shown as a ratio to plain httpx. Goals: facts of the
project's performance page (p50 ≤ 0.5, ≥ 12 × at c=32, ≥ 30 × at c=256, streams ≥ 5 × at 32, one caller after a burst
≤ 1.2 × before).
"""

from __future__ import annotations

import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
import uvloop

from tests.benchmarks.table import Table
from tundra_nb import paths, settings
from tundra_nb.runtime.runtime import Runtime
from tundra_nb.runtime.telemetry.redact import Redactor
from tundra_nb.testing.scripted_provider import scripted_process
from tundra_nb.types import Ask

MESSAGES = [{"role": "user", "content": "Say hi"}]
BODY = {"model": "m", "messages": MESSAGES}
Call = Callable[[], Awaitable[object]]


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


async def open_runtime(folder: Path, base_url: str) -> Runtime:
    config = folder / "tundra.toml"
    config.write_text(
        f'[limits.global]\nrate = 1e6\nburst = 1e6\n[[profile]]\nname = "p"\nkind = "openai"\n'
        f'base_url = "{base_url}"\nmodel = "m"\n'
    )
    environ = dict(os.environ) | {"TUNDRA_DATA_DIR": str(folder)}
    return Runtime(settings.load(config, environ), paths.find(folder, environ), environ, redactor=Redactor())


async def compare(rounds: int = 3) -> Table:
    """The table of ratios."""
    table = Table("provider calls, inside the daemon, to plain httpx")
    with tempfile.TemporaryDirectory() as folder, scripted_process(pieces=100) as provider:
        async with await open_runtime(Path(folder), provider.base_url) as runtime:
            limits = httpx.Limits(max_connections=1000, max_keepalive_connections=1000)
            async with httpx.AsyncClient(limits=limits, timeout=60) as client:
                url = f"{provider.base_url}/chat/completions"

                async def theirs() -> None:
                    (await client.post(url, json=BODY)).json()

                async def ours() -> None:
                    await runtime.operations.ask(Ask(messages=MESSAGES), user="bench")

                async def their_stream() -> None:
                    async with client.stream("POST", url, json=BODY | {"stream": True}) as response:
                        async for _ in response.aiter_lines():
                            pass

                async def take(_: str) -> None:
                    return

                async def our_stream() -> None:
                    await runtime.operations.ask(Ask(messages=MESSAGES, stream=True), user="bench", on_text=take)

                for label, pair, concurrent, counts, goals in (
                    ("call c=1", (theirs, ours), 1, (300, 300), {"p50": "≤ 0.5", "cpu": "≤ 0.45"}),
                    ("call c=32", (theirs, ours), 32, (400, 4000), {"rate": "≥ 12"}),
                    ("call c=256", (theirs, ours), 256, (512, 4096), {"rate": "≥ 30"}),
                    ("stream of 100 c=1", (their_stream, our_stream), 1, (60, 60), {"p50": "≤ 0.5"}),
                    ("stream of 100 c=32", (their_stream, our_stream), 32, (160, 320), {"rate": "≥ 5"}),
                ):
                    figures: list[list[tuple[float, float, float]]] = [[], []]
                    for _ in range(rounds):
                        for side, call in enumerate(pair):
                            figures[side].append(await timed(call, concurrent, counts[side]))
                    for index, name in enumerate(("p50", "rate", "cpu")):
                        base = statistics.median(figure[index] for figure in figures[0])
                        mine = statistics.median(figure[index] for figure in figures[1])
                        if name in goals or name != "cpu":
                            table.add(f"{label}: {name}", base, mine, mine / base, goals.get(name, ""))
                before = (await timed(ours, 1, 200))[0]
                await timed(ours, 256, 512)
                after = (await timed(ours, 1, 200))[0]
                table.add("one caller after a burst", before, after, after / before, "≤ 1.2")
    return table


def main() -> None:
    """Measure and print."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(runner.run(compare()))


if __name__ == "__main__":
    main()
