"""Known secrets do not pass, wherever a chunk ends."""

from __future__ import annotations

import base64
import itertools

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tundra_nb.runtime.ptys.mask import SHORT_BYTES, Masker

# Few letters and repeating secrets, so that beginnings, overlaps and near misses are frequent.
SECRETS = {"A": "abcabcabd", "B": "bcabcab", "LONGER": "aaaaaaaa", "PEM": "ab\ncd\nabcd"}
streams = st.text("abcd\r\n", max_size=80)
cuts = st.lists(st.integers(0, 80), max_size=12)


def chunks(data: bytes, at: list[int]) -> list[bytes]:
    ends = [0, *sorted(cut % (len(data) + 1) for cut in at), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(ends)]


def plainly(data: bytes) -> list[bool]:
    """Which bytes lie inside an occurrence of a secret: the definition, byte by byte."""
    hidden = [False] * len(data)
    for value in SECRETS.values():
        for form in {value.encode(), value.encode().replace(b"\n", b"\r\n")}:
            for at in range(len(data) - len(form) + 1):
                if data[at : at + len(form)] == form:
                    hidden[at : at + len(form)] = [True] * len(form)
    return hidden


@given(streams, cuts)
@example("xxabcabcabdxx", [5])
@example("aaaaaaaaaaaa", [1, 2, 3])
def test_whatever_the_chunks_exactly_the_secrets_are_covered(text: str, at: list[int]) -> None:
    data = text.encode()
    masker = Masker(SECRETS)
    out = b"".join(masker.feed(chunk) for chunk in chunks(data, at))
    held = len(data) - len(out)
    out += masker.finish()
    assert len(out) == len(data)
    for offset, (was, now, is_hidden) in enumerate(zip(data, out, plainly(data), strict=True)):
        if is_hidden:
            assert now != was or now in b"[]ABLONGERPM*"
        elif offset < len(data) - held:
            assert now == was
    assert not any(value.encode() in out for value in SECRETS.values())


@given(streams, cuts)
def test_pauses_never_let_more_than_a_short_beginning_through(text: str, at: list[int]) -> None:
    data = text.encode()
    masker = Masker(SECRETS)
    out = b""
    for chunk in chunks(data, at):
        out += masker.feed(chunk) + masker.idle()
        assert not masker.is_holding
    out += masker.finish()
    assert len(out) == len(data)
    shown = [was == now for was, now in zip(data, out, strict=True)]
    for value in SECRETS.values():
        form = value.encode()
        at_ = data.find(form)
        while at_ >= 0:
            assert sum(shown[at_ : at_ + len(form)]) < SHORT_BYTES
            at_ = data.find(form, at_ + 1)


def test_the_mask_names_the_variable_and_keeps_the_length() -> None:
    masker = Masker({"MY_KEY": "sk-0123456789abcdef"})
    assert masker.text("key=sk-0123456789abcdef.") == "key=******[MY_KEY]*****."
    assert Masker({"A_VERY_LONG_NAME": "secret"}).text("secret") == "******"


def test_a_key_typed_slowly_shows_its_first_five_characters_at_most() -> None:
    masker = Masker({"K": "sk-0123456789"})
    shown = b"".join(masker.feed(bytes([byte])) + masker.idle() for byte in b"sk-0123456789")
    assert shown[:5] == b"sk-01"
    assert set(shown[5:]) == {ord("*")}


def test_output_without_secrets_is_passed_on_as_the_same_object() -> None:
    data = b"plain output\r\n"
    assert Masker({"K": "sk-0123456789"}).feed(data) is data
    assert not Masker({})


def test_words_too_short_to_be_secrets_are_not_masked() -> None:
    assert Masker({"DEBUG_TOKEN": "1", "EMPTY": ""}).text("1 and 11") == "1 and 11"


def test_a_key_of_several_lines_is_found_as_the_terminal_shows_it() -> None:
    masker = Masker({"PEM": "-----BEGIN\nabc\n-----END\n"})
    out = masker.feed(b"x\r\n-----BEGIN\r\nabc\r\n-----END\r\n") + masker.finish()
    assert b"abc" not in out
    assert b"BEGIN" not in out


KEY = "sk-ant-0123456789-abcdefXYZ"
PACKED = {
    "base64": base64.b64encode,
    "base64 of user:key": lambda raw: base64.b64encode(b"user:" + raw),
    "base64 behind a line end": lambda raw: base64.b64encode(b"X=" + raw + b"\n"),
    "urlsafe": base64.urlsafe_b64encode,
    "base32": base64.b32encode,
    "HTML": lambda raw: b"".join(b"&#%d;" % byte for byte in raw),
    "HTML by hexadecimal number": lambda raw: b"".join(b"&#x%x;" % byte for byte in raw),
    "JSON": lambda raw: b"".join(rb"\u%04x" % byte for byte in raw),
    "C": lambda raw: b"".join(rb"\x%02x" % byte for byte in raw),
    "hex": lambda raw: raw.hex().encode(),
    "HEX": lambda raw: raw.hex().upper().encode(),
    "reversed": lambda raw: raw[::-1],
    "percent": lambda raw: "".join(f"%{byte:02X}" for byte in raw).encode(),
}


@pytest.mark.parametrize("how", PACKED)
@pytest.mark.parametrize("size", [2, 3, 7, 1000])
def test_a_packed_secret_does_not_pass_either(how: str, size: int) -> None:
    """Of base64 the letters at both ends hold bits of the neighbours, and are left as they are."""
    packed = PACKED[how](KEY.encode())
    data = b"before " + packed + b" after\r\n"
    masker = Masker({"K": KEY})
    out = b"".join(masker.feed(data[at : at + size]) for at in range(0, len(data), size)) + masker.finish()
    assert len(out) == len(data)
    assert out.startswith(b"before ")
    assert out.endswith(b" after\r\n")
    left = [packed[at : at + 8] for at in range(4, len(packed) - 12) if packed[at : at + 8] in out]
    assert left == []


def test_a_single_key_that_begins_no_plain_secret_is_shown_at_once() -> None:
    masker = Masker({"K": KEY})
    for key in b"7%ZMc":
        assert masker.feed(bytes([key])) == bytes([key])
        assert not masker.is_holding
