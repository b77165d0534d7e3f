"""Known secrets do not pass, wherever a chunk ends."""

from __future__ import annotations

import base64
import hashlib
import itertools
import re
from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.dumps import dumped
from tundra_nb.runtime.ptys.mask import Masker
from tundra_nb.runtime.telemetry.known import SHORT_BYTES

# Few letters and repeating secrets, so that beginnings, overlaps and near misses are frequent.
SECRETS = {"A": "abcabcabd", "B": "bcabcab", "LONGER": "aaaaaaaa", "PEM": "ab\ncd\nabcd"}
streams = st.text("abcd\r\n", max_size=80)
cuts = st.lists(st.integers(0, 80), max_size=12)


def chunks(data: bytes, at: list[int]) -> list[bytes]:
    ends = [0, *sorted(cut % (len(data) + 1) for cut in at), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(ends)]


def plainly(data: bytes) -> list[bool]:
    """Which letters lie inside an occurrence of a secret: the definition, letter by letter, over line ends."""
    places = [at for at, byte in enumerate(data) if byte not in b"\r\n"]
    line = bytes(data[at] for at in places)
    hidden = [False] * len(data)
    for value in SECRETS.values():
        form = value.encode().replace(b"\n", b"")
        for at in range(len(line) - len(form) + 1):
            if line[at : at + len(form)] == form:
                for place in places[at : at + len(form)]:
                    hidden[place] = True
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
        at_ = data.find(form) if "\n" not in value else -1
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
    "hex in small and capital letters": lambda raw: (raw.hex().upper()[:21] + raw.hex()[21:]).encode(),
    "base85": lambda raw: base64.b85encode(b"user:" + raw),
    "ascii85": base64.a85encode,
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


SPELLINGS = [
    str,
    lambda letter: f"%{ord(letter):02x}",
    lambda letter: f"%{ord(letter):02X}",
    lambda letter: f"&#{ord(letter)};",
    lambda letter: f"&#x{ord(letter):X};",
    lambda letter: f"\\u{ord(letter):04x}",
    lambda letter: f"\\u{{{ord(letter):x}}}",
    lambda letter: f"\\U{ord(letter):08x}",
    lambda letter: f"\\x{ord(letter):02x}",
    lambda letter: f"\\x{{{ord(letter):x}}}",
    lambda letter: f"\\{ord(letter):03o}",
    lambda letter: f"\\0{ord(letter):03o}",
    lambda letter: f"%25{ord(letter):02x}",
    lambda letter: f"\\\\u{ord(letter):04x}",
    lambda letter: f"&amp;#{ord(letter)};",
]


@given(st.lists(st.sampled_from(SPELLINGS), min_size=len(KEY), max_size=len(KEY)), st.integers(1, 40), st.booleans())
@example([SPELLINGS[at % len(SPELLINGS)] for at in range(len(KEY))], 1, True)
def test_letters_that_are_each_escaped_in_another_way_do_not_pass(
    ways: list[Callable[[str], str]], size: int, has_pauses: bool
) -> None:
    """Whatever the chunks; of a key that comes with pauses a short beginning is seen."""
    spelled = "".join(way(letter) for way, letter in zip(ways, KEY, strict=True)).encode()
    data = b"100% of " + spelled + b" & more\r\n"
    masker = Masker({"K": KEY, "OTHER": "another-0123456789"})
    out = b""
    for at in range(0, len(data), size):
        out += masker.feed(data[at : at + size])
        if has_pauses:
            out += masker.idle()
    out += masker.finish()
    assert len(out) == len(data)
    assert out.startswith(b"100% of ")
    assert out.endswith(b" & more\r\n")
    middle = out[len(b"100% of ") : len(b"100% of ") + len(spelled)]
    assert len(middle.replace(b"[K]", b"").replace(b"*", b"")) < (SHORT_BYTES if has_pauses or size == 1 else 1), out


@pytest.mark.parametrize("how", PACKED)
@pytest.mark.parametrize("width", [19, 32, 76])
@pytest.mark.parametrize("end", [b"\r\n", b"\r\n    "])
def test_line_ends_in_a_packed_secret_do_not_help(how: str, width: int, end: bytes) -> None:
    """`env | base64` breaks its lines, and `fold` those of anything; YAML indents them."""
    packed = PACKED[how](b"A=1\nK=" + KEY.encode() + b"\nB=2\n" if how.startswith("base64") else KEY.encode())
    lines = end.join(packed[at : at + width] for at in range(0, len(packed), width))
    for size in (1, 7, 4096):
        masker = Masker({"K": KEY})
        out = b"".join(masker.feed(lines[at : at + size]) for at in range(0, len(lines), size)) + masker.finish()
        assert out.count(end) == lines.count(end)
        assert len(out) == len(lines)
        assert out.count(b"*") > len(KEY) / 2


