"""A runtime for LLM calls, shell sessions and versioned history, and the notebook workbench over it.

    import tundra_nb

    with tundra_nb.connect() as t:
        print(t.ask("Say hi"))
        t.calls(since="1h")

In a notebook `%load_ext tundra_nb` gives the `%tundra` magics. This module stays light: what is heavy is imported by
the functions that need it.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

from tundra_nb._version import __version__ as __version__

if TYPE_CHECKING:
    from tundra_nb import errors as errors
    from tundra_nb.client.aio import AsyncClient as AsyncClient
    from tundra_nb.client.sync import Client as Client

__all__ = ["AsyncClient", "Client", "__version__", "connect", "connect_async", "errors"]

_LAZY = {
    "AsyncClient": ("tundra_nb.client.aio", "AsyncClient"),
    "Client": ("tundra_nb.client.sync", "Client"),
    "errors": ("tundra_nb.errors", ""),
}


def connect(data_dir: str | os.PathLike[str] | None = None, start: bool = True) -> Client:
    """Connect to the tundra daemon, starting it when it is not there and `start` allows.

    Args:
        data_dir: whose daemon; `TUNDRA_DATA_DIR`, else the user's data directory, by default. When `TUNDRA_URL` names a
            Jupyter server and no directory is given, the daemon behind that server.
        start: whether an absent daemon is started.

    Raises:
        IpcError: the daemon is absent, cannot start, or speaks another API version.
    """
    from tundra_nb.client import connect as _connect

    return _connect(data_dir, start)


def connect_async(data_dir: str | os.PathLike[str] | None = None, start: bool = True) -> AsyncClient:
    """The same with awaited methods: `async with tundra_nb.connect_async() as t: await t.ask("Say hi")`."""
    from tundra_nb.client import connect_async as _connect_async

    return _connect_async(data_dir, start)


def load_ipython_extension(ipython: Any) -> None:
    """`%load_ext tundra_nb`: the `%tundra` magics, their completion, and how results are shown."""
    from tundra_nb.kernel import load

    load(ipython)


def unload_ipython_extension(ipython: Any) -> None:
    from tundra_nb.kernel import unload

    unload(ipython)


def _jupyter_server_extension_points() -> list[dict[str, Any]]:
    from tundra_nb.server.app import TundraExtension

    return [{"module": "tundra_nb.server", "app": TundraExtension}]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'tundra_nb' has no attribute {name!r}")
    module, attribute = _LAZY[name]
    found = importlib.import_module(module)
    return getattr(found, attribute) if attribute else found


def __dir__() -> list[str]:
    return [*globals(), *_LAZY]
