"""The dashboard: one hour on one page, live, to zoom into and to select from."""

from __future__ import annotations

import gzip
import hashlib
import logging
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec
import traitlets

from tundra_nb.client import feed, times
from tundra_nb.client.sync import Client
from tundra_nb.dashboard import packing, reading, still, story
from tundra_nb.dashboard.hour import Hour, Level
from tundra_nb.dashboard.reading import Range, Window
from tundra_nb.errors import TundraError
from tundra_nb.views import html, text, waterfall
from tundra_nb.views.blocks import clean, duration
from tundra_nb.views.show import blocks_of

from . import messages
from .live import Latest, Watch
from .view import LiveView, part, problem

if TYPE_CHECKING:
    import pandas as pd

_log = logging.getLogger("tundra.kernel")

PUSH_SECONDS = 1.0
"""Between two additions to the picture."""
SHARE_OF_A_CORE = 0.2
"""What the additions may take: with more rows they come less often."""
QUIET_SECONDS = 5.0
"""With nothing new the window moves on so often."""
STILL_SECONDS = 20.0
"""Between two updates of the static picture: each is written into the notebook."""
MOST_LISTED = 40
"""Calls of a selection in the table; the frame has all."""
ROWS = ("operation", "attempt")
BESIDE = ("breaker_event", "session_event", "connection_event", "setting")
"""Kinds of events beside the calls: few, so what they tell is read again."""
BESIDE_SECONDS = 2.0
"""Between two such readings at least."""


def script() -> str:
    """The script of the dashboard, with its style in it: what the loader asks for."""
    style = msgspec.json.encode(part("dash.css")).decode()
    parts = [
        part("shared.js", shared=False),
        *(part(f"dash{name}.js", shared=False) for name in ("_rows", "_lanes", "")),
    ]
    return "\n".join([f"const STYLE = {style};", *parts])


