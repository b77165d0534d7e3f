"""`tundra mcp`: the door by which other agents read the history."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
from typing import TYPE_CHECKING

import click
import msgspec

from tundra_nb.commands.command import Command, Group
from tundra_nb.commands.face import Face, pass_face
from tundra_nb.errors import RefNotFound, TundraError, UsageError
from tundra_nb.views import Message

from . import tools
from .answers import MAX_CHARS
from .calling import Calling, connecting
from .rpc import RpcServer

if TYPE_CHECKING:
    from tundra_nb.client.sync import Client

HOSTS = ("claude-code", "codex", "cursor", "jupyter-ai")
TOKEN_VARIABLE = "TUNDRA_MCP_TOKEN"  # noqa: S105 - its name, not its value


@click.group("mcp", cls=Group)
@click.option(
    "--allow",
    multiple=True,
    metavar="NAME",
    help="Also offer a command that acts, run only after a person's yes: breakers-reset, providers-recheck, "
    "providers-park, all.",
)
@click.option("--at", metavar="REF", help="Read the history as of this commit, branch, tag or time.")
@click.option("--in", "source", metavar="SOURCE", help="Read an imported source instead of the own history.")
@click.option(
    "--max-chars", type=click.IntRange(min=500), default=MAX_CHARS, show_default=True, help="Longest answer of a tool."
)
@click.option("--listen", metavar="HOST:PORT", help="Over HTTP on a loopback address, instead of standard input.")
@click.pass_context
@pass_face
def command(
    face: Face,
    ctx: click.Context,
    allow: tuple[str, ...],
    at: str | None,
    source: str | None,
    max_chars: int,
    listen: str | None,
) -> None:
    """Serve the history to other agents (Model Context Protocol).

    An agent's host starts it and talks to it over standard input and output; `tundra mcp config HOST` prints what the
    host needs. Over HTTP the bearer token is that of the variable TUNDRA_MCP_TOKEN, or a new one, printed at the start.
    """
    if ctx.invoked_subcommand is not None:
        return
    if face.name != "cli":
        raise UsageError(
            problem="this door is opened by an agent's host, not in a notebook",
            field="mcp",
            remedy="`%tundra mcp config claude-code` prints what a host needs; in a terminal: `tundra mcp`.",
        )
    offered = tools.readers() | tools.actors(allow)
    with contextlib.ExitStack() as until_the_end:
        connect = connecting(until_the_end)
        if at is not None or source is not None:
            _check(connect(), at, source)
        toolbox = tools.Toolbox(connect, offered, at=at, source=source, max_chars=max_chars)
        server = RpcServer([tools.described(tool) for tool in toolbox.tools.values()], lambda: Calling(toolbox))
        if listen is None:
            from . import stdio

            stdio.serve(server)
            return
        from . import http

        token = os.environ.get(TOKEN_VARIABLE) or http.new_token()

        def ready(url: str) -> None:
            told = "of the variable " + TOKEN_VARIABLE if os.environ.get(TOKEN_VARIABLE) else token
            print(f"listening on {url}\nbearer token: {told}", file=sys.stderr, flush=True)  # noqa: T201 - its job

        http.serve(server, listen, token, ready)


def _check(client: Client, at: str | None, source: str | None) -> None:
    """Refuse at once what every tool would refuse; a store that cannot be read now may be readable later.

    Raises:
        UsageError: there is no such source.
        RefNotFound: there is no such state.
    """
    try:
        client.calls("all", at=at, source=source, limit=1)
    except (UsageError, RefNotFound):
        raise
    except TundraError:
        return


@command.command("config", cls=Command)
@click.argument("host", type=click.Choice(HOSTS))
def config(host: str) -> Message:
    """Print what HOST needs to know to use this door."""
    program, *arguments = _command_line()
    entry = {"command": program, "args": arguments}
    if host == "codex":
        quoted = ", ".join(msgspec.json.encode(word).decode() for word in arguments)
        return Message(
            "In ~/.codex/config.toml:\n\n[mcp_servers.tundra]\n"
            f"command = {msgspec.json.encode(program).decode()}\nargs = [{quoted}]"
        )
    text = msgspec.json.format(msgspec.json.encode({"mcpServers": {"tundra": entry}}), indent=2).decode()
    if host == "cursor":
        return Message(f"In .cursor/mcp.json of the project, or ~/.cursor/mcp.json:\n\n{text}")
    line = shlex.join(["claude", "mcp", "add", "tundra", "--", program, *arguments])
    if host == "jupyter-ai":
        return Message(
            "Jupyter AI's agents read the configuration of the program that they are. For Claude Code:\n\n"
            f"{line}\n\nor in .mcp.json of the folder that JupyterLab was started in:\n\n{text}"
        )
    return Message(f"{line}\n\nor in .mcp.json of the project:\n\n{text}")


def _command_line() -> list[str]:
    import shutil

    script = shutil.which("tundra", path=os.path.dirname(sys.executable))
    return [script, "mcp"] if script else [sys.executable, "-m", "tundra_nb", "mcp"]
