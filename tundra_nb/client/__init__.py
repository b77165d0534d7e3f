"""The only way in: a synchronous and an asynchronous client over the daemon's HTTP API.

What lives here: one table of API calls (`api`, `versions`, `ptys`: pure descriptions and decoders), the two clients
that send them (`sync` over `local.wire`, `aio` over aiohttp), the attached stream, time words, Arrow → pandas.
It is separate so that everything for users (commands, magics, widgets, incidents) shares one door that can also stand
on another machine. May import `errors`, `types`, `settings`, `paths`; never `runtime` or `daemon`. pandas, pyarrow and
aiohttp are imported when a call needs them.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .aio import AsyncClient
    from .sync import Client


def connect(data_dir: str | os.PathLike[str] | None = None, start: bool = True) -> Client:
    """Connect to the daemon of `data_dir`, starting it when it is not there and `start` allows.

    In a notebook the client stays attached, so that the daemon does not stop for idleness while the kernel lives.

    Raises:
        IpcError: the daemon is absent (and `start` is False), cannot start, or speaks another API version.
    """
    from .sync import Client

    client = Client(data_dir, start=start)
    client.open()
    return client


def connect_async(data_dir: str | os.PathLike[str] | None = None, start: bool = True) -> AsyncClient:
    """Make a client whose calls are awaited; it connects when it is entered, awaited or first used."""
    from .aio import AsyncClient

    return AsyncClient(data_dir, start=start)
