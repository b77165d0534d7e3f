"""`make demo`: executes a notebook on a real local model, then opens JupyterLab on the executed copy."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from tundra_nb.testing.local_model import LocalModel

SETTINGS = """\
[[profile]]
name = "local"
kind = "local"
base_url = "{base_url}"
"""
FIRST_LINE_CHARACTERS = 60


def main(argv: list[str] | None = None) -> int:
    """Execute, report, open. Returns 1 when a cell failed. Each demonstration begins with an empty history."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("notebook", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="folder for the executed copy, settings and data")
    parser.add_argument("--headless", action="store_true", help="do not open JupyterLab")
    args = parser.parse_args(argv)
    out = args.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    print("starting the local model …", flush=True)
    with LocalModel() as model:
        environ = prepare(out, model.base_url)
        tundra(environ, "daemon", "stop")
        shutil.rmtree(out / "data", ignore_errors=True)
        executed = out / args.notebook.name
        failed = execute(args.notebook, executed, environ)
        calls = json.loads(tundra(environ, "calls", "--json") or "[]")
        answered = [call for call in calls if call["outcome"] == "ok"]
        tokens = sum(call["output_tokens"] or 0 for call in answered)
        print(f"{len(calls)} calls in the history, {len(answered)} of them answered, with {tokens} tokens;", end=" ")
        print("the others failed on purpose")
        print(f"the executed notebook: {executed}", flush=True)
        if not args.headless and not failed:
            print("opening JupyterLab; Ctrl-C ends it", flush=True)
            subprocess.run([sys.executable, "-m", "jupyterlab", str(executed)], env=environ, check=False)
        tundra(environ, "daemon", "stop")
    return 1 if failed else 0


def prepare(out: Path, base_url: str) -> dict[str, str]:
    """Write the settings of a demonstration; the environment to run it in."""
    config = out / "tundra.toml"
    config.write_text(SETTINGS.format(base_url=base_url))
    return os.environ | {"TUNDRA_CONFIG": str(config), "TUNDRA_DATA_DIR": str(out / "data")}


def tundra(environ: dict[str, str], *args: str) -> str:
    """What `tundra ARGS` prints."""
    command = [sys.executable, "-P", "-m", "tundra_nb.cli", *args]
    return subprocess.run(command, env=environ, check=False, capture_output=True, text=True).stdout


def execute(source: Path, target: Path, environ: dict[str, str]) -> bool:
    """Execute a notebook with a line per cell and save the executed copy; True when a cell failed."""
    notebook = nbformat.read(source, as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    began = time.monotonic()
    started: dict[str, float] = {}
    count = 0

    def on_start(cell: Any, **_: Any) -> None:
        started[cell.id] = time.monotonic()

    def on_end(cell: Any, **_: Any) -> None:
        nonlocal count
        if cell.cell_type != "code":
            return
        count += 1
        first = next((line for line in cell.source.splitlines() if line.strip() and not line.startswith("#")), "")
        seconds = time.monotonic() - started.get(cell.id, began)
        print(f"[{count:2}/{len(cells)}] {seconds:5.1f} s  {first[:FIRST_LINE_CHARACTERS]}", flush=True)

    client = NotebookClient(
        notebook,
        timeout=300,
        resources={"metadata": {"path": str(target.parent)}},
        on_cell_start=on_start,
        on_cell_executed=on_end,
    )
    error: CellExecutionError | None = None
    # Unix sockets: only this user can talk to the kernel. They lie beside the connection file, which Jupyter would
    # leave to the working directory, and the kernel has another; a short path, since 107 bytes are all it may have.
    with tempfile.TemporaryDirectory(prefix="tnb-") as sockets:
        manager: Any = client.create_kernel_manager()
        manager.transport = "ipc"
        manager.connection_file = str(Path(sockets) / "kernel.json")
        try:
            client.execute(env=environ)
        except CellExecutionError as exc:
            error = exc
    nbformat.write(notebook, target)
    outputs = sum(len(cell.outputs) for cell in cells)
    print(f"{count} cells, {outputs} outputs, {time.monotonic() - began:.1f} s", flush=True)
    if error is not None:
        print(error, file=sys.stderr)
    return error is not None


if __name__ == "__main__":
    sys.exit(main())
