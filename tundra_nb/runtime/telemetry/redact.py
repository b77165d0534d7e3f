"""Masking of secrets in everything that is stored or shown: rows, log lines, errors, answers, recorded exchanges.

Two nets. The first knows secret *values*: keys from the environment and keys offered later are registered by name, and
each occurrence, plain or in one of its `spellings`, becomes `<NAME:fingerprint>`. The second knows what keys *look
like* (`sk-…`, `Bearer …`, `password=…`) and catches those that nobody registered; answers of models go through the
first only, because code in them is full of `password=…`. A text without secrets, which is nearly every text, costs a
few substring searches.
"""

from __future__ import annotations

import functools
import hashlib
import re
import secrets
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import msgspec

from tundra_nb.errors import UsageError

from .known import Known, SecretSpan
from .spellings import MIN_SECRET_CHARS as MIN_SECRET_CHARS  # noqa: PLC0414 - of the face of this module

T = TypeVar("T", bound=msgspec.Struct)

FINGERPRINT_BYTES = 4
"""Enough to tell a handful of keys apart, too little to help a guess along."""
SALT_BYTES = 16
KEY_NAME = re.compile(
    r"(?:^|_)(?:API_?)?(?:KEYS?|TOKENS?|SECRETS?|PASSW(?:OR)?D|PASSPHRASE|PASS|PWD|CREDENTIALS?|JWT|PAT|AUTH|DSN)(?:_|$)"
    r"|PASSWORD|PASSWD|APIKEY|SECRET|ACCESS_?TOKEN",
    re.IGNORECASE,
)
KEY_VALUE = re.compile(
    r"^(?:(?:sk|pk|rk|xox[abposr]|gh[opsur]|glpat|hf|npm|pypi)[-_]|AKIA|ASIA|AIza|eyJ)[-_A-Za-z0-9]{12,}"
    r"|://[^/\s:@]*:[^/\s@]+@"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----"
)
NOT_A_KEY = frozenset({"PWD", "OLDPWD", "SSH_AUTH_SOCK", "XAUTHORITY", "GPG_KEY"})
"""Variables that look like keys by name and hold paths or public fingerprints."""

SLICE_CHARS = 64 * 1024
"""A longer text is looked through in slices: no single step of it holds up other threads for long."""
LONGEST_HEAD = 32
"""No trigger, and no head of a pattern, is longer."""

_CREDENTIAL = r"[A-Za-z0-9._~+/=-]"


class KeyLook(NamedTuple):
    """What keys of one kind look like."""

    triggers: tuple[str, ...]
    """Cheap substrings, one of which must be there (lower case)."""
    head: re.Pattern[str]
    """How each match of `pattern` begins; no two of these overlap."""
    pattern: re.Pattern[str]
    """What is masked."""
    instead: str
    """What stands there instead, with groups as in `re.sub`."""


