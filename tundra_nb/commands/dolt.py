"""`tundra dolt start|stop|status`: a Dolt server of our own, beside the data directory."""

from __future__ import annotations

import os

import click
import msgspec

from tundra_nb import paths, settings
from tundra_nb.client.results import Document
from tundra_nb.errors import UsageError
from tundra_nb.local import dolt_server
from tundra_nb.settings import StoreSettings
from tundra_nb.views import Message

from .command import Command, Group, Result
from .face import Face, pass_face


@click.group("dolt", cls=Group)
@click.pass_context
@pass_face
def command(face: Face, ctx: click.Context) -> Result | None:
    """Whether the Dolt server of this data directory runs."""
    return _status(face) if ctx.invoked_subcommand is None else None


@command.command("status", cls=Command)
@pass_face
def status(face: Face) -> Result:
    """Whether the Dolt server of this data directory runs."""
    return _status(face)


@command.command("start", cls=Command)
@pass_face
def start(face: Face) -> Document:
    """Set up and start a Dolt server at `store.host` and `store.port`; nothing happens when it runs."""
    return _document(dolt_server.start(_paths(face), _store()))


@command.command("stop", cls=Command)
@pass_face
def stop(face: Face) -> Message:
    """Stop it; what cannot be stored meanwhile waits in the spool."""
    pid = dolt_server.stop(_paths(face))
    return Message(
        "No Dolt server of ours was running." if pid is None else f"The Dolt server (pid {pid}) has stopped."
    )


def _status(face: Face) -> Result:
    told = dolt_server.status(_paths(face), _store())
    return Result(_document(told), exit_code=0 if told.running else 1)


def _document(told: dolt_server.DoltStatus) -> Document:
    return Document(msgspec.structs.asdict(told))


def _store() -> StoreSettings:
    return settings.load(paths.config_file(), os.environ).settings.store


def _paths(face: Face) -> paths.Paths:
    found = face.client.link.paths
    if found is None:
        raise UsageError(
            problem="TUNDRA_URL is set: the store is that machine's",
            remedy="Unset TUNDRA_URL to work with a server of this machine.",
        )
    return found
