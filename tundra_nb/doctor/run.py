"""Runs checks in parallel, each with a deadline of its own, all of them below ten seconds."""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence

import msgspec

from tundra_nb import paths
from tundra_nb.errors import TundraError, UsageError
from tundra_nb.paths import PERMISSION, Paths

from . import checks, fixes
from .check import SYMPTOMS, Check, Checkup, Finding
from .place import Subject

WHOLE_SECONDS = 9.5
"""No check may hold up the whole: what has not come by then is told as such."""

Progress = Callable[[int, int, str], None]
"""Called with how many checks are done, of how many, and the title of the one that is."""


def doctor(
    symptom: str = "everything",
    *,
    fix: bool = False,
    where: Paths | None = None,
    environ: Mapping[str, str] | None = None,
    on_progress: Progress | None = None,
    may_fix: Callable[[Finding, str], bool] | None = None,
) -> Checkup:
    """Check everything that tundra stands on, or what answers a symptom; nothing is changed unless `fix` says so.

    Args:
        symptom: network, database, performance, processes, authentication, configuration or everything.
        fix: carry out the remedies that are safe, each after `may_fix` agreed, and check again.
        where: whose files; the data directory of the environment by default.
        environ: the environment to check; this process's by default.
        on_progress: told of each check that is done.
        may_fix: asked before each fix with its finding and what would be done; left out: yes to all.

    Raises:
        UsageError: no such symptom; names them.
    """
    if symptom not in SYMPTOMS:
        raise UsageError(problem=f"no symptom {symptom!r}", field="--for", remedy=f"One of {', '.join(SYMPTOMS)}.")
    env = os.environ if environ is None else environ
    place = Subject(where or paths.find(environ=env), env)
    made = run(place, checks.for_symptom(symptom), on_progress)
    done: list[str] = []
    if fix:
        for finding in made.checks:
            if finding.fix and finding.state in ("warn", "fail") and finding.fix not in done:
                told = fixes.told(finding.fix, place)
                if told and (may_fix is None or may_fix(finding, told)):
                    fixes.carry_out(finding.fix, place)
                    done.append(finding.fix)
        if done:
            place = Subject(where or paths.find(environ=env), env)
            made = run(place, checks.for_symptom(symptom), on_progress)
    return msgspec.structs.replace(made, symptom=symptom, fixed=done)


def run(place: Subject, chosen: Sequence[Check], on_progress: Progress | None = None) -> Checkup:
    """Run some checks; the order of the findings is that of the checks."""
    began = time.monotonic()
    done: queue.SimpleQueue[tuple[Check, list[Finding]]] = queue.SimpleQueue()
    for check in chosen:
        # daemon threads: one that hangs in the system does not keep the process from ending
        threading.Thread(target=_look, args=(place, check, done), name=f"tundra-{check.id}", daemon=True).start()
    found: dict[str, list[Finding]] = {}
    while len(found) < len(chosen):
        now = time.monotonic() - began
        waiting = [check for check in chosen if check.id not in found]
        late = [check for check in waiting if now >= min(check.deadline, WHOLE_SECONDS)]
        for check in late:
            found[check.id] = [_late(check)]
        if late:
            continue
        try:
            check, findings = done.get(timeout=min(min(c.deadline, WHOLE_SECONDS) for c in waiting) - now)
        except queue.Empty:
            continue
        if check.id not in found:
            found[check.id] = findings
            if on_progress is not None:
                on_progress(len(found), len(chosen), check.title)
    made = [finding for check in chosen for finding in found[check.id]]
    return Checkup(
        ok=not any(finding.state == "fail" for finding in made),
        checks=made,
        seconds=round(time.monotonic() - began, 3),
    )


def _look(place: Subject, check: Check, done: queue.SimpleQueue[tuple[Check, list[Finding]]]) -> None:
    began = time.monotonic()
    try:
        findings = list(check.look(place, check))
    except TundraError as error:
        findings = [check.found("fail", error.message, error.hint, page=type(error).__name__)]
    except PermissionError as exc:
        evidence = f"{exc.filename} may not be looked at: {exc.strerror}"
        findings = [check.found("fail", evidence, PERMISSION, page="permission-denied")]
    except Exception as exc:  # noqa: BLE001 - the top of a check: a defect of one must not hide what the others find
        remedy = "A defect of this check; `tundra bundle` has what a report needs."
        findings = [check.found("warn", f"the check itself failed: {exc!r}", remedy, page="InternalError")]
    seconds = round(time.monotonic() - began, 3)
    done.put((check, [msgspec.structs.replace(finding, seconds=seconds) for finding in findings]))


def _late(check: Check) -> Finding:
    seconds = min(check.deadline, WHOLE_SECONDS)
    found = check.found(
        "warn", f"no answer within {seconds:g} s", "Run it again; `tundra logs -n 50` shows what the daemon does."
    )
    return msgspec.structs.replace(found, seconds=seconds)
