"""Where a daemon can be reached, and dialling its socket."""

from __future__ import annotations

import dataclasses
import os
import socket
import urllib.parse

from tundra_nb.errors import ConfigError, IpcError


@dataclasses.dataclass(frozen=True)
class Place:
    """Where requests go. `socket` or `host` is set, never both."""

    socket: str | None = None
    host: str = "tundra"
    port: int | None = None
    is_https: bool = False
    prefix: str = ""
    """Put before each path: the Jupyter server's base URL and `/tundra`."""
    token: str | None = dataclasses.field(default=None, repr=False)

    @property
    def is_bridged(self) -> bool:
        return self.socket is None

    @property
    def authority(self) -> str:
        """Host and port, as a Host header and a URL have them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}" if self.port else host

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"token {self.token}"} if self.token else {}


def place_of_url(url: str, token: str | None) -> Place:
    """The place that `TUNDRA_URL` names: the base URL of a Jupyter server.

    Raises:
        ConfigError: it is no http(s) URL.
    """
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(
            where="TUNDRA_URL",
            problem="not an http(s) URL",
            remedy="It is the address of a Jupyter server, such as http://127.0.0.1:8888/.",
        )
    if token is not None and not (token.isascii() and token.isprintable()):
        raise ConfigError(
            where="TUNDRA_TOKEN", problem="has characters that no token has", remedy="Copy it again, without line ends."
        )
    return Place(
        host=parts.hostname,
        port=parts.port,
        is_https=parts.scheme == "https",
        prefix=parts.path.rstrip("/").removesuffix("/tundra") + "/tundra",
        token=token,
    )


def check_owner(path: str) -> None:
    """Refuse a socket that another user has put there: whoever listens at it would get our keys and prompts.

    Raises:
        IpcError: it belongs to another uid.
        OSError: there is none.
    """
    owner = os.stat(path).st_uid
    if owner != os.geteuid():
        raise IpcError(
            kind="refused",
            problem=f"{path} belongs to uid {owner}, not to you",
            remedy="Each user has a daemon of their own: check TUNDRA_DATA_DIR, and whether sudo is in the way.",
        )


def dial(path: str, timeout: float) -> socket.socket:
    """Connect to a daemon's socket; close what this returns.

    Raises:
        ConfigError: this platform has no Unix sockets.
        IpcError: it is not ours.
        OSError: nobody listens.
    """
    if not hasattr(socket, "AF_UNIX"):
        raise ConfigError(
            problem="the daemon needs Unix sockets, which this platform lacks",
            remedy="Work inside WSL2, or set TUNDRA_URL and TUNDRA_TOKEN to reach a Jupyter server that has one.",
        )
    check_owner(path)
    connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connected.settimeout(timeout)
        connected.connect(path)
    except BaseException:
        connected.close()
        raise
    return connected
