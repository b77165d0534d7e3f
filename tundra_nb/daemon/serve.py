"""The daemon's life: what is opened in which order, and closed in the other.

    lock → settings → log → socket → runtime → server → connection file
                                                        (stop: file gone, streams ended, calls drained, …)

Whoever fails on the way reports one typed error; what was opened before is closed again, and no file of a daemon that
does not run is left behind. Each step of the stop has a time limit, and a limit for the whole ends the process even if
its loop no longer turns.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import faulthandler
import gc
import importlib
import json
import logging
import os
import signal
import socket
import sys
import threading
import time
import traceback
import types
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Literal

from tundra_nb import descriptors, environment
from tundra_nb import paths as places
from tundra_nb._version import API, __version__
from tundra_nb.daemon import connection, guard
from tundra_nb.daemon.lock import Lock
from tundra_nb.errors import InternalError, TundraError
from tundra_nb.paths import Paths
from tundra_nb.protocol.record import DaemonRecord
from tundra_nb.protocol.words import START_ERROR
from tundra_nb.runtime.ptys import processes

if TYPE_CHECKING:  # loaded only once the lock is held
    from tundra_nb.daemon.http import Server
    from tundra_nb.daemon.life import ASGIApp, Life
    from tundra_nb.daemon.listen import Door
    from tundra_nb.daemon.upkeep import Upkeep
    from tundra_nb.runtime.telemetry.problems import Problems
    from tundra_nb.runtime.telemetry.redact import Redactor
    from tundra_nb.settings import Loaded

DRAIN_SECONDS = 2
"""For answers under way; then their tasks are cancelled."""
CANCEL_SECONDS = 1.0
"""For cancelled tasks to write their last row."""
CLOSE_SECONDS = 6.0
"""For the runtime: PTYs ended (HUP, 2 s, KILL), the spool's rest handed over."""
HARD_SECONDS = DRAIN_SECONDS + CANCEL_SECONDS + CLOSE_SECONDS + 0.5
"""For the whole stop; below the 10 s after which supervisors kill."""
YOUNG_OBJECTS = 5_000
"""New containers between two looks for cycles. Calls under way hold hundreds each, and nearly all die by themselves: at
Python's 700 the looks are a thirtieth of a call's CPU. One look at so many takes well under a millisecond."""
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
KEEP_ALIVE_SECONDS = 60
"""For idle connections: longer than the pause between two cells, so that a client's connection is rarely stale."""

_log = logging.getLogger("tundra.daemon")


@dataclasses.dataclass(frozen=True, kw_only=True)
class AppParts:
    """What the application is made from."""

    paths: Paths
    loaded: Loaded
    environ: Mapping[str, str]
    redactor: Redactor
    life: Life
    guard: guard.Guarded | None
    """Adopts orphans instead of the daemon, where there is one."""


AppOpener = Callable[[AppParts], AbstractAsyncContextManager["ASGIApp"]]


@contextlib.asynccontextmanager
async def open_runtime(start: AppParts) -> AsyncIterator[ASGIApp]:
    """The shipped application: the runtime and its routes.

    The history comes first: its worker, a process of its own, starts while a thread here imports the large rest.
    """
    from tundra_nb.runtime.clock import Ids, SystemClock
    from tundra_nb.runtime.store import history_of

    clock = SystemClock()
    store = start.loaded.settings.store
    history = history_of(store, start.paths, start.environ, redactor=start.redactor, ids=Ids(clock), clock=clock)
    async with contextlib.AsyncExitStack() as stack:
        await history.open()
        stack.push_async_callback(history.aclose)
        app = await asyncio.to_thread(importlib.import_module, "tundra_nb.daemon.app")
        opening = await asyncio.to_thread(importlib.import_module, "tundra_nb.daemon.gateway.opening")
        from tundra_nb.runtime.rows import acting_ids
        from tundra_nb.runtime.runtime import Runtime

        if start.life.logs is not None:
            start.life.logs.ids = acting_ids

        adopter = start.guard.pid if start.guard else None
        runtime = Runtime(
            start.loaded,
            start.paths,
            start.environ,
            redactor=start.redactor,
            clock=clock,
            adopter=adopter,
            history=history,
        )
        await stack.enter_async_context(runtime)
        start.life.end_streams = runtime.bus.close
        start.life.living_ptys = lambda: len(runtime.terminals.pool.list())
        if store.engine == "dolt":
            from tundra_nb.daemon.dolt_upkeep import DoltUpkeep

            looking_after = DoltUpkeep(start.paths, store, history, start.life.problems)
            await stack.enter_async_context(_in_background(looking_after.run(), "dolt-upkeep"))
        doors = await stack.enter_async_context(opening.open_gateway(runtime, start.life))
        yield opening.in_front(app.serving(runtime, start.life, doors), doors.gateway)


