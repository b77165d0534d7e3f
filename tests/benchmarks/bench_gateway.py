"""The gateway on its TCP door: ours beside direct calls, LiteLLM's proxy, and Portkey's gateway where npm gives it.

    python -m tests.benchmarks gateway

Every candidate is asked by the same client over kept connections, and asks the same scripted provider. Shown is what
each adds to a direct call (ms), the calls a second, and how late the chunks of streams arrive beside direct ones.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import gc
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import uvloop

from tests.benchmarks.homes import home, lagging_daemon
from tests.benchmarks.table import Table
from tests.environments import node_with, python_with
from tundra_nb.testing.scripted_provider import scripted_process

ROUNDS = 3
MESSAGES = [{"role": "user", "content": "Say hi"}]
BODY = json.dumps({"model": "m", "messages": MESSAGES}).encode()
STREAM_BODY = json.dumps({"model": "m", "messages": MESSAGES, "stream": True}).encode()
START_SECONDS = 90.0
CHUNKS = 50
TOML = """
[gateway]
listen = "127.0.0.1:{port}"
[limits.global]
rate = 1e6
burst = 1e6
[limits.user]
rate = 1e6
burst = 1e6
[breaker]
failures = 1000000
[[profile]]
name = "p"
kind = "local"
base_url = "{base_url}"
model = "m"
"""


@dataclasses.dataclass(frozen=True)
class Side:
    """Somebody who answers chat completions."""

    name: str
    port: int
    headers: tuple[tuple[str, str], ...] = ()
    path: str = "/v1/chat/completions"

    def request(self, body: bytes) -> bytes:
        lines = [
            f"POST {self.path} HTTP/1.1",
            f"host: 127.0.0.1:{self.port}",
            "content-type: application/json",
            f"content-length: {len(body)}",
            *(f"{name}: {value}" for name, value in self.headers),
        ]
        return "\r\n".join([*lines, "", ""]).encode() + body


async def one_call(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> None:
    writer.write(request)
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    assert head.startswith(b"http/1.1 200"), head
    if b"content-length:" in head:
        await reader.readexactly(int(head.split(b"content-length:")[1].split(b"\r\n")[0]))
        return
    while size := int(await reader.readline(), 16):
        await reader.readexactly(size + 2)
    await reader.readline()


async def timed(side: Side, concurrent: int, count: int) -> tuple[float, float]:
    """Median seconds of a call, and calls a second."""
    times: list[float] = []
    left = iter(range(count))
    request = side.request(BODY)

    async def caller() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", side.port)
        await one_call(reader, writer, request)
        for _ in left:
            began = time.perf_counter()
            await one_call(reader, writer, request)
            times.append(time.perf_counter() - began)
        writer.close()

    began = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(concurrent)))
    return statistics.median(times), count / (time.perf_counter() - began)


@contextlib.asynccontextmanager
async def ticking(gap: float) -> AsyncIterator[int]:
    """A provider whose chunks tell when they were sent; its port."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                if b"content-length:" in head:
                    await reader.readexactly(int(head.split(b"content-length:")[1].split(b"\r\n")[0]))
                writer.write(
                    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
                )
                for number in range(CHUNKS + 1):
                    choice = {"index": 0, "delta": {"content": "word "}, "finish_reason": None}
                    if number == CHUNKS:
                        choice = {"index": 0, "delta": {}, "finish_reason": "stop"}
                    told = {
                        "id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice],
                        "at": time.perf_counter_ns(),
                    }  # fmt: skip
                    event = b"data: " + json.dumps(told).encode() + b"\n\n"
                    writer.write(b"%x\r\n%s\r\n" % (len(event), event))
                    await asyncio.sleep(gap)
                event = b"data: [DONE]\n\n"
                writer.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(event), event))

    server = await asyncio.start_server(answer, "127.0.0.1", 0, backlog=512)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def lateness(side: Side, streams: int, repeat: int) -> float:
    """Median seconds between a chunk's sending and its arrival."""
    late: list[float] = []
    request = side.request(STREAM_BODY)

    async def stream() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", side.port)
        for _ in range(repeat):
            writer.write(request)
            while True:
                line = await reader.readline()
                assert line, "the stream was cut"
                now = time.perf_counter_ns()
                if b'"at"' in line:
                    late.append((now - json.loads(line.removeprefix(b"data: "))["at"]) / 1e9)
                elif line.startswith(b"data: [DONE]"):
                    while (await reader.readline()).strip() != b"0":
                        pass
                    await reader.readline()
                    break
        writer.close()

    await asyncio.gather(*(stream() for _ in range(streams)))
    return statistics.median(late)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as held:
        return int(held.getsockname()[1])


def wait_for(port: int, process: subprocess.Popen[bytes]) -> float:
    """Seconds until somebody listens."""
    began = time.perf_counter()
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return time.perf_counter() - began
        if process.poll() is not None or time.perf_counter() - began > START_SECONDS:
            raise RuntimeError(f"nobody listens at {port}")
        time.sleep(0.01)


@contextlib.contextmanager
def ours(base_url: str) -> Iterator[Side]:
    with home(TOML.format(port=free_port(), base_url=base_url)) as env, lagging_daemon(env) as client:
        status = client.gateway.status()
        token = client.tokens.new("bench")["token"]
        port = int(str(status["url"]).rpartition(":")[2].removesuffix("/v1"))
        yield Side("ours", port, (("authorization", f"Bearer {token}"),))


@contextlib.contextmanager
def served(command: list[str], port: int, env: dict[str, str], cwd: str) -> Iterator[None]:
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=env, cwd=cwd)
        try:
            try:
                wait_for(port, process)
            except RuntimeError:
                log.seek(0)
                sys.stderr.write(log.read().decode(errors="replace")[-3000:])
                raise
            yield
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


