"""`tundra gateway start|stop|status`: where programs that speak a vendor's own API reach the runtime."""

from __future__ import annotations

from typing import Any

import click

from tundra_nb.client.gateway import GatewayStatus

from .command import Command, Group
from .face import Face, pass_face


@click.group("gateway", cls=Group)
@click.option("--widget", is_flag=True, help="Notebook: the list of callers, live.")
@click.pass_context
@pass_face
def command(face: Face, ctx: click.Context, widget: bool) -> Any:
    """Where the gateway listens, the lines to copy for each SDK, and who has called."""
    if ctx.invoked_subcommand is not None:
        return None
    return face.widget("gateway") if widget else face.client.gateway.status()


@command.command("status", cls=Command)
@pass_face
def status(face: Face) -> GatewayStatus:
    """The same as `gateway` alone."""
    return face.client.gateway.status()


@command.command("start", cls=Command)
@click.option("--port", type=click.IntRange(0, 65535), help="On loopback; 0 chooses one and keeps it.")
@pass_face
def start(face: Face, port: int | None) -> GatewayStatus:
    """Have it listen until `gateway stop`; the daemon stays as long."""
    return face.client.gateway.start(port)


@command.command("stop", cls=Command)
@pass_face
def stop(face: Face) -> GatewayStatus:
    """Have it listen no longer. `/v1` under a Jupyter server stays."""
    return face.client.gateway.stop()
