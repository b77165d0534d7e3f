"""`python -m tests.benchmarks [NAME …]`: run the benchmarks one after the other, each in a process of its own.

A benchmark `NAME` is the module `bench_NAME.py`; without names all of them run. No figure fails the run, because
figures depend on the machine; a benchmark that breaks does.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent


def main(names: list[str]) -> int:
    """Run them; 1 when one broke, 2 when there is none of that name."""
    known = sorted(file.stem.removeprefix("bench_") for file in HERE.glob("bench_*.py"))
    if unknown := [name for name in names if name not in known]:
        print(f"no benchmark {', '.join(unknown)}; there are: {', '.join(known)}", file=sys.stderr)
        return 2
    broken = []
    for name in names or known:
        began = time.monotonic()
        print(f"── {name} ──", flush=True)
        command = [sys.executable, "-m", f"tests.benchmarks.bench_{name}"]
        if subprocess.run(command, cwd=HERE.parent.parent, check=False).returncode:
            broken.append(name)
        print(f"({time.monotonic() - began:.0f} s)\n", flush=True)
    if broken:
        print(f"broken: {', '.join(broken)}", file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
