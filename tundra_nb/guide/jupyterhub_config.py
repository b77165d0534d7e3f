"""A JupyterHub whose users each have a Tundra of their own. Copy it, and change what your hub needs.

    jupyterhub -f jupyterhub_config.py

Its environment needs `jupyterhub`, `jupyterlab`, `tundra-nb` and `configurable-http-proxy`. The gate starts a hub with
this file, as it stands here.
"""

import os
from typing import Any

from traitlets.config import get_config

c: Any = get_config()

DATA = os.environ.get("TUNDRA_HUB_DATA", "/srv/tundra")
"""On a local disk, or a volume that one machine mounts at a time; never on NFS. Below it: a folder for each user, which
that user owns (0700)."""

TEAM = {name: value for name, value in os.environ.items() if name.startswith("TUNDRA_") and "__" in name}
"""Settings for everybody, as they stand in the hub's own environment (`TUNDRA_STORE__ENGINE=dolt` …); no user's file of
settings can undo them. What a team shares: page `teams` of the guide."""


def of_user(folder: str) -> Any:
    """A folder of the user whose server is started."""
    return lambda spawner: os.path.join(DATA, spawner.user.name, folder)


c.Spawner.default_url = "/lab"
c.Spawner.environment = {
    # the history, what waits to be stored, transcripts: this must survive
    "TUNDRA_DATA_DIR": of_user("data"),
    # what lives as long as the server does: sockets and connection files
    "JUPYTER_RUNTIME_DIR": of_user("runtime"),
    "XDG_RUNTIME_DIR": of_user("run"),
    # each user's own settings
    "TUNDRA_CONFIG": of_user("tundra.toml"),
} | TEAM
# Variables with the keys and passwords that the settings name. They go to every user's server.
c.Spawner.env_keep = [*os.environ.get("TUNDRA_HUB_KEYS", "").split(), "PATH", "LANG", "LC_ALL", "TZ"]

# A server that does nothing for an hour is stopped, and its daemon with it.
if os.environ.get("TUNDRA_HUB_CULL"):  # needs `pip install jupyterhub-idle-culler`
    c.JupyterHub.services = [{"name": "cull", "command": ["jupyterhub-idle-culler", "--timeout=3600"]}]
    scopes = ["list:users", "read:users:activity", "read:servers", "delete:servers"]
    c.JupyterHub.load_roles = [{"name": "cull", "services": ["cull"], "scopes": scopes}]