@contextlib.asynccontextmanager
async def _in_background(work: Coroutine[None, None, None], name: str) -> AsyncIterator[None]:
    """A task that is ended with the block."""
    task = asyncio.create_task(work, name=name)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def main(argv: Sequence[str], open_app: AppOpener = open_runtime) -> int:
    """Run a daemon until it is told to stop; the exit code is 0 after a clean end."""
    options = _options(argv)
    environment.keep_others_out()
    descriptors.raise_limit()
    guarded = guard.find(os.environ)
    environ = environment.whole(os.environ)
    paths = places.find(options.data_dir, environ)
    info = DaemonRecord(
        pid=os.getpid(),
        socket=str(paths.socket),
        host=socket.gethostname(),
        api=API,
        version=__version__,
        data_dir=str(paths.data_dir),
        started_by=options.started_by,
        started_at=time.time(),
        start=processes.start_of(os.getpid()),
        guard=guarded.pid if guarded else 0,
        guard_start=processes.start_of(guarded.pid) if guarded else 0,
    )
    try:
        places.make_private(paths.data_dir)
        places.refuse_pipes(paths)
        with Lock(paths.lock) as lock:
            _respect_hold(paths, automatic=options.automatic)
            is_guard_continued = _let_guard_go_on(lock.predecessor)
            lock.write(info)
            _run(
                paths,
                info,
                lock,
                environ=environ,
                guarded=guarded,
                open_app=open_app,
                background=options.background,
                is_guard_continued=is_guard_continued,
            )
    except TundraError as error:
        _report(error, environ, background=options.background)
        return 1
    except Exception:  # noqa: BLE001 - the top: a traceback may quote a secret, so it is not left to the interpreter
        sys.stderr.write(_masked(traceback.format_exc(), environ))
        return 1
    finally:
        if guarded is not None and os.getppid() == guarded.pid:
            os.kill(guarded.pid, signal.SIGCONT)  # stopped by a signal, it would not notice our end
    return 0


def _options(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tundra_nb.daemon run", description="Run the daemon of a data directory in the foreground."
    )
    parser.add_argument("--data-dir", help="default: TUNDRA_DATA_DIR, else the user's data directory")
    parser.add_argument("--started-by", default="cli", help="who starts it: kernel, cli, server, …")
    parser.add_argument("--automatic", action="store_true", help="do nothing after `tundra daemon stop`")
    parser.add_argument("--background", action="store_true", help="report a failed start in a form for programs")
    return parser.parse_args(argv)


def _respect_hold(paths: Paths, *, automatic: bool) -> None:
    if automatic and paths.held.exists():
        raise paths.held_error()
    paths.held.unlink(missing_ok=True)


def _let_guard_go_on(predecessor: DaemonRecord | None) -> bool:
    if predecessor is None:
        return False
    from tundra_nb.local import running

    return running.let_guard_go_on(predecessor)


def _run(
    paths: Paths,
    info: DaemonRecord,
    lock: Lock,
    *,
    environ: Mapping[str, str],
    guarded: guard.Guarded | None,
    open_app: AppOpener,
    background: bool,
    is_guard_continued: bool,
) -> None:
    import uvloop

    from tundra_nb import settings
    from tundra_nb.daemon import listen
    from tundra_nb.daemon.life import Life
    from tundra_nb.runtime.telemetry.log import Logs
    from tundra_nb.runtime.telemetry.problems import Problems
    from tundra_nb.runtime.telemetry.redact import Redactor

    _without_command_lines()
    loaded = settings.load(places.config_file(environ), environ)
    listen.check_length(paths.socket)
    redactor = Redactor(_salt(paths))
    redactor.register_environ(environ)
    for variable in _key_variables(loaded):
        redactor.register(variable, environ.get(variable, ""))
    problems = Problems()
    rust_log = "" if "log.filter" in loaded.sources else environ.get("RUST_LOG", "")
    logs = Logs(loaded.settings.log, paths.log, redactor, problems, on_stderr=not background, rust_log=rust_log)
    with logs, _last_words():
        _log.info("starting %s for %s", __version__, paths.data_dir, extra={"pid": info.pid, "by": info.started_by})
        # from the moment a socket is there, a signal must not end the process before its handlers are
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        try:
            with (
                listen.Door(paths.socket) as door,
                asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
            ):
                life = Life(info, paths, time.monotonic, problems, logs)
                if lock.predecessor is not None:
                    _tell_of(lock.predecessor, problems, is_guard_continued=is_guard_continued)
                start = AppParts(
                    paths=paths, loaded=loaded, environ=environ, redactor=redactor, life=life, guard=guarded
                )
                runner.run(_live(start, door, lock, open_app))
        except TundraError as error:
            _log.critical("cannot go on: %s: %s", error.code, error)
            raise
        except Exception as exc:
            _log.critical("died of a defect", exc_info=True)
            raise InternalError(problem=f"the daemon died of a defect ({type(exc).__name__})") from exc
        _log.info("stopped")