_KEY_LOOKS = tuple(
    KeyLook(triggers, re.compile(head, flags), re.compile(pattern, flags), instead)
    for triggers, head, pattern, instead, flags in (
        (("sk-",), r"(?<![A-Za-z0-9])sk-", r"(?<![A-Za-z0-9])sk-[A-Za-z0-9_-]{12,}", "<key>", 0),
        (("tnd-",), r"(?<![A-Za-z0-9])tnd-", r"(?<![A-Za-z0-9])tnd-[A-Za-z0-9_-]{12,}", "<gateway token>", 0),
        (
            ("bearer", "basic"),
            r"\b(?:bearer|basic)",
            # not the words of "basic authentication": a digit, padding, or a length that no word has
            rf"\b(bearer|basic)(\s+|%20)(?=\S*[\d=]|\S{{20}}){_CREDENTIAL}{{8,}}",
            r"\1\2<token>",
            re.IGNORECASE,
        ),
        (
            ("authorization",),
            r"authorization",
            r"""(authorization\\?["']?\s*[:=]\s*\\?["']?(?:\w+\s+)?)(?!<)[^\s"'\\]{8,}""",
            r"\1<token>",
            re.IGNORECASE,
        ),
        (("akia", "asia"), r"\bA(?:KIA|SIA)", r"\bA(?:KIA|SIA)[A-Z0-9]{16}\b", "<key>", 0),
        (("aiza",), r"\bAIza", r"\bAIza[A-Za-z0-9_-]{30,}", "<key>", 0),
        (
            ("gh", "github_pat_"),
            r"\b(?:gh[pousr]_|github_pat_)",
            r"\b(?:gh[pousr]_|github_pat_)[A-Za-z0-9_]{20,}",
            "<token>",
            0,
        ),
        (
            ("hf_", "gsk_", "xai-", "xox"),
            r"\b(?:hf_|gsk_|xai-|xox[abeoprs]-)",
            r"\b(?:hf_|gsk_|xai-|xox[abeoprs]-)[A-Za-z0-9_-]{10,}",
            "<token>",
            0,
        ),
        (("eyj",), r"\beyJ", r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+", "<token>", 0),
        (("://",), r"://", r"(://[^\s/:@\"']*:)[^\s/@\"']+(?=@)", r"\1<password>", 0),
        (
            ("private key-----",),
            r"-----BEGIN ",
            r"(-----BEGIN [A-Z ]*PRIVATE KEY-----)[^-]*+(?:-(?!----END)[^-]*+)*+(-----END|\Z)",
            r"\1<key>\2",
            0,
        ),
        (
            ("key", "token", "password", "passwd", "secret"),
            r"(?<![A-Za-z])(?:api[_-]?key|access[_-]?key|token|password|passwd|secret)",
            (
                r"""((?<![A-Za-z])(?:api[_-]?key|access[_-]?key|token|password|passwd|secret)"""
                r"""\\?["']?\s*[:=]\s*\\?["']?)(?!<)(?![\d.]+\b)([A-Za-z0-9._~+/%-]{8,}=*)"""
            ),
            r"\1<secret>",
            re.IGNORECASE,
        ),
    )
)


_TRIGGERS = tuple(dict.fromkeys(trigger for look in _KEY_LOOKS for trigger in look.triggers))
"""A text without any of these looks like no secret."""
_MASK = re.compile(r"<(?:[A-Za-z_][\w .-]{0,80}:[0-9a-f]{8}|key|token|password|secret)>")
"""What stands for a secret that was masked."""
_GROUP = re.compile(r"\\(\d)")


def _by_look(text: str, looks: Iterable[KeyLook]) -> str:
    before = text
    for look in looks:
        text = look.pattern.sub(look.instead, text) if len(text) <= SLICE_CHARS else _long_by_look(text, look)
    return before if text == before else text


def _long_by_look(text: str, look: KeyLook) -> str:
    """The same as `re.sub`, place by place: only whoever looks at one has the interpreter, and not for all of them."""
    between = _GROUP.split(look.instead)  # text, number of a group, text, …
    parts: list[str] = []
    done = 0
    for begin in range(0, len(text), SLICE_CHARS):
        for head in look.head.finditer(text, begin, begin + SLICE_CHARS + LONGEST_HEAD):
            at = head.start()
            if at < done or at >= begin + SLICE_CHARS:  # within the match before, or of the next slice
                continue
            if (match := look.pattern.match(text, at)) is not None:
                parts.append(text[done:at])
                parts += (match[int(part)] if number % 2 else part for number, part in enumerate(between))
                done = match.end()
    return "".join([*parts, text[done:]]) if parts else text


def _triggers_in(text: str) -> set[str]:
    present: set[str] = set()
    for begin in range(0, len(text), SLICE_CHARS):
        lowered = text[begin : begin + SLICE_CHARS + LONGEST_HEAD].lower()
        present.update(trigger for trigger in _TRIGGERS if trigger in lowered)
    return present


def looks_like_key(name: str, value: str) -> bool:
    """Whether a variable holds a secret, judging by its name and by the shape of its value."""
    if name in NOT_A_KEY or re.fullmatch(r"\d*|true|false|yes|no|on|off", value, re.IGNORECASE):
        return False  # MAX_TOKENS=4096
    return bool(KEY_NAME.search(name) or KEY_VALUE.search(value))


def _end_of_run(raw: bytes, at: int) -> int:
    run = _RUN.match(raw, at)
    return run.end() if run else at


def _end_of_slice(piece: bytes, spans: Sequence[SecretSpan], hold: int) -> int:
    """Where the longest part of `piece` ends that may be masked apart; 0 if there is none.

    It ends with a letter that is of no escape and of no packed form, before `hold`, and in no secret.
    """
    end = hold
    while True:
        end = max(piece.rfind(sign, 0, end) for sign in _APART) + 1
        across = next((span for span in reversed(spans) if span.begin < end), None)
        if across is None or across.end <= end:
            return end
        end = across.begin


_APART = (b" ", b"\t", b"\n", b'"', b",")
_PACKING = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/_-"
"""Letters of base64, base32 and hexadecimal; their padding is apart."""
_RUN = re.compile(rb"[A-Za-z0-9+/_-]*=*")
NEWLINE = 10
REMEMBERED_CHARS = 100
REMEMBERED = 2048


def refuse_key(mask: Callable[[str], str], text: str, field: str) -> None:
    """Refuse a name or address that holds a key: it is listed, recorded and pushed, and cannot be taken back.

    Raises:
        UsageError: it does; shows it masked.
    """
    if (masked := mask(text)) != text:
        raise UsageError(problem=f"this {field} holds a key: {masked}", field=field, remedy="Choose another.")


class Redactor:
    """Masks secrets in text. One per daemon; values can be added at any time, and are never given out.

    Args:
        salt: makes fingerprints comparable between those who share it; left out, they hold for this object only.
    """

    def __init__(self, salt: bytes | None = None) -> None:
        self._salt = salt or secrets.token_bytes(SALT_BYTES)
        self._names: dict[str, str] = {}
        self._clean: set[str] = set()
        """Short texts that were found to hold no secret: rows repeat names of models, clients and users."""

    def __repr__(self) -> str:
        return f"<Redactor of {len(self._names)} values>"

    @functools.cached_property
    def _known(self) -> Known:
        labelled = ((f"<{name}:{self.fingerprint(value)}>", value) for value, name in list(self._names.items()))
        return Known(labelled, min_packed=MIN_SECRET_CHARS, errors="surrogatepass")

    @property
    def salt(self) -> bytes:
        """For the other side of a comparison; it tells nothing about the values."""
        return self._salt

    def register(self, name: str, value: str) -> None:
        """Have `value` shown as `<NAME:fingerprint>` from now on. A value keeps the first name it was given."""
        value = value.strip()
        if len(value) < MIN_SECRET_CHARS or value in self._names:
            return
        self._names[value] = name
        self.__dict__.pop("_known", None)  # made anew when it is needed: many are registered at once
        self._clean = set()  # another one: what is being looked through in another thread goes into the old one

    def handed_over(self) -> list[tuple[str, str]]:
        """Names and values, for a process of ours that masks too: over a pipe, never through a file or variable."""
        return [(name, value) for value, name in self._names.items()]

    def register_environ(self, environ: Mapping[str, str]) -> None:
        """Register the values of all variables that hold secrets."""
        for name, value in environ.items():
            if looks_like_key(name, value):
                self.register(name, value)

    def fingerprint(self, value: str) -> str:
        """Salted hash of a secret, eight hexadecimal digits."""
        return hashlib.blake2b(value.strip().encode(), key=self._salt, digest_size=FINGERPRINT_BYTES).hexdigest()

    def text(self, text: str) -> str:
        """The text with every secret masked, known or by its look; the same object when there is none.

        What is masked already stays as it is, so that it may go through here again.
        """
        clean = self._clean
        if text in clean:
            return text
        masked = self._masked(text)
        if masked is text and len(text) <= REMEMBERED_CHARS:
            if len(clean) >= REMEMBERED:
                clean.clear()
            clean.add(text)
        return masked

    def _masked(self, text: str) -> str:
        text = self.known(text)
        triggers: Container[str]
        if len(text) <= SLICE_CHARS:
            triggers = lowered = text.lower()
            for trigger in _TRIGGERS:
                if trigger in lowered:
                    break
            else:
                return text
        else:
            triggers = _triggers_in(text)
        hits = [look for look in _KEY_LOOKS if any(trigger in triggers for trigger in look.triggers)]
        if not hits:
            return text
        if "<" not in text:
            return _by_look(text, hits)
        parts: list[str] = []
        done = 0
        is_changed = False
        for mask in _MASK.finditer(text):
            part = text[done : mask.start()]
            parts += (shown := _by_look(part, hits), mask[0])
            done, is_changed = mask.end(), is_changed or shown is not part
        part = text[done:]
        parts.append(shown := _by_look(part, hits))
        return "".join(parts) if is_changed or shown is not part else text

    def known(self, text: str, *, is_line: bool = True) -> str:
        """The text with the known values masked, in whatever spelling; the same object when there is none. `is_line`
        says whether a line begins with it.
        """
        raw = text.encode("utf-8", "surrogatepass")
        if len(raw) > SLICE_CHARS:
            return self._long_known(text, raw, is_line=is_line)
        if self._known.is_clean(raw):
            return text
        spans = self._known.look(raw, is_line=is_line).spans
        return self._covered(raw, spans) if spans else text

    def _long_known(self, text: str, raw: bytes, *, is_line: bool) -> str:
        """The same, slice by slice: each ends where no known value and no run of packed letters goes on."""
        known = self._known
        is_telling = known.is_telling(raw, SLICE_CHARS)
        parts: list[str] = []
        is_changed = False
        at, size = 0, SLICE_CHARS
        while at < len(raw):
            to = min(at + size, len(raw))
            while to < len(raw) and raw[to] & 0xC0 == 0x80:  # within a letter
                to -= 1
            piece = raw[at:to]
            spans, hold, *_ = known.look(piece, is_telling, is_line=raw[at - 1] == NEWLINE if at else is_line)
            if to < len(raw):
                end = _end_of_slice(piece, spans, hold)
                if end <= len(piece) // 2:
                    size *= 2
                    continue
                piece = piece[:end]
                spans = [span for span in spans if span.end <= end]
            parts.append(self._covered(piece, spans))
            is_changed = is_changed or bool(spans)
            at, size = at + len(piece), SLICE_CHARS
        return "".join(parts) if is_changed else text

    def beginning(self, text: str, *, is_line: bool) -> tuple[str, str]:
        """The same, up to where what follows may make a known value of it, and that rest as it is."""
        raw = text.encode("utf-8", "surrogatepass")
        spans, hold, *_ = self._known.look(raw, is_line=is_line)
        if not spans and hold == len(raw):
            return text, ""
        spans = [span for span in spans if span.begin < hold]
        hold = max(hold, spans[-1].end) if spans else hold
        return self._covered(raw[:hold], spans), raw[hold:].decode("utf-8", "surrogatepass")

    def _covered(self, raw: bytes, spans: Sequence[SecretSpan]) -> str:
        parts: list[bytes] = []
        done = 0
        for begin, end, label, is_packed in spans:
            if is_packed and not raw[begin:end].strip(_PACKING):  # what it was packed together with: `user:key`
                begin, end = done + len(raw[done:begin].rstrip(_PACKING)), _end_of_run(raw, end)  # noqa: PLW2901
            if end > done:  # else it lies in the run of the one before
                parts += [raw[done:begin], label.encode()]
                done = end
        return b"".join([*parts, raw[done:]]).decode("utf-8", "surrogatepass")

    def stream(self) -> Stream:
        """For an answer that comes in pieces: known values are masked, also where two pieces share one."""
        return Stream(self)

    def struct(self, row: T) -> T:
        """A struct with every text in it masked; the same object when there is nothing to mask."""
        names = type(row).__struct_fields__
        clean = self._clean
        texts = [value for value in msgspec.structs.astuple(row) if type(value) is str and value not in clean]
        if not texts:
            return row  # rows repeat each other: this is how it nearly always ends
        whole = "\0".join(texts)
        if self._masked(whole) is whole:  # one look at all of them
            if len(clean) + len(texts) > REMEMBERED:
                clean.clear()
            clean.update(text for text in texts if len(text) <= REMEMBERED_CHARS)
            return row
        changes = {}
        for name in names:
            value = getattr(row, name)
            if type(value) is str and (masked := self.text(value)) is not value:
                changes[name] = masked
        return msgspec.structs.replace(row, **changes) if changes else row

    def data(self, value: Any) -> Any:
        """A JSON value with every string in it masked, keys of objects included."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {self.data(key): self.data(inner) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [self.data(inner) for inner in value]
        return value


class Stream:
    """Masks known values in a text that comes in pieces. What may be the beginning of one waits for the next piece."""

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self._held = ""
        self._is_line = True

    def feed(self, piece: str) -> str:
        """What may be shown by now; the same object when nothing is held or masked."""
        text = self._held + piece if self._held else piece
        shown, self._held = self._redactor.beginning(text, is_line=self._is_line)
        if done := len(text) - len(self._held):
            self._is_line = text[done - 1] == "\n"
        return shown

    def finish(self) -> str:
        """The rest."""
        rest, self._held = self._held, ""
        return self._redactor.known(rest, is_line=self._is_line)
