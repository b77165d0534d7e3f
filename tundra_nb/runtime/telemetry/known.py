"""Known secrets, found in a text in whatever spelling: the one search behind every mask.

Three looks, each at places that are known in the text itself:

- *As it is*, over line ends and colours: what is too short, or too much like words, for the others.
- *Folded*: letters and digits alone, in small. Blanks, signs, line ends and invisible characters between the letters,
  capitals, the alphabets of base64 and the commas of a list are all the same then. So is a dump: beside the text itself
  it is read without offsets and without the column of letters, and what is found there covers whole lines.
- *Behind escapes*, where each letter may be spelled in its own way, layer by layer: both looks again.

`spellings` says which forms are known. The cost does not grow with the number of secrets: of every few bytes six are
looked up in one set. Whoever holds a form of `m` letters holds one of those sixes that begin at every (m - 5)th place,
wherever it stands.
"""

from __future__ import annotations

import bisect
import functools
import itertools
import re
import string
import struct
import unicodedata
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from . import dumps, spellings

GRAM_BYTES = 6
"""Long enough that hardly any text but a secret holds one."""
MIN_LONG_BYTES = 12
"""Shorter forms are searched for one by one, as they are."""
MAX_STRIDE_BYTES = 27
"""A wider one would gain nothing that can be measured."""
SHORT_BYTES = 6
"""A beginning shorter than this is no secret yet: `sk-an`."""
MAX_GAP_BYTES = 300
"""Between two letters of one secret: the offset and the column of letters of a wide dump."""
WORDLIKE_CHARS = 24
"""A shorter value without a digit may be words, which are no secret where blanks stand between them."""
BLOCK_BYTES = 256
TAIL_BYTES = 1024

_COLOUR = rb"(?:\[[0-?]*[ -/]*(?:[@-~]|\Z)|\Z)"
INVISIBLE = re.compile(rb"[\r\n\x1b](?:(?<=[\r\n])[\r\n]*[ \t]*|(?<=\x1b)%b)" % _COLOUR)
"""Line ends with indentation, and colours, also one that the end of the text cuts."""
_COLOURS = re.compile(rb"\x1b" + _COLOUR)
_LINE_ENDS = b"\r\n\x7f"
_INDENTATION = re.compile(rb"[\r\n]+[ \t]+")
_STRANGE = re.compile(
    rb"[\xc2\xe2\xef\xf0](?:(?<=\xc2)\xad|(?<=\xe2)(?:\x80[\x8b-\x8f\xaa-\xae]|\x81[\xa0-\xa4])"
    rb"|(?<=\xef)(?:\xbb\xbf|\xbc[\x90-\x99\xa1-\xba]|\xbd[\x81-\x9a])|(?<=\xf0)\x9d[\x90-\x9f][\x80-\xbf])"
)
"""What has no width, and letters and digits in other shapes."""
_CUT_LETTER = re.compile(rb"(?:\xef[\xbc\xbd]?|\xf0(?:\x9d[\x90-\x9f]?)?)\Z")
_LETTERS = (string.ascii_letters + string.digits).encode()
_SIGNS = bytes(set(range(256)) - set(_LETTERS))
_SMALL = bytes.maketrans(string.ascii_uppercase.encode(), string.ascii_lowercase.encode())
_PLAIN_LETTERS = {
    raw: plain.encode().ljust(len(raw), b"\x7f")
    for raw, letter in ((chr(code).encode(), chr(code)) for code in (*range(0xFF10, 0xFF5B), *range(0x1D400, 0x1D800)))
    if (plain := unicodedata.normalize("NFKC", letter)).isascii() and plain.isalnum()
}
_GAP = re.compile(rb"[^0-9A-Za-z]{%d}" % (MAX_GAP_BYTES + 1))
_BETWEEN_WORDS = re.compile(rb"[0-9A-Za-z]{2}[ -/:-@\[-`{-~\t]+[0-9A-Za-z]")
_ESCAPE_SIGNS = tuple(sign.encode() for sign in spellings.ESCAPE_SIGNS)
_NOT_PLAIN = b"\r\n\x1b\x7f" + spellings.ESCAPE_SIGNS.encode()


