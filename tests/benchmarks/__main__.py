"""`python -m tests.benchmarks [--check | --save] [NAME …]`: run benchmarks, then print whether each goal is met.

Each runs in a process of its own, one after the other. A benchmark `NAME` is the module `bench_NAME.py`; without names
all of them run. No figure fails the run, because figures depend on the machine; a benchmark that breaks does. Ratios to
a peer in the same run depend less: `--check` compares them with `ratios.json`, and one that is worse by more than a
fifth fails the run; `--save` keeps the ratios of this run there.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec

from tests.benchmarks.table import ROWS, Row, read_rows, worse

HERE = Path(__file__).parent
KEPT = HERE / "ratios.json"


def main(arguments: list[str]) -> int:
    """Run them; 1 when one broke or is worse than what is kept, 2 when there is none of that name."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--check", action="store_true", help="fail where a ratio is worse by a fifth than the one kept")
    what.add_argument("--save", action="store_true", help="keep this run's ratios")
    chosen = parser.parse_args(arguments)
    known = sorted(file.stem.removeprefix("bench_") for file in HERE.glob("bench_*.py"))
    if unknown := [name for name in chosen.names if name not in known]:
        print(f"no benchmark {', '.join(unknown)}; there are: {', '.join(known)}", file=sys.stderr)
        return 2
    rows, broken = run(chosen.names or known)
    goals = [row for row in rows if row.goal]
    missed = [row for row in goals if row.verdict != "met"]
    print(f"── all goals: {len(goals) - len(missed)} of {len(goals)} met ──")
    for row in goals:
        print(f"{row.verdict:6} {row.ratio:9.3g}  {row.goal:8}  {row.name}")
    if broken:
        print(f"broken: {', '.join(broken)}", file=sys.stderr)
    kept = msgspec.json.decode(KEPT.read_bytes(), type=dict[str, float]) if KEPT.exists() else {}
    if chosen.save:
        kept |= {row.name: float(f"{row.ratio:.4g}") for row in goals}
        KEPT.write_bytes(msgspec.json.format(msgspec.json.encode(dict(sorted(kept.items()))), indent=2) + b"\n")
        print(f"kept in {KEPT}")
    slower = worse(rows, kept) if chosen.check else []
    for line in slower:
        print(f"worse than it was: {line}", file=sys.stderr)
    return 1 if broken or slower else 0


def run(names: list[str]) -> tuple[list[Row], list[str]]:
    """Run benchmarks by name; the rows of all, and the names of those that broke."""
    broken = []
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows"
        file.touch()
        for name in names:
            began = time.monotonic()
            print(f"── {name} ──", flush=True)
            command = [sys.executable, "-m", f"tests.benchmarks.bench_{name}"]
            env = os.environ | {ROWS: str(file)}
            env.pop("PYTHONDONTWRITEBYTECODE", None)  # what starts must not compile what it imports
            if subprocess.run(command, cwd=HERE.parent.parent, env=env, check=False).returncode:
                broken.append(name)
            print(f"({time.monotonic() - began:.0f} s)\n", flush=True)
        return read_rows(file), broken


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
