"""Known secrets, found in a text in whatever spelling: the one search behind every mask.

What does not show is looked through: line ends (`env | base64` breaks its lines) and colours (`grep` paints what it
finds); indentation too, but not alone, as the blanks of a dump stand between its bytes. Behind escapes each letter may
be spelled in its own way; `spellings` says which forms are known.

The cost does not grow with the number of secrets: of every few bytes six are looked up in one set. Whoever holds a form
of `m` letters holds one of those sixes that begin at every (m - 5)th place, wherever it stands.
"""

from __future__ import annotations

import functools
import re
import struct
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from . import spellings

GRAM_BYTES = 6
"""Long enough that hardly any text but a secret holds one."""
MIN_LONG_BYTES = 12
"""Shorter forms are searched for one by one."""
MAX_STRIDE_BYTES = 27
"""A wider one would gain nothing that can be measured."""
INVISIBLE = re.compile(rb"[\r\n\x1b](?:(?<=[\r\n])[\r\n]*[ \t]*|(?<=\x1b)(?:\[[0-9;:]*(?:[mK]|\Z)|\Z))")
"""Line ends with indentation, and colours, also one that the end of the text cuts."""
_LINE_ENDS = re.compile(rb"[\r\n\x1b](?:(?<=[\r\n])[\r\n]*|(?<=\x1b)(?:\[[0-9;:]*(?:[mK]|\Z)|\Z))")
"""The same without indentation."""
_INDENTED = (b"\n ", b"\n\t", b"\r ", b"\r\t")
_SIGNS = tuple(sign.encode() for sign in spellings.ESCAPE_SIGNS)


class SecretSpan(NamedTuple):
    """Bytes `begin … end` spell a secret; of overlapping ones the union, with the name of the longest."""

    begin: int
    end: int
    name: str
    is_packed: bool


class _Form(NamedTuple):
    text: bytes
    name: str
    is_packed: bool


