"""Variants side by side: the same figures as one by one, told as they come, and nothing left after an interrupt."""

from __future__ import annotations

import builtins
import contextlib
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from tests.conftest import wait_until
from tests.runtime.rehearsal.test_rehearsal import busy
from tundra_nb.errors import UsageError
from tundra_nb.incidents import sweep
from tundra_nb.settings import BreakerSettings


def jobs(count: int, seed: int = 3, calls: int = 300) -> tuple[Any, list[sweep.Job]]:
    """More retries from variant to variant: from the fourth on, more than were ever sent, so their end is not known."""
    trace, chosen = busy(seed, calls)
    router = chosen.router
    forms = [
        msgspec.structs.replace(
            chosen, router=msgspec.structs.replace(router, retries=n), breaker=BreakerSettings(failures=9)
        )
        for n in range(count)
    ]
    return trace, [(f"retries={n}", form) for n, form in enumerate(forms)]


def children() -> set[int]:
    """Workers; joblib's tracker of temporary files stays as long as this process."""
    found = set()
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # of other tests, ended by now
            if "resource_tracker" not in " ".join(child.cmdline()):
                found.add(child.pid)
    return found


def test_side_by_side_gives_the_figures_of_one_by_one() -> None:
    """To the last digit and in the same order; each end is told; no worker stays."""
    trace, some = jobs(5)
    alone = [sweep.variant(trace, name, form) for name, form in some]
    before = children()
    told: list[str] = []
    assert sweep.run(trace, some, 2, told.append) == alone
    assert [line.split(" of ")[0] for line in told] == ["0", "1", "2", "3", "4", "5"]
    assert children() <= before
    assert any(row["ok_most"] > row["ok_least"] for row in alone)


def test_whoever_brings_a_backend_has_it_used() -> None:
    """`joblib.parallel_config`, as for Dask or Ray: here joblib's own threads."""
    joblib = pytest.importorskip("joblib")
    trace, some = jobs(3)
    alone = [sweep.variant(trace, name, form) for name, form in some]
    before = children()
    with joblib.parallel_config(backend="threading", n_jobs=2):
        assert sweep.run(trace, some, None, lambda _: None) == alone
        assert children() <= before


def test_a_number_that_is_none_is_refused() -> None:
    trace, some = jobs(1)
    for workers in (0, -2):
        with pytest.raises(UsageError, match="number of workers"):
            sweep.run(trace, some, workers, lambda _: None)


def test_without_joblib_the_remedy_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    trace, some = jobs(1)
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "joblib":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UsageError) as refused:
        sweep.run(trace, some, 2, lambda _: None)
    assert "tundra-nb[sweeps]" in refused.value.hint


LONG = """
import pickle, sys
from tundra_nb.incidents import sweep
trace, jobs = pickle.load(open(sys.argv[1], "rb"))
try:
    sweep.run(trace, jobs * 400, 2, lambda text: print(text, flush=True))
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


def test_an_interrupt_ends_the_workers(tmp_path: Path) -> None:
    """Ctrl-C at a terminal: the whole group gets it, and no process of it is left."""
    file = tmp_path / "jobs"
    file.write_bytes(pickle.dumps(jobs(1, calls=2_000)))
    command = [sys.executable, "-c", LONG, str(file)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("2 of"):
                break
        workers = psutil.Process(process.pid).children(recursive=True)
        assert len(workers) >= 2
        os.killpg(process.pid, signal.SIGINT)
        rest, _ = process.communicate(timeout=60)
        assert "interrupted" in rest
        wait_until(lambda: not any(worker.is_running() for worker in workers), 30)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.mark.soak
def test_a_dask_cluster_of_this_machine_gives_the_same() -> None:
    """What a hub offers: the cluster is brought by `parallel_config(backend="dask")`."""
    joblib = pytest.importorskip("joblib")
    distributed = pytest.importorskip("distributed", reason="pip install distributed")
    trace, some = jobs(8, calls=1_000)
    alone = [sweep.variant(trace, name, form) for name, form in some]
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        distributed.Client(cluster),
        joblib.parallel_config(backend="dask"),
    ):
        assert sweep.run(trace, some, None, lambda _: None) == alone