class SecretSpan(NamedTuple):
    """Bytes `begin … end` spell a secret; of overlapping ones the union, with the name of the longest."""

    begin: int
    end: int
    name: str
    is_packed: bool


class Look(NamedTuple):
    """What was seen in a text."""

    spans: list[SecretSpan]
    """Where secrets are, in order and apart."""
    hold: int
    """Where the longest end begins that may be the beginning of one; the text's length if none is."""
    sure: int
    """The same of those that are longer than chance would have them."""
    is_settled: bool
    """The text ends with a blank or line end: a short beginning is hardly one."""


class _Form(NamedTuple):
    text: bytes
    name: str
    is_packed: bool
    is_wordlike: bool


class Known:
    """Finds the given secrets. Immutable.

    Args:
        secrets: (name, value), the first name of a value counts.
        min_packed: packed forms of values with fewer letters are left out.
        errors: how bytes and text correspond where they are no UTF-8.
    """

    def __init__(self, secrets: Iterable[tuple[str, str]], *, min_packed: int, errors: str) -> None:
        self._errors = errors
        exact: dict[bytes, _Form] = {}
        folded: dict[bytes, _Form] = {}
        values: set[str] = set()
        self._plain_firsts: set[bytes] = set()
        self._plain_beginnings: set[bytes] = set()
        for name, value in secrets:
            one_line = value.replace("\r", "").replace("\n", "")
            # a value may look as if it held escapes: then it is met with them taken off, too
            plain = {one_line, one_line.strip(), one_line.replace(" ", "+"), spellings.unescaped(one_line)}
            packed = spellings.packed(value) if len(value) >= min_packed else set()
            values |= {value, *plain}
            for spelling in [*sorted(plain), *sorted(packed - plain)]:
                text = spelling.encode("utf-8", errors)
                if len(text) < spellings.MIN_SECRET_CHARS:
                    continue
                letters = _folded(text)
                is_packed = spelling not in plain
                is_wordlike = len(letters) < WORDLIKE_CHARS and letters.isalpha()
                if can_fold := _is_many(letters):
                    folded.setdefault(letters, _Form(letters, name, is_packed, is_wordlike))
                if not is_packed:
                    self._plain_firsts.add(text[:1])
                    self._plain_beginnings.add(letters[: SHORT_BYTES - 1])
                    can_fold = can_fold and bool(_folded(text[:1]) and _folded(text[-1:]))  # else its edges would show
                if not can_fold or is_wordlike:
                    exact.setdefault(text, _Form(text, name, is_packed, is_wordlike=False))
        self._values = values
        self._exact = _Search(exact.values())
        self._folded = _Search(folded.values())

    def __bool__(self) -> bool:
        return bool(self._exact) or bool(self._folded)

    @functools.cached_property
    def _telling(self) -> re.Pattern[bytes]:
        return spellings.telling(self._values)

    def may_begin(self, letter: bytes) -> bool:
        """Whether a plain secret begins so."""
        return letter in self._plain_firsts

    def is_telling(self, raw: bytes, step: int) -> bool:
        """Whether escapes in `raw` may hide a secret; looked for in so many bytes at once."""
        for at in range(0, len(raw), step):
            piece = raw[at : at + step + MAX_GAP_BYTES]
            if any(sign in piece for sign in _ESCAPE_SIGNS) and self._telling.search(_one_line(_flat(piece)).text):
                return True
        return False

    def is_clean(self, raw: bytes) -> bool:
        """Whether a plain line holds no secret, which most are; False also where only `look` can tell."""
        if not raw.isascii() or len(raw) != len(raw.translate(None, _NOT_PLAIN)):
            return False
        return not (self._exact and self._exact.may_hold(raw)) and not (
            self._folded and self._folded.may_hold(raw.translate(_SMALL, _SIGNS))
        )

    def look(self, raw: bytes, is_telling: bool | None = None, *, is_line: bool = True) -> Look:
        """Where secrets are, and where one may begin.

        Args:
            raw: the text, or a part of it.
            is_telling: that of the text that `raw` is a part of.
            is_line: a line begins with it.
        """
        flat = _flat(raw)
        spans, hold, sure = self._in(flat, is_line=is_line)
        if any(sign in flat for sign in _ESCAPE_SIGNS):
            line = _one_line(flat)
            more, open_end, sure_end = self._behind_escapes(line.text, is_telling)
            spans += (span._replace(begin=line.place(span.begin), end=line.place(span.end - 1) + 1) for span in more)
            hold, sure = min(hold, line.place(open_end)), min(sure, line.place(sure_end))
        return Look(_apart(spans), hold, sure, flat.rstrip(b"\r")[-1:] in (b"\n", b" ", b"\t"))

    def _in(self, flat: bytes, *, is_line: bool) -> tuple[list[SecretSpan], int, int]:
        """The same without escapes."""
        spans: list[SecretSpan] = []
        hold = sure = len(flat)
        if self._exact:
            kept = _Kept(flat, _LINE_ENDS)
            hits, opens = self._exact.look(kept.text)
            spans += (_span(form, *kept.places(begin, form)) for begin, form in hits)
            if opens:
                hold = kept.place(opens[0])
                surely = [at for at in opens if len(kept.text) - at >= SHORT_BYTES]
                sure = kept.place(surely[0]) if surely else sure
        if self._folded:
            open_line = dumps.open_line(flat, is_line=is_line)
            hold = min(hold, open_line, _cut_letter(flat))
            for view, is_dump in _readings(flat, open_line, is_line=is_line):
                more, open_end, sure_end = self._in_folded(view, flat, is_dump=is_dump)
                spans += more
                hold, sure = min(hold, open_end), min(sure, sure_end)
        return spans, hold, sure

    def _in_folded(self, view: bytes, flat: bytes, *, is_dump: bool) -> tuple[list[SecretSpan], int, int]:
        kept = _Kept(view, _SIGNS, _SMALL)
        hits, opens = self._folded.look(kept.text)
        spans: list[SecretSpan] = []
        hold = sure = len(view)
        for first, form in hits:
            begin, end = kept.places(first, form)
            letters = view[begin:end]
            if _GAP.search(letters) or (form.is_wordlike and _BETWEEN_WORDS.search(letters)):
                continue
            if view is not flat and letters == flat[begin:end]:
                continue  # seen in the text itself
            if is_dump:
                begin, line_end = dumps.line_begin(flat, begin), flat.find(b"\n", end)
                if line_end < 0:  # what comes may be of it, too
                    hold, line_end = min(hold, begin), len(flat)
                end = max(end, len(flat[:line_end].rstrip(b"\r")))
            spans.append(_span(form, begin, end))
        for first in opens:
            begin = kept.place(first)
            if not _GAP.search(view, begin):
                line = dumps.line_begin(flat, begin) if is_dump else begin
                hold = min(hold, line)
                if self._is_sure(kept.text[first:], view[begin:]) and (view is flat or view[begin:] != flat[begin:]):
                    sure = line
                break
        return spans, hold, sure

    def _is_sure(self, letters: bytes, shown: bytes) -> bool:
        """Whether `letters`, which end the text as it is `shown`, are hardly anything but a beginning: a word that has
        ended, such as a prompt, is.
        """
        if len(letters) < min(len(shown), MIN_LONG_BYTES) and shown.lower().startswith(letters):
            return False
        return _is_unlikely(letters) or letters[: SHORT_BYTES - 1] in self._plain_beginnings

    def _behind_escapes(self, line: bytes, is_telling: bool | None) -> tuple[list[SecretSpan], int, int]:
        """The same where letters are escaped, layer by layer; an escape that the end cuts may become one of them."""
        text = line.decode("utf-8", self._errors)
        is_telling = bool(self._telling.search(line)) if is_telling is None else is_telling
        if not is_telling:
            cut = _open_escape(text)
            if cut is None:
                return [], len(line), len(line)
            head = line[: len(line) - (len(text) - cut.start())]  # an escape is ASCII
            _, hold, _ = self._in(_flat(head), is_line=False)
            sure = min(at if _is_long(head[at:], line[at:]) else len(line) for at in (hold, len(head)))
            return [], hold, sure
        letters = 0  # at the end, that may be a beginning
        for seen, _, is_cut in _layers(text, is_located=False):
            spans, hold, _ = self._in(_flat(seen), is_line=False)
            if spans:
                break
            letters = max(letters, len(seen) - hold, is_cut)
        else:
            if not letters:
                return [], len(line), len(line)
            # No secret, only a beginning, and places cost: those of the end will do, from where no escape goes on.
            begin = line.rfind(b" ", 1, max(len(line) - TAIL_BYTES, 0))
            if begin > 0 and line[begin - 1 : begin] != b"\\":
                tail = line[begin:]
                if letters < min(
                    len(seen) for seen, _, _ in _layers(tail.decode("utf-8", self._errors), is_located=False)
                ):
                    _, hold, sure = self._behind_escapes(tail, is_telling=True)
                    return [], begin + hold, begin + sure
        found: list[SecretSpan] = []
        hold = sure = len(text)
        for seen, places, _ in _layers(text, is_located=True):
            spans, open_end, sure_end = self._in(_flat(seen), is_line=False)
            found += (span._replace(begin=places[span.begin], end=places[span.end]) for span in spans)
            hold = min(hold, places[open_end])
            if sure_end < len(seen):
                sure = min(sure, places[sure_end])
            for at in (open_end, len(seen)):
                if _is_long(seen[at:], text[places[at] :].encode(errors="replace")):
                    sure = min(sure, places[at])
        if not text.isascii():
            bytes_before = [0]
            for letter in text:
                bytes_before.append(bytes_before[-1] + len(letter.encode("utf-8", self._errors)))
            found = [span._replace(begin=bytes_before[span.begin], end=bytes_before[span.end]) for span in found]
            hold, sure = bytes_before[hold], bytes_before[sure]
        return found, hold, sure


