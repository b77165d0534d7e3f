"""What one API call is: a frozen description and a decoder, with no I/O.

The two clients differ only in how they carry a `Call` to the daemon. A call that needs several requests is a *flow*: a
generator that yields calls, receives their results and returns its own; the same generator serves both clients.
"""

from __future__ import annotations

import dataclasses
import math
import os
import urllib.parse
from collections.abc import Callable, Generator, Mapping
from typing import Any, Generic, TypeVar

import msgspec

from tundra_nb.errors import IpcError, TransportError, TundraError, UsageError, from_wire
from tundra_nb.protocol import history, operations, ptys
from tundra_nb.protocol.endpoint import Endpoint, no_text, params
from tundra_nb.protocol.words import JSON

from .own_span import traceparent

T = TypeVar("T")

CALL_TIMEOUT = 60.0
"""Seconds of silence of the daemon after which an ordinary call gives up; its own store deadline is 30 s."""
ATTEMPT_PAUSES = (0.0, 0.02, 0.1, 0.3, 1.0)
"""Seconds before each attempt to send a call whose connection fails; a daemon that dies takes a moment to be gone, and
between attempts it is found or started anew."""
STREAM_TIMEOUT = 60.0
"""The same for an event stream, which carries a heartbeat every 15 s."""


@dataclasses.dataclass(frozen=True, slots=True)
class HttpAnswer:
    """One HTTP answer; header names are lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return msgspec.json.decode(self.body)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Call(Generic[T]):
    """One request to the daemon and how its answer is read. `path` begins with `/api`."""

    method: str
    path: str
    decode: Callable[[HttpAnswer], T]
    query: tuple[tuple[str, str], ...] = ()
    body: Any = None
    """Sent as JSON; None sends no body."""
    accept: str = JSON
    timeout: float | None = CALL_TIMEOUT
    takes_at: bool = False
    """A view of the history: where no state is named, it is that of `versions.checkout`."""
    takes_source: bool = False
    """It can be of a source: where none is named, it is that of `sources.look`."""

    @property
    def target(self) -> str:
        if not self.query:
            return self.path
        try:
            return f"{self.path}?{urllib.parse.urlencode(self.query)}"
        except UnicodeEncodeError as exc:
            raise no_text(exc) from None

    @property
    def payload(self) -> bytes | None:
        try:
            made = None if self.body is None else msgspec.json.encode(self.body)
            if made is not None and b"null" in made:  # as which a number that JSON does not have is written
                _check_finite(self.body)
        except UnicodeEncodeError as exc:
            raise no_text(exc) from None
        except RecursionError:
            raise UsageError(problem="what is to be sent is nested too deeply", remedy="Send less of it.") from None
        return made

    @property
    def headers(self) -> dict[str, str]:
        found = {"Accept": self.accept} if self.body is None else {"Accept": self.accept, "Content-Type": JSON}
        return found | traceparent() if self.path == operations.ASK.path else found

    @property
    def is_safe(self) -> bool:
        """May be sent again when the connection broke before the answer."""
        return self.method == "GET"


def _check_finite(body: Any, field: str = "") -> None:
    """Refuse numbers that JSON does not have: null would be sent for them, which means that nothing was given.

    Raises:
        UsageError: one is NaN or infinite.
    """
    if isinstance(body, float):
        if not math.isfinite(body):
            problem = f"{field or 'a number'} is {body}: not a finite number"
            raise UsageError(problem=problem, field=field or None, remedy="Give a finite number.")
    elif isinstance(body, Mapping):
        for key, value in body.items():
            _check_finite(value, str(key))
    elif isinstance(body, list | tuple):
        for value in body:
            _check_finite(value, field)
    elif isinstance(body, msgspec.Struct):
        for name in body.__struct_fields__:
            _check_finite(getattr(body, name), name)


def call(
    endpoint: Endpoint,
    *,
    decode: Callable[[HttpAnswer], T],
    query: msgspec.Struct | None = None,
    more: tuple[tuple[str, str], ...] = (),
    body: Any = None,
    accept: str | None = None,
    timeout: float | None = CALL_TIMEOUT,
    takes_at: bool = False,
    takes_source: bool = False,
    **parts: object,
) -> Call[T]:
    """A call of an endpoint.

    Args:
        endpoint: of the protocol's table.
        decode: what to make of the answer.
        query: an instance of `endpoint.query`.
        more: parameters beside it, where the endpoint takes them.
        body: an instance of `endpoint.body`, or the mapping that stands for it.
        accept: media type wanted; the endpoint's own by default.
        timeout: seconds of silence.
        takes_at: see `Call.takes_at`.
        takes_source: see `Call.takes_source`.
        parts: the variable parts of the path.
    """
    return Call(
        method=endpoint.method,
        path=endpoint.at(**parts),
        decode=decode,
        query=params(query) + more,
        body={} if body is None and endpoint.method == "POST" else body,
        accept=accept or endpoint.media[0],
        timeout=timeout,
        takes_at=takes_at,
        takes_source=takes_source,
    )


Flow = Generator[Call[Any], Any, T]
Step = Call[T] | Flow[T]
"""What a function of the API table returns."""


VERIFYING = "TUNDRA_VERIFY"
"""Set to 1 in the environment of a kernel in which a notebook is verified: what acts is refused there."""
REFUSED = "is not repeated while a notebook is verified"
_READING = {history.SQL.path, ptys.LOST.path}
"""What is posted to without anything being done that a person asked for."""


def refuse_acting(call: Call[Any]) -> None:
    """Refuse what does more than read, in a kernel that verifies a notebook.

    Raises:
        UsageError: it acts.
    """
    if os.environ.get(VERIFYING) == "1" and call.method != "GET" and call.path not in _READING:
        raise UsageError(problem=f"{call.method} {call.path} {REFUSED}", field="verify", remedy="Nothing was done.")


def seen_from(
    call: Call[T], at: str | None, name: str, window: tuple[int, int] | None = None, source: str | None = None
) -> Call[T]:
    """A view of the history in the source, or as of the state, that was chosen, unless it names one itself.

    `window`, of an open incident, is what it shows then where it names no time.
    """
    if "source" in dict(call.query) or getattr(call.body, "source", None):
        return call
    if source is not None and call.takes_source:
        if call.body is not None:
            return dataclasses.replace(call, body=msgspec.structs.replace(call.body, source=source))
        inside = [("source", source)]
        if window is not None and call.takes_at and not {"since", "until"} & dict(call.query).keys():
            inside += [("since", str(window[0])), ("until", str(window[1]))]  # of an imported incident that is open
        return dataclasses.replace(call, query=(*call.query, *inside), decode=_windowed(call, window))
    if at is None or not call.takes_at or "at" in dict(call.query) or getattr(call.body, "at", None):
        return call

    def decode(answer: HttpAnswer) -> T:
        found = call.decode(answer)
        attrs = getattr(found, "attrs", None)
        if attrs is not None:
            attrs["checkout"] = name
            attrs["window"] = window
        return found

    if call.body is None:
        more = [("at", at)]
        if window is not None and not {"since", "until"} & dict(call.query).keys():
            more += [("since", str(window[0])), ("until", str(window[1]))]
        return dataclasses.replace(call, query=(*call.query, *more), decode=decode)
    return dataclasses.replace(call, body=msgspec.structs.replace(call.body, at=at), decode=decode)


def _windowed(call: Call[T], window: tuple[int, int] | None) -> Callable[[HttpAnswer], T]:
    def decode(answer: HttpAnswer) -> T:
        found = call.decode(answer)
        attrs = getattr(found, "attrs", None)
        if attrs is not None:
            attrs["window"] = window
        return found

    return decode


def read(call: Call[T], answer: HttpAnswer, *, bridged: bool) -> T:
    """Decode an answer.

    Args:
        call: what was asked.
        answer: what came back.
        bridged: it came through a Jupyter server, so that what is not ours is that server's.

    Raises:
        TundraError: the same class as in the daemon.
        TransportError: the Jupyter server answered for itself, or with something unreadable.
        IpcError: the daemon's answer cannot be read.
    """
    if answer.status >= 400:
        raise refusal(answer, bridged=bridged)
    try:
        return call.decode(answer)
    except (msgspec.DecodeError, KeyError, TypeError) as exc:
        problem = f"the answer to {call.method} {call.path} cannot be read: {exc}"
        raise _foreign(problem, bridged=bridged) from exc


def refusal(answer: HttpAnswer, *, bridged: bool) -> TundraError:
    """The error that an answer with an error status stands for."""
    try:
        body = answer.json()
    except msgspec.DecodeError:
        body = None
    if isinstance(body, dict) and "code" in body:
        return from_wire(body)
    told = body.get("message") if isinstance(body, dict) else None
    if bridged:
        remedy = ""
        if answer.status in (401, 403):
            remedy = "TUNDRA_TOKEN must be the Jupyter server's token, and may have expired."
        elif answer.status == 404:
            remedy = "Is tundra_nb installed where that Jupyter server runs? `jupyter server extension list` tells."
        return TransportError(
            problem=f"the Jupyter server answered {answer.status}" + (f": {told}" if told else ""), remedy=remedy
        )
    return _foreign(f"the daemon answered {answer.status}" + (f": {told}" if told else ""), bridged=False)


def _foreign(problem: str, *, bridged: bool) -> TundraError:
    if bridged:
        return TransportError(problem=problem)
    return IpcError(kind="malformed", problem=problem, remedy="`tundra daemon restart` replaces it by this version.")
