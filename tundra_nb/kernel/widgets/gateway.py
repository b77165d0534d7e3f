"""The gateway's widget: where it listens, and who calls it, live."""

from __future__ import annotations

import datetime as dt
import threading
import time
from typing import TYPE_CHECKING, Any

from tundra_nb.client import times
from tundra_nb.client.sync import Client
from tundra_nb.errors import TundraError
from tundra_nb.views import gateway as view
from tundra_nb.views import html, text
from tundra_nb.views.blocks import Block, Para, Styled

from . import messages
from .live import Watch
from .view import LiveView, part, problem

if TYPE_CHECKING:
    from tundra_nb.client.gateway import GatewayStatus

LOOK_SECONDS = 0.5
STILL_SECONDS = 2.0
"""Least time between two updates of the static picture: each is written into the notebook."""


class GatewayWidget(LiveView):
    """The programs that call the gateway, live while a view of it is open.

        GatewayWidget(client)          # as the value of a cell; `%tundra gateway --widget` makes one

    Constructing it does no I/O. Closing its last view ends its thread too, until one is opened again.
    """

    _esm = part("gateway.js")
    _css = part("gateway.css")
    without_kernel = "the live list of callers needs a kernel; the picture above is the last state"

    def __init__(self, client: Client) -> None:
        super().__init__(client)
        self._tell(messages.GatewayState(url="", callers=[]))
        self._watch = Watch(self.look, LOOK_SECONDS, "tundra-gateway-widget")
        self._lock = threading.RLock()
        self._still_due = 0.0
        self._still_shows: Any = None
        self._status: GatewayStatus | None = None
        self._seen_at = dt.datetime.now(dt.UTC)
        self._trouble = ""

    def look(self) -> None:
        """Fetch the state once, and show it where it has changed."""
        trouble = ""
        status = None
        try:
            status = self._client.gateway.status()
        except TundraError as error:
            trouble = problem(error)
        with self._lock:
            self._trouble = trouble
            if status is not None:
                self._status, self._seen_at = status, dt.datetime.now(dt.UTC)
                trouble = str(status["problem"] or "")
            known = self._status
            callers = view.callers(known) if known is not None else []
            url = str(known["url"] or "") if known is not None else ""
            self._tell(messages.GatewayState(url=url, callers=callers, problem=trouble))
            self._keep_still([url, trouble, *(row[:4] for row in callers)])

    def _shown(self) -> None:
        self._watch.start()

    def _hidden(self) -> None:
        self._watch.close()

    def _keep_still(self, shows: Any) -> None:
        now = time.monotonic()
        if shows == self._still_shows or now < self._still_due:
            return
        self._still_shows, self._still_due = shows, now + STILL_SECONDS
        self._update_stills()

    def _picture(self) -> tuple[str, str]:
        blocks: list[Block] = [] if self._status is None else list(view.blocks(self._status))
        if self._trouble:  # a daemon that has gone leaves the last that was known, and when that was
            at = f"{times.local(self._seen_at)} {times.zone(self._seen_at)}"
            blocks.insert(0, Para(Styled(f"as of {at}: {self._trouble}", "bad")))
        return html.render(blocks), text.plain(blocks)
