"""Each vendor's own words for a fault, through the real client and the real daemon: its class, and what follows.

The bodies are those of the table of classes. A good answer never counts against a breaker, and neither does what is the
caller's fault, the account's or the key's: a spent balance and a wrong key park the profile instead, a country or a
firewall does neither.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import tundra_nb
from tests.conftest import Home, stop_processes
from tests.runtime.providers.test_classify import TABLE
from tests.wiring.test_what_servers_send import JSON, Bench, Row, asked
from tundra_nb import errors
from tundra_nb.testing.scripted_provider import ScriptedStep, scripted_process

pytestmark = [pytest.mark.part("doltlite"), pytest.mark.timeout(120)]

TOML = """
[router]
retries = 0
[breaker]
failures = 1000
[limits.global]
enabled = false
[limits.user]
enabled = false
[limits.profile]
enabled = false
"""
PROFILE = """
[[profile]]
name = "{kind}"
kind = "{kind}"
base_url = "{base}"
model = "some-model"
api_key_env = "THE_KEY"
"""
KINDS = ("openai", "local", "openrouter", "anthropic")
COUNTED = (errors.ApiError, errors.ParseError, errors.HttpError)
PARKS = (errors.QuotaSpent, errors.KeyRejected)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    folder: Path = tmp_path_factory.mktemp("classes")
    with scripted_process() as provider, pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUNDRA_DATA_DIR", str(folder / "data"))
        patch.setenv("TUNDRA_CONFIG", str(folder / "tundra.toml"))
        patch.setenv("THE_KEY", "sk-canary-0123456789abcdef")
        home = Home(folder, dict(os.environ))
        bases = {kind: provider.url if kind == "anthropic" else f"{provider.url}/v1" for kind in KINDS}
        home.write_settings(TOML + "".join(PROFILE.format(kind=kind, base=base) for kind, base in bases.items()))
        try:
            provider.script("/v1/key", ScriptedStep(headers=JSON, body=b'{"data":{}}', repeat=1_000_000))
            with tundra_nb.connect() as client:
                yield Bench(client, provider)
        finally:
            stop_processes(home)


@pytest.mark.parametrize(("kind", "status", "body", "expected", "facts"), TABLE)
def test_a_vendors_words_become_their_class_and_what_follows_from_it(
    bench: Bench, kind: str, status: int, body: Any, expected: type[errors.ProviderError], facts: dict[str, Any]
) -> None:
    path = "/v1/messages" if kind == "anthropic" else "/v1/chat/completions"
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    told = ScriptedStep(status=status, headers=JSON, body=raw)
    for stream in (False, True):
        bench.client.recheck_provider(kind)
        bench.client.reset_breaker(kind)
        bench.provider.script(path, told)
        with pytest.raises(errors.TundraError) as caught:
            asked(bench.client, Row("", kind, b"", stream=stream))
        assert type(caught.value) is expected
        wanted = {name: value for name, value in facts.items() if b"-Reset" not in raw}  # a point of time
        assert {name: caught.value.facts[name] for name in wanted} == wanted
        assert bench.failures(kind) == int(type(caught.value) in COUNTED)
        row = bench.client.providers().set_index("profile").loc[kind]
        assert (row["state"] == "parked") == (type(caught.value) in PARKS)
