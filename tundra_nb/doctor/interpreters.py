"""The Pythons that take part: this one, the command line's, each kernel's, each Jupyter server's."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

from tundra_nb._version import __version__

from .check import Check, Finding
from .place import Subject

EXTENSION = "tundra_nb"
LOOK_SECONDS = 8.0
PROGRAM = (
    "import importlib.metadata as m, json, platform\n"
    "def v(n):\n"
    "    try: return m.version(n)\n"
    "    except m.PackageNotFoundError: return None\n"
    "print(json.dumps({'python': platform.python_version(),"
    " **{n: v(n) for n in ('tundra-nb', 'ipykernel', 'jupyter-server', 'ipywidgets', 'anywidget', 'pandas')}}))"
)


def this(place: Subject, check: Check) -> Sequence[Finding]:
    del place
    where = str(Path(__file__).parent.parent)
    told = f"Python {sys.version.split()[0]}, tundra_nb {__version__} in {where}"
    if sys.version_info < (3, 11):  # noqa: UP036 - a package may be on the path of an older Python all the same
        return [check.found("fail", told, "Use Python 3.11 or newer.", page="ConfigError")]
    return [check.found("ok", told)]


def command_line(place: Subject, check: Check) -> Sequence[Finding]:
    found = shutil.which("tundra", path=place.environ.get("PATH"))
    if found is None:
        return [
            check.found(
                "ok",
                f"no `tundra` on the PATH; {sys.executable} -m tundra_nb.cli and `jupyter tundra` work all the same",
            )
        ]
    first = Path(found).read_bytes()[:256].splitlines()[0].decode("utf-8", "replace")
    python = first.removeprefix("#!").split()[0] if first.startswith("#!") else ""
    told = versions(python) if python and "python" in os.path.basename(python) else None
    if told is None:
        return [check.found("ok", found)]
    return [_compared(check, f"{found} ({python})", told, "the command line")]


def kernels(place: Subject, check: Check) -> Sequence[Finding]:
    """Each Python kernel that Jupyter offers here."""
    from jupyter_core.paths import jupyter_path

    made: list[Finding] = []
    seen: set[str] = set()
    for folder in jupyter_path("kernels"):
        for file in sorted(Path(folder).glob("*/kernel.json")):
            name = file.parent.name
            if name in seen:
                continue
            seen.add(name)
            spec = _json(file)
            argv = [str(word) for word in spec.get("argv") or ()]
            if not argv or (spec.get("language") != "python" and "ipykernel" not in " ".join(argv)):
                continue
            python = argv[0] if os.path.isabs(argv[0]) else sys.executable
            if not os.path.exists(python):
                remedy = f"`jupyter kernelspec remove {name}`, or install {python} again."
                evidence = f"{file} names {python}, which is not there"
                made.append(check.found("warn", evidence, remedy, part=name, title=f"kernel {name}"))
                continue
            told = versions(python)
            title = f"kernel {name}"
            made.append(_compared(check, python, told, title, part=name, is_kernel=True))
    if not made:
        remedy = f"`{sys.executable} -m ipykernel install --user` makes one."
        made.append(check.found("warn", "Jupyter offers no Python kernel here", remedy))
    del place
    return made


def servers(place: Subject, check: Check) -> Sequence[Finding]:
    """Each Jupyter server that runs, and whether it has the extension."""
    from jupyter_core.paths import jupyter_runtime_dir

    del place
    made: list[Finding] = []
    for file in sorted(Path(jupyter_runtime_dir()).glob("jpserver-*.json")):
        record = _json(file)
        try:
            process = psutil.Process(int(record["pid"]))
            python = process.cmdline()[0]
        except (KeyError, TypeError, ValueError, IndexError, psutil.Error):
            continue  # a server that has ended without taking its file along
        told = versions(python) if os.path.isabs(python) else None
        where = f"Jupyter server {record.get('port')}"
        made.append(_compared(check, f"{python}, pid {record['pid']}", told, where, part=str(record["pid"])))
    return made or [check.found("ok", "no Jupyter server runs here; magics and command line need none")]


def extension(place: Subject, check: Check) -> Sequence[Finding]:
    """Whether Jupyter's configuration here switches the extension on."""
    from jupyter_core.paths import jupyter_config_path

    del place
    state: tuple[bool, str] | None = None
    for folder in reversed(jupyter_config_path()):  # the first has the last word
        for file in [
            *sorted((Path(folder) / "jupyter_server_config.d").glob("*.json")),
            Path(folder) / "jupyter_server_config.json",
        ]:
            app = _json(file).get("ServerApp")
            chosen = (app.get("jpserver_extensions") if isinstance(app, dict) else None) or {}
            if isinstance(chosen, dict) and EXTENSION in chosen:
                state = bool(chosen[EXTENSION]), str(file)
    remedy = f"`{sys.executable} -m jupyter server extension enable --user {EXTENSION}`, then restart Jupyter."
    if state is None:
        return [check.found("warn", "no configuration of Jupyter names tundra_nb", remedy, fix="extension")]
    is_on, file_name = state
    if not is_on:
        return [check.found("fail", f"switched off in {file_name}", remedy, page="TransportError", fix="extension")]
    return [check.found("ok", f"enabled by {file_name}")]


