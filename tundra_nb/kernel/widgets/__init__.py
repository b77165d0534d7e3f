"""Live views: what a notebook shows while the kernel runs, through anywidget.

What lives here: one Python, script and style file per widget, what they share (`view`, `shared.js`, `shared.css`), the
messages that cross between them (`messages`), and the threads behind them (`live`). It is separate because it alone
needs anywidget and ipywidgets (150 ms to import), so nothing imports it before a widget is asked for. May import
`client`, `views` and anywidget.

A widget is a view: it changes nothing, but for the terminal's, which passes on what is typed. Each shows a static
picture in the same output, which it hides while it lives and keeps up to date, so that a saved notebook tells the last
state without a kernel, and untrusted. Whoever displays a widget owns it; `close` ends its thread and its connection, as
does closing the last view of it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tundra_nb.client.sync import Client

WIDGETS = {
    "gateway": ("gateway", "GatewayWidget"),
    "dash": ("dash", "DashWidget"),
    "providers": ("providers", "ProviderWidget"),
    "versions": ("versions", "VersionsWidget"),
}
"""Name → module of this package and class; each is made with a client, and what else its command was given."""


def make(name: str, client: Client, *given: Any) -> Any:
    """The widget of this name, with a daemon to look at: a widget itself starts none.

    Raises:
        IpcError: no daemon is there, and none can be started.
    """
    client.open()
    module, kind = WIDGETS[name]
    return getattr(importlib.import_module(f".{module}", __package__), kind)(client, *given)


def dashboard(client: Client, **window: Any) -> Any:
    """What `t.dashboard()` gives: the live one in a kernel, the static picture elsewhere."""
    from IPython.core.getipython import get_ipython

    from tundra_nb.dashboard.reading import Window
    from tundra_nb.dashboard.still import shown
    from tundra_nb.kernel.display import is_kernel

    asked = Window(**window)
    return make("dash", client, asked) if is_kernel(get_ipython()) else shown(client, asked)
