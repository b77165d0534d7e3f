"""Many daemons on one Dolt server that is killed: nothing is lost or doubled, and what is a daemon's own stays its own.

A small round is in the gate (`make check`), the whole one in `make soak`.
"""

from __future__ import annotations

import contextlib
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import wait_until
from tests.contract.server import DoltServer
from tests.wiring.test_shared_limits import daemon
from tests.wiring.test_team_history import TOML, config
from tundra_nb.client.sync import Client
from tundra_nb.errors import TundraError
from tundra_nb.runtime.clock import Ids, SystemClock
from tundra_nb.runtime.history.dolt import DoltStore
from tundra_nb.runtime.history.protocol import Progress
from tundra_nb.runtime.history.spool import Spool
from tundra_nb.runtime.history.writer import FLUSH_SECONDS, Writer
from tundra_nb.testing.scripted_provider import ScriptedStep, scripted_process
from tundra_nb.types import Attempt, Operation

pytestmark = [pytest.mark.part("dolt"), pytest.mark.timeout(1200)]

STORED_SECONDS = 120
"""On a busy machine; then everything that was answered must be there."""
LISTENER = {"host": "127.0.0.1", "max_connections": 1000}


@pytest.fixture
def dolt(tmp_path: Path) -> Iterator[DoltServer]:
    server = DoltServer(tmp_path / "dolt")
    server.start({"listener": LISTENER | {"port": server.port}})
    server.admin("CREATE DATABASE team")
    try:
        yield server
    finally:
        server.stop()


class Asker(threading.Thread):
    """Somebody who asks one daemon, call after call."""

    def __init__(self, client: Client, pause: float) -> None:
        super().__init__(daemon=True)
        self.client = client
        self.pause = pause
        self.answered: list[str] = []
        self.refused = 0
        self.over = threading.Event()

    def run(self) -> None:
        while not self.over.wait(self.pause * random.uniform(0.5, 1.5)):
            try:
                self.answered.append(self.client.ask("hi").operation_id)
            except TundraError:
                self.refused += 1


@pytest.mark.parametrize(
    ("daemons", "seconds"),
    [pytest.param(3, 8, marks=pytest.mark.check), pytest.param(12, 60, marks=pytest.mark.soak)],
)
def test_a_server_killed_under_many_daemons_loses_and_doubles_nothing(
    tmp_path: Path, dolt: DoltServer, daemons: int, seconds: float
) -> None:
    with contextlib.ExitStack() as stack:
        well, ill = stack.enter_context(scripted_process()), stack.enter_context(scripted_process())
        ill.script("*", ScriptedStep(status=500, repeat=100_000))
        clients = []
        for number in range(daemons):
            base = (ill if number == 1 else well).base_url.removesuffix("/v1")
            toml = TOML.format(port=dolt.port, base=base).replace("open_seconds = 300", "open_seconds = 3000")
            clients.append(stack.enter_context(daemon(tmp_path / f"d{number}", toml)))
        askers = [Asker(client, 0.1) for _, client in clients]
        for asker in askers:
            asker.start()
        time.sleep(seconds / 2)
        dolt.stop(signal.SIGKILL)
        time.sleep(2)
        dolt.start({"listener": LISTENER | {"port": dolt.port}})
        time.sleep(seconds / 2)
        for asker in askers:
            asker.over.set()
        for asker in askers:
            asker.join(60)
            assert not asker.is_alive()

        answered = [operation for asker in askers for operation in asker.answered]
        assert len(answered) > daemons * seconds / 2
        calls = clients[0][1].calls("all", all=True, wait=STORED_SECONDS)
        for _, client in clients[1:]:
            calls = client.calls("all", all=True, wait=STORED_SECONDS)
        stored = Counter(calls["operation_id"].astype(str))
        assert [operation for operation in answered if stored[operation] != 1] == []
        assert len(calls) == sum(len(asker.answered) + asker.refused for asker in askers)
        assert calls["writer_id"].nunique() == daemons
        tries = clients[0][1].attempts("all", all=True)
        assert tries["attempt_id"].is_unique
        assert set(tries["operation_id"]) <= set(calls["operation_id"])
        assert len(clients[0][1].errors("all", all=True).query("reason == 'id_clash'")) == 0

        for number, ((home, client), asker) in enumerate(zip(clients, askers, strict=True)):
            assert client.breakers()["state"].iloc[0] == ("open" if number == 1 else "closed")
            own = client.calls("all")
            assert len(own) == len(asker.answered) + asker.refused
            if asker.answered:
                assert client.last().operation_id == asker.answered[-1]
            assert client.set_setting("breaker.failures", 10 + number)["commit"]
            assert home.run("daemon", "restart", timeout=120).returncode == 0
        for number, (_, client) in enumerate(clients):
            found = client.history("setting", "all")
            assert list(found.loc[found["path"] == "breaker.failures", "value"]) == [str(10 + number)]
            assert client.breakers()["state"].iloc[0] == ("open" if number == 1 else "closed")