def versions(python: str) -> dict[str, Any] | None:
    """What is installed for an interpreter; None when it cannot be asked."""
    if os.path.realpath(python) == os.path.realpath(sys.executable) and os.path.dirname(python) == os.path.dirname(
        sys.executable
    ):
        return {"python": sys.version.split()[0], "tundra-nb": _own_version()}
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    try:
        done = subprocess.run(
            [python, "-I", "-c", PROGRAM],
            capture_output=True,
            text=True,
            timeout=LOOK_SECONDS - 1,
            check=False,
            env=env,
        )
        told = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None
    return told if isinstance(told, dict) else None


def _own_version() -> str | None:
    try:
        return importlib.metadata.version("tundra-nb")
    except importlib.metadata.PackageNotFoundError:
        return None


def _compared(
    check: Check, where: str, told: dict[str, Any] | None, title: str, *, part: str = "", is_kernel: bool = False
) -> Finding:
    python = where.rpartition("(")[2].rstrip(")") if where.endswith(")") else where.partition(" ")[0].rstrip(",")
    if told is None:
        return check.found("warn", f"{where} cannot be asked", f"Try `{python} --version`.", part=part, title=title)
    theirs = told.get("tundra-nb")
    if theirs is None:
        evidence = f"{where} has no tundra_nb"
        remedy = f"`{python} -m pip install tundra-nb=={__version__}`" + (
            ", or choose a kernel that has it." if is_kernel else "."
        )
        return check.found("fail", evidence, remedy, part=part, title=title, page="InternalError")
    if theirs != __version__:
        evidence = f"{where} has tundra_nb {theirs}, this is {__version__}"
        remedy = f"`{python} -m pip install tundra-nb=={__version__}`, then restart it."
        return check.found("fail", evidence, remedy, part=part, title=title, page="IpcError")
    return check.found("ok", f"{where}: Python {told.get('python')}, tundra_nb {theirs}", part=part, title=title)


def _json(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


CHECKS = (
    Check(id="interpreters.this", group="configuration", title="this interpreter", look=this),
    Check(
        id="interpreters.cli",
        group="configuration",
        title="the command line",
        look=command_line,
        deadline=LOOK_SECONDS,
    ),
    Check(id="interpreters.kernel", group="configuration", title="kernels", look=kernels, deadline=LOOK_SECONDS),
    Check(
        id="interpreters.server", group="configuration", title="Jupyter servers", look=servers, deadline=LOOK_SECONDS
    ),
    Check(id="interpreters.extension", group="configuration", title="Jupyter extension", look=extension),
)