def _without_command_lines() -> None:
    """Keep httpx and uvicorn from loading theirs: rich, pygments, click, multiprocessing are a fifth of a start."""
    sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]
    unused = types.ModuleType("uvicorn.main")
    vars(unused).update(dict.fromkeys(("Server", "main", "run")))
    sys.modules.setdefault(unused.__name__, unused)


async def _live(start: AppParts, door: Door, lock: Lock, open_app: AppOpener) -> None:
    life, paths = start.life, start.paths
    _stop_on_signals(life)
    if start.guard is not None:
        _stop_without(start.guard, life)
    async with contextlib.AsyncExitStack() as stack:
        app = await _entered(stack, open_app(start), life)
        if app is None:
            _log.info("stopping before it was ready: %s", life.reason)
            return
        # not before: the store worker, which takes longest, is started while the application is opened
        from tundra_nb.daemon.http import Server, configured
        from tundra_nb.daemon.life import counting_use
        from tundra_nb.daemon.upkeep import Upkeep

        ready = life.info.in_state("ready")

        def announce() -> None:
            gc.freeze()  # modules and tables live as long as the daemon: going through them would hold up every call
            gc.set_threshold(YOUNG_OBJECTS)
            try:
                connection.write(paths.connection_file, ready)
            except TundraError as error:  # a home that cannot be written: the lock file's record is enough to find us
                life.problems.tell("connection_file", str(error), error.hint)
                _log.warning("%s", error)
            lock.write(ready)
            life.ready.set()
            _log.info("ready in %.0f ms at %s", life.uptime * 1000, paths.socket)

        def withdraw() -> None:
            upkeep.cancel()
            connection.remove(paths.connection_file, life.info.pid)
            with contextlib.suppress(TundraError):  # a full disk must not keep it from stopping
                ended = "" if life.is_asked else life.reason
                lock.write(life.info.in_state("stopping", ended=ended))

        server = Server(
            configured(
                counting_use(app, life), start.loaded.settings, drain=DRAIN_SECONDS, keep_alive=KEEP_ALIVE_SECONDS
            )
        )
        server.on_ready = announce
        looking_after = Upkeep(paths, ready, lock=lock, door=door, problems=life.problems, serve=server.listen_at)
        upkeep = asyncio.create_task(_kept(looking_after, life), name="upkeep")
        try:
            await _answer(server, start, door.listener, withdraw)
        finally:
            withdraw()
            await asyncio.gather(upkeep, return_exceptions=True)


async def _kept(upkeep: Upkeep, life: Life) -> None:
    """The upkeep, begun when the daemon is ready; a defect there must not go unseen."""
    try:
        await life.ready.wait()
        await upkeep.run()
    except Exception:  # noqa: BLE001 - the top of a task: nobody else would hear of it
        _log.exception("defect in the upkeep of socket and files")


async def _answer(server: Server, start: AppParts, listener: socket.socket, withdraw: Callable[[], None]) -> None:
    life = start.life

    async def end() -> None:
        idle = asyncio.ensure_future(life.idle(start.loaded.settings.daemon.idle_exit_seconds, asyncio.sleep))
        told = asyncio.ensure_future(life.stopping.wait())
        try:
            await asyncio.wait((idle, told), return_when=asyncio.FIRST_COMPLETED)
        finally:
            idle.cancel()
            told.cancel()
        life.stop("nobody used it")
        _limit_the_stop()
        _log.info("stopping: %s", life.reason)
        try:
            withdraw()
        finally:
            server.should_exit = True
        await life.hurry.wait()
        server.force_exit = True

    ending = asyncio.create_task(end())
    try:
        await server.serve(sockets=[listener])
    finally:
        ending.cancel()
        await asyncio.wait((ending,))
        await server.end_tasks(CANCEL_SECONDS)
    if not ending.cancelled() and (failure := ending.exception()) is not None:
        raise failure


