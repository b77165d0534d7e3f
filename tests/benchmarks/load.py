"""So many calls a second, straight to a provider or through the daemon.

    python -m tests.benchmarks.load RATE WHERE [CALLS]

WHERE is the provider's base URL, or `daemon`. An open loop: calls begin on schedule whether or not earlier ones have
been answered. It runs until standard input closes or CALLS have begun, then prints the number of answers and of
failures.
"""

from __future__ import annotations

import asyncio
import math
import sys
from collections.abc import Awaitable, Callable

import httpx

from tundra_nb.errors import TundraError

MESSAGES = [{"role": "user", "content": "Say hi"}]


async def run(rate: float, call: Callable[[], Awaitable[object]], calls: float = math.inf) -> tuple[int, int]:
    """Call until standard input closes, or so often; how many were answered, and how many failed."""
    loop = asyncio.get_running_loop()
    told = asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), told.set)
    answered = failed = 0
    tasks: set[asyncio.Task[None]] = set()

    async def one() -> None:
        nonlocal answered, failed
        try:
            await call()
            answered += 1
        except (httpx.HTTPError, TundraError) as exc:
            failed += 1
            sys.stderr.write(f"{exc!r}\n")

    await call()
    print("begun", flush=True)
    due = loop.time()
    begun = 0
    while not told.is_set() and begun < calls:
        begun += 1
        task = asyncio.create_task(one())
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        due += 1 / rate
        await asyncio.sleep(max(0.0, due - loop.time()))
    await asyncio.gather(*tasks)
    return answered, failed


async def main(rate: float, where: str, calls: float) -> None:
    """Run, and print what came of it."""
    if where == "daemon":
        from tundra_nb.client.aio import AsyncClient

        async with AsyncClient(start=False) as client:
            answered, failed = await run(rate, lambda: client.ask(MESSAGES), calls)
    else:
        async with httpx.AsyncClient(timeout=30) as http:
            body = {"model": "m", "messages": MESSAGES}
            answered, failed = await run(rate, lambda: http.post(f"{where}/chat/completions", json=body), calls)
    print(answered, failed, flush=True)


if __name__ == "__main__":
    asyncio.run(main(float(sys.argv[1]), sys.argv[2], float(sys.argv[3]) if len(sys.argv) > 3 else math.inf))
