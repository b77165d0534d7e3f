"""File descriptors of the daemon: raised as far as allowed, counted, and refused by name when there are none left."""

from __future__ import annotations

import contextlib
import errno
import os

from tundra_nb.errors import IpcError

with contextlib.suppress(ImportError):  # not on Windows, where no daemon runs; later there may be no descriptor for it
    import resource

WANTED = 4096
"""Each call takes up to three: the caller's connection, the provider's, and one to the store worker."""
REMEDY = (
    "Fewer callers at a time; or raise the limit (`ulimit -n 4096` in the shell that starts the daemon,"
    " `LimitNOFILE=4096` for a service), then `tundra daemon restart`."
)
_EXHAUSTED = (errno.EMFILE, errno.ENFILE)


def limit() -> int:
    """How many this process may have open."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def raise_limit() -> int:
    """Raise the limit as far as the system allows, to what many callers need; the limit now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = WANTED if hard == resource.RLIM_INFINITY else min(WANTED, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return limit()


def count() -> int:
    """How many this process has open; 0 where the system does not tell."""
    try:
        return len(os.listdir("/proc/self/fd")) - 1
    except OSError:
        return 0


def lacks(wanted: int) -> bool:
    """Whether this process cannot open so many more; uvloop names no reason for a child that does not start."""
    held: list[int] = []
    try:
        while len(held) < wanted:
            held.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as exc:
        return exc.errno in _EXHAUSTED
    finally:
        for one in held:
            os.close(one)
    return False


def exhausted(exc: BaseException | None) -> IpcError | None:
    """The daemon's typed refusal, when an error means that no descriptor was left; looks at its causes too."""
    return refusal() if _is_exhausted(exc) else None


def exhausted_here(exc: BaseException | None) -> IpcError | None:
    """The same for a client that has no descriptor left of its own."""
    if not _is_exhausted(exc):
        return None
    return IpcError(
        kind="descriptors",
        problem=f"this process has no file descriptor left to reach the daemon: it may open {limit()}",
        remedy="Fewer calls at a time, or close what is open; or raise its limit (`ulimit -n 4096` before it starts).",
        retry_after=1.0,
    )


def _is_exhausted(exc: BaseException | None) -> bool:
    for _ in range(8):
        if exc is None:
            return False
        if isinstance(exc, OSError) and exc.errno in _EXHAUSTED:
            return True
        exc = exc.__cause__ or exc.__context__
    return False


def refusal(most: int | None = None) -> IpcError:
    """The daemon, which may have `most` open (this process's limit, if not said), takes no more at this moment."""
    return IpcError(
        kind="descriptors",
        problem=f"the daemon has no file descriptor left for this: it may open {most or limit()}",
        remedy=REMEDY,
        retry_after=1.0,
    )
