"""The redactor masks what it was told and what looks like a key, and nothing else."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import quopri
import re
import textwrap
import time
import urllib.parse
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.dumps import dumped
from tundra_nb.runtime.telemetry import known, redact, spellings
from tundra_nb.runtime.telemetry.redact import MIN_SECRET_CHARS, Redactor, looks_like_key
from tundra_nb.types import Attempt

KEY = 'canary-7f"3\\é/+x'


def test_a_registered_value_is_shown_as_its_name_and_fingerprint() -> None:
    redactor = Redactor(salt=b"salt")
    redactor.register("MY_KEY", "canary-value-1")
    shown = f"<MY_KEY:{redactor.fingerprint('canary-value-1')}>"
    assert redactor.text("a canary-value-1 b canary-value-1") == f"a {shown} b {shown}"


@pytest.mark.parametrize(
    "form",
    [
        KEY,
        json.dumps(KEY),
        json.dumps(json.dumps(KEY)),
        json.dumps(KEY, ensure_ascii=False),
        repr(KEY),
        urllib.parse.quote(KEY, safe=""),
        urllib.parse.urlencode({"q": KEY}),
        base64.b64encode(KEY.encode()).decode(),
        base64.b64encode(b":" + KEY.encode()).decode(),
    ],
)
def test_a_registered_value_is_masked_in_every_form_it_travels_in(form: str) -> None:
    redactor = Redactor()
    redactor.register("MY_KEY", KEY)
    masked = redactor.text(f"before {form} after")
    assert "<MY_KEY:" in masked
    assert "7f" not in masked.replace(redactor.fingerprint(KEY), "")
    assert masked.startswith("before ")
    assert masked.endswith(" after")


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("key sk-ant-api03-AbCdEf0123456789_-xyz was refused", "AbCdEf0123456789"),
        ("sk-proj-abcdefghijklmnop", "abcdefghijklmnop"),
        ("sk-or-v1-0123456789abcdef0123", "0123456789abcdef"),
        ("Authorization: Bearer abc.def-ghi_jkl", "abc.def"),
        ("authorization: bearer%20abcdefghijkl", "abcdefghijkl"),
        ("Authorization: Basic dXNlcjpwYXNzd29yZA==", "dXNlcjpw"),
        ("AKIAABCDEFGHIJKLMNOP", "ABCDEFGHIJKLMNOP"),
        ("AIzaSyA0123456789012345678901234567890", "SyA0123"),
        ("ghp_0123456789abcdefghij0123456789", "0123456789"),
        ("hf_abcdefghijklmnop", "abcdefgh"),
        ("eyJhbGciOiJIUzI1.eyJzdWIiOiIxMjM0.abc-def_x", "zdWIiOiIx"),
        ("mysql://root:hunter2@db/tundra", "hunter2"),
        ('{"api_key": "0123abcd4567"}', "0123abcd4567"),
        ('{\\"api_key\\": \\"0123abcd4567\\"}', "0123abcd4567"),
        ("GET /x?token=0123abcd4567&y=1", "0123abcd4567"),
        ("x-api-key: 0123abcd4567", "0123abcd4567"),
        ("TUNDRA_PASSWORD=correct-horse", "correct-horse"),
        ("-----BEGIN RSA PRIVATE KEY-----\nMIIabc\n-----END RSA PRIVATE KEY-----", "MIIabc"),
    ],
)
def test_what_looks_like_a_key_is_masked_without_being_registered(text: str, secret: str) -> None:
    masked = Redactor().text(text)
    assert secret not in masked
    assert "<" in masked


@pytest.mark.parametrize(
    "text",
    [
        "asked ask-me-anything about risk-assessment-of-something",
        "max_tokens=1000000000 input_tokens: 123456789",
        '{"input_tokens": 12345678.25}',
        "the key is missing: OPENAI_API_KEY is not set",
        "profile openai: the key from OPENAI_API_KEY was rejected (401)",
        "http://127.0.0.1:8080/v1 answered",
        "basic authentication is on",
        "commit 4f2a9c1d0b7e4f2a9c1d0b7e4f2a9c1d",
    ],
)
def test_ordinary_text_stays_the_very_same_object(text: str) -> None:
    assert Redactor().text(text) is text


def test_a_value_that_contains_another_one_is_masked_whole() -> None:
    redactor = Redactor()
    redactor.register("SHORT", "abcdefgh")
    redactor.register("LONG", "abcdefgh-ijklmnop")
    assert "ijklmnop" not in redactor.text("x abcdefgh-ijklmnop y")


@pytest.mark.parametrize(
    "name", ["OPENAI_API_KEY", "HF_TOKEN", "PGPASSWORD", "DB_PASS", "OPENAI_APIKEY", "client_secret"]
)
def test_names_that_say_key_are_keys(name: str) -> None:
    assert looks_like_key(name, "some-value")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PATH", "/usr/bin"),
        ("PWD", "/home/me"),
        ("SSH_AUTH_SOCK", "/tmp/agent"),
        ("KEYBOARD", "de"),
        ("MAX_TOKENS", "4096"),
        ("TOKENIZERS_PARALLELISM", "false"),
        ("MONKEY", "banana"),
        ("HOMEPAGE", "https://example.org/a@b"),
    ],
)
def test_ordinary_variables_are_not_keys(name: str, value: str) -> None:
    assert not looks_like_key(name, value)


def test_the_environment_is_searched_by_name() -> None:
    redactor = Redactor()
    redactor.register_environ(
        {
            "ANTHROPIC_API_KEY": "canary-aaaa",
            "DB_PASSWORD": "canary-bbbb",
            "JUPYTER_TOKEN": "canary-cccc",
            "PWD": "/home/canary-dddd",
            "HOME": "/home/canary-eeee",
            "SSH_AUTH_SOCK": "/tmp/canary-ffff",
        }
    )
    told = redactor.text("canary-aaaa canary-bbbb canary-cccc /home/canary-dddd /home/canary-eeee /tmp/canary-ffff")
    assert told.endswith("/home/canary-dddd /home/canary-eeee /tmp/canary-ffff")
    assert told.startswith("<ANTHROPIC_API_KEY:")
    assert "canary-bbbb" not in told
    assert "canary-cccc" not in told


def test_fingerprints_agree_between_those_who_share_the_salt() -> None:
    ours = Redactor()
    assert Redactor(ours.salt).fingerprint("abc") == ours.fingerprint("abc")
    assert Redactor().fingerprint("abc") != ours.fingerprint("abc")


def test_json_values_are_masked_all_the_way_down() -> None:
    redactor = Redactor()
    redactor.register("K", "canary-value")
    told = redactor.data({"a": ["canary-value", 1, None, {"canary-value": True}], "b": ("x",)})
    assert "canary-value" not in json.dumps(told)
    assert told["a"][1:3] == [1, None]
    assert told["b"] == ["x"]


def test_neither_repr_nor_attributes_give_a_value_to_a_log_line() -> None:
    redactor = Redactor()
    redactor.register("K", "canary-value")
    assert "canary" not in repr(redactor)


@given(
    secret=st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=MIN_SECRET_CHARS + 6, max_size=60),
    before=st.text(max_size=40),
    after=st.text(max_size=40),
)
def test_a_registered_value_never_survives_in_any_text(secret: str, before: str, after: str) -> None:
    redactor = Redactor(salt=b"s")
    redactor.register("NAME", secret)
    for text in (before + secret + after, json.dumps({before: secret, "k": after + secret}), f"{secret}{secret}"):
        assert secret not in redactor.text(text)


def test_a_kilobyte_without_secrets_costs_microseconds() -> None:
    redactor = Redactor()
    for number in range(5):
        redactor.register(f"KEY_{number}", f"sk-canary-{number}-0123456789abcdef")
    text = "attempt 3 of operation 12345 at profile local answered in 12.5 ms with 128 output words; " * 12
    started = time.thread_time()
    for _ in range(200):
        redactor.text(text)
    assert (time.thread_time() - started) / 200 < 200e-6


SECRET = "sk-ant-Zq9/x+7é🔑&0123"
RAW = SECRET.encode()


def spelled() -> dict[str, str]:
    percent = "".join(f"%{byte:02X}" for byte in RAW)
    units = SECRET.encode("utf-16-be").hex()
    wrapped = textwrap.wrap(base64.b64encode(b"A=1\nB=2\nK=" + RAW).decode(), 24)
    return {
        "basic": base64.b64encode(b"user:" + RAW).decode(),
        "basic of a longer name": base64.b64encode(b"longer-user:" + RAW + b":more").decode(),
        "url-safe base64": base64.urlsafe_b64encode(b"u:" + RAW).decode(),
        "base32": base64.b32encode(RAW).decode(),
        "hex": RAW.hex(),
        "HEX": RAW.hex().upper(),
        "hex with colons": RAW.hex(":"),
        "reversed": SECRET[::-1],
        "every byte in percent": percent,
        "small percent": percent.lower(),
        "some in percent": SECRET.replace("/", "%2f").replace("é", "%C3%A9"),
        "twice in percent": percent.replace("%", "%25"),
        "decimal entities": "".join(f"&#{ord(c)};" for c in SECRET),
        "hex entities": "".join(f"&#x{ord(c):X};" for c in SECRET),
        "named entity": SECRET.replace("&", "&amp;"),
        "every letter as \\u": "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4)),
        "one letter as \\u": SECRET.replace("-", "\\u002d"),
        "every byte as \\x": "".join(f"\\x{byte:02x}" for byte in RAW),
        "decimal codes": ", ".join(map(str, RAW)),
        "hex with spaces": RAW.hex(" "),
        "every letter in another way": "".join(
            (c, f"%{ord(c):02X}", f"&#{ord(c)};", f"\\u{ord(c):04x}", f"\\{ord(c):03o}", f"\\x{{{ord(c):x}}}")[at % 6]
            if c.isascii()
            else c
            for at, c in enumerate(SECRET)
        ),
        "base64 over two lines": base64.b64encode(b"A=1\nB=2\nK=" + RAW).decode()[:30]
        + "\n"
        + base64.b64encode(b"A=1\nB=2\nK=" + RAW).decode()[30:],
        "base64 indented, as in YAML": "\n    ".join(wrapped),
        "base64 in JSON": "\\n".join(wrapped),
        "base64 in JSON in JSON": "\\\\n".join(wrapped),
        "base64 in base64": base64.b64encode(b'{"auth":"' + base64.b64encode(b"user:" + RAW) + b'"}').decode(),
        "base64 of UTF-16": base64.b64encode(f"$key = '{SECRET}'".encode("utf-16-le")).decode(),
        "octal": "".join(f"\\{byte:03o}" for byte in RAW),
        "octal where it is no ASCII": "".join(chr(byte) if byte < 128 else f"\\{byte:03o}" for byte in RAW),
        "named entities": SECRET.replace("/", "&sol;").replace("+", "&plus;").replace("é", "&eacute;"),
        "a list of bytes in hex": ", ".join(f"0x{byte:02x}" for byte in RAW),
        "codes a line each": "\n".join(map(str, RAW)),
        "spelled with dashes": "-".join(SECRET),
        "hex in small and capital letters": "".join(
            digit.upper() if at % 3 else digit for at, digit in enumerate(RAW.hex())
        ),
        "capitals": SECRET.upper(),
        "bits": "".join(f"{byte:08b}" for byte in RAW),
        "base85": base64.b85encode(b"user:" + RAW).decode(),
        "ascii85": base64.a85encode(b"user:" + RAW, adobe=True, wrapcol=20).decode(),
        "base32 of user:key": base64.b32encode(b"user:" + RAW).decode(),
        "base64 quoted in a mail": "\n> ".join(wrapped),
        "quoted-printable": quopri.encodestring(b"x" * 60 + RAW).decode(),
        "spaced out": " ".join(SECRET),
        "a letter a line": "\n".join(SECRET),
        **{f"U+{ord(sign):04X} between": sign.join(SECRET) for sign in "\u200b\u200c\u200d\u2060\ufeff\xad\0"},
        "full width": "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in SECRET),
        "full width in JSON": json.dumps("".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in SECRET)),
        "invisible in JSON in JSON": json.dumps(json.dumps("\u200b".join(SECRET))),
        **dumped(b"HOME=/root\nA=1\nK=" + RAW + b"\nB=2\n"),
        "UTF-16 in xxd": dumped(f"K={SECRET}".encode("utf-16-le"))["xxd"],
        "JSON in JSON": json.dumps(json.dumps({"k": SECRET})),
        "JSON in JSON in a URL": urllib.parse.quote(json.dumps(json.dumps({"k": SECRET}))),
    }


@pytest.mark.parametrize("name", spelled())
def test_a_known_value_is_masked_in_every_spelling_once(name: str) -> None:
    redactor = Redactor()
    redactor.register("MY_KEY", SECRET)
    shown = f"<MY_KEY:{redactor.fingerprint(SECRET)}>"
    masked = redactor.text(f"before {spelled()[name]} after")
    assert masked.count(shown) == 1, masked
    assert masked.startswith("before ")
    assert masked.endswith(" after")
    assert redactor.text(masked) == masked


@given(
    text=st.text(st.characters(max_codepoint=0x2100), max_size=60), form=st.integers(0, 10_000), at=st.integers(0, 60)
)
def test_no_line_with_a_value_in_it_is_taken_for_clean(text: str, form: int, at: int) -> None:
    """The quick look at a short line misses nothing that the thorough one finds."""
    seen = known.Known([("KEY", SECRET), ("SHORT", KEY)], min_packed=redact.MIN_SECRET_CHARS, errors="surrogatepass")
    forms = sorted(spellings.packed(SECRET) | {SECRET, KEY})
    for line in (text, text[:at] + forms[form % len(forms)] + text[at:]):
        raw = line.encode("utf-8", "surrogatepass")
        assert not (seen.is_clean(raw) and seen.look(raw).spans)


@pytest.mark.parametrize("value", ["p@%41ss & w\\x<0123>", "50%25&amp;more\\u0041", "C:\\new\\table-0123"])
@pytest.mark.parametrize("spell", [html.escape, urllib.parse.quote, json.dumps, str])
def test_a_value_that_looks_as_if_it_held_escapes_is_masked_in_every_spelling(
    value: str, spell: Callable[[str], str]
) -> None:
    redactor = Redactor()
    redactor.register("MY_KEY", value)
    assert f"<MY_KEY:{redactor.fingerprint(value)}>" in redactor.text(f"before {spell(value)} after")


@pytest.mark.parametrize("name", ["SCRIPTED_API_KEY", "DB_PASSWORD", "X_TOKEN", "AUTHORIZATION"])
@pytest.mark.parametrize("around", ["{}", "api_key: {}", "token={}", '"password": "{}"', "Authorization: Bearer {}"])
def test_what_is_masked_is_not_masked_again(name: str, around: str) -> None:
    redactor = Redactor()
    redactor.register(name, "canary-value-1")
    once = redactor.text(around.format("canary-value-1"))
    assert f"<{name}:{redactor.fingerprint('canary-value-1')}>" in once
    assert redactor.text(once) == once
    assert "<secret>" not in once


@given(st.data())
def test_a_value_that_pieces_of_a_stream_share_is_masked_and_the_rest_comes_through(data: st.DataObject) -> None:
    redactor = Redactor()
    redactor.register("MY_KEY", SECRET)
    # of base64 with neighbours their run is masked too, if it is at hand
    spelling = data.draw(st.sampled_from([name for name in ("plain", *spelled()) if "bas" not in name]))
    secret = spelled().get(spelling, SECRET)
    before, after = data.draw(st.text("abc sk-%\\u4", max_size=12)), data.draw(st.text("xyz -", max_size=12))
    text = f"{before} {secret} {after}"
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    stream = redactor.stream()
    shown = "".join([*(stream.feed(piece) for piece in pieces), stream.finish()])
    assert shown == redactor.known(text)
    assert "<MY_KEY:" in shown


@pytest.mark.parametrize("dump", dumped(b""))
def test_a_dump_of_something_else_stays_the_very_same_object(dump: str) -> None:
    redactor = Redactor()
    redactor.register("MY_KEY", SECRET)
    other = hashlib.sha512(b"other").digest() * 3 + SECRET[:8].encode() + b" is how it begins"
    for text in (dumped(other)[dump], other.hex(), base64.encodebytes(other).decode()):
        assert redactor.known(text) is text


def test_words_that_a_value_is_made_of_stay() -> None:
    redactor = Redactor()
    redactor.register("WORDS", "change-me-please")
    redactor.register("DIGITS", "0000-0000-0000")
    redactor.register("COUNT", "123456789012")
    text = "change me, please! 00000000 00000000 1 2 3 4 5 6 7 8 9 0 1 2"
    assert redactor.known(text) is text
    assert "<WORDS:" in redactor.known("c h a n g e - m e - p l e a s e")


def test_a_row_is_the_same_object_when_it_holds_no_secret() -> None:
    redactor = Redactor()
    redactor.register("MY_KEY", SECRET)
    row = Attempt(attempt_id=1, operation_id=2, seq=1, at=3, profile="p", model="m", outcome="ok", reason="answered")
    assert redactor.struct(row) is row
    masked = redactor.struct(msgspec.structs.replace(row, model=f"gpt-{SECRET}"))
    assert masked.model == f"gpt-<MY_KEY:{redactor.fingerprint(SECRET)}>"
    assert masked.profile == "p"


def test_a_long_text_full_of_escapes_takes_time_in_proportion() -> None:
    redactor = Redactor()
    redactor.register("MY_KEY", SECRET)
    for unit in ('{"a": "\\n\\"\\\\"}', "%41", "&#65;", "\\u0041", "%25", "<key>"):
        text = unit * 20_000
        assert "MY_KEY" not in redactor.text(text)


def test_a_text_that_was_clean_is_looked_at_again_once_a_value_is_registered() -> None:
    redactor = Redactor()
    text = "the word is correcthorsebattery"
    assert redactor.text(text) is text
    assert redactor.text(text) is text
    redactor.register("WORD", "correcthorsebattery")
    assert "correcthorsebattery" not in redactor.text(text)


_UNITS = st.one_of(
    st.sampled_from(
        [
            SECRET,
            "correct horse, battery",
            SECRET[:7],
            "sk-abcdefghijklmnop",
            "tnd-abcdefghijklmnop",
            "password=abcdefgh12",
            '"token": "abcdefgh1234"',
            "Authorization: Bearer abcdefgh1234",
            'authorization\\": \\"',
            "bearer aaaaaaaa",
            "basic dXNlcjpwYXNzd29yZA==",
            "http://u:pw@h/",
            "://",
            "AKIAABCDEFGHIJKLMNOP",
            "eyJaaaaaaaaa.bbbbbbbbb.ccc",
            "-----BEGIN PRIVATE KEY-----",
            "-----END",
            "--",
            "<key>",
            "<A_KEY:01234567>",
            "\u0130\u212aey",
            "toKen",
            "é€🔑",
            "\\",
            "%",
            "&amp;",
            "\x1b[31m",
            *spelled().values(),
        ]
    ),
    st.sampled_from([*" \t\n\"',;:=/.@<>()[]{}&%\\-+", "\r\n", "a", "Z", "7", "word"]),
)


@pytest.mark.parametrize("slice_chars", [33, 64, 200])
@given(units=st.lists(_UNITS, max_size=15))
def test_a_long_text_is_masked_in_slices_as_it_would_be_whole(slice_chars: int, units: list[str]) -> None:
    redactor = Redactor(salt=b"s")
    redactor.register("MY_KEY", SECRET)
    redactor.register("WORDS", "correct horse, battery")
    text = "".join(units)
    whole = redactor.text(text), redactor.known(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(redact, "SLICE_CHARS", slice_chars)
        again = Redactor(salt=b"s")
        for name, value in redactor.handed_over():
            again.register(name, value)
        sliced = again.text(text), again.known(text)
    assert sliced == whole


def test_no_step_of_masking_a_long_text_looks_through_more_than_a_slice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only between two steps is the interpreter handed over to another thread."""
    sizes: list[int] = []

    class Watched(known.Known):
        def look(self, raw: bytes, is_telling: bool | None = None, *, is_line: bool = True) -> known.Look:
            sizes.append(len(raw))
            return super().look(raw, is_telling, is_line=is_line)

    monkeypatch.setattr(redact, "Known", Watched)
    redactor = Redactor()
    redactor.register("MY_KEY", SECRET)
    text = f"{SECRET} sk-abcdefghijklmnop password=abcdefgh12, http://u:pw@h/ " * 5_000
    masked = redactor.text(text)
    assert (masked.count("<MY_KEY:"), masked.count("<key>"), masked.count("<secret>")) == (5_000, 5_000, 5_000)
    assert len(sizes) > 5
    assert max(sizes) <= redact.SLICE_CHARS


