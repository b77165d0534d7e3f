"""The server extension: what Jupyter loads, starts and stops."""

from __future__ import annotations

import os
from typing import Any

from jupyter_server.extension.application import ExtensionApp
from traitlets import Bool

from tundra_nb import paths
from tundra_nb.local import launch

from . import terminals
from .proxy import MOUNT, DaemonProxy
from .supervisor import Supervisor
from .terminals import Mirror

NOT_FOR_THE_DAEMON = frozenset(
    {
        "TUNDRA_URL",
        "TUNDRA_TOKEN",
        "JUPYTER_TOKEN",
        "JUPYTERHUB_API_TOKEN",
        "JPY_API_TOKEN",
        "CONFIGPROXY_AUTH_TOKEN",
    }
)
"""Variables of the server's environment that would mislead the daemon, or open the server to what runs in its PTYs."""


class TundraExtension(ExtensionApp):
    """Hosts the tundra daemon for a Jupyter server and serves it under `/tundra/`.

    Configured in `jupyter_tundra_nb_config.py`, `jupyter_server_config.py` or on the command line; the files of
    `jupyter_server_config.d` set only which extensions are on.
    """

    name = "tundra_nb"
    load_other_extensions = True

    start_daemon = Bool(
        True,
        help="""Start the daemon in the background when the Jupyter server starts.
        If False, the first request under `/tundra/`, or the first `%tundra` in a notebook, starts it.""",
    ).tag(config=True)
    stop_daemon = Bool(
        True,
        help="""End a daemon that this server has started when the server stops.
        Even then it goes on while somebody else is attached or a PTY lives. If False, it ends by itself when it has
        been idle for ten minutes.""",
    ).tag(config=True)

    supervisor: Supervisor | None = None
    mirror: Mirror | None = None

    def _link_jupyter_server_extension(self, serverapp: Any) -> None:
        super()._link_jupyter_server_extension(serverapp)
        # All extensions are linked before the first is loaded: the terminals extension has no manager yet.
        self.supervisor = Supervisor(paths.find(), _ensure, self.log)
        point = serverapp.extension_manager.extension_points.get("jupyter_server_terminals")
        if point is not None and point.app is not None and serverapp.terminals_enabled:
            self.mirror = Mirror(self.supervisor, self.log)
            terminals.extend(point.app, self.supervisor, self.mirror)

    def initialize_handlers(self) -> None:
        self.supervisor = self.supervisor or Supervisor(paths.find(), _ensure, self.log)
        self.handlers.append((rf"{MOUNT}(/.*)", DaemonProxy, {"supervisor": self.supervisor}))

    async def _start_jupyter_server_extension(self, serverapp: Any) -> None:  # noqa: ARG002 - Jupyter's hook
        if self.supervisor is not None:
            self.supervisor.start(now=self.start_daemon)
        if self.mirror is not None:
            self.mirror.start()

    async def stop_extension(self) -> None:
        if self.mirror is not None:
            await self.mirror.stop()
        if self.supervisor is not None:
            await self.supervisor.stop(end=self.stop_daemon)


def _ensure(where: paths.Paths, start: bool, started_by: str) -> launch.Connection:
    # TUNDRA_URL is for the kernels: the bridge that it names must not look for the daemon behind itself.
    environ = {name: value for name, value in os.environ.items() if name not in NOT_FOR_THE_DAEMON}
    return launch.ensure(where, start=start, started_by=started_by, environ=environ)
