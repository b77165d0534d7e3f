"""Responses that a provider keeps: which profile made each, and asking it for one of them again.

A later call may go on from a response by its id, fetch it, cancel or delete it. Only the profile that made it knows it,
so that is kept here, in a file of the data directory, one line per response. A response is its maker's alone: no other
token or user is told that there is one. What was translated is kept by nobody.
"""

from __future__ import annotations

import collections
import contextlib
import os
import re
import threading
from pathlib import Path

import msgspec

from tundra_nb import errors

MOST = 10_000
"""How many are remembered: those made last."""
ID = re.compile(r"[A-Za-z0-9_-]{1,200}", re.ASCII)
VERBS = {("GET", ""), ("DELETE", ""), ("POST", "cancel"), ("GET", "input_items")}
"""Method, and what follows the id."""


class Made(msgspec.Struct, frozen=True, array_like=True):
    """One response. `user` is whose call it was, as the rows have it."""

    id: str
    profile: str
    user: str


class Stored:
    """The responses of a data directory. Its file is read at the first use, and written at each `remember`."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._made: collections.OrderedDict[str, Made] | None = None
        self._lines = 0
        self._lock = threading.Lock()

    def remember(self, made: Made) -> None:
        """Keep who made a response. Blocks for as long as a line takes to be written."""
        with self._lock:
            known = self._known()
            known[made.id] = made
            known.move_to_end(made.id)
            while len(known) > MOST:
                known.popitem(last=False)
            with contextlib.suppress(OSError):  # a full disk is told by the history; this call has been answered
                if self._lines >= 2 * MOST:
                    self._write(b"".join(map(_line, known.values())), anew=True)
                    self._lines = len(known)
                else:
                    self._write(_line(made), anew=False)
                    self._lines += 1

    def find(self, response: str, user: str) -> Made | None:
        """Who made a response, where it was this user's. Blocks at the first use."""
        with self._lock:
            made = self._known().get(response)
        return made if made is not None and made.user == user else None

    def is_of_another(self, response: str, user: str) -> bool:
        """Whether it is known, and not this user's."""
        with self._lock:
            made = self._known().get(response)
        return made is not None and made.user != user

    def _known(self) -> collections.OrderedDict[str, Made]:
        if self._made is None:
            self._made = collections.OrderedDict()
            with contextlib.suppress(OSError):
                told = self._file.read_bytes()
                # after a line that was cut short nothing may follow on the same: the file is written anew next time
                self._lines = 0 if told.endswith(b"\n") else 2 * MOST
                for line in told.splitlines():
                    self._lines += 1
                    with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError):  # a line that was cut short
                        made = msgspec.json.decode(line, type=Made)
                        self._made[made.id] = made
                        self._made.move_to_end(made.id)
            while len(self._made) > MOST:
                self._made.popitem(last=False)
        return self._made

    def _write(self, data: bytes, *, anew: bool) -> None:
        self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = self._file.with_suffix(".new") if anew else self._file
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if anew else os.O_APPEND), 0o600)
        try:
            os.write(handle, data)
        finally:
            os.close(handle)
        if anew:
            os.replace(file, self._file)


def address(method: str, path: str) -> tuple[str, str]:
    """The response that a path below `/responses/` names, and what is wanted of it.

    Raises:
        UsageError: it names none, or wants what nobody does.
    """
    response, _, verb = path.removeprefix("/responses/").partition("/")
    if not ID.fullmatch(response) or (method, verb) not in VERBS:
        raise errors.UsageError(
            problem=f"there is no {method} {path} here",
            remedy="There are GET and DELETE /v1/responses/ID, POST …/cancel and GET …/input_items.",
        )
    return response, verb


def unknown(response: str) -> errors.UsageError:
    """Nobody keeps this response, as far as its asker may know."""
    return errors.UsageError(
        problem=f"this gateway knows no response {response!r} of yours",
        field="response_id",
        remedy="It was made elsewhere, translated for a provider that keeps none, or too long ago.",
    )


def _line(made: Made) -> bytes:
    return msgspec.json.encode(made) + b"\n"
