"""How incidents are made: one of a title, and what an interrupted one leaves."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import nbformat
import psutil
import pytest
from nbclient import NotebookClient

from tests.conftest import wait_until
from tundra_nb.client.results import Document
from tundra_nb.errors import UsageError
from tundra_nb.incidents import notebook
from tundra_nb.runtime.incidents import Incidents
from tundra_nb.runtime.telemetry.redact import Redactor

FOUND = {
    "incident_id": "71",
    "title": "twin",
    "ref": "incident/twin-1",
    "since": "2026-03-01T10:00:00+00:00",
    "until": "2026-03-01T11:00:00+00:00",
    "author": "ann",
    "notebook": "",
}


class History:
    """Rows of incidents, of which each read lets others go first."""

    def __init__(self, *titles: str) -> None:
        self.made: list[dict[str, Any]] = [
            {"incident_id": 100 + n, "title": t, "ref": f"r{n}"} for n, t in enumerate(titles)
        ]
        self.versions = self

    async def rows(self, _: Any) -> list[dict[str, Any]]:
        found = list(self.made)
        await asyncio.sleep(0)
        return found

    async def digests(self, *_: Any, **__: Any) -> dict[str, Any]:
        await asyncio.sleep(0)
        return {"calls": {"rows": 1, "sha256": "x"}}

    async def commit(self, *_: Any) -> str:
        await asyncio.sleep(0)
        return "c"

    async def tag(self, *_: Any) -> None:
        await asyncio.sleep(0)


def incidents(history: History) -> Incidents:
    async def learn() -> None:
        await asyncio.sleep(0)

    runtime = SimpleNamespace(
        history=history,
        redactor=Redactor(),
        clock=SimpleNamespace(now_us=lambda: 1),
        ids=SimpleNamespace(next=lambda: 12345678),
        record=lambda row: history.made.append({"incident_id": row.incident_id, "title": row.title, "ref": row.ref}),
        learn_incidents=learn,
    )
    return Incidents(cast("Any", runtime))


@pytest.mark.anyio
async def test_of_two_incidents_of_a_title_at_once_one_is_refused() -> None:
    history = History()
    one = incidents(history)
    ends = await asyncio.gather(*(one.new("twin", 0, 1, "ann") for _ in range(2)), return_exceptions=True)
    assert [type(end) for end in ends] == [dict, UsageError]
    assert "there is an incident 'twin' already" in str(ends[1])
    assert len(history.made) == 1


@pytest.mark.anyio
async def test_a_title_that_means_several_is_told_with_their_ids() -> None:
    with pytest.raises(UsageError, match="'twin' may be any of 2 incidents: 100, 101"):
        await incidents(History("twin", "twin", "other")).find("twin")
    assert (await incidents(History("1 is down", "other")).find("1"))["title"] == "other"
    assert (await incidents(History("0 a", *"bcdefghijk")).find("0 a"))["incident_id"] == 100


class Client:
    """A daemon that makes the incident, and is then interrupted or not."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.kept: list[tuple[str, str]] = []
        self.timeouts: list[float] = []
        self.incidents = SimpleNamespace(written=lambda key, file: self.kept.append((key, file)))

    def _do(self, call: Any) -> Any:
        self.timeouts.append(call.timeout)
        answer = self.answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer


def interrupted(client: Client, out: Path) -> str:
    with pytest.raises(KeyboardInterrupt) as caught:
        notebook.new(cast("Any", client), "twin", "1h", out=str(out))
    return str(caught.value)


def test_an_incident_that_was_made_when_interrupted_has_its_notebook(tmp_path: Path) -> None:
    client = Client(KeyboardInterrupt(), Document(FOUND))
    told = interrupted(client, tmp_path / "a.ipynb")
    assert "the incident 'twin' is made; its notebook" in told
    assert client.kept == [("71", str(tmp_path / "a.ipynb"))]
    assert nbformat.read(tmp_path / "a.ipynb", as_version=4).metadata.tundra.title == "twin"


@pytest.mark.parametrize("answer", [UsageError(problem="none", field="id"), Document(FOUND | {"title": "twins"})])
def test_an_incident_of_which_nothing_is_known_when_interrupted_is_told_as_that(tmp_path: Path, answer: Any) -> None:
    client = Client(KeyboardInterrupt(), answer)
    assert "not known whether" in interrupted(client, tmp_path / "a.ipynb")
    assert (client.kept, list(tmp_path.iterdir())) == ([], [])
    assert client.timeouts[1] <= 5, "whoever interrupts does not wait for a daemon that is busy with it"


def test_all_the_time_it_is_told_what_is_done_and_at_last_nothing(tmp_path: Path) -> None:
    told: list[str] = []
    out = str(tmp_path / "a.ipynb")
    notebook.new(cast("Any", Client(Document(FOUND))), "twin", "1h", out=out, run=False, on_progress=told.append)
    assert told == ["pinning the history", "writing the notebook", ""]


def test_where_its_notebook_is_is_kept_before_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client = Client(Document(FOUND))

    def run(file: Path, **_: Any) -> None:
        assert client.kept == [("71", str(file))]
        raise KeyboardInterrupt

    monkeypatch.setattr(notebook, "execute", run)
    assert "not run to its end" in interrupted(client, tmp_path / "a.ipynb")


def test_an_interrupt_ends_a_notebook_that_runs_with_nothing_left() -> None:
    ended = threading.Event()

    class Runner:
        km = kc = None

        async def async_execute(self, env: dict[str, str]) -> None:
            threading.Timer(0.05, signal.pthread_kill, [threading.main_thread().ident, signal.SIGINT]).start()
            assert not env
            try:
                await asyncio.sleep(60)
            finally:
                ended.set()

    with pytest.raises(KeyboardInterrupt):
        notebook.run_through(Runner(), {})
    assert ended.is_set()


def test_an_interrupt_ends_a_kernel_that_is_only_starting() -> None:
    runner = NotebookClient(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1")]))
    process = psutil.Process()
    before, threads = {child.pid for child in process.children()}, set(threading.enumerate())
    begun: list[psutil.Process] = []

    def interrupt(_: str) -> None:
        def kernels() -> list[psutil.Process]:
            return [child for child in process.children() if child.pid not in before]

        if not begun:
            wait_until(lambda: kernels() and runner.kc and runner.kc.channels_running, what="the kernel's process")
            begun.extend(kernels())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        notebook.run_through(runner, dict(os.environ), interrupt)
    assert begun
    assert not any(one.is_running() for one in begun)
    assert not set(threading.enumerate()) - threads
