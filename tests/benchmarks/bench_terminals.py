"""Terminals over WebSocket: at the daemon's socket, through the bridge, and Jupyter's own (terminado), in the same run.

    python -m tests.benchmarks terminals

Goals: to a viewer at least 40 MB/s at the socket and 20 through the bridge; 100 viewers of one flood; a viewer that
comes back has 4 MB of scrollback within a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp

from tests.benchmarks.table import Table
from tundra_nb.client.sync import Client

TOKEN = "bench"
FLOOD_MB = 60
SCROLLBACK_MB = 4
VIEWERS = 100
SHARED_MB = 4
ECHOES = 200
START_SECONDS = 40.0
RAW_CAT = "stty raw -echo; echo up; exec cat"


@contextlib.contextmanager
def server() -> Iterator[tuple[str, Client]]:
    """A Jupyter server with our extension; its address, and a client of the daemon behind it."""
    folder = Path(tempfile.mkdtemp(prefix="tnb-"))
    (folder / "run").mkdir(mode=0o700)
    (folder / "tundra.toml").write_text("[pty]\ncapacity = 40\n")
    (folder / "config").mkdir()
    off = dict.fromkeys(["jupyterlab", "notebook", "notebook_shim", "jupyter_lsp", "nbclassic"], False)
    switches = {"ServerApp": {"jpserver_extensions": off | {"tundra_nb": True, "jupyter_server_terminals": True}}}
    (folder / "config" / "jupyter_server_config.json").write_text(json.dumps(switches))
    names = {"TUNDRA_DATA_DIR": "data", "TUNDRA_CONFIG": "tundra.toml", "JUPYTER_RUNTIME_DIR": "runtime"}
    names |= {"JUPYTER_CONFIG_DIR": "config", "JUPYTER_DATA_DIR": "jupyter", "XDG_RUNTIME_DIR": "run"}
    os.environ.update({name: str(folder / file) for name, file in names.items()})
    os.environ["JUPYTER_TOKEN"] = TOKEN
    command = [sys.executable, "-m", "jupyter_server", "--no-browser", "--port=0", "--allow-root", "--log-level=WARN"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([*command, f"--ServerApp.root_dir={folder}"], stdout=log, stderr=log)
    try:
        url = address(folder, process)
        with Client(folder / "data") as client:
            client.open()
            yield url, client
            client.stop_daemon(force=True)
    finally:
        process.terminate()
        process.wait(20)
        shutil.rmtree(folder, ignore_errors=True)


def address(folder: Path, process: subprocess.Popen[bytes]) -> str:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, ValueError):
            url = str(json.loads((folder / "runtime" / f"jpserver-{process.pid}.json").read_text())["url"])
            urllib.request.urlopen(url + "api", timeout=5).close()
            return url
        time.sleep(0.02)
    raise TimeoutError("the Jupyter server does not answer")


class Ways:
    """How to reach a terminal."""

    def __init__(
        self, url: str, client: Client, straight: aiohttp.ClientSession, bridged: aiohttp.ClientSession
    ) -> None:
        self.url = url
        self.client = client
        self.straight = straight
        self.bridged = bridged

    @contextlib.asynccontextmanager
    async def socket(self, command: str) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        async with self._ours(self.straight, "http://tundra", command) as made:
            yield made

    @contextlib.asynccontextmanager
    async def bridge(self, command: str) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        async with self._ours(self.bridged, f"{self.url}tundra", command) as made:
            yield made

    @contextlib.asynccontextmanager
    async def terminado(self, command: str) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        async with self.bridged.post(f"{self.url}api/terminals") as answer:
            name = (await answer.json())["name"]
        async with self.bridged.ws_connect(f"{self.url}terminals/websocket/{name}", max_msg_size=0) as socket:
            await socket.send_str(json.dumps(["stdin", f"exec sh -c {json.dumps(command)}\r"]))
            yield socket
        async with self.bridged.delete(f"{self.url}api/terminals/{name}") as answer:
            await answer.read()

    @contextlib.asynccontextmanager
    async def _ours(
        self, session: aiohttp.ClientSession, base: str, command: str
    ) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        pty = await asyncio.to_thread(self.client.ptys.open, command, persistent=True)
        async with session.ws_connect(f"{base}/api/ptys/{pty.id}/ws?own=1", max_msg_size=0) as socket:
            yield socket
        await asyncio.to_thread(pty.close)


async def flood(way: Any) -> float:
    """MB/s to one viewer that reads everything."""
    size = FLOOD_MB * 1_000_000
    # raw: the kernel's own work on each character of a line would be the larger part
    async with way(f"stty raw -echo; read go; head -c {size} /dev/zero | tr '\\0' x; read x") as socket:
        await asyncio.sleep(0.5)
        await socket.send_str(json.dumps(["stdin", "\n"]))
        began, got = time.perf_counter(), 0
        async for message in socket:
            kind, *told = json.loads(message.data)
            if kind == "stdout":
                got += len(told[0])
                if got >= size:
                    break
    return got / 1e6 / (time.perf_counter() - began)


async def echoes(way: Any) -> tuple[float, float]:
    """Milliseconds from a key to its echo: p50, p99."""
    times = []
    async with way(RAW_CAT) as socket:
        async for message in socket:
            if "up" in message.data:
                break
        for number in range(ECHOES):
            key = chr(97 + number % 26)
            began = time.perf_counter()
            await socket.send_str(json.dumps(["stdin", key]))
            async for message in socket:
                told = json.loads(message.data)
                if told[0] == "stdout" and key in told[1]:
                    break
            times.append((time.perf_counter() - began) * 1000)
    return statistics.median(times), statistics.quantiles(times, n=100)[98]


async def read_to(session: aiohttp.ClientSession, address: str, size: int) -> float:
    """Seconds until a viewer has got so many bytes."""
    began, seq = time.perf_counter(), 0
    async with session.ws_connect(address, max_msg_size=0) as socket:
        async for message in socket:
            told = json.loads(message.data)
            if told[0] == "seq":
                seq = told[1]
                if seq >= size:
                    break
    return time.perf_counter() - began


async def scrollback(ways: Ways) -> tuple[float, float]:
    """Seconds until a viewer that comes has all of it; and until a hundred at once have."""
    size = SCROLLBACK_MB * 1_000_000
    pty = await asyncio.to_thread(
        ways.client.ptys.open, f"head -c {size} /dev/zero | tr '\\0' x; read x", persistent=True
    )
    address = f"http://tundra/api/ptys/{pty.id}/ws?own=1"
    await read_to(ways.straight, address, size)
    one = await read_to(ways.straight, address, size)
    began = time.perf_counter()
    await asyncio.gather(*(read_to(ways.straight, address, SHARED_MB * 1_000_000) for _ in range(VIEWERS)))
    many = time.perf_counter() - began
    await asyncio.to_thread(pty.close)
    return one, many


async def measure(url: str, client: Client) -> Table:
    table = Table("terminals over WebSocket (peer: terminado in the same server)")
    assert client.link.place is not None
    headers = {"Authorization": f"token {TOKEN}"}
    unlimited = aiohttp.UnixConnector(path=client.link.place.socket or "", limit=0)
    async with (
        aiohttp.ClientSession(connector=unlimited) as straight,
        aiohttp.ClientSession(headers=headers) as bridged,
    ):
        ways = Ways(url, client, straight, bridged)
        theirs = await flood(ways.terminado)
        for name, way, goal in (("socket", ways.socket, 40), ("bridge", ways.bridge, 20)):
            ours = await flood(way)
            table.add(f"to a viewer, {name}, MB/s: terminado", theirs, ours, ours / theirs)
            table.add(f"to a viewer, {name}, MB/s: goal", goal, ours, ours / goal, "≥ 1")
        p50, p99 = await echoes(ways.terminado)
        for name, way in (("socket", ways.socket), ("bridge", ways.bridge)):
            ours50, ours99 = await echoes(way)
            table.add(f"echo p50, {name}, ms", p50, ours50, ours50 / p50, "≤ 1.5")
            table.add(f"echo p99, {name}, ms", p99, ours99, ours99 / p99)
        one, many = await scrollback(ways)
        table.add(f"{SCROLLBACK_MB} MB of scrollback, s: goal", 1.0, one, one, "≤ 1")
        rate = VIEWERS * SHARED_MB / many
        table.add(f"{VIEWERS} viewers, {SHARED_MB} MB each, MB/s together: goal", 40, rate, rate / 40, "≥ 1")
    return table


def main() -> None:
    with server() as (url, client):
        print(asyncio.run(measure(url, client)))


if __name__ == "__main__":
    main()
