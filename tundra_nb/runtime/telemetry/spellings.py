"""The spellings in which a known secret travels, and finding it behind escapes.

Two families. A secret may be *packed*: base64 (also of `user:key`, which shifts its letters, of base64, and of UTF-16),
base32, base85, numbers of one byte or more, quoted-printable, reversed; these are fixed texts, and what stands between
their letters is `known`'s. Or it may be *escaped*, letter by letter and in any mixture, as URLs, HTML, JSON and shells
do, one inside another; there the text is unescaped and searched, and each letter remembers where it stood.
"""

from __future__ import annotations

import base64
import html
import html.entities
import quopri
import re
import string
from collections.abc import Callable, Iterable, Iterator

MIN_SECRET_CHARS = 6
"""Shorter values ("1", "true", "admin") are not masked: they would blank out ordinary words. No vendor's key is that
short.
"""
ROUNDS = 4
"""Escapes inside escapes: JSON in JSON in a URL in a log line."""
ESCAPE_SIGNS = "%&\\"
_ESCAPE = re.compile(
    r"[%&\\](?:(?<=%)[0-9A-Fa-f]{2}(?:%[0-9A-Fa-f]{2})*"
    r"|(?<=&)(?:#[xX][0-9A-Fa-f]{1,6};?|#[0-9]{1,7};?|[a-zA-Z]{2,8};)"
    r"|(?<=\\)(?:u[dD][89abAB][0-9A-Fa-f]{2}\\u[dD][c-fC-F][0-9A-Fa-f]{2}"
    r"|u\{[0-9A-Fa-f]{1,6}\}|u[0-9A-Fa-f]{4}|U[0-9A-Fa-f]{8}|x[0-9A-Fa-f]{2}(?:\\x[0-9A-Fa-f]{2})*|x\{[0-9A-Fa-f]{1,6}\}"
    r"|0[01][0-7]{2}|[23][0-7]{2}(?:\\[23][0-7]{2})*|[0-7]{3}|.))",
    re.DOTALL,
)
"""Its sign comes first, for `re` passes over what cannot begin a match only where one set of letters does: ten times as
fast."""
OPEN_ESCAPE = re.compile(
    r"(?:%[C-Fc-f][0-9A-Fa-f](?:%[89ABab][0-9A-Fa-f]){0,2}(?:%[89ABab]?)?|%[0-9A-Fa-f]?"
    r"|&(?:#(?:[xX][0-9A-Fa-f]{0,6}|[0-9]{0,7})|[a-zA-Z]{1,8})?"
    r"|\\u[dD][89abAB][0-9A-Fa-f]{2}(?:\\(?:u[0-9A-Fa-f]{0,3})?)?"
    r"|\\x[C-Fc-f][0-9A-Fa-f](?:\\x[89ABab][0-9A-Fa-f]){0,2}(?:\\(?:x[89ABab]?)?)?"
    r"|\\3[0-7]{2}(?:\\2[0-7]{2}){0,2}(?:\\(?:2[0-7]?)?)?"
    r"|\\(?:u[0-9A-Fa-f]{0,3}|[ux]\{[0-9A-Fa-f]{0,6}|U[0-9A-Fa-f]{0,7}|x[0-9A-Fa-f]?|[0-7]{1,2}|0[01][0-7])?)\Z"
)
"""An escape that the end of the text cuts, or that what follows may make a longer one."""
LONGEST_ESCAPE = 16
_OF_ESCAPES = "%&\\#;{}xuU0123456789abcdefABCDEF"
_OF_PACKED = string.ascii_letters + string.digits + "+/=-_ ,:"
_OF_DISGUISE = "\xad\u200b\u200c\u200d\u2060\ufeff" + "".join(
    map(chr, (*range(0xFF10, 0xFF1A), *range(0xFF21, 0xFF5B)))
)
"""What `known` looks through, or takes for letters."""
_OTHERS = (b"\0", b"\xff", b"\x55", b"\xa3")
"""What may stand around a secret."""
_UNUSUAL = re.compile(r"\\[^nrtbf/\"']")
"""Escapes beside `_SIMPLE`."""
_BACKSLASH = "\ue000\ue001"
"""Stands for an escaped backslash while the rest is unescaped; of the code points that nobody uses."""
_SIMPLE = [(f"\\{letter}", meant) for letter, meant in zip("nrtbf/\"'", "\n\r\t\b\f/\"'", strict=True)]
_LETTERS = {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "f": "\f", "0": "\0"}


def packed(secret: str) -> set[str]:
    """Texts that hold the whole secret whatever stands around it. What stands between their letters, and capitals, are
    looked through by `known`.
    """
    raw = secret.encode("utf-8", "surrogateescape")
    wide = secret.encode("utf-16-le", "surrogatepass")
    forms = {secret[::-1], quopri.encodestring(raw).decode()}
    forms |= {"".join(map(code.format, raw)) for code in ("{:02x}", "0x{:02x}", "{}", "{:03o}", "{:08b}")}
    forms |= {wide.hex(), "".join(chr(byte) if byte < 0x80 else f"{byte:03o}" for byte in raw)}
    for size in (2, 4, 8):
        forms |= _words(raw, size)
    forms |= _cores(base64.b32encode, raw, 5) | _cores(base64.b32hexencode, raw, 5)
    forms |= _cores(base64.a85encode, raw, 4) | _cores(base64.b85encode, raw, 4)
    return forms.union(_base64(raw), _base64(wide), *(_base64(core.encode()) for core in _base64(raw)))