class DashWidget(LiveView):
    """The hour on one page; made by `%tundra dash` and `t.dashboard()`.

        dash = t.dashboard("2h")
        dash.selection                 # the calls of what is selected in the picture, as a frame

    Constructing it reads nothing. While a view of it is open and its window reaches to now, what happens is added to
    the picture as it happens. Data crosses as messages, never as traits, so that a saved notebook holds the static
    picture and its headline only.

    Args:
        client: whose daemon it looks at.
        window: which hour; the last one by default.
    """

    _esm = part("loader.js", shared=False)
    _css = ""
    module = traitlets.Unicode().tag(sync=True)
    """Names the version of the script, by which a page knows whether it has it."""
    from_script = messages.FromDash
    without_kernel = "the live dashboard needs a kernel; the picture above is the last state"

    def __init__(self, client: Client, window: Window | None = None) -> None:
        super().__init__(client)
        self._client.versions.look(client.versions.at, client.versions.checked_out, client.versions.window)
        self._client.sources.name = client.sources.name
        self._window = window or Window()
        self._range: Range | None = None
        self._hour: Hour | None = None
        self._story: story.HourStory | None = None
        self._picked = messages.Picked()
        self._problem = ""
        self._lock = threading.RLock()
        self._pending: dict[str, list[Mapping[str, Any]]] = {}
        self._is_stale, self._is_unsure, self._is_beside_stale = False, False, False
        self._beside_due = self._push_due = self._still_due = 0.0
        self._feed: feed.Feed | None = None
        self._watch = Watch(self._push, PUSH_SECONDS, "tundra-dash")
        self._latest = Latest("tundra-dash-answers")
        self._script = script().encode()
        self.module = hashlib.sha256(self._script).hexdigest()[:12]

    # --- for the user

    @property
    def selection(self) -> pd.DataFrame:
        """The calls of the stretch that is selected, through the filters that are on; all of the window when none is.

        Raises:
            IpcError: the daemon cannot be reached.
        """
        with self._lock:
            asked, picked = self._asked(), self._picked
        bounds = (asked.since, asked.until)
        if picked.since is not None and picked.until is not None:
            bounds = (picked.since, picked.until)
        between = (reading.moment(bounds[0]), reading.moment(bounds[1]))
        code = picked.code or asked.code
        frame: pd.DataFrame = self._client.calls(between=between, at=asked.at, source=asked.source, code=code)
        profile = reading.profiles_of(frame)
        wanted = picked.profiles or ([asked.profile] if asked.profile else [])
        caller = picked.caller or asked.caller
        chosen = profile.isin(wanted) if wanted else profile == profile  # noqa: PLR0124 - all of them
        if caller:
            chosen &= frame["caller"].astype(object) == caller
        attrs = dict(frame.attrs)
        frame = frame[chosen].reset_index(drop=True)
        frame.attrs.update(attrs)
        return frame

    def look(self) -> None:
        """Read the window again, and show it."""
        try:
            self._read()
        except TundraError as error:
            if self._hour is None:
                raise
            self._tell_problem(problem(error))
            return
        self._send_data()

    # --- reading and sending

    def _asked(self) -> Range:
        if self._range is None:
            self._range = reading.resolve(self._client, self._window)
        return self._range

    def _read(self) -> None:
        asked = reading.resolve(self._client, self._window)
        hour = reading.read(self._client, asked)
        told = story.tell(hour)
        asked = msgspec.structs.replace(asked, since=hour.since)
        with self._lock:
            self._range, self._hour, self._story, self._problem = asked, hour, told, ""

    def _send_data(self) -> None:
        with self._lock:
            if self._hour is None or self._story is None or not self._views:
                return
            header, buffers = packing.pack(self._hour, self._story)
        self.send(header | {"problem": self._problem}, buffers)

    def _tell_problem(self, words: str) -> None:
        with self._lock:
            if words == self._problem:
                return
            self._problem = words
        self.send({"type": "problem", "problem": words})

    def _shown(self) -> None:
        self._send_data()
        with self._lock:
            if not self._views or self._feed is not None or self._hour is None or not self._hour.is_live:
                return
            self._feed = feed.Feed(self._client.link, [*ROWS, *BESIDE], self._took, self._lost)
            self._feed.start()
            self._watch.start()

    def _hidden(self) -> None:
        with self._lock:
            following, self._feed = self._feed, None
        if following is not None:
            following.close()
        self._watch.close()
        self._latest.close()

    # --- live

    def _took(self, kind: str, row: Mapping[str, Any]) -> None:
        """In the feed's thread: keep it until the next addition."""
        with self._lock:
            if kind == feed.MISSED:
                self._is_stale = True
                self._pending.clear()
            elif kind == feed.HELLO:
                self._is_unsure = True
            elif kind in ROWS:
                self._pending.setdefault(kind, []).append(row)
            elif kind in BESIDE:
                self._is_beside_stale = True

    def _lost(self, error: TundraError) -> None:
        self._tell_problem(problem(error))

    def _push(self) -> None:
        """In a thread of its own, again and again: add what has come."""
        now = time.monotonic()
        if now < self._push_due:
            return
        with self._lock:
            is_stale, self._is_stale = self._is_stale, False
            is_unsure, self._is_unsure = self._is_unsure, False
        try:
            if is_unsure and not is_stale:
                is_stale = not self._is_complete()
            if is_stale:
                self._read()
                self._send_data()
            else:
                self._add(now)
        except TundraError as error:
            self._tell_problem(problem(error))
            with self._lock:
                self._is_stale = True
        took = time.monotonic() - now
        self._push_due = now + took / SHARE_OF_A_CORE
        if now >= self._still_due:
            self._still_due = now + STILL_SECONDS
            self._update_stills()

    def _is_complete(self) -> bool:
        """Whether nothing came between the reading and the beginning of the feed: many calls are not read twice."""
        with self._lock:
            assert self._hour is not None
            counted = self._hour.counted
            self._is_beside_stale = True
        return reading.count(self._client, msgspec.structs.replace(self._asked(), until=time.time())) == counted

    def _add(self, now: float) -> None:
        with self._lock:
            hour = self._hour
            assert hour is not None
            operations, attempts = (self._fresh(kind) for kind in ROWS)
            is_beside_due = self._is_beside_stale and now >= self._beside_due
            if not (operations or attempts or is_beside_due or now >= self._still_due - STILL_SECONDS + QUIET_SECONDS):
                return
            if is_beside_due:
                self._is_beside_stale, self._beside_due = False, now + BESIDE_SECONDS
            hour.until = time.time()
            hour.since = max(hour.since, hour.until - hour.most_seconds)
            self._range = msgspec.structs.replace(self._asked(), since=hour.since, until=hour.until)
            calls = reading.from_events("operation", operations, hour)
            tries = reading.from_events("attempt", attempts, hour)
            hour.calls = hour.calls.where(hour.calls.at >= hour.since).followed_by(calls)
            hour.attempts = hour.attempts.where(hour.attempts.at >= hour.since).followed_by(tries)
            hour.levels = _with_levels(hour.levels, attempts, hour)
        if is_beside_due:
            reading.read_beside(self._client, self._asked(), hour)
        told = story.tell(hour)
        with self._lock:
            self._story, self._problem = told, ""
            unit, base = 1, int((hour.since - 60) * 1000)
            header = {"type": "more", "base": base, "unit": unit, "since": hour.since, "until": hour.until}
            header |= packing.beside(hour, told)
        self.send(header, packing.buffers(calls, tries, base, unit))

    def _fresh(self, kind: str) -> list[Mapping[str, Any]]:
        """What has come of a kind and was not read already."""
        assert self._hour is not None
        rows = self._pending.pop(kind, [])
        key = f"{kind}_id"
        return [row for row in rows if int(row[key]) not in self._hour.recent]

    # --- what the script asks for

    def _act(self, told: messages.ModuleAsked | messages.Picked | messages.Zoomed | messages.WhyAsked) -> None:
        match told:
            case messages.ModuleAsked():
                self.send({"type": "module"}, [gzip.compress(self._script)])
            case messages.Picked():
                with self._lock:
                    self._picked = told
                if told.since is not None:
                    self._latest.ask(lambda: self._answer(self._list, told))
            case messages.Zoomed():
                self._latest.ask(lambda: self._answer(self._closer, told))
            case messages.WhyAsked():
                self._latest.ask(lambda: self._answer(self._why, told))

    def _answer(self, do: Any, told: Any) -> None:
        try:
            do(told)
        except TundraError as error:
            self._tell_problem(problem(error))

    def _list(self, told: messages.Picked) -> None:
        frame: Any = self.selection
        is_bad = (frame["outcome"].astype(str) != "ok").to_numpy()
        order = frame.assign(_bad=is_bad).sort_values(["_bad", "latency_ms"], ascending=False, kind="stable")
        rows = [
            {
                "id": str(row["operation_id"]),
                "cells": [
                    str(row["operation_id"])[-5:],
                    times.local(row["at"].to_pydatetime()),
                    str(row["outcome"]),
                    _word(row["profile"]) or _word(row["asked"]),
                    _word(row["code"]),
                    duration(row["latency_ms"] / 1000),
                    clean(_word(row["message"]))[:160],
                ],
            }
            for row in order.head(MOST_LISTED).to_dict("records")
        ]
        self.send(
            {
                "type": "rows",
                "since": told.since,
                "until": told.until,
                "rows": rows,
                "count": len(frame),
                "unanswered": int(is_bad.sum()),
            }
        )

    def _closer(self, told: messages.Zoomed) -> None:
        asked = msgspec.structs.replace(self._asked(), since=told.since, until=told.until)
        hour = reading.read(self._client, asked)
        header, buffers = packing.pack(hour, story.tell(hour), "detail")
        self.send(header, buffers)

    def _why(self, told: messages.WhyAsked) -> None:
        why = self._client.why(told.id, source=self._asked().source)
        picture = html.data_url(waterfall.draw(why))
        words = text.plain(blocks_of(why))
        self.send({"type": "why", "id": told.id, "picture": picture, "words": words})

    def _picture(self) -> tuple[str, str]:
        with self._lock:
            assert self._hour is not None
            blocks = still.blocks(self._hour, self._story)
        if self._problem:
            from tundra_nb.views.blocks import Para, Styled

            blocks.append(Para(Styled(self._problem, "bad")))
        return html.render(blocks), text.plain(blocks)


def _with_levels(levels: list[Level], attempts: list[Mapping[str, Any]], hour: Hour) -> list[Level]:
    """The buckets' lines with what new attempts met; without a scale, which the first reading found, there is none."""
    made = []
    for one in levels:
        profile, _, resource = one.name.rpartition("/")
        seen = [row[f"bucket_{resource}"] for row in attempts if row.get("profile") == profile]
        lowest = min((float(value) for value in seen if value is not None), default=None)
        if lowest is None or not one.most:
            made.append(one)
            continue
        at, shares = [*one.at, hour.until], [*one.share, round(min(max(lowest / one.most, 0.0), 1.0), 3)]
        made.append(Level(one.name, at[-reading.LEVELS * 2 :], shares[-reading.LEVELS * 2 :], one.most))
    return made


def _word(value: Any) -> str:
    return "" if value is None or value != value or str(value) == "<NA>" else str(value)  # noqa: PLR0124 - NaN
