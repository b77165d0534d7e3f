"""The environment of the daemon's processes: what may stand where others can read it, and what is handed over unseen.

`/proc/PID/environ` shows a process's first environment to every process of the same user for as long as it lives, keys
included. So guard and daemon are started with the few variables that interpreters and libraries look for themselves;
everything else goes to the daemon through a file without a name. In addition the three processes are not *dumpable*:
the system then lets nobody but root look into their memory, environment and descriptors.

What that does not cover: the shell, kernel or Jupyter server that the daemon's environment came from, and root.

Standard library only, the larger parts of it where they are used: the guard shares it, and must stay small.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Mapping, MutableMapping

VARIABLE = "TUNDRA_HANDED_OVER"
"""Number of the descriptor that holds the rest of the environment."""
SEEN = frozenset({"HOME", "LANG", "LANGUAGE", "LD_LIBRARY_PATH", "LOGNAME", "PATH", "SHELL", "TMPDIR", "TZ", "USER"})
SEEN_BEGINNINGS = ("COVERAGE_", "JUPYTER_", "LC_", "PYTHON", "XDG_")
SEEN_OURS = frozenset({"TUNDRA_CONFIG", "TUNDRA_DATA_DIR", "TUNDRA_GUARD", VARIABLE})
PR_SET_PDEATHSIG, PR_SET_DUMPABLE = 1, 4
"""linux/prctl.h."""


def is_seen(name: str) -> bool:
    """Whether a variable may stand in a process's environment: it holds a place or a language, never a key."""
    if name in SEEN or name in SEEN_OURS:
        return True
    return name.startswith(SEEN_BEGINNINGS) and not any(word in name for word in ("TOKEN", "KEY", "PASS", "SECRET"))


def divided(environ: Mapping[str, str]) -> tuple[dict[str, str], int]:
    """What may be seen, and an inheritable descriptor of a file without a name that holds the rest.

    The caller closes the descriptor, after the process that takes it over has been started.
    """
    import json

    seen = {name: value for name, value in environ.items() if is_seen(name) and name != VARIABLE}
    rest = {name: value for name, value in environ.items() if not is_seen(name)}
    descriptor = _nameless()
    os.write(descriptor, json.dumps(rest).encode())
    os.set_inheritable(descriptor, True)
    return {**seen, VARIABLE: str(descriptor)}, descriptor


def whole(environ: MutableMapping[str, str]) -> dict[str, str]:
    """The environment that was meant, of a process that was started with `divided`; what was handed over is wiped."""
    import json

    number = environ.pop(VARIABLE, "")
    handed: dict[str, str] = {}
    if number.isdigit():
        with contextlib.suppress(OSError, ValueError):
            descriptor = int(number)
            handed = json.loads(os.pread(descriptor, os.fstat(descriptor).st_size, 0))
            os.ftruncate(descriptor, 0)
            os.close(descriptor)
    return {**environ, **handed}


def account(environ: Mapping[str, str]) -> str:
    """Whom calls from this machine are counted for: the hub's user where a hub has started this, else the account.

    In containers everybody is the same account, and that may have no name at all.
    """
    if name := environ.get("JUPYTERHUB_USER"):
        return name
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):  # no entry for this number
        return f"uid-{os.getuid()}"


def hide() -> None:
    """Begin this program again with an environment that others may see, unless it has one."""
    if VARIABLE in os.environ or all(map(is_seen, os.environ)):
        return
    seen, _ = divided(os.environ)
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], seen)  # noqa: S606 - no shell is meant


def keep_others_out() -> bool:
    """Make this process not dumpable; False where the system has no such thing."""
    if sys.platform != "linux":
        return False
    return bool(ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) == 0)


def go_on_without_parent() -> None:
    """Have this process continued when its parent dies, should a signal have stopped it: it can then end by itself."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGCONT, 0, 0, 0)


def return_freed_memory() -> None:
    """Give back to the system what was freed in the midst of the heaps: only their ends go by themselves."""
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):  # in the GNU library alone
        trim(0)


def _nameless() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("tundra")
    import tempfile

    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