class Known:
    """Finds the given secrets. Immutable.

    Args:
        secrets: (name, value), the first name of a value counts.
        min_packed: packed forms of values with fewer letters are left out.
        errors: how bytes and text correspond where they are no UTF-8.
    """

    def __init__(self, secrets: Iterable[tuple[str, str]], *, min_packed: int, errors: str) -> None:
        self._errors = errors
        forms: dict[bytes, _Form] = {}
        texts: set[str] = set()
        self._plain_firsts: set[bytes] = set()
        for name, value in secrets:
            one_line = value.replace("\r", "").replace("\n", "")
            # a value may look as if it held escapes: then it is met with them taken off, too
            plain = {one_line, one_line.strip(), one_line.replace(" ", "+"), spellings.unescaped(one_line)}
            packed = spellings.packed(value) if len(value) >= min_packed else set()
            texts |= {value, *plain, *packed}
            for spelling in [*sorted(plain), *sorted(packed)]:
                text = spelling.encode("utf-8", errors)
                if len(text) >= spellings.MIN_SECRET_CHARS:
                    forms.setdefault(text, _Form(text, name, spelling not in plain))
                    if spelling in plain:
                        self._plain_firsts.add(text[:1])
        self._texts = texts
        self._short = [form for form in forms.values() if len(form.text) < MIN_LONG_BYTES]
        long = [form for form in forms.values() if len(form.text) >= MIN_LONG_BYTES]
        self._window = min([len(form.text) for form in long], default=MIN_LONG_BYTES)
        stride = min(self._window - GRAM_BYTES + 1, MAX_STRIDE_BYTES)
        self._window = stride + GRAM_BYTES - 1
        self._grams: dict[tuple[bytes], list[tuple[int, _Form]]] = {}
        for form in long:
            for offset in range(stride):
                gram = form.text[offset : offset + GRAM_BYTES]
                self._grams.setdefault((gram,), []).append((offset, form))
        self._units = struct.Struct(f"{GRAM_BYTES}s{stride - GRAM_BYTES}x")
        self._beginnings = {
            form.text[:size] for form in forms.values() for size in range(1, min(len(form.text), self._window))
        }
        self._beginning_ends = {text[-1:] for text in self._beginnings}
        self._longest_beginning = max(map(len, self._beginnings), default=0)

    def __bool__(self) -> bool:
        return bool(self._beginnings)

    @functools.cached_property
    def _telling(self) -> re.Pattern[bytes]:
        return spellings.telling(self._texts)

    def may_begin(self, letter: bytes) -> bool:
        """Whether a plain secret begins so."""
        return letter in self._plain_firsts

    def is_telling(self, raw: bytes, step: int) -> bool:
        """Whether escapes in `raw` may hide a secret; looked for in so many bytes at once."""
        line = _without(_ways(raw)[-1], raw)
        if not any(sign in line for sign in _SIGNS):
            return False
        places = range(0, len(line), step)
        return any(self._telling.search(line, at, at + step + spellings.LONGEST_ESCAPE) for at in places)

    def look(self, raw: bytes, is_telling: bool | None = None) -> tuple[list[SecretSpan], int]:
        """Where secrets are, in order and apart, and where the longest end of `raw` begins that may be the beginning of
        one (its length if none is). `is_telling` is that of the text that `raw` is a part of.
        """

        def in_one(line: bytes) -> tuple[list[SecretSpan], int]:
            spans, hold = self._in_line(line)
            if any(sign in line for sign in _SIGNS):
                more, further = self._behind_escapes(line, is_telling)
                return [*spans, *more], min(hold, further)
            return spans, hold

        spans, hold = _through(raw, in_one)
        return _apart(spans), hold

    def _in(self, view: bytes) -> tuple[list[SecretSpan], int]:
        """The same behind escapes, where line ends and colours may come to light."""
        return _through(view, self._in_line)

    def _in_line(self, view: bytes) -> tuple[list[SecretSpan], int]:
        """The same in one line."""
        hits: list[SecretSpan] = []
        size, stride = len(view), self._units.size
        open_end = size
        for form in self._short:
            at = view.find(form.text)
            while at >= 0:
                hits.append(SecretSpan(at, at + len(form.text), form.name, form.is_packed))
                at = view.find(form.text, at + 1)
        whole = size - size % stride
        if not (
            self._grams.keys().isdisjoint(self._units.iter_unpack(memoryview(view)[:whole]))
            and (view[whole : whole + GRAM_BYTES],) not in self._grams
        ):
            for place in range(0, size, stride):
                for offset, form in self._grams.get((view[place : place + GRAM_BYTES],), ()):
                    begin = place - offset
                    if begin < 0:
                        continue
                    if view.startswith(form.text, begin):
                        hits.append(SecretSpan(begin, begin + len(form.text), form.name, form.is_packed))
                    elif size - begin < len(form.text) and form.text.startswith(view[begin:]):
                        open_end = min(open_end, begin)
        if view[-1:] not in self._beginning_ends:
            return hits, open_end
        for begin in range(max(size - self._longest_beginning, 0), min(size, open_end)):
            if view[begin:] in self._beginnings:
                return hits, begin
        return hits, open_end

    def _is_wrapped(self, line: bytes) -> bool:
        """Whether escaped line ends stand in a secret, or may stand in one that the end cuts, as in base64 in JSON."""
        if b"\\n" not in line:
            return False
        joined = line.replace(b"\\r", b"").replace(b"\\n", b"")
        spans, open_end = self._in_line(joined)
        return bool(spans) or len(joined) - open_end >= GRAM_BYTES

    def _behind_escapes(self, line: bytes, is_telling: bool | None) -> tuple[list[SecretSpan], int]:
        """The same where letters are escaped, layer by layer; an escape that the end cuts may become one of them."""
        text = line.decode("utf-8", self._errors)
        is_telling = bool(self._telling.search(line)) if is_telling is None else is_telling
        if not is_telling and not self._is_wrapped(line):
            cut = _open_escape(text)
            if cut is None:
                return [], len(line)
            head = line[: len(line) - (len(text) - cut.start())]  # an escape is ASCII
            return [], self._in(head)[1]
        for seen, _, is_cut in _layers(text, is_located=False):
            spans, open_end = self._in(seen)
            if spans or is_cut or open_end < len(seen):
                break
        else:
            return [], len(line)
        found: list[SecretSpan] = []
        hold = len(text)
        for seen, places, _ in _layers(text, is_located=True):
            spans, open_end = self._in(seen)
            found += (span._replace(begin=places[span.begin], end=places[span.end]) for span in spans)
            hold = min(hold, places[open_end])
        if not text.isascii():
            bytes_before = [0]
            for letter in text:
                bytes_before.append(bytes_before[-1] + len(letter.encode("utf-8", self._errors)))
            found = [span._replace(begin=bytes_before[span.begin], end=bytes_before[span.end]) for span in found]
            hold = bytes_before[hold]
        return found, hold


