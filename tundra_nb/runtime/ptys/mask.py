"""Mask known secrets in a stream of bytes, also where a chunk ends in the middle of one, plain or packed.

In whatever spelling `known` finds one. No mask stops who means to get a key out of a
program that has it; this is for `env | base64` and the like. What it promises stands in the guide (`terminals.md`).

The mask has the length of the secret, so that offsets, columns and tables stay where they are; the variable's name
stands in it when it fits. A chunk that ends in what may be the beginning of a secret is held back until more comes.
After a pause (`idle`) a short beginning is shown, because it is most likely the echo of a key press; a longer one is
shown masked. Either way the next bytes are still compared with it in mind.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

from tundra_nb.runtime.telemetry.known import INVISIBLE, Known, SecretSpan

MIN_PACKED_CHARS = 12
"""A shorter value is not masked in its packed forms: those are too short to mean anything."""
NEWLINE = 10
SETS = 16
"""How many sets of secrets are kept ready: the terminals of one daemon mostly have the same."""


@functools.lru_cache(SETS)
def _known(secrets: tuple[tuple[str, str], ...]) -> Known:
    return Known(secrets, min_packed=MIN_PACKED_CHARS, errors="surrogateescape")


class Masker:
    """Masks every occurrence of the given secrets, overlapping ones too, whatever the chunks.

    Args:
        secrets: values by variable name; too short ones are left out.
    """

    def __init__(self, secrets: Mapping[str, str]) -> None:
        self._known = _known(tuple(secrets.items()))
        self._raw = b""
        """Longest end of the stream that may begin a secret …"""
        self._shown = b""
        """… as it is shown, …"""
        self._released = 0
        """… how much of it is out already, …"""
        self._sure = 0
        """… where that begins which is hardly anything else, …"""
        self._is_line = True
        """… and whether a line begins with it."""

    def __bool__(self) -> bool:
        return bool(self._known)

    @property
    def is_holding(self) -> bool:
        """Something waits for `feed`, `idle` or `finish`."""
        return len(self._raw) > self._released

    def feed(self, data: bytes) -> bytes:
        """Take the next chunk, return what may be shown by now. The same object when there was nothing to do."""
        raw = self._raw + data if self._raw else data
        spans, hold, sure, is_settled = self._known.look(raw, is_line=self._is_line)
        shown = data
        if hold < len(raw) or spans or self._raw:
            shown = self._shown + data
            if spans:
                shown = _masked(shown, raw, spans)
        hold = max([hold, *(span.end for span in spans if span.begin < hold)])
        ready, released = hold, self._released
        # A short beginning need not wait at a blank or line end, or when it is the echo of a key: nobody types a packed
        # secret.
        if sure == len(raw) and (is_settled or (len(data) == 1 and not self._known.may_begin(raw[hold : hold + 1]))):
            ready = len(raw)
        self._released = max(released, ready) - hold
        if hold:
            self._is_line = raw[hold - 1] == NEWLINE
        self._raw, self._shown, self._sure = raw[hold:], shown[hold:], sure - hold
        return shown if released == 0 and ready == len(shown) else shown[released:ready]

    def idle(self) -> bytes:
        """What may be shown when nothing more comes for the moment."""
        at = max(self._sure, self._released)
        self._shown = self._shown[:at] + _starred(self._shown[at:])
        out = self._shown[self._released :]
        self._released = len(self._raw)
        return out

    def finish(self) -> bytes:
        """The rest, at the end of the stream."""
        out = self.idle()
        self._raw, self._shown, self._released, self._sure, self._is_line = b"", b"", 0, 0, True
        return out

    def text(self, text: str) -> str:
        """Mask a complete text, apart from the stream."""
        raw = text.encode(errors="surrogateescape")
        spans = self._known.look(raw).spans
        return _masked(raw, raw, spans).decode(errors="surrogateescape") if spans else text


def _masked(shown: bytes, raw: bytes, spans: list[SecretSpan]) -> bytes:
    cover = bytearray(shown)
    for begin, end, name, _ in spans:
        # Where a part is masked already, as the end of another secret, a name would be cut to pieces: stars there.
        is_whole = shown[begin:end] == raw[begin:end] and not INVISIBLE.search(raw, begin, end)
        cover[begin:end] = _mask(name, end - begin) if is_whole else _starred(raw[begin:end])
    return bytes(cover)


def _starred(text: bytes) -> bytes:
    """Stars for each letter; line ends and colours stay."""
    stars = bytearray(b"*" * len(text))
    for match in INVISIBLE.finditer(text):
        stars[match.start() : match.end()] = match.group()
    return bytes(stars)


def _mask(name: str, length: int) -> bytes:
    label = f"[{name}]".encode()
    return label.center(length, b"*") if len(label) <= length else b"*" * length