class _Search:
    """Finds forms in a text, and where its end may be the beginning of one."""

    def __init__(self, forms: Iterable[_Form]) -> None:
        forms = list(forms)
        self._short = [form for form in forms if len(form.text) < MIN_LONG_BYTES]
        long = [form for form in forms if len(form.text) >= MIN_LONG_BYTES]
        shortest = min([len(form.text) for form in long], default=MIN_LONG_BYTES)
        stride = min(shortest - GRAM_BYTES + 1, MAX_STRIDE_BYTES)
        window = stride + GRAM_BYTES - 1
        self._grams: dict[tuple[bytes], list[tuple[int, _Form]]] = {}
        for form in long:
            for offset in range(stride):
                gram = form.text[offset : offset + GRAM_BYTES]
                self._grams.setdefault((gram,), []).append((offset, form))
        self._units = struct.Struct(f"{GRAM_BYTES}s{stride - GRAM_BYTES}x")
        self._beginnings = {form.text[:size] for form in forms for size in range(1, min(len(form.text), window))}
        self._beginning_ends = {text[-1:] for text in self._beginnings}
        self._longest_beginning = max(map(len, self._beginnings), default=0)

    def __bool__(self) -> bool:
        return bool(self._beginnings)

    def may_hold(self, view: bytes) -> bool:
        """Whether a form may be in `view`."""
        if any(form.text in view for form in self._short):
            return True
        whole = len(view) - len(view) % self._units.size
        return (view[whole : whole + GRAM_BYTES],) in self._grams or not self._grams.keys().isdisjoint(
            self._units.iter_unpack(memoryview(view)[:whole])
        )

    def look(self, view: bytes) -> tuple[list[tuple[int, _Form]], list[int]]:
        """Where forms begin, and which ends of `view` may be beginnings, longest first."""
        hits: list[tuple[int, _Form]] = []
        opens: list[int] = []
        size, stride = len(view), self._units.size
        if self.may_hold(view):
            for form in self._short:
                at = view.find(form.text)
                while at >= 0:
                    hits.append((at, form))
                    at = view.find(form.text, at + 1)
            for place in range(0, size, stride):
                for offset, form in self._grams.get((view[place : place + GRAM_BYTES],), ()):
                    begin = place - offset
                    if begin < 0:
                        continue
                    if view.startswith(form.text, begin):
                        hits.append((begin, form))
                    elif size - begin < len(form.text) and form.text.startswith(view[begin:]):
                        opens.append(begin)
        if view[-1:] in self._beginning_ends:
            least = max(size - self._longest_beginning, 0)
            opens += (begin for begin in range(least, size) if view[begin:] in self._beginnings)
        return hits, sorted(set(opens))


