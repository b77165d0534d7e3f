"""Start a process as the leader of a session on a new pseudo-terminal.

Linux: libc's `posix_spawn` through ctypes, because it costs 0.3 ms whatever the size of this process (`fork`, as in
ptyprocess and pexpect, 19 to 43 ms at 1 GiB, during which the event loop stands still), knows a working directory
(which `os.posix_spawn` does not), and closes descriptors. The controlling terminal comes from *opening* the slave by
its path after `setsid`; duplicating a descriptor would not do. Elsewhere: ptyprocess, because macOS runs file actions
before `setsid`.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import os
import secrets
import stat
import struct
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from tundra_nb.errors import SpawnFailed, UsageError

from . import processes

if sys.platform != "win32":
    import fcntl
    import resource
    import termios

MAX_SIZE = 1000
"""Columns or rows. The kernel takes 65,535, but programs allocate screens from these numbers."""
MAX_CELLS = 250_000
"""Columns × rows: such a screen is drawn in a second."""
TAG_BITS = 48
IUTF8 = 0o40000
"""asm/termbits.h: erase whole characters in canonical mode."""
POSIX_SPAWN_SETSIGDEF = 0x04
POSIX_SPAWN_SETSIGMASK = 0x08
POSIX_SPAWN_SETSID = 0x80
_OPAQUE_BYTES = 1024
"""posix_spawnattr_t has 336 bytes in glibc and musl, posix_spawn_file_actions_t 80, sigset_t 128."""


class Size(NamedTuple):
    """A window, in characters."""

    columns: int = 80
    rows: int = 24

    def check(self) -> Size:
        """Return itself, or raise `UsageError` when no terminal can have this size."""
        if not (0 < self.columns <= MAX_SIZE and 0 < self.rows <= MAX_SIZE):
            raise UsageError(
                problem=f"a terminal of {self.columns} × {self.rows} characters is not possible",
                field="size",
                remedy=f"Columns and rows go from 1 to {MAX_SIZE:,}.",
            )
        if self.columns * self.rows > MAX_CELLS:
            raise UsageError(
                problem=f"a terminal of {self.columns} × {self.rows} characters is too large",
                field="size",
                remedy=f"Columns times rows go to {MAX_CELLS:,}.",
            )
        return self


class Spawned(NamedTuple):
    """A session leader and the master side of its terminal (non-blocking, ours to close)."""

    pid: int
    master: int
    modes: list[Any]
    """Modes of the terminal before the program could change them; as `termios.tcsetattr` takes them."""
    tag: int = 0
    """Number that everything in the session carries (`processes.tag`); 0 where there is no such thing."""


def spawn(
    argv: Sequence[str],
    *,
    cwd: str,
    env: Mapping[str, str],
    size: Size,
    handed: Mapping[int, int] | None = None,
) -> Spawned:
    """Start `argv`. Blocks for 0.3 ms on Linux.

    Args:
        argv: program (looked up in the *child's* PATH and directory) and arguments.
        cwd: working directory.
        env: the whole environment.
        size: window size, there before the program runs.
        handed: further descriptors, number in the child → ours.

    Raises:
        SpawnFailed: with the operating system's reason; nothing is left open.
        UsageError: a NUL in argument or environment, which the kernel would silently cut off there.
    """
    _refuse_nul(argv, env)
    if processes.LINUX and _libc() is not None:
        return _spawn_libc(argv, cwd, env, size, handed or {})
    return _spawn_portable(argv, cwd, env, size, handed or {})


def set_size(descriptor: int, size: Size) -> None:
    """Set the window size; the kernel tells the foreground job with SIGWINCH."""
    fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", size.rows, size.columns, 0, 0))


def _spawn_libc(
    argv: Sequence[str], cwd: str, env: Mapping[str, str], size: Size, handed: Mapping[int, int]
) -> Spawned:
    with contextlib.ExitStack() as on_exit, contextlib.ExitStack() as on_failure:
        folder = _open_folder(argv, cwd)
        on_exit.callback(os.close, folder)
        program = _resolve(argv, cwd, env)
        try:
            master, slave = os.openpty()
        except OSError as exc:
            raise _failed(argv, exc.errno or 0, program) from exc
        on_failure.callback(os.close, master)
        on_exit.callback(os.close, slave)
        modes = _prepare(slave, size)
        os.set_blocking(master, False)
        actions = _file_actions(folder, os.ttyname(slave), handed)
        libc = _libc()
        on_exit.callback(libc.posix_spawn_file_actions_destroy, actions)
        pid = ctypes.c_int()
        tag = processes.TAG_BASE + secrets.randbits(TAG_BITS)
        with _tagged(tag) as is_tagged:
            code = libc.posix_spawn(
                ctypes.byref(pid),
                os.fsencode(program),
                actions,
                _attributes(),
                _strings(os.fsencode(word) for word in argv),
                _strings(os.fsencode(f"{name}={value}") for name, value in env.items()),
            )
        if code:
            raise _failed(argv, code, program)
        on_failure.pop_all()
    return Spawned(pid.value, master, modes, tag if is_tagged else 0)


@contextlib.contextmanager
def _tagged(tag: int) -> Iterator[bool]:
    """While the block runs, what is started gets `tag` as its soft limit of real-time CPU time.

    The one thing that a process hands on to all its descendants and that neither `env -i` nor `setsid` nor `exec`
    takes away. Ours is put back at once; the microseconds cost nothing.
    """
    try:
        soft, hard = resource.getrlimit(resource.RLIMIT_RTTIME)
        if hard != resource.RLIM_INFINITY and hard < tag:
            yield False
            return
        resource.setrlimit(resource.RLIMIT_RTTIME, (tag, hard))
    except (OSError, ValueError):
        yield False
        return
    try:
        yield True
    finally:
        resource.setrlimit(resource.RLIMIT_RTTIME, (soft, hard))


def _file_actions(folder: int, terminal: str, handed: Mapping[int, int]) -> ctypes.Array[ctypes.c_char]:
    libc = _libc()
    actions = ctypes.create_string_buffer(_OPAQUE_BYTES)
    libc.posix_spawn_file_actions_init(actions)
    # fchdir comes first: a later target may be the very number of `folder`.
    libc.posix_spawn_file_actions_addfchdir_np(actions, folder)
    libc.posix_spawn_file_actions_addopen(actions, 0, os.fsencode(terminal), os.O_RDWR, 0)
    libc.posix_spawn_file_actions_adddup2(actions, 0, 1)
    libc.posix_spawn_file_actions_adddup2(actions, 0, 2)
    for target, source in handed.items():
        libc.posix_spawn_file_actions_adddup2(actions, source, target)
    for gap in {*range(3, max(handed, default=2))} - {*handed}:  # what is not open there is no error
        libc.posix_spawn_file_actions_addclose(actions, gap)
    if hasattr(libc, "posix_spawn_file_actions_addclosefrom_np"):  # glibc 2.34; Python's own descriptors close anyway
        libc.posix_spawn_file_actions_addclosefrom_np(actions, max(handed, default=2) + 1)
    return actions


@functools.cache
def _libc() -> Any:
    """The C library when it has all that is needed, else None."""
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "posix_spawn_file_actions_addfchdir_np") else None


@functools.cache
def _attributes() -> ctypes.Array[ctypes.c_char]:
    """Own session, default signal actions, nothing blocked.

    Without SETSIGDEF a daemon that was started under nohup would hand on "ignore SIGHUP", and its children would
    survive the hang-up.
    """
    libc = _libc()
    every, none = ctypes.create_string_buffer(_OPAQUE_BYTES), ctypes.create_string_buffer(_OPAQUE_BYTES)
    libc.sigfillset(every)
    libc.sigemptyset(none)
    attributes = ctypes.create_string_buffer(_OPAQUE_BYTES)
    libc.posix_spawnattr_init(attributes)
    libc.posix_spawnattr_setsigdefault(attributes, every)
    libc.posix_spawnattr_setsigmask(attributes, none)
    flags = POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSID
    libc.posix_spawnattr_setflags(attributes, ctypes.c_short(flags))
    return attributes


def _spawn_portable(
    argv: Sequence[str], cwd: str, env: Mapping[str, str], size: Size, handed: Mapping[int, int]
) -> Spawned:
    import ptyprocess

    os.close(_open_folder(argv, cwd))
    program = _resolve(argv, cwd, env)
    spare = [os.dup(source) for source in handed.values()]

    def place() -> None:  # in the child, between fork and exec
        for target, source in zip(handed, spare, strict=True):
            os.dup2(source, target, inheritable=True)

    try:
        child = ptyprocess.PtyProcess.spawn(
            [program, *argv[1:]],
            cwd=cwd,
            env=dict(env),
            dimensions=(size.rows, size.columns),
            preexec_fn=place,
            pass_fds=tuple(handed),
        )
    except OSError as exc:
        raise _failed(argv, exc.errno or 0, program) from exc
    finally:
        for descriptor in spare:
            os.close(descriptor)
    master = os.dup(child.fd)
    child.fileobj.close()
    child.closed = True
    os.set_blocking(master, False)
    return Spawned(child.pid, master, termios.tcgetattr(master))


def _prepare(slave: int, size: Size) -> list[Any]:
    set_size(slave, size)
    modes = termios.tcgetattr(slave)
    modes[0] |= IUTF8
    termios.tcsetattr(slave, termios.TCSANOW, modes)
    return modes


def _refuse_nul(argv: Sequence[str], env: Mapping[str, str]) -> None:
    where = "command" if any("\0" in word for word in argv) else ""
    where = where or next((name for name, value in env.items() if "\0" in name + value or "=" in name), "")
    if where:
        raise UsageError(
            problem=f"a NUL character (or an equals sign in a name) cannot be passed to a program: in {where!r}",
            field="command" if where == "command" else "env",
            remedy="Take it out, or pass the data through a file.",
        )
    if not argv or not argv[0]:
        raise UsageError(problem="there is no command to run", field="command", remedy="Name a program.")


def _open_folder(argv: Sequence[str], cwd: str) -> int:
    if "\0" in cwd:
        raise SpawnFailed(
            command=_shown(argv), kind="cwd", cause=f"working directory {cwd!r}: it holds a NUL character"
        )
    try:
        folder = os.open(cwd, getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC)
        if not os.access(cwd, os.X_OK):
            os.close(folder)
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), cwd)
    except OSError as exc:
        if exc.errno in (errno.EMFILE, errno.ENFILE):
            raise _failed(argv, exc.errno, argv[0]) from exc
        raise SpawnFailed(command=_shown(argv), kind="cwd", cause=f"working directory {cwd}: {exc.strerror}") from exc
    return folder


def _resolve(argv: Sequence[str], cwd: str, env: Mapping[str, str]) -> str:
    """Find the program as the child's shell would: `posix_spawnp` would search our PATH, not the child's."""
    name = argv[0]
    if "/" in name:
        return name
    refused = False
    for folder in env.get("PATH", os.defpath).split(os.pathsep):
        path = os.path.join(cwd, folder, name)
        try:
            found = os.stat(path)
        except OSError:
            continue
        if stat.S_ISREG(found.st_mode):
            if os.access(path, os.X_OK):
                return path
            refused = True
    raise _failed(argv, errno.EACCES if refused else errno.ENOENT, name)


_KINDS = {
    errno.ENOENT: "not_found",
    errno.ENOTDIR: "not_found",
    errno.EACCES: "not_executable",
    errno.EPERM: "not_executable",
    errno.ENOEXEC: "not_executable",
    errno.EISDIR: "not_executable",
    errno.ENOSPC: "ptys",
    errno.EMFILE: "descriptors",
    errno.ENFILE: "descriptors",
    errno.E2BIG: "arguments",
    errno.ENAMETOOLONG: "arguments",
    errno.EAGAIN: "processes",
    errno.ENOMEM: "memory",
}


def _failed(argv: Sequence[str], code: int, program: str) -> SpawnFailed:
    kind = _KINDS.get(code, "other")
    cause = os.strerror(code)
    if kind == "ptys":
        cause = "the system has no PTY left"
    elif code == errno.ENOENT and os.path.exists(program):
        cause = "its interpreter (the #! line or the ELF loader) does not exist"
    elif kind == "not_found":
        cause = "no such program"
    return SpawnFailed(command=_shown(argv), kind=kind, cause=cause)


def _shown(argv: Sequence[str]) -> str:
    text = " ".join(argv)
    return text if len(text) <= 200 else text[:199] + "…"


def _strings(words: Iterable[bytes]) -> ctypes.Array[ctypes.c_char_p]:
    listed = [*words, None]
    return (ctypes.c_char_p * len(listed))(*listed)
