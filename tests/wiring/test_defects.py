"""A defect of ours ends one call, with rows that say so; the next call on the same client works."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import tundra_nb
from tests.conftest import Home
from tundra_nb import errors
from tundra_nb.client.sync import Client
from tundra_nb.testing.scripted_provider import scripted_process

pytestmark = [pytest.mark.part("doltlite"), pytest.mark.timeout(60)]

DEFECT = """
import sys
if any("tundra_nb.daemon" in word for word in sys.orig_argv):
    from tundra_nb.runtime.providers.provider import Provider
    asked = Provider.attempt
    async def attempt(self, ask, model, seen, deliver, **named):
        text = ask.messages[-1]["content"]
        if text == "at once":
            raise ZeroDivisionError
        async def hand_on(piece):
            await deliver(piece)
            if text == "later":
                raise ZeroDivisionError
        return await asked(self, ask, model, seen, hand_on, **named)
    Provider.attempt = attempt
"""
TOML = '[[profile]]\nname = "o"\nkind = "local"\nbase_url = "{url}/v1"\nmodel = "m"\n'


@pytest.fixture
def client(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    """A client of a daemon that has a defect."""
    (tmp_path / "defect").mkdir()
    (tmp_path / "defect" / "sitecustomize.py").write_text(DEFECT)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "defect"))
    with scripted_process() as provider:
        home.write_settings(TOML.format(url=provider.url))
        with tundra_nb.connect() as made:
            yield made


def test_the_next_call_works_and_the_rows_tell_the_defect(client: Client) -> None:
    calls = [("at once", False), ("at once", True), ("later", True), ("later", False)]
    for text, stream in calls:
        with pytest.raises(errors.InternalError) as caught:
            list(client.ask(text, stream=True)) if stream else client.ask(text)
        assert "why last" not in caught.value.hint
        assert client.ask("hi").text
        assert "".join(client.ask("hi", stream=True))
    rows = client.calls()
    assert list(rows[rows["outcome"] != "ok"]["code"]) == ["InternalError"] * len(calls)
    tries = client.attempts()
    assert list(tries[tries["outcome"] != "ok"]["code"]) == ["InternalError"] * len(calls)


def test_what_is_nested_too_deeply_is_refused_before_it_is_sent(client: Client) -> None:
    deep: dict[str, object] = {}
    for _ in range(3000):
        deep = {"a": deep}
    with pytest.raises(errors.UsageError, match="nested too deeply"):
        client.ask("hi", extra=deep)
    assert client.ask("hi").text