class _Kept:
    """What is kept of a text, and where each byte of it stood."""

    def __init__(self, text: bytes, left_out: bytes, table: bytes | None = None) -> None:
        self._whole = text
        self._left_out = left_out
        self.text = text.translate(table, left_out)

    @functools.cached_property
    def _counts(self) -> list[int]:
        whole, left_out = self._whole, self._left_out
        pieces = (whole[at : at + BLOCK_BYTES] for at in range(0, len(whole), BLOCK_BYTES))
        return list(itertools.accumulate((len(piece.translate(None, left_out)) for piece in pieces), initial=0))

    def places(self, at: int, form: _Form) -> tuple[int, int]:
        """Where it began and ended, when it stands there."""
        end = self.place(at + len(form.text) - 1) + 1
        while self._whole[end : end + 1] == b"\x7f":  # of the same letter
            end += 1
        return self.place(at), end

    def place(self, at: int) -> int:
        if len(self.text) == len(self._whole):
            return at
        block = bisect.bisect_right(self._counts, at) - 1
        begin = block * BLOCK_BYTES
        left = at - self._counts[block]
        for place, byte in enumerate(self._whole[begin : begin + BLOCK_BYTES], begin):
            if byte not in self._left_out:
                if left == 0:
                    return place
                left -= 1
        return len(self._whole)


