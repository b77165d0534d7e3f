"""What starting costs: the daemon, the import, the extension; and what an idle daemon holds.

    python -m tests.benchmarks start

Each figure stands beside its goal (the ratio is to the goal), or beside its peer. What the extension adds to the start
of a Jupyter server is in `bench_bridge`.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from subprocess import DEVNULL, PIPE

import psutil

from tests.benchmarks.homes import home
from tests.benchmarks.table import Table

ROUNDS = 5
SETTINGS = '[[profile]]\nname = "local"\nkind = "local"\nbase_url = "http://127.0.0.1:9/v1"\nmodel = "m"\n'
ENSURE = """
import time
from tundra_nb import paths
from tundra_nb.local import launch
began = time.perf_counter()
connection = launch.ensure(paths.find())
print(time.perf_counter() - began, connection.pid)
"""
LOAD_EXT = """
import time, psutil
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
me = psutil.Process()
before, began = me.memory_info().rss, time.perf_counter()
shell.run_line_magic("load_ext", {name!r})
print(time.perf_counter() - began, (me.memory_info().rss - before) / 2**20)
"""
IDLE_SECONDS = 2.0
LISTING = (
    {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "initialize",
        "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "b", "version": "1"}},
    },
    {"jsonrpc": "2.0", "id": 2, "method": "tools/list"},
)
SDK_SERVER = """
from mcp.server import MCPServer
server = MCPServer("peer")
@server.tool()
def hello(name: str) -> str:
    "Say hello."
    return name
server.run()
"""


def python(env: Mapping[str, str], code: str) -> list[float]:
    """The numbers that a program prints."""
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    return [float(word) for word in done.stdout.split()]


def wall(env: Mapping[str, str], code: str) -> float:
    """Milliseconds of a whole program."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], env=env, check=True)
    return (time.perf_counter() - began) * 1000


def start_and_memory(table: Table) -> None:
    """The daemon, from nothing to ready, and what its processes hold when nothing happens."""
    seconds = []
    for turn in range(ROUNDS):
        with home(SETTINGS) as env:
            took, pid = python(env, ENSURE)
            seconds.append(took)
            if turn == ROUNDS - 1:
                memory(table, int(pid))
            subprocess.run(
                [sys.executable, "-m", "tundra_nb.cli", "daemon", "stop"], env=env, capture_output=True, check=True
            )
    ready = statistics.median(seconds)
    table.add("daemon: nothing to ready, s", 1.0, ready, ready, "≤ 1")


def memory(table: Table, pid: int) -> None:
    """Resident memory of the daemon, its guard and its store worker, after a moment of nothing."""
    time.sleep(IDLE_SECONDS)
    daemon = psutil.Process(pid)
    held = daemon.memory_info().rss / 2**20
    table.add("daemon: RSS idle, MB", 120, held, held / 120, "≤ 1")
    rest = [("guard", daemon.parent()), *(("store worker", child) for child in daemon.children())]
    for what, process in rest:
        if process is not None:
            size = process.memory_info().rss / 2**20
            goal = 80 if what == "store worker" else 12
            table.add(f"{what}: RSS idle, MB", goal, size, size / goal, "≤ 1")


def imports(table: Table) -> None:
    """`import tundra_nb` over a bare interpreter, and `%load_ext` in IPython."""
    with home(SETTINGS) as env:
        wall(env, "import tundra_nb")
        bare, ours = [], []
        for _ in range(2 * ROUNDS):
            bare.append(wall(env, "pass"))
            ours.append(wall(env, "import tundra_nb"))
        added = statistics.median(ours) - statistics.median(bare)
        table.add("import tundra_nb over bare Python, ms", 30, added, added / 30, "≤ 1")
        loads: dict[str, list[list[float]]] = {"autoreload": [], "tundra_nb": []}
        for _ in range(ROUNDS):
            for name, figures in loads.items():
                figures.append(python(env, LOAD_EXT.format(name=name)))
        peer, mine = (statistics.median(f[0] for f in loads[name]) * 1000 for name in ("autoreload", "tundra_nb"))
        table.add("%load_ext, ms (peer: autoreload)", peer, mine, mine / 60, "≤ 1")
        held = statistics.median(f[1] for f in loads["tundra_nb"])
        table.add("%load_ext, MB", 10, held, held / 10, "≤ 1")


def listing(env: Mapping[str, str], *command: str) -> float:
    """Milliseconds from the start of an MCP server to its list of tools."""
    began = time.perf_counter()
    with subprocess.Popen([sys.executable, *command], env=env, stdin=PIPE, stdout=PIPE, stderr=DEVNULL) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        for message in LISTING:
            server.stdin.write(json.dumps(message).encode() + b"\n")
            server.stdin.flush()
            assert b"result" in server.stdout.readline()
        took = (time.perf_counter() - began) * 1000
        server.stdin.close()
    return took


def status(table: Table) -> None:
    """`tundra status` from a shell, beside a daemon that runs."""
    command = [sys.executable, "-m", "tundra_nb.cli", "status"]
    with home(SETTINGS) as env:
        python(env, ENSURE)
        took = []
        for _ in range(2 * ROUNDS):
            began = time.perf_counter()
            subprocess.run(command, env=env, capture_output=True, check=True)
            took.append(time.perf_counter() - began)
        subprocess.run([*command[:3], "daemon", "stop"], env=env, capture_output=True, check=True)
    table.add("tundra status, the whole process, s", 0.25, mine := statistics.median(took), mine / 0.25, "≤ 1")


def agents_door(table: Table) -> None:
    """`tundra mcp` as a host starts it, beside a server of one tool made with the SDK."""
    commands = {"ours": ("-m", "tundra_nb", "mcp"), "peer": ("-c", SDK_SERVER)}
    with home(SETTINGS) as env:
        figures: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(ROUNDS):
            for name, command in commands.items():
                figures[name].append(listing(env, *command))
    ours, peer = (statistics.median(figures[name]) for name in commands)
    table.add("tundra mcp: start to tools/list, ms", 250, ours, ours / 250, "≤ 1")
    table.add("the same (peer: the SDK, one tool)", peer, ours, ours / peer, "≤ 1")


def main() -> None:
    """Measure and print."""
    table = Table("starting; the ratio is to the goal")
    start_and_memory(table)
    imports(table)
    status(table)
    agents_door(table)
    print(table)


if __name__ == "__main__":
    main()