def _through(raw: bytes, look: Callable[[bytes], tuple[list[SecretSpan], int]]) -> tuple[list[SecretSpan], int]:
    """What `look` finds in what shows of `raw`, at its places there: with the indentation of lines, and without."""
    found: list[SecretSpan] = []
    hold = len(raw)
    for left_out in _ways(raw):
        line = _without(left_out, raw)
        spans, open_end = look(line)
        if len(line) == len(raw):
            return spans, open_end
        if spans or open_end < len(line):
            places = _places(left_out, raw)
            found += (span._replace(begin=places[span.begin], end=places[span.end - 1] + 1) for span in spans)
            hold = min(hold, places[open_end] if open_end < len(line) else hold)
    return found, hold


def _ways(raw: bytes) -> tuple[re.Pattern[bytes], ...]:
    """What to leave out of it: line ends, and where lines are indented then indentation too."""
    return (_LINE_ENDS, INVISIBLE) if any(sign in raw for sign in _INDENTED) else (_LINE_ENDS,)


def _without(left_out: re.Pattern[bytes], raw: bytes) -> bytes:
    if b"\x1b" in raw or left_out is INVISIBLE:
        return left_out.sub(b"", raw)
    return raw.translate(None, b"\r\n")


def _layers(text: str, *, is_located: bool) -> Iterator[tuple[bytes, list[int], bool]]:
    """What lies behind each layer of escapes, where in `text` each of its bytes began (one more for the end), and
    whether the end cuts an escape; such a layer comes once more without it.
    """
    places = list(range(len(text) + 1)) if is_located else []
    for _ in range(spellings.ROUNDS + 1):
        cut = _open_escape(text)
        head = text[: cut.start()] if cut else text
        for part in (text, head) if cut else (text,):
            yield part.encode("utf-8", "surrogatepass"), _byte_places(part, places) if is_located else [], bool(cut)
        if is_located:
            text, inner = spellings.located(head)
            places = [places[place] for place in inner]
            if not cut and text == head:
                return
        else:
            text = spellings.unescaped(head)
            if not cut and text is head:
                return


def _open_escape(text: str) -> re.Match[str] | None:
    return spellings.OPEN_ESCAPE.search(text, max(len(text) - spellings.LONGEST_ESCAPE, 0))


def _byte_places(text: str, places: list[int]) -> list[int]:
    if text.isascii():
        return places[: len(text) + 1]
    found = [
        place for letter, place in zip(text, places, strict=False) for _ in letter.encode("utf-8", "surrogatepass")
    ]
    return [*found, places[len(text)]]


def _places(left_out: re.Pattern[bytes], raw: bytes) -> list[int]:
    """Where in `raw` each byte stands that is not left out, and one more for the end."""
    places: list[int] = []
    at = 0
    for match in left_out.finditer(raw):
        places.extend(range(at, match.start()))
        at = match.end()
    places.extend(range(at, len(raw) + 1))
    return places


def _apart(spans: list[SecretSpan]) -> list[SecretSpan]:
    apart: list[SecretSpan] = []
    for span in sorted(set(spans), key=lambda span: (span.begin, -span.end)):
        if not apart or span.begin >= apart[-1].end:
            apart.append(span)
            continue
        last = apart[-1]
        longest = max(last, span, key=lambda one: one.end - one.begin)
        apart[-1] = SecretSpan(last.begin, max(last.end, span.end), longest.name, last.is_packed or span.is_packed)
    return apart
