"""The provider widget: profiles, breakers with their countdown, buckets beside the provider's own, and buttons."""

from __future__ import annotations

import datetime as dt
import threading
import time
from typing import TYPE_CHECKING, Any

import msgspec

from tundra_nb.client import times
from tundra_nb.client.sync import Client
from tundra_nb.errors import TundraError
from tundra_nb.views import html, text
from tundra_nb.views import providers as view
from tundra_nb.views.blocks import duration

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
    """The providers, live while a view of it is open; its buttons test, recheck and park profiles, reset breakers, and
    inject faults on purpose.

        ProviderWidget(client)          # as the value of a cell; `%tundra providers --widget` makes one

    Constructing it does no I/O. Closing its last view ends its thread too, until one is opened again. Handlers of
    messages may run beside the user's code, and the looks in a thread of their own: what they share is locked.
    """

    _esm = part("providers.js")
    _css = part("providers.css")
    from_script = messages.FromProviders
    without_kernel = "the live view of the providers needs a kernel; the picture above is the last state"

    def __init__(self, client: Client) -> None:
        super().__init__(client)
        self._tell(messages.Providers(profiles=[], shared=[]))
        self._watch = Watch(self.look, LOOK_SECONDS, "tundra-provider-widget")
        self._lock = threading.RLock()
        self._still_due = 0.0
        self._still_shows: Any = None
        self._status: Status | None = None
        self._seen_at = dt.datetime.now(dt.UTC)
        self._told: dict[str, str] = {}
        self._busy: set[str] = set()

    def look(self) -> None:
        """Fetch the state once, and show it where it has changed."""
        trouble = ""
        status = None
        try:
            status = self._client.status(brief=True)
        except TundraError as error:
            trouble = problem(error)
        with self._lock:
            if status is not None:
                self._status, self._seen_at = status, dt.datetime.now(dt.UTC)
            found = self._message(trouble)
            self._tell(found)
            self._keep_still(found)

    def _message(self, trouble: str = "") -> messages.Providers:
        found = messages.providers(self._status or {}, self._told, self._busy, _kinds())
        return msgspec.structs.replace(found, problem=trouble)

    def _act(self, told: messages.Pressed) -> None:
        """In a thread of its own: a provider may take its time to answer, and nobody waits here."""
        with self._lock:
            if told.profile in self._busy:
                return
            self._busy.add(told.profile)
            self._tell(self._message())
        threading.Thread(target=self._do, args=(told,), name="tundra-provider-button", daemon=True).start()

    def _do(self, told: messages.Pressed) -> None:
        try:
            words = self._done(told)
        except TundraError as error:
            words = problem(error)
        with self._lock:
            self._busy.discard(told.profile)
            self._told[told.profile] = f"{times.local(dt.datetime.now(dt.UTC))} {words}"
        self.look()

    def _done(self, told: messages.Pressed) -> str:
        """Do what a button says; what came of it, in words."""
        client, name = self._client, told.profile
        match told.action:
            case "test":
                found = client.test_provider(name)
                took = duration(found["latency_ms"] / 1000)
                return f"answered in {took}" if found["ok"] else f"{found['message']}. {found['hint']}".strip()
            case "recheck":
                client.recheck_provider(name)
                return "can be used"
            case "reset":
                client.reset_breaker(name)
                return "breaker closed"
            case "park":
                client.park_provider(name)
                return "parked until it is rechecked"
            case "inject":
                if name not in {str(drill) for drill in client.faults()["profile"]}:
                    client.start_faults(name)
                client.set_fault(name, told.fault)
                return f"drill: {told.fault} from now on"
            case "end":
                client.stop_faults(name)
                return "the drill is over"

    def _shown(self) -> None:
        self._watch.start()

    def _hidden(self) -> None:
        self._watch.close()

    def _keep_still(self, found: messages.Providers) -> None:
        """Bring the static picture up to date when something other than a countdown or a level has changed."""
        shows = (found.problem, [(p.name, p.state, p.breaker, p.failures, p.is_drilled) for p in found.profiles])
        now = time.monotonic()
        if shows == self._still_shows or now < self._still_due:
            return
        self._still_shows, self._still_due = shows, now + STILL_SECONDS
        self._update_stills()

    def _picture(self) -> tuple[str, str]:
        at = self._seen_at  # a daemon that has gone leaves the last that was known, and when that was
        blocks = view.blocks(self._status or {}, f"{times.local(at)} {times.zone(at)}", self.state.get("problem", ""))
        return html.render(blocks), text.plain(blocks)


def _kinds() -> list[tuple[str, str]]:
    from tundra_nb.faults.faults import FAULTS

    return [(fault.name, fault.summary) for fault in FAULTS.values()]
