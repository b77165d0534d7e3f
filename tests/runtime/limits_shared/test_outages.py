"""Eight daemons under load while their server is paused, cut off, killed and started anew without what it held.

On each server that is here. What was let through stays within the limits, and every caller has an answer or a typed
refusal soon, whatever happens to the server.
"""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any, Self

import pytest

from tests.runtime.limits_shared.test_many_daemons import worst
from tests.runtime.limits_shared.valkey import ValkeyServer, programs

pytestmark = [pytest.mark.part("valkey"), pytest.mark.timeout(300)]

DAEMONS = 8
RATE, BURST = 40.0, 60.0
TOKEN_RATE, TOKEN_BURST = 4_000.0, 6_000.0
LATE_SECONDS = 0.25
"""By how much later the answers of a busy machine may be seen than the server decided."""
ANSWER_SECONDS = 1.0
ONE = """
import asyncio, json, random, sys, time
from tundra_nb.errors import TundraError
from tundra_nb.runtime.clock import SystemClock
from tundra_nb.runtime.limits_shared.limiter import SharedLimiter
from tundra_nb.runtime.resilience.limiter import Limit
from tundra_nb.settings import SharedLimitsSettings
url, seed, daemons, rate, burst, token_rate, token_burst = sys.argv[1], *map(float, sys.argv[2:])
dice = random.Random(seed)
async def main():
    limiter = SharedLimiter(SystemClock(), {})
    limiter.share(SharedLimitsSettings(url=url, deadline_seconds=0.25, daemons=int(daemons)))
    shapes = (("requests", rate, burst), ("tokens", token_rate, token_burst))
    path = limiter.path([Limit("global", "all", *shape) for shape in shapes])
    used, slow, refused, is_over, scopes = [], [], [0], asyncio.Event(), set()
    async def asker():
        while not is_over.is_set():
            asked, tokens = time.monotonic(), dice.randrange(1, 200)
            try:
                reservation = await limiter.reserve(path, tokens, 0.3)
            except TundraError:
                refused[0] += 1
            else:
                used.append((time.monotonic(), tokens))
                if dice.random() < 0.3:
                    reservation.refund()
                    used.pop()
                else:
                    reservation.settle(tokens)
            slow.append(time.monotonic() - asked)
            scopes.add(limiter.state.scope)
            await asyncio.sleep(dice.random() * 0.1)
    async def lag():
        worst = 0.0
        while not is_over.is_set():
            before = time.monotonic()
            await asyncio.sleep(0.01)
            worst = max(worst, time.monotonic() - before - 0.01)
        return worst
    async def end():
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
        is_over.set()
    print("ready", flush=True)
    _, *_, lagged = await asyncio.gather(end(), *(asker() for _ in range(4)), lag())
    await limiter.aclose()
    told = {"used": used, "slowest": max(slow), "refused": refused[0], "lag": lagged, "scopes": sorted(scopes)}
    print(json.dumps(told))
asyncio.run(main())
"""


class Cable:
    """What stands between the daemons and the server: passes bytes on, or holds them as a cut network does."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._whole = threading.Event()
        self._whole.set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._threads: list[threading.Thread] = []
        self._sockets: list[socket.socket] = []
        self._is_over = False

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(self, *exc: object) -> None:
        self._is_over = True
        self.mend()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for one in self._sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        for thread in self._threads:
            thread.join(10)

    def cut(self) -> None:
        self._whole.clear()

    def mend(self) -> None:
        self._whole.set()

    def _start(self, what: Any, *args: Any) -> None:
        thread = threading.Thread(target=what, args=args)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._is_over:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            self._whole.wait()
            try:
                far = socket.create_connection(("127.0.0.1", self._port), 5)
            except OSError:
                near.close()
                continue
            far.settimeout(None)
            self._sockets += [near, far]
            self._start(self._pass, near, far)
            self._start(self._pass, far, near)

    def _pass(self, one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := one.recv(65536):
                self._whole.wait()
                other.sendall(data)
        for each in (one, other):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def daemons(url: str) -> Iterator[list[subprocess.Popen[str]]]:
    limits = [str(number) for number in (DAEMONS, RATE, BURST, TOKEN_RATE, TOKEN_BURST)]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", ONE, url, str(seed), *limits],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed in range(DAEMONS)
    ]
    try:
        yield processes
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
            process.communicate()


def ended(processes: list[subprocess.Popen[str]]) -> list[dict[str, Any]]:
    found = []
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("end\n")
        process.stdin.flush()
    for process in processes:
        told, _ = process.communicate(timeout=60)
        assert process.returncode == 0
        found.append(json.loads(told))
    return found


@pytest.mark.parametrize("name", sorted(programs()))
@pytest.mark.parametrize(
    "seconds",
    [pytest.param(2.0, marks=pytest.mark.check), pytest.param(8.0, marks=pytest.mark.soak)],
)
def test_whatever_happens_to_the_server_the_limit_holds_and_callers_are_answered(name: str, seconds: float) -> None:
    with (
        ValkeyServer(name=name) as server,
        Cable(server.port) as cable,
        daemons(f"valkey://127.0.0.1:{cable.port}") as processes,
    ):
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        time.sleep(seconds)
        server.pause()
        time.sleep(seconds)
        server.resume()
        time.sleep(seconds)
        cable.cut()
        time.sleep(seconds)
        cable.mend()
        time.sleep(seconds)
        server.kill()
        time.sleep(seconds)
        server.start()  # without what it held
        time.sleep(seconds)
        found = ended(processes)
    assert all(told["scopes"] == ["share", "team"] for told in found), [told["scopes"] for told in found]
    used = [entry for told in found for entry in told["used"]]
    assert len(used) > RATE * seconds
    over = worst([(at, 1.0) for at, _ in used], RATE)
    assert over <= BURST + RATE * LATE_SECONDS, over
    over = worst([(at, float(tokens)) for at, tokens in used], TOKEN_RATE)
    assert over <= TOKEN_BURST + TOKEN_RATE * LATE_SECONDS, over
    for told in found:  # what the machine itself held a process up is no wait for the server
        assert told["slowest"] < ANSWER_SECONDS + told["lag"] + 0.3, told["slowest"]
        assert told["refused"] > 0
