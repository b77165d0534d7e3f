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
    from tundra_nb.client.aio import AsyncReplyStream as AsyncReplyStream
    from tundra_nb.client.aio_ptys import AsyncPty as AsyncPty
    from tundra_nb.client.explain import Explanation as Explanation
    from tundra_nb.client.live import Run as Run
    from tundra_nb.client.live import ShellRun as ShellRun
    from tundra_nb.client.ptys import Pty as Pty
    from tundra_nb.client.results import Document as Document
    from tundra_nb.client.results import Last as Last
    from tundra_nb.client.results import Status as Status
    from tundra_nb.client.results import Step as Step
    from tundra_nb.client.results import Why as Why
    from tundra_nb.client.run_story import RunStory as RunStory
    from tundra_nb.client.sync import Client as Client
    from tundra_nb.client.sync import ReplyStream as ReplyStream
    from tundra_nb.client.versions import Merged as Merged
    from tundra_nb.errors import TundraError as TundraError
    from tundra_nb.protocol.ptys import Matched as Matched
    from tundra_nb.terminal.screen import Screen as Screen
    from tundra_nb.types import Reply as Reply
    from tundra_nb.types import ToolCall as ToolCall
    from tundra_nb.types import Usage as Usage

__all__ = [
    "AsyncClient",
    "AsyncPty",
    "AsyncReplyStream",
    "Client",
    "Document",
    "Explanation",
    "Last",
    "Matched",
    "Merged",
    "Pty",
    "Reply",
    "ReplyStream",
    "Run",
    "RunStory",
    "Screen",
    "ShellRun",
    "Status",
    "Step",
    "ToolCall",
    "TundraError",
    "Usage",
    "Why",
    "__version__",
    "connect",
    "connect_async",
    "errors",
]

_LAZY = {
    "AsyncClient": "tundra_nb.client.aio",
    "AsyncPty": "tundra_nb.client.aio_ptys",
    "AsyncReplyStream": "tundra_nb.client.aio",
    "Client": "tundra_nb.client.sync",
    "Document": "tundra_nb.client.results",
    "Explanation": "tundra_nb.client.explain",
    "Last": "tundra_nb.client.results",
    "Matched": "tundra_nb.protocol.ptys",
    "Merged": "tundra_nb.client.versions",
    "Pty": "tundra_nb.client.ptys",
    "Reply": "tundra_nb.types",
    "ReplyStream": "tundra_nb.client.sync",
    "Run": "tundra_nb.client.live",
    "RunStory": "tundra_nb.client.run_story",
    "Screen": "tundra_nb.terminal.screen",
    "ShellRun": "tundra_nb.client.live",
    "Status": "tundra_nb.client.results",
    "Step": "tundra_nb.client.results",
    "ToolCall": "tundra_nb.types",
    "TundraError": "tundra_nb.errors",
    "Usage": "tundra_nb.types",
    "Why": "tundra_nb.client.results",
    "errors": "tundra_nb.errors",
}
"""Module by name: what users meet, imported when it is asked for."""


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


def _jupyter_labextension_paths() -> list[dict[str, str]]:
    return [{"src": "labextension", "dest": "tundra-nb"}]


def _jupyter_server_extension_points() -> list[dict[str, Any]]:
    from tundra_nb.server.app import TundraExtension

    return [{"module": "tundra_nb.server", "app": TundraExtension}]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'tundra_nb' has no attribute {name!r}")
    module = importlib.import_module(_LAZY[name])
    return module if name == "errors" else getattr(module, name)


def __dir__() -> list[str]:
    return [*globals(), *_LAZY]