@pytest.mark.parametrize(
    ("daemons", "seconds"),
    [pytest.param(40, 8, marks=pytest.mark.check), pytest.param(200, 60, marks=pytest.mark.soak)],
)
def test_the_small_writes_of_many_daemons_are_all_stored(
    tmp_path: Path, dolt: DoltServer, daemons: int, seconds: float
) -> None:
    """Each makes a call a second, two rows. They flush less often the longer the server takes."""
    writers: list[Writer] = []
    spools: list[Spool] = []
    numbers: dict[int, int] = {}
    fatal: list[object] = []
    for number in range(daemons):
        owner = f"{number:012}{'f' * 20}"
        folder = tmp_path / f"spool{number}"
        spool = Spool(folder)
        spool.open()
        spools.append(spool)
        setup = config(dolt, "team", owner)
        setup.spool, setup.node, setup.commit_seconds = str(folder), number % 7, 5.0

        def note(progress: Progress, number: int = number) -> None:
            if progress.node is not None:
                numbers[number] = progress.node

        writers.append(Writer(DoltStore(setup), setup, note, fatal.append))
        writers[-1].start()
        if number == 0:
            writers[0].wait_open(60)
    try:
        wait_until(lambda: len(numbers) == daemons, 2 * STORED_SECONDS)  # those whose turn is late try again
        assert len(set(numbers.values())) == daemons  # each has one of its own, though they asked for the same few
        clock = SystemClock()
        ids = [Ids(clock) for _ in range(daemons)]
        for number, made in enumerate(ids):
            made.renumber(numbers[number])
        written = 0
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            began = time.monotonic()
            for number, spool in enumerate(spools):
                key, now = ids[number].next(), clock.now_us()
                call = Operation(operation_id=key, at=now, outcome="ok", attempts=1)
                attempt = Attempt(
                    attempt_id=ids[number].next(), operation_id=key, seq=1, at=now, profile="p", outcome="ok"
                )
                spool.append(attempt, call)
                written += 1
            time.sleep(max(0.0, 1 - (time.monotonic() - began)))
        began = end - seconds
        late = [number for number, writer in enumerate(writers) if not writer.wait_passed(spools[number].end, 60)]
        print(
            f"{daemons} daemons: {2 * written / (time.monotonic() - began):.0f} rows/s of {2 * written / seconds:.0f}"
        )
        assert late == []
        assert fatal == []
        for table in ("operation", "attempt"):
            query = f"SELECT count(*), count(DISTINCT {table}_id), count(DISTINCT writer_id) FROM {table}"
            assert dolt.admin("USE team", query) == [(written, written, daemons)]
        # the pace follows the server; nobody waits longer than the cap
        assert all(writer._flush_seconds >= FLUSH_SECONDS for writer in writers)
    finally:
        for writer in writers:
            writer.stop()
        for writer in writers:
            writer.join(60)
        for spool in spools:
            spool.close()
    committers = dolt.admin("USE team", "SELECT count(*) FROM dolt_log WHERE message LIKE 'operation%'")[0][0]
    assert committers <= seconds / 5 + 10  # one commits for all of them
