"""The bridge's cost: one call straight to the socket, through the bridge, and Jupyter's own floor; server start.

    python tests/benchmarks/bench_bridge.py

The floor is an authenticated Jupyter handler that answers by itself (`/api/status`). Goals: the bridge adds at most
0.6 ms at p50 to that floor and keeps at least 35 % of its throughput; a server with the extension starts as fast as one
without, within 10 %.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import aiohttp

from tundra_nb import paths

HERE = Path(__file__).parent
DAEMON = HERE.parent / "server" / "scripted_daemon.py"
TOKEN = "bench"
CALLS_ALONE = 400
CALLS_TOGETHER = 3000
TOGETHER = 32
STARTS = 4


@contextlib.contextmanager
def _home() -> Iterator[tuple[Path, dict[str, str]]]:
    folder = Path(tempfile.mkdtemp(prefix="tnb-"))
    (folder / "run").mkdir(mode=0o700)
    env = dict(os.environ) | {
        "HOME": str(folder),
        "XDG_RUNTIME_DIR": str(folder / "run"),
        "JUPYTER_CONFIG_DIR": str(folder / "config"),
        "JUPYTER_DATA_DIR": str(folder / "data"),
        "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
        "TUNDRA_DATA_DIR": str(folder / "tundra"),
        "JUPYTER_TOKEN": TOKEN,
    }
    try:
        yield folder, env
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _process(command: list[str], env: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as out:
        process = subprocess.Popen(command, env=env, stdout=out, stderr=out)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


def _server(folder: Path, extension: bool) -> list[str]:
    config = folder / "config"
    config.mkdir(exist_ok=True)
    off = dict.fromkeys(["jupyterlab", "notebook", "notebook_shim", "jupyter_lsp", "nbclassic"], False)
    switches = {"ServerApp": {"jpserver_extensions": off | {"tundra_nb": extension}}}
    (config / "jupyter_server_config.json").write_text(json.dumps(switches))
    command = [sys.executable, "-m", "jupyter_server", "--no-browser", "--port=0", "--allow-root", "--log-level=WARN"]
    return [*command, f"--ServerApp.root_dir={folder}", "--TundraExtension.start_daemon=False"]


def _url(folder: Path, process: subprocess.Popen[bytes]) -> str:
    info = folder / "runtime" / f"jpserver-{process.pid}.json"
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, ValueError, urllib.error.URLError):
            url = str(json.loads(info.read_text())["url"])
            urllib.request.urlopen(url + "api", timeout=5).close()
            return url
        time.sleep(0.005)
    raise TimeoutError("the Jupyter server does not answer")


async def _measure(session: aiohttp.ClientSession, url: str) -> tuple[float, float]:
    """p50 of single calls in ms, and calls per second with many at once."""

    async def call() -> float:
        began = time.perf_counter()
        async with session.get(url) as answer:
            assert answer.status == 200, await answer.text()
            await answer.read()
        return (time.perf_counter() - began) * 1000

    for _ in range(50):
        await call()
    alone = statistics.median([await call() for _ in range(CALLS_ALONE)])
    left = iter(range(CALLS_TOGETHER))

    async def caller() -> None:
        for _ in left:
            await call()

    began = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(TOGETHER)))
    return alone, CALLS_TOGETHER / (time.perf_counter() - began)


async def _routes(url: str, socket: str) -> dict[str, tuple[float, float]]:
    headers = {"Authorization": f"token {TOKEN}"}
    direct = aiohttp.UnixConnector(socket, limit=TOGETHER)
    through = aiohttp.TCPConnector(limit=TOGETHER)
    jar = aiohttp.DummyCookieJar
    async with (
        aiohttp.ClientSession(connector=direct, cookie_jar=jar()) as to_socket,
        aiohttp.ClientSession(connector=through, cookie_jar=jar(), headers=headers) as to_server,
    ):
        return {
            "straight to the socket": await _measure(to_socket, "http://localhost/api/seen"),
            "Jupyter floor": await _measure(to_server, url + "api/status"),
            "through the bridge": await _measure(to_server, url + "tundra/api/seen"),
        }


def _start_seconds(extension: bool) -> float:
    with _home() as (folder, env):
        began = time.perf_counter()
        with _process(_server(folder, extension), env, folder / "log") as process:
            _url(folder, process)
            return time.perf_counter() - began


def main() -> dict[str, float]:
    """Print the tables; the numbers by name."""
    with _home() as (folder, env):
        found = paths.find(None, env)
        connection_file = folder / "runtime" / found.connection_file.name
        daemon = [sys.executable, str(DAEMON), str(found.socket), str(connection_file), "bench"]
        with (
            _process(daemon, env, folder / "daemon.log"),
            _process(_server(folder, extension=True), env, folder / "log") as server,
        ):
            routes = asyncio.run(_routes(_url(folder, server), str(found.socket)))
    print(f"{'route':24} {'p50 ms':>8} {f'calls/s at {TOGETHER}':>16}")
    for name, (alone, together) in routes.items():
        print(f"{name:24} {alone:8.2f} {together:16,.0f}")
    starts: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(STARTS):
        for extension in (False, True):
            starts[extension].append(_start_seconds(extension))
    without, with_it = statistics.median(starts[False]), statistics.median(starts[True])
    floor, bridge = routes["Jupyter floor"], routes["through the bridge"]
    numbers = {
        "bridge_added_ms": bridge[0] - floor[0],
        "bridge_throughput_ratio": bridge[1] / floor[1],
        "server_start_ratio": with_it / without,
    }
    print(f"\nserver start: {without:.2f} s without, {with_it:.2f} s with the extension")
    goals = {"bridge_added_ms": "≤ 0.6", "bridge_throughput_ratio": "≥ 0.35", "server_start_ratio": "≤ 1.1"}
    for name, value in numbers.items():
        print(f"{name:24} {value:8.2f}   goal {goals[name]}")
    return numbers


if __name__ == "__main__":
    main()
