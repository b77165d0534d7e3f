"""Where the daemon is for a client, shared by both clients: the connection, found again when the daemon has gone.

A client reaches the daemon by its Unix socket, or through a Jupyter server when `TUNDRA_URL` names one.
"""

from __future__ import annotations

import dataclasses
import os
import urllib.parse
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from tundra_nb import paths
from tundra_nb._version import API
from tundra_nb.errors import ConfigError, IpcError, TransportError, TundraError

if TYPE_CHECKING:
    from tundra_nb.local.launch import Connection


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


class Link:
    """The way to the daemon of one data directory. `find` does I/O, nothing else does."""

    def __init__(
        self,
        data_dir: str | os.PathLike[str] | None = None,
        *,
        start: bool = True,
        started_by: str = "python",
        environ: Mapping[str, str] | None = None,
    ) -> None:
        env = os.environ if environ is None else environ
        self._start = start
        self._started_by = started_by
        self.on_wait: Callable[[float], None] | None = None
        """Told the seconds waited, while a daemon takes long to start."""
        self._url = env.get("TUNDRA_URL") if data_dir is None else None
        self._token = env.get("TUNDRA_TOKEN")
        self._paths = None if self._url else paths.find(data_dir, env)
        self.place: Place | None = place_of_url(self._url, self._token) if self._url else None

    @classmethod
    def to(cls, place: Place) -> Link:
        """A link to a known place, which is never looked for again."""
        link = cls(start=False, environ={"TUNDRA_URL": "http://tundra"})  # a URL, so that no directory is looked for
        link.place = place
        return link

    def quiet(self) -> Link:
        """A link to the same daemon that never starts one, for those who only watch."""
        if self._paths is not None:
            return Link(self._paths.data_dir, start=False)
        assert self.place is not None
        return Link.to(self.place)

    @property
    def paths(self) -> paths.Paths | None:
        """The files of the daemon; None when it is reached through a Jupyter server."""
        return self._paths

    def find(self, *, start: bool | None = None) -> Place:
        """Find the daemon, starting it when that is allowed; blocks until it is ready.

        Raises:
            IpcError: absent, or cannot be started.
        """
        if self._paths is not None:
            from tundra_nb.local.launch import ensure

            # a directory that was asked for by name is not overruled by TUNDRA_URL
            env = {name: value for name, value in os.environ.items() if name != "TUNDRA_URL"}
            self.place = _place_of(
                ensure(
                    self._paths,
                    start=self._start if start is None else start,
                    started_by=self._started_by,
                    on_wait=self.on_wait,
                    environ=env,
                )
            )
        assert self.place is not None
        return self.place

    @property
    def can_find_again(self) -> bool:
        return self._paths is not None

    @property
    def key(self) -> str:
        """The same for all links that lead to the same daemon."""
        return str(self._paths.data_dir) if self._paths else repr(self.place)

    def lost(self, exc: Exception) -> TundraError:
        """The error for a connection that cannot be made or was lost."""
        reason = getattr(exc, "strerror", None) or str(exc) or type(exc).__name__
        if self.place is not None and self.place.is_bridged:
            return TransportError(problem=f"no answer from the Jupyter server at {self.place.host}: {reason}")
        return IpcError(kind="absent", problem=f"the daemon cannot be reached: {reason}")


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


def _place_of(connection: Connection) -> Place:
    if connection.url:
        return place_of_url(connection.url, connection.token)
    if connection.api != API:
        raise IpcError(
            kind="version",
            problem=f"the daemon speaks API {connection.api} (version {connection.version}), this client API {API}",
            remedy="`tundra daemon restart` replaces it by this version.",
        )
    return Place(socket=connection.socket)
