"""A real kernel with a daemon of its own, as one process tree that ends with the test module."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from jupyter_client.manager import KernelManager

from tests.kernel.conftest import DEADLINE, Notebook
from tundra_nb.testing.scripted_provider import ScriptedProcess


def environment(folder: Path) -> dict[str, str]:
    """An environment in which everything of tundra is below `folder`, and nothing of whoever runs the tests."""
    env = {
        name: value
        for name, value in os.environ.items()
        if not name.upper().startswith("TUNDRA_") and not name.upper().endswith(("_API_KEY", "_PROXY"))
    }
    return env | {
        "TUNDRA_DATA_DIR": str(folder / "data"),
        "TUNDRA_CONFIG": str(folder / "tundra.toml"),
        "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
        "IPYTHONDIR": str(folder / "ipython"),
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    }


@contextlib.contextmanager
def open_notebook(folder: Path, provider: ScriptedProcess, toml: str, env: dict[str, str]) -> Iterator[Notebook]:
    """A kernel in which the extension is loaded; its daemon runs with these settings, and is stopped at the end."""
    Path(env["TUNDRA_CONFIG"]).write_text(toml)
    manager = KernelManager(kernel_name="python3")
    manager.start_kernel(env=env, cwd=str(folder))
    made = Notebook(manager, provider, env)
    try:
        ran = made.run("%load_ext tundra_nb")
        assert ran.error is None, ran.traceback
        yield made
    finally:
        made.client.stop_channels()
        manager.shutdown_kernel(now=True)
        command = [sys.executable, "-m", "tundra_nb.cli", "daemon", "stop", "--force"]
        subprocess.run(command, env=env, check=False, capture_output=True, timeout=DEADLINE)