ESCAPE = re.compile(
    r"(?:%[0-9A-Fa-f]{2})+|&#[xX][0-9A-Fa-f]{1,6};?|&#[0-9]{1,7};?|&[a-zA-Z]{2,8};"
    r"|\\u[dD][89abAB][0-9A-Fa-f]{2}\\u[dD][c-fC-F][0-9A-Fa-f]{2}"
    r"|\\u\{[0-9A-Fa-f]{1,6}\}|\\u[0-9A-Fa-f]{4}|\\U[0-9A-Fa-f]{8}|(?:\\x[0-9A-Fa-f]{2})+|\\x\{[0-9A-Fa-f]{1,6}\}"
    r"|\\0[01][0-7]{2}|(?:\\[23][0-7]{2})+|\\[0-7]{3}|\\.",
    re.DOTALL,
)
LINE_END = rb"[\r\n]+[ \t]*|\x1b(?:\[[0-?]*[ -/]*(?:[@-~]|\Z)|\Z)"


@given(
    st.text("%&\\#;{}xuU0123789abcdefDn[m\n Z", max_size=60),
    st.lists(st.sampled_from(b"\r\n \t\x1b[0;:mKaZ"), max_size=40),
)
def test_patterns_that_are_laid_out_for_speed_find_what_their_plain_forms_do(text: str, raw: list[int]) -> None:
    """A flood of bytes passes the masks at eight times the pace, and no spelling is lost by it."""
    assert [one.span() for one in spellings._ESCAPE.finditer(text)] == [one.span() for one in ESCAPE.finditer(text)]
    plain = re.finditer(LINE_END, bytes(raw))
    assert [*map(re.Match.span, known.INVISIBLE.finditer(bytes(raw)))] == [*map(re.Match.span, plain)]
