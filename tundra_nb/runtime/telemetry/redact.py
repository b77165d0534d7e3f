"""Masking of secrets in everything that leaves: log lines, error messages, wire bodies, recorded exchanges.

Two nets. The first knows secret *values*: keys from the environment and keys offered later are registered by name, and
each occurrence, plain or in one of the forms that JSON, a URL or Basic authentication gives it, becomes
`<NAME:fingerprint>`. The second knows what keys *look like* (`sk-…`, `Bearer …`, `password=…`) and catches those that
nobody registered. A text without secrets, which is nearly every text, costs a few substring searches.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import secrets
import urllib.parse
from collections.abc import Mapping
from typing import Any

MIN_SECRET_CHARS = 6
"""Shorter values are not masked: they would blank out ordinary words. No vendor's key is that short."""
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

_CREDENTIAL = r"[A-Za-z0-9._~+/=-]"
_PATTERNS: tuple[tuple[tuple[str, ...], re.Pattern[str], str], ...] = (
    # cheap substrings that must be there (lower case) · what is masked · what stands there instead
    (("sk-",), re.compile(r"(?<![A-Za-z0-9])sk-[A-Za-z0-9_-]{12,}"), "<key>"),
    (("tnd-",), re.compile(r"(?<![A-Za-z0-9])tnd-[A-Za-z0-9_-]{12,}"), "<gateway token>"),
    (
        ("bearer", "basic"),
        # not the words of "basic authentication": a digit, padding, or a length that no word has
        re.compile(rf"\b(bearer|basic)(\s+|%20)(?=\S*[\d=]|\S{{20}}){_CREDENTIAL}{{8,}}", re.IGNORECASE),
        r"\1\2<token>",
    ),
    (
        ("authorization",),
        re.compile(r"""(authorization\\?["']?\s*[:=]\s*\\?["']?(?:\w+\s+)?)(?!<)[^\s"'\\]{8,}""", re.IGNORECASE),
        r"\1<token>",
    ),
    (("akia", "asia"), re.compile(r"\bA(?:KIA|SIA)[A-Z0-9]{16}\b"), "<key>"),
    (("aiza",), re.compile(r"\bAIza[A-Za-z0-9_-]{30,}"), "<key>"),
    (("gh", "github_pat_"), re.compile(r"\b(?:gh[pousr]_|github_pat_)[A-Za-z0-9_]{20,}"), "<token>"),
    (("hf_", "gsk_", "xai-", "xox"), re.compile(r"\b(?:hf_|gsk_|xai-|xox[abeoprs]-)[A-Za-z0-9_-]{10,}"), "<token>"),
    (("eyj",), re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+"), "<token>"),
    (("://",), re.compile(r"(://[^\s/:@\"']*:)[^\s/@\"']+(?=@)"), r"\1<password>"),
    (
        ("private key-----",),
        re.compile(r"(-----BEGIN [A-Z ]*PRIVATE KEY-----).*?(-----END|\Z)", re.DOTALL),
        r"\1<key>\2",
    ),
    (
        ("key", "token", "password", "passwd", "secret"),
        re.compile(
            r"""((?<![A-Za-z])(?:api[_-]?key|access[_-]?key|token|password|passwd|secret)"""
            r"""\\?["']?\s*[:=]\s*\\?["']?)(?!<)(?![\d.]+\b)([A-Za-z0-9._~+/%-]{8,}=*)""",
            re.IGNORECASE,
        ),
        r"\1<secret>",
    ),
)


def looks_like_key(name: str, value: str) -> bool:
    """Whether a variable holds a secret, judging by its name and by the shape of its value."""
    if name in NOT_A_KEY or re.fullmatch(r"\d*|true|false|yes|no|on|off", value, re.IGNORECASE):
        return False  # MAX_TOKENS=4096
    return bool(KEY_NAME.search(name) or KEY_VALUE.search(value))


class Redactor:
    """Masks secrets in text. One per daemon; values can be added at any time, and are never given out.

    Args:
        salt: makes fingerprints comparable between those who share it; left out, they hold for this object only.
    """

    def __init__(self, salt: bytes | None = None) -> None:
        self._salt = salt or secrets.token_bytes(SALT_BYTES)
        self._names: dict[str, str] = {}
        self._known: tuple[tuple[str, str], ...] = ()

    def __repr__(self) -> str:
        return f"<Redactor of {len(self._names)} values>"

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
        known: dict[str, str] = {}
        for secret, its_name in self._names.items():
            shown = f"<{its_name}:{self.fingerprint(secret)}>"
            for form in _forms(secret):
                known.setdefault(form, shown)
        # longest first: a key that contains another one must not be cut in two
        self._known = tuple(sorted(known.items(), key=lambda item: -len(item[0])))

    def register_environ(self, environ: Mapping[str, str]) -> None:
        """Register the values of all variables that hold secrets."""
        for name, value in environ.items():
            if looks_like_key(name, value):
                self.register(name, value)

    def fingerprint(self, value: str) -> str:
        """Salted hash of a secret, eight hexadecimal digits."""
        return hashlib.blake2b(value.strip().encode(), key=self._salt, digest_size=FINGERPRINT_BYTES).hexdigest()

    def text(self, text: str) -> str:
        """The text with every secret masked; the same object when there is none."""
        for secret, shown in self._known:
            if secret in text:
                text = text.replace(secret, shown)
        lowered = text.lower()
        for triggers, pattern, instead in _PATTERNS:
            for trigger in triggers:
                if trigger in lowered:
                    text = pattern.sub(instead, text)
                    break
        return text

    def data(self, value: Any) -> Any:
        """A JSON value with every string in it masked, keys of objects included."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {self.data(key): self.data(inner) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [self.data(inner) for inner in value]
        return value


def _forms(secret: str) -> set[str]:
    """The spellings in which a secret travels."""
    quoted = json.dumps(secret)[1:-1]
    return {
        secret,
        quoted,
        json.dumps(quoted)[1:-1],
        json.dumps(secret, ensure_ascii=False)[1:-1],
        repr(secret)[1:-1],
        urllib.parse.quote(secret, safe=""),
        urllib.parse.quote_plus(secret),
        base64.b64encode(secret.encode()).decode().rstrip("="),
        base64.b64encode(b":" + secret.encode()).decode().rstrip("="),
    }
