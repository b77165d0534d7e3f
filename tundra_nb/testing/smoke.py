"""`make smoke`: does what is installed work, away from its source? A line per check; exits 1 at the first failure."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import tundra_nb
from tundra_nb.testing.demo import prepare
from tundra_nb.testing.local_model import LocalModel

KERNEL_CHECK = """
import jupyter_client
manager, client = jupyter_client.manager.start_new_kernel(kernel_name="tundra")
try:
    reply = client.execute("x = %tundra calls\\nassert len(x) == 1, x", reply=True, timeout=60)
    assert reply["content"]["status"] == "ok", reply["content"]
finally:
    client.stop_channels()
    manager.shutdown_kernel(now=True)
"""


def main() -> int:
    """Run the checks in a folder of their own."""
    if (Path.cwd() / "tundra_nb").exists():
        print("run this away from the source, so that the installed package is what is tested", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder, LocalModel() as model:
        environ = prepare(Path(folder), model.base_url)
        for name in ("JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "IPYTHONDIR"):
            environ[name] = os.path.join(folder, name.lower())
        try:
            return _check_all(environ)
        finally:
            _run(environ, "tundra_nb.cli", "daemon", "stop")


def _check_all(environ: dict[str, str]) -> int:
    print(f"tundra_nb {tundra_nb.__version__} at {Path(tundra_nb.__file__).parent}")
    checks = {
        "the command line answers": lambda: f"{tundra_nb.__version__}" in _run(environ, "tundra_nb.cli", "--version"),
        "status shows the profile": lambda: "local" in _run(environ, "tundra_nb.cli", "status"),
        "the model answers": lambda: _run(environ, "tundra_nb.cli", "ask", "--max-tokens", "8", "Say hi").strip(),
        "the call is in the history": lambda: len(_json(environ, "calls")) == 1,
        "sql reads it": lambda: _json(environ, "sql", "select count(*) as n from operation")[0]["n"] == 1,
        "the server extension is enabled": lambda: "tundra_nb" in _extensions(environ),
        "the kernel works": lambda: _python(environ, KERNEL_CHECK) == 0,
        "the daemon tells its state": lambda: json.loads(_run(environ, "tundra_nb.cli", "daemon", "status", "--json"))[
            "running"
        ],
    }
    for what, check in checks.items():
        passed = bool(check())
        print(f"{'ok' if passed else 'FAILED':6} {what}", flush=True)
        if not passed:
            return 1
    return 0


def _run(environ: dict[str, str], module: str, *args: str) -> str:
    done = subprocess.run(
        [sys.executable, "-P", "-m", module, *args], env=environ, capture_output=True, text=True, check=False
    )
    if done.returncode:
        print(done.stdout, done.stderr, file=sys.stderr)
    return done.stdout


def _json(environ: dict[str, str], *args: str) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = json.loads(_run(environ, "tundra_nb.cli", *args, "--json"))
    return rows


def _extensions(environ: dict[str, str]) -> str:
    command = [sys.executable, "-P", "-m", "jupyter", "server", "extension", "list"]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    return said if "tundra_nb" in said and "OK" in said.split("tundra_nb", 1)[1] else ""


def _python(environ: dict[str, str], code: str) -> int:
    return subprocess.run([sys.executable, "-P", "-c", code], env=environ, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
