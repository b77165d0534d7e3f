"""Remedies that are safe to carry out: they lose nothing, and each says beforehand what it would do."""

from __future__ import annotations

import contextlib
import os
import stat
import subprocess
import sys
from collections.abc import Callable

import msgspec
import psutil

from tundra_nb.errors import IpcError, TundraError
from tundra_nb.local import dolt_server, launch, running
from tundra_nb.protocol import profiles, ptys
from tundra_nb.protocol.endpoint import Endpoint

from .place import Subject

WAIT_SECONDS = 15.0
CLEAN_SECONDS = 10.0


def told(name: str, place: Subject) -> str:
    """What a fix would do, for the person who is asked; empty where there is none of this name."""
    return FIXES[name][0](place) if name in FIXES else ""


def carry_out(name: str, place: Subject) -> None:
    """Do it.

    Raises:
        TundraError: it could not be done; says why.
    """
    FIXES[name][1](place)


def _start(place: Subject) -> None:
    launch.ensure(place.paths, explicit=True, started_by="doctor", environ=_environ(place))


def _restart(place: Subject) -> None:
    """Also where it cannot be reached: its process is known by the record, and is asked to end by a signal."""
    process = place.process
    if process is not None:
        with contextlib.suppress(psutil.Error):
            process.terminate()
            process.wait(WAIT_SECONDS)
        if process.is_running() and place.process is not None:
            raise IpcError(
                kind="refused",
                problem=f"the daemon (pid {process.pid}) does not end",
                remedy=f"`kill -9 {process.pid}` ends it; nothing that was answered is lost.",
            )
    _start(place)


def _remove_socket(place: Subject) -> None:
    if running.find(place.paths, environ={}) is None and place.process is None:
        place.paths.socket.unlink(missing_ok=True)


def _private(place: Subject) -> None:
    for folder in (place.paths.data_dir, place.paths.socket.parent):
        if folder.is_dir() and folder.stat().st_uid == os.geteuid():
            mode = stat.S_IMODE(folder.stat().st_mode)
            os.chmod(folder, (mode | 0o700) & ~0o077)


def _offer_keys(place: Subject) -> None:
    wanted = {profile.api_key_env for profile in place.settings.profile} - {""}
    values = {name: place.environ[name] for name in wanted if place.environ.get(name)}
    _post(place, profiles.OFFER_KEYS, values)


def _clean(place: Subject) -> None:
    _post(place, ptys.CLEAN, ptys.CleanBody(dry=False))


def _extension(place: Subject) -> None:
    command = [sys.executable, "-m", "jupyter", "server", "extension", "enable", "--user", "tundra_nb"]
    done = subprocess.run(command, env=_environ(place), capture_output=True, text=True, check=False, timeout=60)
    if done.returncode != 0:
        raise IpcError(kind="refused", problem=f"Jupyter did not take it: {done.stderr.strip()[-200:]}")


def _dolt_start(place: Subject) -> None:
    dolt_server.start(place.paths, place.settings.store)


def _post(place: Subject, endpoint: Endpoint, body: msgspec.Struct | dict[str, str]) -> None:
    found = launch.ensure(place.paths, started_by="doctor", environ=_environ(place))
    try:
        status, answer = running.request(found, endpoint, body, timeout=CLEAN_SECONDS)
    except OSError as exc:
        raise IpcError(kind="died", problem=f"the daemon did not do it: {exc}") from exc
    if status >= 400:
        raise _refused(answer)


def _refused(answer: dict[str, object]) -> TundraError:
    from tundra_nb.errors import from_wire

    return from_wire(answer)


def _environ(place: Subject) -> dict[str, str]:
    return {name: value for name, value in place.environ.items() if name != "TUNDRA_URL"}


FIXES: dict[str, tuple[Callable[[Subject], str], Callable[[Subject], None]]] = {
    "start": (lambda _: "start the daemon", _start),
    "restart": (lambda _: "end the daemon in order and start it again: calls under way are cut short", _restart),
    "remove_socket": (lambda place: f"remove {place.paths.socket}, at which nobody listens", _remove_socket),
    "private": (lambda place: f"let only you into {place.paths.data_dir} and {place.paths.socket.parent}", _private),
    "offer_keys": (lambda _: "hand the keys of this environment to the daemon, in memory only", _offer_keys),
    "clean": (lambda _: "remove what earlier daemons left: stray processes, dead sockets, old transcripts", _clean),
    "extension": (lambda _: "enable the Jupyter extension for your user", _extension),
    "dolt_start": (lambda _: "start the Dolt server of this data directory", _dolt_start),
}
"""Fix → what it would do, and the doing."""