def test_colours_in_a_secret_do_not_help_and_stay() -> None:
    """`env | grep ant` paints what it finds, in the middle of the key."""
    painted = b"K=sk-\x1b[01;31m\x1b[Kant\x1b[m\x1b[K-0123456789-abcdefXYZ\r\n"
    for size in (1, 5, 4096):
        masker = Masker({"K": KEY})
        out = b"".join(masker.feed(painted[at : at + size]) for at in range(0, len(painted), size)) + masker.finish()
        assert out == b"K=***\x1b[01;31m\x1b[K***\x1b[m\x1b[K*********************\r\n"


def test_a_packed_secret_that_comes_slowly_shows_five_letters_at_most() -> None:
    for pack in PACKED.values():
        packed = pack(KEY.encode())
        masker = Masker({"K": KEY})
        out = b"".join(masker.feed(bytes([byte])) + masker.idle() for byte in packed) + masker.finish()
        neighbours = len(b"user:") * 4 // 3 + len(b"==") + 2
        assert out.count(b"*") > len(packed) - SHORT_BYTES - neighbours, out


@pytest.mark.parametrize("prompt", [b"password: ", b"Password:", b"sword> ", b"the sword\r\n"])
def test_a_prompt_is_shown_although_a_secret_begins_like_its_end(prompt: bytes) -> None:
    masker = Masker({"K": "swordfish-swordfish-1"})
    assert masker.feed(prompt) + masker.idle() == prompt
    assert b"fish" not in masker.feed(b"swordfish-swordfish-1\r\n") + masker.finish()


@pytest.mark.parametrize("how", dumped(b""))
@pytest.mark.parametrize("has_pauses", [False, True])
@pytest.mark.parametrize("before", [b"", b"A=1\n", b"HOME=/root\n"])
def test_the_lines_of_a_dump_that_show_a_key_are_covered(how: str, has_pauses: bool, before: bytes) -> None:
    """Of one that comes in pieces the first line may be seen, if that shows a short beginning only."""
    dump = dumped(before + KEY.encode() + b"\nC=3\nmore and more\n")[how]
    data = b"$ dump" + dump.replace("\n", "\r\n").encode() + b"$ "
    for size in (1, 2, 7, 4096):
        masker = Masker({"K": KEY})
        out = b""
        for at in range(0, len(data), size):
            out += masker.feed(data[at : at + size])
            if has_pauses:
                out += masker.idle()
        out += masker.finish()
        assert len(out) == len(data)
        assert out.count(b"\r\n") == data.count(b"\r\n")
        assert out.startswith(b"$ dump\r\n")
        assert out.endswith(b"$ ")
        shown = "".join(re.findall(r"[0-9a-z]", out.decode().lower()))
        assert "".join(re.findall(r"[0-9a-z]", dump.split("\n")[2].lower()))[-14:-4] not in shown, out


@pytest.mark.parametrize("sign", [" ", "   ", "\r\n", "\u200b", "\u200d", "\u2060", "\ufeff", "\xad", "\0"])
@pytest.mark.parametrize("size", [1, 2, 7, 4096])
def test_what_stands_between_all_letters_does_not_help(sign: str, size: int) -> None:
    data = f"a {sign.join(KEY)} z".encode()
    masker = Masker({"K": KEY})
    out = b"".join(masker.feed(data[at : at + size]) for at in range(0, len(data), size)) + masker.finish()
    assert len(out) == len(data)
    assert len(re.findall(rb"[0-9A-Za-z]", out.replace(b"[K]", b""))) < SHORT_BYTES + 1


@given(st.integers(1, 9), st.booleans())
def test_ordinary_output_comes_whole_and_at_once(size: int, has_pauses: bool) -> None:
    """What may be a short beginning is shown at a pause, and at once where a blank or line end follows."""
    other = hashlib.sha512(b"other").digest()
    text = "$ git log --oneline\r\n7466754 Look at it\r\n" + other.hex() + "\r\n" + "".join(dumped(other).values())
    data = text.encode()
    masker = Masker({"K": KEY})
    out = b""
    for at in range(0, len(data), size):
        out += masker.feed(data[at : at + size])
        if has_pauses:
            out += masker.idle()
            assert out == data[: at + size]
    assert out + masker.finish() == data
    assert masker.feed(b"root@host:~/sk$ ") == b"root@host:~/sk$ "


def test_what_is_held_back_is_bounded() -> None:
    masker = Masker({"K": KEY})
    held = 0
    for _ in range(2_000):
        masker.feed(b"s" + b"=" * 9)
        masker.feed(b"sk - " + b"=" * 400)
        held = max(held, len(masker._raw))
    assert held < 2_000
