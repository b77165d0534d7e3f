"""Environments of other packages: Python ones made by uv, Node ones by npm, and programs built from source, kept under
`build/others`.

They stand apart because clients of other vendors do not fit into one environment, nor into ours. What the package
registry does not give is skipped by name.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "build" / "others"
MAKE_SECONDS = 300
BUILD_SECONDS = 1800


@cache
def python_with(*packages: str, base: str = sys.executable) -> Path:
    """The Python of an environment with these packages; made once, and kept. Skips where they cannot be had.

    `base`: the Python that it is made from.
    """
    uv = shutil.which("uv", path=os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", ""))))
    if uv is None:
        pytest.skip("this machine has no uv: pip install uv")
    with _kept("python", *([] if base == sys.executable else [base]), *packages) as (folder, is_ready):
        python = folder / "bin" / "python"
        if not is_ready:
            _run(uv, "venv", "--quiet", "--python", base, str(folder), packages=packages)
            _run(uv, "pip", "install", "--quiet", "--python", str(python), *packages, packages=packages)
    return python


@cache
def node_with(*packages: str) -> Path:
    """A folder whose `node_modules` holds these packages; made once, and kept. Skips where they cannot be had."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("this machine has no npm: install Node.js 20 or newer")
    with _kept("node", *packages) as (folder, is_ready):
        if not is_ready:
            options = ("--no-save", "--silent", "--no-audit", "--no-fund")
            _run(npm, "install", *options, "--prefix", str(folder), *packages, packages=packages)
    return folder


@cache
def built(sources: Path, *commands: tuple[str, ...]) -> Path:
    """A folder with a copy of these sources in which the commands were carried out; made once, and kept.

    Skips where they fail, as they do where the packages they need cannot be had.
    """
    files = sorted(file for file in sources.rglob("*") if file.is_file())
    contents = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    with _kept(sources.name, *contents, *map(" ".join, commands)) as (folder, is_ready):
        if not is_ready:
            shutil.copytree(sources, folder, dirs_exist_ok=True)
            for command in commands:
                _run(*command, packages=(sources.name,), cwd=folder, seconds=BUILD_SECONDS)
    return folder


@contextlib.contextmanager
def _kept(kind: str, *packages: str) -> Iterator[tuple[Path, bool]]:
    """A folder for packages, and whether it is ready. Tests that run side by side make it once."""
    name = hashlib.sha256(" ".join((kind, sys.version, *packages)).encode()).hexdigest()[:16]
    FOLDER.mkdir(parents=True, exist_ok=True)
    folder, mark = FOLDER / name, FOLDER / f"{name}.ready"
    with (FOLDER / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if mark.exists() and folder.exists():
            yield folder, True
            return
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        yield folder, False
        mark.write_text(" ".join(packages) + "\n")


def _run(*command: str, packages: tuple[str, ...], cwd: Path | None = None, seconds: int = MAKE_SECONDS) -> None:
    names = ", ".join(packages)
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False, cwd=cwd)
    except subprocess.TimeoutExpired:
        pytest.skip(f"{names} could not be installed within {seconds} s")
    if done.returncode:
        pytest.skip(f"{names} cannot be installed here: {done.stderr.strip()[-200:]}")
