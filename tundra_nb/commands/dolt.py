"""`tundra dolt start|stop|status|join`: a Dolt server of our own beside the data directory, or a team's."""

from __future__ import annotations

import os

import click
import msgspec

from tundra_nb import paths, settings
from tundra_nb.client.results import Document
from tundra_nb.errors import UsageError
from tundra_nb.local import dolt_join, dolt_server, launch
from tundra_nb.settings import StoreSettings
from tundra_nb.settings import file as settings_file
from tundra_nb.views import Message

from . import options
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
@click.option("--force", is_flag=True, help="Kill it when it does not end within 3 s; nothing acknowledged is lost.")
@pass_face
def stop(face: Face, force: bool) -> Message:
    """Stop it; what cannot be stored meanwhile waits in the spool."""
    pid = dolt_server.stop(_paths(face), force=force)
    return Message(
        "No Dolt server of ours was running." if pid is None else f"The Dolt server (pid {pid}) has stopped."
    )


@command.command("join", cls=Command)
@click.argument("url", metavar="URL")
@click.option("--password-env", type=options.Variable(), default="", metavar="NAME", help="Variable with the password.")
@click.option("--reader", default="", metavar="USER", help="A login that may only SELECT, for `sql`.")
@click.option("--reader-password-env", type=options.Variable(), default="", metavar="NAME", help="Its password's.")
@click.option("--ca-file", type=click.Path(exists=True, dir_okay=False), help="Who signed the server's certificate.")
@pass_face
def join(
    face: Face, url: str, password_env: str, reader: str, reader_password_env: str, ca_file: str | None
) -> Document:
    """Write into the history of a team: the database URL (`dolts://USER@HOST:3307/DATABASE`) of a Dolt server.

    The logins are tried first; then the settings file names the server, and the daemon is started anew. What the
    history of before holds stays where it is.
    """
    where = _paths(face)
    chosen = dolt_join.settings_of(url) | {
        "password_env": password_env,
        "reader_user": reader,
        "reader_password_env": reader_password_env,
        "ca_file": os.path.abspath(ca_file) if ca_file else "",
    }
    found = dolt_join.prove(msgspec.structs.replace(_store(), **chosen), os.environ)
    file = paths.config_file(os.environ)
    settings_file.set_values(file, {f"store.{name}": value for name, value in chosen.items()}, os.environ)
    launch.restart(where, by="tundra dolt join", started_by=face.name)
    told = {"server": f"{chosen['host']}:{chosen['port']}/{chosen['database']}", "tls": chosen["tls"]}
    return Document(told | msgspec.structs.asdict(found) | {"settings": str(file)})


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
