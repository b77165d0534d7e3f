"""The provider widget: profiles, breakers with their countdown, buckets beside the provider's own, live."""

from __future__ import annotations

import datetime as dt
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anywidget
import msgspec
import traitlets
from IPython.display import DisplayHandle, display

from tundra_nb.client import times
from tundra_nb.client.sync import Client
from tundra_nb.commands.views import html, text
from tundra_nb.commands.views import providers as view
from tundra_nb.errors import TundraError

from . import messages
from .live import Watch

if TYPE_CHECKING:
    from tundra_nb.client.results import Status

LOOK_SECONDS = 0.5
"""Between two looks at the daemon; one costs it a quarter of a millisecond."""
STILL_SECONDS = 2.0
"""Least time between two updates of the static picture: each is written into the notebook."""


class ProviderWidget(anywidget.AnyWidget):
    """The providers, live while a view of it is open.

        ProviderWidget(client)          # as the value of a cell; `%tundra providers --widget` makes one

    It looks through a connection of its own, which never starts a daemon. Constructing it does no I/O. `close` ends
    its thread and its connection; so does closing its last view, until one is opened again.
    """

    _esm = Path(__file__).with_suffix(".js")
    _css = Path(__file__).with_suffix(".css")
    state = traitlets.Dict().tag(sync=True)
    """A `messages.Providers`, as plain values."""
    still = traitlets.Unicode().tag(sync=True)
    """Class of the static pictures, by which the script finds them."""

    def __init__(self, client: Client) -> None:
        super().__init__(state=_plain(messages.Providers(profiles=[], shared=[])))
        self.still = f"tundra-still-{self.model_id}"
        self._client = Client(link=client.link.quiet(), caller=client.caller)
        self._watch = Watch(self.look, LOOK_SECONDS, "tundra-provider-widget")
        self._views: set[str] = set()
        self._stills: list[DisplayHandle] = []
        self._still_due = 0.0
        self._still_shows: Any = None
        self._status: Status | None = None
        self.on_msg(self._heard)

    def look(self) -> None:
        """Fetch the state once, and show it where it has changed."""
        try:
            self._status = self._client.status(brief=True)
            found = messages.providers(self._status)
        except TundraError as error:
            found = msgspec.structs.replace(
                msgspec.convert(self.state, messages.Providers), problem=f"{error.message}. {error.hint}".strip()
            )
        plain = _plain(found)
        if plain != self.state:
            self.state = plain
        self._keep_still(found)

    def close(self) -> None:
        """End the thread and the connection, and take the widget off every page; its static picture stays."""
        if hasattr(self, "_watch"):  # the base class closes what failed to be made, too
            self._watch.close()
            self._client.close()
        super().close()

    def _ipython_display_(self) -> None:
        self.look()
        still = display(self._still(), raw=True, display_id=True)  # type: ignore[no-untyped-call]
        if still is not None:
            self._stills.append(still)
        bundle = super()._repr_mimebundle_()
        data, metadata = bundle if isinstance(bundle, tuple) else (bundle or {}, {})
        data["text/plain"] = "the live view of the providers needs a kernel; the picture above is the last state"
        display(data, raw=True, metadata=metadata)  # type: ignore[no-untyped-call]
        self._watch.start()

    def _heard(self, _: Any, content: Any, __: Any) -> None:
        try:
            told = msgspec.convert(content, messages.FromScript)
        except msgspec.ValidationError:
            return  # a newer or older script than this kernel's
        if isinstance(told, messages.ViewOpened):
            self._views.add(told.view)
            self._watch.start()
            return
        self._views.discard(told.view)
        if not self._views:
            self._watch.close()

    def _keep_still(self, found: messages.Providers) -> None:
        """Bring the static picture up to date when something other than a countdown or a level has changed."""
        shows = (found.problem, [(p.name, p.state, p.breaker, p.failures) for p in found.profiles])
        now = time.monotonic()
        if shows == self._still_shows or now < self._still_due:
            return
        self._still_shows, self._still_due = shows, now + STILL_SECONDS
        data = self._still()
        for still in self._stills:
            still.update(data, raw=True)  # type: ignore[no-untyped-call]

    def _still(self) -> dict[str, str]:
        now = dt.datetime.now(dt.UTC)
        blocks = view.blocks(self._status or {}, f"{times.local(now)} {times.zone(now)}", self.state.get("problem", ""))
        # the script hides this class while the widget lives
        marked = f'<div class="{self.still}">{html.render(blocks)}</div>'
        return {"text/html": marked, "text/plain": text.plain(blocks)}


def _plain(state: messages.Providers) -> Any:
    return msgspec.to_builtins(state)
