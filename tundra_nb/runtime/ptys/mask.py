"""Mask known secrets in a stream of bytes, also where a chunk ends in the middle of one, plain or packed.

In whatever spelling `known` finds one, across line ends and colours too. No mask stops who means to get a key out of a
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
SHORT_BYTES = 6
"""A beginning shorter than this is no secret yet: `sk-an`."""
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
        """Longest end of the stream that begins a secret …"""
        self._shown = b""
        """… as it is shown, …"""
        self._released = 0
        """… and how much of it is out already."""

    def __bool__(self) -> bool:
        return bool(self._known)

    @property
    def is_holding(self) -> bool:
        """Something waits for `feed`, `idle` or `finish`."""
        return len(self._raw) > self._released

    def feed(self, data: bytes) -> bytes:
        """Take the next chunk, return what may be shown by now. The same object when there was nothing to do."""
        raw = self._raw + data if self._raw else data
        spans, hold = self._known.look(raw)
        if hold == len(raw) and not spans and not self._raw:
            return data
        shown = self._shown + data
        if spans:
            shown = _masked(shown, raw, spans)
        ready = max(hold, spans[-1].end) if spans else hold
        if self._is_shown_at_once(data, raw[hold:]):
            ready = len(raw)
        out = shown[self._released : ready]
        self._released = max(self._released, ready) - hold
        self._raw, self._shown = raw[hold:], shown[hold:]
        return out

    def _is_shown_at_once(self, data: bytes, beginning: bytes) -> bool:
        """A short beginning need not wait when its line has ended, or when it is the echo of a key: nobody types a
        packed secret.
        """
        if _letters(beginning) >= SHORT_BYTES:
            return False
        return beginning.endswith(b"\n") or (len(data) == 1 and not self._known.may_begin(beginning[:1]))

    def idle(self) -> bytes:
        """What may be shown when nothing more comes for the moment."""
        out = self._shown[self._released :]
        if _letters(self._raw) >= SHORT_BYTES:
            out = _starred(out)
            self._shown = self._shown[: self._released] + out
        self._released = len(self._raw)
        return out

    def finish(self) -> bytes:
        """The rest, at the end of the stream."""
        out = self.idle()
        self._raw, self._shown, self._released = b"", b"", 0
        return out

    def text(self, text: str) -> str:
        """Mask a complete text, apart from the stream."""
        raw = text.encode(errors="surrogateescape")
        spans, _ = self._known.look(raw)
        return _masked(raw, raw, spans).decode(errors="surrogateescape") if spans else text


def _masked(shown: bytes, raw: bytes, spans: list[SecretSpan]) -> bytes:
    cover = bytearray(shown)
    for begin, end, name, _ in spans:
        # Where a part is masked already, as the end of another secret, a name would be cut to pieces: stars there.
        is_whole = shown[begin:end] == raw[begin:end] and not INVISIBLE.search(raw, begin, end)
        cover[begin:end] = _mask(name, end - begin) if is_whole else _starred(raw[begin:end])
    return bytes(cover)


def _letters(text: bytes) -> int:
    return len(INVISIBLE.sub(b"", text))


def _starred(text: bytes) -> bytes:
    """Stars for each letter; line ends and colours stay."""
    stars = bytearray(b"*" * len(text))
    for match in INVISIBLE.finditer(text):
        stars[match.start() : match.end()] = match.group()
    return bytes(stars)


def _mask(name: str, length: int) -> bytes:
    label = f"[{name}]".encode()
    return label.center(length, b"*") if len(label) <= length else b"*" * length
