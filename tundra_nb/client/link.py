"""Where the daemon is for a client, shared by both clients: the connection, found again when the daemon has gone.

A client reaches the daemon by its Unix socket, or through a Jupyter server when `TUNDRA_URL` names one.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from tundra_nb import descriptors, paths
from tundra_nb._version import API
from tundra_nb.errors import IpcError, TransportError, TundraError
from tundra_nb.local.place import Place, place_of_url

if TYPE_CHECKING:
    from tundra_nb.local.launch import Connection


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
        self._loss: tuple[TundraError, int] | None = None
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

    def broke(self, error: TundraError) -> TundraError:
        """Keep what was lost until the line is back (`take_loss`); returns the error."""
        if self._loss is None:  # what came first is the cause of the rest
            self._loss = (error, time.time_ns() // 1000)
        return error

    def take_loss(self) -> tuple[TundraError, int] | None:
        """The last break of the line and when it was (microseconds), once."""
        loss, self._loss = self._loss, None
        return loss

    def lost(self, exc: Exception) -> TundraError:
        """The error for a connection that cannot be made or was lost."""
        return self.broke(self._lost(exc))

    def _lost(self, exc: Exception) -> TundraError:
        reason = getattr(exc, "strerror", None) or str(exc) or type(exc).__name__
        if self.place is not None and self.place.is_bridged:
            return TransportError(
                problem=f"no answer from the Jupyter server at {self.place.host}: {reason}",
                remedy="Reading can be repeated; what calls or starts something may have been carried out: "
                "`%tundra last` and `%tundra pty list` show it. Check TUNDRA_URL, TUNDRA_TOKEN and the server.",
            )
        if (error := descriptors.exhausted_here(exc)) is not None:
            return error
        return IpcError(kind="absent", problem=f"the daemon cannot be reached: {reason}")


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