@contextlib.contextmanager
def portkey(base_url: str) -> Iterator[Side | None]:
    try:
        folder = node_with("@portkey-ai/gateway")
    except pytest.skip.Exception as exc:
        print(f"without Portkey: {exc}")
        yield None
        return
    port = free_port()
    start = folder / "node_modules/@portkey-ai/gateway/build/start-server.js"
    headers = (
        ("x-portkey-provider", "openai"),
        ("x-portkey-custom-host", base_url),
        ("authorization", "Bearer none"),
    )
    env = dict(os.environ) | {"TRUSTED_CUSTOM_HOSTS": "127.0.0.1,localhost"}
    with served(["node", str(start), f"--port={port}", "--headless"], port, env, str(folder)):
        yield Side("Portkey", port, headers)


@contextlib.contextmanager
def litellm(base_url: str) -> Iterator[Side | None]:
    try:
        python = python_with("litellm[proxy]")
    except pytest.skip.Exception as exc:
        print(f"without LiteLLM: {exc}")
        yield None
        return
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "config.yaml"
        config.write_text(
            "model_list:\n- model_name: m\n  litellm_params:\n"
            f"    model: openai/m\n    api_base: {base_url}\n    api_key: none\n"
        )
        env = {k: v for k, v in os.environ.items() if not k.startswith("LITELLM")}
        key = "sk-bench-0123456789abcdef0123456789abcdef"
        env |= {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR", "LITELLM_MASTER_KEY": key}
        command = [str(python.parent / "litellm"), "--config", str(config), "--port", str(port), "--host", "127.0.0.1"]
        with served(command, port, env, folder):
            yield Side("LiteLLM", port, (("authorization", f"Bearer {key}"),))


async def calls(sides: list[Side], direct: Side) -> Table:
    """What each adds to a direct call, and calls a second."""
    table = Table("the gateway on TCP: added milliseconds (peer: ours) and calls a second, direct and beside peers")
    rounds = {1: (200, 40), 32: (3000, 200)}
    found: dict[tuple[str, int], tuple[float, float]] = {}
    for concurrent, (many, few) in rounds.items():
        figures: dict[str, list[tuple[float, float]]] = {}
        for _ in range(ROUNDS):
            for side in (direct, *sides):
                count = few if side.name == "LiteLLM" else many
                figures.setdefault(side.name, []).append(await timed(side, concurrent, count))
        for name, rows in figures.items():
            p50, rate = (statistics.median(column) for column in zip(*rows, strict=True))
            found[name, concurrent] = p50, rate
    base = found["direct", 1][0]
    mine = (found["ours", 1][0] - base) * 1000
    table.add("added p50 at c=1, ms, to the goal of 0.5", 0.5, mine, mine / 0.5, "≤ 1")
    rate = found["ours", 32][1]
    table.add("calls/s at c=32, to the goal of 2,000", 2000, rate, rate / 2000, "≥ 1")
    table.add("calls/s at c=32, to direct", found["direct", 32][1], rate, rate / found["direct", 32][1])
    for side in sides[1:]:
        theirs = (found[side.name, 1][0] - base) * 1000
        table.add(f"added p50 at c=1, ms, to {side.name}", theirs, mine, mine / theirs, "≤ 1")
        table.add(
            f"calls/s at c=32, to {side.name}", found[side.name, 32][1], rate, rate / found[side.name, 32][1], "≥ 1"
        )
    return table


async def streams() -> Table:
    """How much later than direct ones the chunks of streams arrive."""
    table = Table("chunks passed on: milliseconds beside direct ones, to the goal")
    async with contextlib.AsyncExitStack() as stack:
        for count, gap, repeat, goal in ((1, 0.004, 6, 0.5), (100, 0.05, 1, 2.0)):
            port = await stack.enter_async_context(ticking(gap))
            direct = Side("direct", port)
            with ours(f"http://127.0.0.1:{port}/v1") as mine:
                await lateness(mine, 1, 1)
                pairs = [(await lateness(direct, count, repeat), await lateness(mine, count, repeat)) for _ in range(3)]
            added = statistics.median(later - base for base, later in pairs) * 1000
            table.add(f"{count} at once: added p50, ms", goal, added, added / goal, "≤ 1")
    return table


def ready() -> Table:
    """How long after the daemon's start its door is open."""
    table = Table("seconds from the daemon's start to an open door, to the goal")
    took = []
    for _ in range(ROUNDS):
        port = free_port()
        with home(TOML.format(port=port, base_url="http://127.0.0.1:9/v1")) as env:
            process = subprocess.Popen(
                [sys.executable, "-m", "tundra_nb.daemon"],
                env=env,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            try:
                took.append(wait_for(port, process))
            finally:
                process.terminate()
                process.wait(15)
    mine = statistics.median(took)
    table.add("ready, s", 1.0, mine, mine, "≤ 1")
    return table


async def compare() -> Table:
    with contextlib.ExitStack() as stack:
        provider = stack.enter_context(scripted_process())
        direct = Side("direct", int(provider.base_url.rpartition(":")[2].removesuffix("/v1")))
        sides = [stack.enter_context(ours(provider.base_url))]
        others = [stack.enter_context(maker(provider.base_url)) for maker in (portkey, litellm)]
        sides += [side for side in others if side is not None]
        return await calls(sides, direct)


def main() -> None:
    """Measure and print."""
    gc.freeze()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        for part in (compare, streams):
            print(runner.run(part()), end="\n\n", flush=True)
    print(ready(), end="\n\n", flush=True)


if __name__ == "__main__":
    main()
