"""The provider widget: profiles, breakers with their countdown, buckets beside the provider's own, live."""

from __future__ import annotations

import datetime as dt
import time
from typing import TYPE_CHECKING, Any

import msgspec

from tundra_nb.client import times
from tundra_nb.client.sync import Client
from tundra_nb.errors import TundraError
from tundra_nb.views import html, text
from tundra_nb.views import providers as view

from . import messages
from .live import Watch
from .view import LiveView, part, problem

if TYPE_CHECKING:
    from tundra_nb.client.results import Status

LOOK_SECONDS = 0.5
"""Between two looks at the daemon; one costs it a quarter of a millisecond."""
STILL_SECONDS = 2.0
"""Least time between two updates of the static picture: each is written into the notebook."""


class ProviderWidget(LiveView):
    """The providers, live while a view of it is open.

        ProviderWidget(client)          # as the value of a cell; `%tundra providers --widget` makes one

    Constructing it does no I/O. Closing its last view ends its thread too, until one is opened again.
    """

    _esm = part("providers.js")
    _css = part("providers.css")
    without_kernel = "the live view of the providers needs a kernel; the picture above is the last state"

    def __init__(self, client: Client) -> None:
        super().__init__(client)
        self._tell(messages.Providers(profiles=[], shared=[]))
        self._watch = Watch(self.look, LOOK_SECONDS, "tundra-provider-widget")
        self._still_due = 0.0
        self._still_shows: Any = None
        self._status: Status | None = None

    def look(self) -> None:
        """Fetch the state once, and show it where it has changed."""
        try:
            self._status = self._client.status(brief=True)
            found = messages.providers(self._status)
        except TundraError as error:
            found = msgspec.structs.replace(msgspec.convert(self.state, messages.Providers), problem=problem(error))
        self._tell(found)
        self._keep_still(found)

    def _shown(self) -> None:
        self._watch.start()

    def _hidden(self) -> None:
        self._watch.close()

    def _keep_still(self, found: messages.Providers) -> None:
        """Bring the static picture up to date when something other than a countdown or a level has changed."""
        shows = (found.problem, [(p.name, p.state, p.breaker, p.failures) for p in found.profiles])
        now = time.monotonic()
        if shows == self._still_shows or now < self._still_due:
            return
        self._still_shows, self._still_due = shows, now + STILL_SECONDS
        self._update_stills()

    def _picture(self) -> tuple[str, str]:
        now = dt.datetime.now(dt.UTC)
        blocks = view.blocks(self._status or {}, f"{times.local(now)} {times.zone(now)}", self.state.get("problem", ""))
        return html.render(blocks), text.plain(blocks)
