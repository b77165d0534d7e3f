"""The redactor masks what it was told and what looks like a key, and nothing else."""

from __future__ import annotations

import base64
import json
import time
import urllib.parse

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tundra_nb.runtime.telemetry.redact import MIN_SECRET_CHARS, Redactor, looks_like_key

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
    started = time.perf_counter()
    for _ in range(200):
        redactor.text(text)
    assert (time.perf_counter() - started) / 200 < 200e-6
