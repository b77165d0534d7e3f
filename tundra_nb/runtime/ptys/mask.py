"""Mask known secrets in a stream of bytes, also where a chunk ends in the middle of one, plain or packed.

Packed: as `spellings` has it, base64 (also of `user:key`) and hexadecimal among them, or with every letter escaped. No
mask stops who means to get a key out of a program that has it; this is for `env | base64` and the like.

The mask has the length of the secret, so that offsets, columns and tables stay where they are; the variable's name
stands in it when it fits. A chunk that ends in what may be the beginning of a secret is held back until more comes.
After a pause (`idle`) a short beginning is shown, because it is most likely the echo of a key press; a longer one is
shown masked. Either way the next bytes are still compared with it in mind.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tundra_nb.runtime.telemetry import spellings

MIN_SECRET_BYTES = 6
"""Shorter values ("1", "true", "admin") would mask ordinary words."""
MIN_PACKED_BYTES = 12
"""A shorter value is not masked in its packed forms: those are too short to mean anything."""
SHORT_BYTES = 6
"""A beginning shorter than this is no secret yet: `sk-an`."""
_SIGNS = (b"%", b"&#", rb"\u", rb"\x")
"""With which escaped spellings begin; without one they are not looked for."""


class Masker:
    """Masks every occurrence of the given secrets, overlapping ones too, whatever the chunks.

    Args:
        secrets: values by variable name; too short ones are left out.
    """

    def __init__(self, secrets: Mapping[str, str]) -> None:
        self._masks: dict[bytes, bytes] = {}
        self._plain_firsts: set[bytes] = set()
        for name, value in secrets.items():
            raw = value.encode(errors="surrogateescape")
            # The terminal turns the line ends of a multi-line key into CR LF.
            plain = {raw, raw.strip(), raw.replace(b"\n", b"\r\n")}
            for form in plain | (_packed(value) if len(raw) >= MIN_PACKED_BYTES else set()):
                if len(form) >= MIN_SECRET_BYTES:
                    self._masks.setdefault(form, _mask(name, len(form)))
            self._plain_firsts |= {form[:1] for form in plain if len(form) >= MIN_SECRET_BYTES}
        self._firsts = {form[:1] for form in self._masks}
        self._by_sign: dict[bytes, list[bytes]] = {}
        for form in self._masks:
            self._by_sign.setdefault(next((sign for sign in _SIGNS if form.startswith(sign)), b""), []).append(form)
        self._longest = max(map(len, self._masks), default=0)
        self._raw = b""
        """Longest end of the stream that begins a secret …"""
        self._shown = bytearray()
        """… as it is shown, …"""
        self._released = 0
        """… and how much of it is out already."""

    def __bool__(self) -> bool:
        return bool(self._masks)

    @property
    def is_holding(self) -> bool:
        """Something waits for `feed`, `idle` or `finish`."""
        return len(self._raw) > self._released

    def feed(self, data: bytes) -> bytes:
        """Take the next chunk, return what may be shown by now. The same object when there was nothing to do."""
        raw = self._raw + data if self._raw else data
        if len(raw) == 1 and raw not in self._plain_firsts:
            return data  # the echo of a key: nobody types a packed secret, and an echo must not wait for more
        shown: bytearray | None = None
        for at, form in self._found(raw):
            if shown is None:
                shown = self._shown + data
            _cover(shown, raw, at, form, self._masks[form])
        hold = self._hold_from(raw)
        if hold == len(raw) and shown is None and not self._raw:
            return data
        if shown is None:
            shown = self._shown + data
        out = bytes(shown[self._released : hold])
        self._released = max(self._released - hold, 0)
        self._raw = raw[hold:]
        self._shown = shown[hold:]
        return out

    def idle(self) -> bytes:
        """What may be shown when nothing more comes for the moment."""
        if len(self._raw) >= SHORT_BYTES:
            self._shown[self._released :] = b"*" * (len(self._raw) - self._released)
        out = bytes(self._shown[self._released :])
        self._released = len(self._raw)
        return out

    def finish(self) -> bytes:
        """The rest, at the end of the stream."""
        out = self.idle()
        self._raw, self._shown, self._released = b"", bytearray(), 0
        return out

    def text(self, text: str) -> str:
        """Mask a complete text, apart from the stream."""
        raw = text.encode(errors="surrogateescape")
        shown = bytearray(raw)
        for at, form in self._found(raw):
            _cover(shown, raw, at, form, self._masks[form])
        return shown.decode(errors="surrogateescape")

    def _found(self, raw: bytes) -> Iterator[tuple[int, bytes]]:
        """Where which spelling stands."""
        for sign, forms in self._by_sign.items():
            if sign in raw:
                for form in forms:
                    at = raw.find(form)
                    while at >= 0:
                        yield at, form
                        at = raw.find(form, at + 1)

    def _hold_from(self, raw: bytes) -> int:
        """Where the longest end of `raw` begins that is a true beginning of some secret; its length if none is."""
        first_possible = max(len(raw) - self._longest + 1, 0)
        best = len(raw)
        for first in self._firsts:
            at = raw.find(first, first_possible, best)
            while 0 <= at < best:
                end = raw[at:]
                if any(len(form) > len(end) and form.startswith(end) for form in self._masks):
                    best = at
                    break
                at = raw.find(first, at + 1, best)
        return best


def _cover(shown: bytearray, raw: bytes, at: int, form: bytes, mask: bytes) -> None:
    # Where another secret overlaps, two names would be cut to pieces: stars there.
    untouched = shown[at : at + len(form)] == raw[at : at + len(form)]
    shown[at : at + len(form)] = mask if untouched else b"*" * len(form)


def _packed(value: str) -> set[bytes]:
    return {form.encode(errors="surrogateescape") for form in spellings.packed(value) | spellings.escaped(value)}


def _mask(name: str, length: int) -> bytes:
    label = f"[{name}]".encode()
    return label.center(length, b"*") if len(label) <= length else b"*" * length