async def _entered(
    stack: contextlib.AsyncExitStack, context: AbstractAsyncContextManager[ASGIApp], life: Life
) -> ASGIApp | None:
    """Open the application; None when the daemon is told to stop meanwhile.

    It is entered and left in this very task, because task groups and time-outs inside it belong to one. Its end is
    limited in time, and a failure there does not hide another.
    """
    task = asyncio.current_task()
    assert task is not None
    is_entering = True

    def cancel(_: asyncio.Future[Literal[True]]) -> None:
        if is_entering and life.stopping.is_set():
            _limit_the_stop()
            task.cancel()

    told = asyncio.ensure_future(life.stopping.wait())
    told.add_done_callback(cancel)
    try:
        app = await context.__aenter__()
    except asyncio.CancelledError:
        if not life.stopping.is_set():
            raise
        task.uncancel()
        return None
    finally:
        is_entering = False
        told.cancel()

    async def leave() -> None:
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await context.__aexit__(None, None, None)
        except TimeoutError:
            _log.error("the runtime did not close within %g s", CLOSE_SECONDS)
        except Exception:  # noqa: BLE001 - the last word of a handler at the top: what follows must be closed too
            _log.exception("the runtime did not close cleanly")

    stack.push_async_callback(leave)
    return app


def _limit_the_stop() -> None:
    """Give the process `HARD_SECONDS` to live, also when its loop no longer turns."""
    faulthandler.dump_traceback_later(HARD_SECONDS, exit=True)


def _stop_on_signals(life: Life) -> None:
    def on_signal(number: signal.Signals) -> None:
        life.stop(f"{number.name} received", force=life.stopping.is_set())  # a second one is in a hurry

    for number in STOP_SIGNALS:
        asyncio.get_running_loop().add_signal_handler(number, on_signal, number)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)


def _stop_without(guarded: guard.Guarded, life: Life) -> None:
    """A daemon whose guard was killed stops in order: nobody would end its children after it."""
    loop = asyncio.get_running_loop()

    def on_end_of_file() -> None:
        loop.remove_reader(guarded.pipe)
        life.stop("its guard was killed", is_asked=False)

    loop.add_reader(guarded.pipe, on_end_of_file)


@contextlib.contextmanager
def _last_words() -> Iterator[None]:
    """What would go to stderr unseen and unmasked goes to the log.

    A fatal signal, or a stop that hangs, still leaves a trace of all threads on stderr, which in the background is the
    log's file; it holds no values.
    """

    def in_thread(args: threading.ExceptHookArgs) -> None:
        error = args.exc_value or args.exc_type()
        _log.error("defect in thread %s", args.thread.name if args.thread else "?", exc_info=error)

    def unraisable(args: sys.UnraisableHookArgs) -> None:
        _log.error("defect: %s", args.err_msg or "exception ignored", exc_info=args.exc_value)

    before = threading.excepthook, sys.unraisablehook
    threading.excepthook, sys.unraisablehook = in_thread, unraisable
    faulthandler.enable()
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        threading.excepthook, sys.unraisablehook = before


def _tell_of(predecessor: DaemonRecord, problems: Problems, *, is_guard_continued: bool) -> None:
    """Say how the daemon before this one ended: it could not, or not to anybody."""
    how = predecessor.ended or "it was killed or crashed, or the machine went down"
    if is_guard_continued:
        how += f"; its guard (pid {predecessor.guard}) was stopped by a signal, and now ends what it left"
    message = f"the daemon before this one (pid {predecessor.pid}) did not stop in order: {how}"
    problems.note("predecessor", message)
    _log.warning("%s", message)


def _key_variables(loaded: Loaded) -> Iterator[str]:
    for profile in loaded.settings.profile:
        if profile.api_key_env:
            yield profile.api_key_env
    if loaded.settings.store.password_env:
        yield loaded.settings.store.password_env


def _salt(paths: Paths) -> bytes:
    """The data directory's salt for fingerprints, made at first use."""
    from tundra_nb.runtime.telemetry.redact import SALT_BYTES

    with contextlib.suppress(FileNotFoundError):
        salt = paths.salt.read_bytes()
        if len(salt) == SALT_BYTES:
            return salt
        paths.salt.unlink()  # half-written by a crash
    salt = os.urandom(SALT_BYTES)
    with open(os.open(paths.salt, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
        file.write(salt)
    return salt


def _report(error: TundraError, environ: Mapping[str, str], *, background: bool) -> None:
    if background:
        sys.stderr.write(_masked(f"{START_ERROR}{json.dumps(error.to_wire())}\n", environ))
    else:
        sys.stderr.write(_masked(f"{error.code}: {error.message}\n  → {error.hint}\n", environ))
    sys.stderr.flush()


def _masked(text: str, environ: Mapping[str, str]) -> str:
    from tundra_nb.runtime.telemetry.redact import Redactor

    redactor = Redactor()
    redactor.register_environ(environ)
    return redactor.text(text)