def _span(form: _Form, begin: int, end: int) -> SecretSpan:
    return SecretSpan(begin, end, form.name, form.is_packed)


def _folded(text: bytes) -> bytes:
    return text.translate(_SMALL, _SIGNS)


def _is_many(letters: bytes) -> bool:
    """Whether they are too many, and too different, to come together by chance."""
    if len(letters) < MIN_LONG_BYTES or (len(letters) < WORDLIKE_CHARS and letters.isdigit()):
        return False
    return len(letters) * len(set(letters)) >= 6 * MIN_LONG_BYTES


def _is_unlikely(letters: bytes) -> bool:
    """Whether so many are hardly met by chance at the beginning of a packed form: digits alone are many of a dump."""
    if letters.isdigit():
        return len(letters) >= (2 if letters.strip(b"01") else 8) * SHORT_BYTES
    return len(letters) >= SHORT_BYTES - 1


def _is_long(beginning: bytes, raw: bytes) -> bool:
    """Whether a beginning that `raw` spells is shown as more than a short one: a letter may have an escape of its own,
    as one that the end cuts.
    """
    is_to_the_end = not beginning or beginning[-1:].isalnum() or beginning[-1:] in (b"-", b"_")
    return is_to_the_end and len(raw) >= SHORT_BYTES and not re.search(rb"[ \t]", raw)


def _flat(raw: bytes) -> bytes:
    """The text as it shows, each byte at its place: line ends stand where nothing shows."""
    if b"\x1b" in raw:
        raw = _COLOURS.sub(_nothing, raw)
    return raw if raw.isascii() else _STRANGE.sub(_plain_letter, raw)


def _nothing(match: re.Match[bytes]) -> bytes:
    return b"\r" * len(match[0])


def _plain_letter(match: re.Match[bytes]) -> bytes:
    return _PLAIN_LETTERS.get(match[0]) or _nothing(match)


def _one_line(flat: bytes) -> _Kept:
    """Without line ends, and without the indentation of the lines."""
    return _Kept(_INDENTATION.sub(_nothing, flat) if b"\n " in flat or b"\n\t" in flat else flat, _LINE_ENDS)


def _readings(flat: bytes, open_line: int, *, is_line: bool) -> Iterator[tuple[bytes, bool]]:
    """The text itself; without line ends that are escaped, as in base64 in JSON; without what stands beside the bytes
    of a dump, and whether it is that.
    """
    yield flat, False
    if b"\\n" in flat:
        yield flat.replace(b"\\r", b"  ").replace(b"\\n", b"  "), False
    if (bytes_alone := dumps.bytes_alone(flat, open_line, is_line=is_line)) is not None:
        yield bytes_alone, True


def _cut_letter(flat: bytes) -> int:
    cut = _CUT_LETTER.search(flat, max(len(flat) - 3, 0))
    return cut.start() if cut else len(flat)


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
