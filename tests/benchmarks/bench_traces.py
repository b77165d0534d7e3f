"""What traces cost: two daemons that take turns in one run, one that sends them and one that does not.

    python -m tests.benchmarks traces

CPU time, as clocks of the wall lie on a busy machine: of the daemon, which should not notice, and of the store worker,
whose thread makes, packs and posts the spans. The receiver takes them in this process, and reads none. Where the system
lets us, the daemon has a core of its own: pushed aside by the sender it would need more time for the same work.
"""

from __future__ import annotations

import contextlib
import http.server
import os
import statistics
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil

from tests.benchmarks.bench_calls import MESSAGES, configured
from tests.benchmarks.homes import home, lagging_daemon
from tests.benchmarks.table import Table
from tundra_nb.client.sync import Client
from tundra_nb.testing.scripted_provider import scripted_process

CALLS = 2000
ROUNDS = 8
ASKERS = 16
SETTLE_SECONDS = 4.0
CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_setaffinity") else []
if len(CORES) < 2:
    CORES = []


class Taken(http.server.BaseHTTPRequestHandler):
    """Takes whatever is posted."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing is printed."""


class Side:
    """One daemon, and the CPU time that it and its worker have used."""

    def __init__(self, client: Client) -> None:
        self.client = client
        status = client.status()
        self.daemon = psutil.Process(status["pid"])
        self.worker = psutil.Process(status["store"]["worker_pid"])
        if CORES:
            for thread in self.daemon.threads():
                os.sched_setaffinity(thread.id, CORES[:1])

    def round(self) -> tuple[float, float]:
        """Microseconds of CPU per call: the daemon's, the worker's until it has stored and sent all of them."""
        before = used(self.daemon), used(self.worker)
        with ThreadPoolExecutor(ASKERS) as askers:
            list(askers.map(lambda _: self.client.ask(MESSAGES), range(CALLS)))
        daemon = used(self.daemon) - before[0]
        time.sleep(SETTLE_SECONDS)  # nobody asks meanwhile how far it is: that would be reckoned to the traces
        return daemon / CALLS * 1e6, (used(self.worker) - before[1]) / CALLS * 1e6


def used(process: psutil.Process) -> float:
    """Seconds of CPU; on Linux to the nanosecond, where `cpu_times` counts hundredths, a hundredth of a round each."""
    threads = list(Path(f"/proc/{process.pid}/task").glob("*/schedstat"))
    if threads:
        return sum(int(thread.read_text().split()[0]) for thread in threads) / 1e9
    times = process.cpu_times()
    return float(times.user + times.system)


def compare() -> Table:
    """The table: off, on, and their ratio; the sender's part in microseconds."""
    table = Table("traces, CPU a call in µs: off, on")
    with contextlib.ExitStack() as exits:
        if CORES:
            exits.callback(os.sched_setaffinity, 0, CORES)
            os.sched_setaffinity(0, CORES[1:])  # and with it what is started here
        receiver = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Taken)
        threading.Thread(target=receiver.serve_forever, daemon=True).start()
        endpoint = f'[otel]\nendpoint = "http://127.0.0.1:{receiver.server_address[1]}"\n'
        exits.callback(receiver.shutdown)
        provider = exits.enter_context(scripted_process())
        sides = []
        for more in ("", endpoint):
            env = exits.enter_context(home(configured([provider.base_url]) + more))
            sides.append(Side(exits.enter_context(lagging_daemon(env))))
        for side in sides:
            side.round()  # what is imported and learned at first
        rounds = [[side.round() for side in (sides if number % 2 else sides[::-1])] for number in range(ROUNDS)]
        off, on = ([found[:: 1 if n % 2 else -1][at] for n, found in enumerate(rounds)] for at in (0, 1))
    for what, at, goal in (("the daemon", 0, "≤ 1.01"), ("the sender, in the worker", 1, "≤ 40")):
        pairs = [(without[at], with_[at]) for without, with_ in zip(off, on, strict=True)]
        figure = statistics.median(b / a if at == 0 else b - a for a, b in pairs)
        table.add(what, statistics.median(a for a, _ in pairs), statistics.median(b for _, b in pairs), figure, goal)
    return table


def main() -> None:
    print(compare())


if __name__ == "__main__":
    main()
