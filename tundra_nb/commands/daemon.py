"""`tundra daemon start|stop|restart|status|run`: the daemon itself."""

from __future__ import annotations

import os
import sys

import click

from tundra_nb import paths, settings
from tundra_nb.client.results import DaemonStatus
from tundra_nb.errors import UsageError
from tundra_nb.local import launch
from tundra_nb.views import Message

from .command import Command, Group, PlainCommand, Result
from .face import Face, pass_face


@click.group("daemon", cls=Group)
@click.pass_context
@pass_face
def command(face: Face, ctx: click.Context) -> Result | None:
    """Whether the daemon runs, and where."""
    return _status(face) if ctx.invoked_subcommand is None else None


@command.command("start", cls=Command)
@pass_face
def start(face: Face) -> DaemonStatus:
    """Start the daemon; nothing happens when it runs."""
    found = _paths(face)
    launch.ensure(found, started_by=face.name, explicit=True, environ=_environ(), on_wait=_waiting(face))
    return DaemonStatus(launch.status(found))


@command.command("stop", cls=Command)
@click.option("--force", is_flag=True, help="Do not wait for calls under way; kill it when it does not answer.")
@pass_face
def stop(face: Face, force: bool) -> Message:
    """Stop the daemon; only an explicit start brings it back."""
    stopped = launch.stop(_paths(face), force=force)
    return Message("No daemon was running." if stopped is None else f"The daemon (pid {stopped.pid}) has stopped.")


@command.command("restart", cls=Command)
@click.option("--force", is_flag=True, help="Do not wait for calls under way.")
@pass_face
def restart(face: Face, force: bool) -> DaemonStatus:
    """Stop the daemon and start it with this process's environment."""
    found = _paths(face)
    environ = _environ()
    settings.load(paths.config_file(environ), environ)  # where none could start, the one that runs goes on
    paths.make_private(found.data_dir)
    launch.restart(
        found,
        by="tundra daemon restart",
        started_by=face.name,
        force=force,
        environ=_environ(),
        on_wait=_waiting(face),
    )
    return DaemonStatus(launch.status(found))


@command.command("status", cls=Command)
@pass_face
def status(face: Face) -> Result:
    """Whether the daemon runs, and where; starts nothing."""
    return _status(face)


@command.command("run", cls=PlainCommand)
@pass_face
def run(face: Face) -> None:
    """Run the daemon in the foreground, its log on this terminal."""
    if face.name != "cli":
        raise UsageError(
            problem="the foreground of a notebook is no place for a daemon", remedy="`%tundra daemon start` starts it."
        )
    sys.stdout.flush()
    # -P: the working directory must not be searched for modules
    os.execv(sys.executable, [sys.executable, "-P", "-m", "tundra_nb.daemon", "run"])  # noqa: S606 - no shell is meant


def _status(face: Face) -> Result:
    told = DaemonStatus(launch.status(_paths(face)))
    return Result(told, exit_code=0 if told["running"] else 1)


def _paths(face: Face) -> paths.Paths:
    found = face.client.link.paths
    if found is None:
        raise UsageError(
            problem="TUNDRA_URL is set: the daemon is that Jupyter server's to start and stop",
            remedy="Unset TUNDRA_URL to work with the daemon of this machine.",
        )
    return found


def _environ() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "TUNDRA_URL"}


def _waiting(face: Face) -> launch.Progress:
    return lambda seconds: face.write(f"waiting for the daemon ({seconds:.0f} s)\n")
