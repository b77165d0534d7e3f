"""Variants of a simulation: one at a time, or side by side through joblib.

joblib's own workers are processes of this machine; whoever has others brings them by `joblib.parallel_config` (Dask,
Ray).
What travels is plain data: the trace once, as an array that joblib shares among workers, and each variant's settings.
"""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from tundra_nb.errors import UsageError
from tundra_nb.runtime.rehearsal.simulate import OUTCOMES, SimulatedPass
from tundra_nb.runtime.rehearsal.simulate import simulate as run_once
from tundra_nb.runtime.rehearsal.trace import Trace
from tundra_nb.settings import Settings

Job = tuple[str, Settings]
"""A variant: its name, and the settings that are in force in it."""

_traces: dict[str, Trace] = {}
"""In a worker: the trace that it was given last, by the digest of its bytes."""


def variant(trace: Trace, name: str, form: Settings, tell: Callable[[int], None] | None = None) -> dict[str, Any]:
    """Run a trace under other settings; the figures of the variant."""
    worst = run_once(trace, form, "failed", tell)
    best = run_once(trace, form, "answered", tell) if worst.asked_unseen else worst
    return _row(name, worst, best, trace)


def run(trace: Trace, jobs: Sequence[Job], workers: int | None, tell: Callable[[str], None]) -> list[dict[str, Any]]:
    """The variants side by side; the same figures, in the same order, as one after the other.

    An interrupt ends the workers that joblib has started here; those of other backends are their owner's.

    Raises:
        UsageError: joblib is not installed, or `workers` is no number of workers.
    """
    if workers is not None and (workers == 0 or workers < -1):
        raise UsageError(
            problem=f"{workers} is no number of workers", field="workers", remedy="1 or more; -1: all cores."
        )
    try:
        import joblib
        import numpy as np
    except ImportError as exc:
        raise UsageError(
            problem="joblib, which runs variants side by side, is not installed",
            field="workers",
            remedy="`pip install 'tundra-nb[sweeps]'`, or leave `--workers` out.",
        ) from exc
    packed = pickle.dumps(trace, protocol=5)
    shared, digest = np.frombuffer(packed, np.uint8), hashlib.sha256(packed).hexdigest()
    del packed
    is_ours = not _is_brought(joblib)
    parallel = joblib.Parallel(n_jobs=workers, return_as="generator_unordered" if is_ours else "list")
    tell(f"0 of {len(jobs)} variants")
    rows: dict[int, dict[str, Any]] = {}
    try:
        found: Iterable[tuple[int, dict[str, Any]]] = parallel(
            joblib.delayed(_numbered)(place, shared, digest, name, form) for place, (name, form) in enumerate(jobs)
        )
        for place, row in found:
            rows[place] = row
            tell(f"{len(rows)} of {len(jobs)} variants, the last {row['variant']}")
    finally:
        if is_ours:
            _end_workers()
    return [rows[place] for place in range(len(jobs))]


def _is_brought(joblib: Any) -> bool:
    """Whether the caller has chosen a backend of its own."""
    backend, _ = joblib.parallel.get_active_backend()
    return type(backend).__name__ != "LokyBackend"


def _end_workers() -> None:
    """End the processes that joblib would keep for a next time: they hold the trace, and nobody closes them."""
    from joblib.externals.loky import reusable_executor

    executor = reusable_executor._executor  # noqa: SLF001 - asking for it by its name would start one
    if executor is not None:
        executor.shutdown(wait=True, kill_workers=True)


def _numbered(place: int, shared: Any, digest: str, name: str, form: Settings) -> tuple[int, dict[str, Any]]:
    """One variant, in a worker."""
    if digest not in _traces:
        _traces.clear()
        _traces[digest] = pickle.loads(bytes(memoryview(shared)))  # noqa: S301 - our own bytes, of the caller's process
    return place, variant(_traces[digest], name, form)


def _row(name: str, worst: SimulatedPass, best: SimulatedPass, trace: Trace) -> dict[str, Any]:
    import pandas as pd

    least = worst.count("ok")
    most = max(best.count("ok") + best.count("unknown"), least)
    known = min(least, best.count("ok"))
    failed, refused = worst.count("error"), worst.count("refused")
    same = sum(OUTCOMES[now] == call.outcome for now, call in zip(worst.outcomes, trace.calls, strict=True))
    waited, seconds = pd.Series(worst.waited) * 1000, pd.Series(worst.seconds) * 1000
    is_ok = pd.Series(worst.outcomes) == OUTCOMES.index("ok")
    return (
        {
            "variant": name,
            "calls": len(trace.calls),
            "ok": known,
            "ok_least": known,
            "ok_most": most,
            "failed": failed,
            "refused": refused,
            "unknown": worst.count("unknown"),
            "cancelled": worst.count("cancelled"),
            "same": same,
            "attempts": sum(worst.attempts),
            "breaker_opened": sum(new == "open" for _, _, _, new in worst.moves),
        }
        | quantiles("waited", waited)
        | quantiles("latency", seconds[is_ok])
    )


def quantiles(name: str, values: Any) -> dict[str, float]:
    """p50 and p95 of values, as columns of a frame."""
    return {
        f"{name}_p{share}_ms": round(float(values.quantile(share / 100)), 3) if len(values) else float("nan")
        for share in (50, 95)
    }