def _words(raw: bytes, size: int) -> set[str]:
    """As `od` and `hexdump` show it: numbers of so many bytes, the first the lowest, wherever the first one begins."""
    codes = (f"{{:0{2 * size}x}}", f"{{:0{(8 * size + 2) // 3}o}}", "{}", "{:05}")
    forms = set()
    for begin in range(size):
        places = range(begin, len(raw) - size + 1, size)
        words = [int.from_bytes(raw[at : at + size], "little") for at in places]
        forms |= {"".join(map(code.format, words)) for code in codes}
    return {form for form in forms if len(form) >= len(raw)}


def _cores(encode: Callable[[bytes], bytes], raw: bytes, size: int) -> set[str]:
    """What an encoding that goes by so many bytes makes of anything around `raw` in common."""
    cores = set()
    for before in range(size):
        after = -(before + len(raw)) % size
        samples = [encode(other * before + raw + other * after).decode() for other in _OTHERS]
        common = "".join(letters[0] if len(set(letters)) == 1 else "\n" for letters in zip(*samples, strict=True))
        cores.add(max(common.split("\n"), key=len))
    return cores


def _base64(raw: bytes) -> set[str]:
    """The same of base64, in both alphabets."""
    cores = _cores(base64.b64encode, raw, 3)
    return cores | {core.replace("+", "-").replace("/", "_") for core in cores}


def unescaped(text: str) -> str:
    """The text with one layer of escapes taken off; the same object when there is none. Quick, as most escapes of a
    long JSON text are line ends and quotes.
    """
    found = text.replace("\\\\", _BACKSLASH)
    if "%" in found or "&" in found or _UNUSUAL.search(found):
        found = _ESCAPE.sub(_letters, found)
    elif "\\" in found:
        for letter, meant in _SIMPLE:
            found = found.replace(letter, meant)
    found = found.replace(_BACKSLASH, "\\")
    return text if found == text else found


def located(text: str) -> tuple[str, list[int]]:
    """The same, and where in `text` each letter began; one more place for the end."""
    letters: list[str] = []
    places: list[int] = []
    at = 0
    for match in _ESCAPE.finditer(text):
        letters.append(text[at : match.start()])
        places.extend(range(at, match.start()))
        place = match.start()
        for letter, width in _meant(match.group()):
            letters.append(letter)
            places.extend([place] * len(letter))
            place += width
        at = match.end()
    letters.append(text[at:])
    places.extend(range(at, len(text) + 1))
    return "".join(letters), places


def _letters(escape: re.Match[str]) -> str:
    return "".join(letter for letter, _ in _meant(escape.group()))


def telling(secrets: Iterable[str]) -> re.Pattern[bytes]:
    """Escapes that may be a letter of one of the secrets, plain or packed, or a sign or digit of an escape inside an
    escape.

    A text without one hides none of them, so that the line ends and quotes of JSON need not be read.
    """
    letters = set(_OF_ESCAPES + _OF_PACKED + _OF_DISGUISE).union(*secrets)
    coded = "".join(letters).encode("utf-8", "surrogatepass")
    codes = {*coded, *(ord(letter) for letter in letters if letter < "\u0100")}
    units = "".join(letters).encode("utf-16-be", "surrogatepass")
    two = "|".join(f"{code:02x}" for code in sorted(codes))
    four = "|".join(sorted({units[at : at + 2].hex() for at in range(0, len(units), 2)}))
    three = "|".join(f"{code:03o}" for code in sorted(codes))
    signs = re.escape("".join(letter for letter in letters if letter.isascii() and not letter.isalnum()))
    names = "|".join(name.rstrip(";") for name, letter in html.entities.html5.items() if letter in letters)
    return re.compile(
        rf"%(?i:{two})|&(?:#|{names})|\\(?:x(?i:{two})|u(?i:{four})|[xu]\{{|U|0?(?:{three})|[{signs}])".encode()
    )


def _meant(escape: str) -> Iterator[tuple[str, int]]:
    """The letters that an escape stands for, each with the width of its escape."""
    is_octal = escape[0] == "\\" and escape[1] in "23"
    if escape[0] == "%" or is_octal or (escape[1] == "x" and escape[2:3] not in ("", "{")):
        sign = 3 if escape[0] == "%" else 4
        if is_octal:
            raw = bytes(int(digits, 8) for digits in escape.split("\\")[1:])
        else:
            raw = bytes.fromhex(escape.replace("%", "").replace("\\x", ""))
        for letter in raw.decode("utf-8", "surrogateescape"):
            if "\udc80" <= letter <= "\udcff":  # no UTF-8: Latin-1, as JavaScript means it
                yield chr(ord(letter) - 0xDC00), sign
            else:
                yield letter, sign * len(letter.encode())
    elif escape[0] == "&":
        yield html.unescape(escape), len(escape)
    elif len(escape) == 12:  # the two halves of one letter, as JSON writes an emoji
        yield bytes.fromhex(escape.replace("\\u", "")).decode("utf-16-be"), 12
    elif escape[1] in "uUx" and len(escape) > 2:
        number = int(escape[2:].strip("{}"), 16)
        yield (chr(number) if number < 0x110000 else escape), len(escape)
    elif len(escape) > 2:  # octal
        yield chr(int(escape[1:], 8)), len(escape)
    else:
        yield _LETTERS.get(escape[1], escape[1]), 2
