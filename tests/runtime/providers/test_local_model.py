"""Both wire formats against a real model: llama.cpp's own server."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator

import pytest

from tundra_nb import errors
from tundra_nb.runtime.providers.contract import Answer, Seen
from tundra_nb.runtime.providers.provider import Provider
from tundra_nb.runtime.providers.transport import Transport
from tundra_nb.settings import DeadlineSettings, ProfileSettings
from tundra_nb.testing.local_model import LocalModel
from tundra_nb.types import Ask
from tundra_nb.types.pieces import Piece, Text

pytestmark = [pytest.mark.anyio, pytest.mark.part("model")]

KEY = "a-test-key-for-the-model"
KINDS = ["local", "anthropic"]


@pytest.fixture(scope="module")
def model() -> Iterator[LocalModel]:
    with LocalModel(api_key=KEY) as running:
        yield running


@contextlib.asynccontextmanager
async def provider(model: LocalModel, kind: str, key: str = KEY) -> AsyncIterator[Provider]:
    settings = ProfileSettings(name="local", kind=kind, base_url=model.url, api_key_env="K")  # type: ignore[arg-type]
    async with Transport(environ={}) as transport:
        yield Provider(settings, transport, key=lambda: key, deadlines=DeadlineSettings())


async def collect(provider: Provider, ask: Ask, name: str = "") -> tuple[list[str], Answer, Seen]:
    pieces: list[str] = []

    async def take(piece: Piece) -> None:
        if isinstance(piece, Text):
            pieces.append(piece.text)

    seen = Seen()
    answer = await provider.attempt(ask, name or await provider.choose_model(), seen, take)
    return pieces, answer, seen


@pytest.mark.parametrize("kind", KINDS)
async def test_a_streamed_answer_is_the_whole_one_in_pieces(model: LocalModel, kind: str) -> None:
    messages = [
        {"role": "system", "content": "You answer in one word."},
        {"role": "user", "content": "Say hello."},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "Again."},
    ]
    async with provider(model, kind) as asked:
        whole = await collect(asked, Ask(messages=messages, max_tokens=12, temperature=0))
        pieces, answer, seen = await collect(asked, Ask(messages=messages, max_tokens=12, temperature=0, stream=True))
    assert len(pieces) > 1
    assert "".join(pieces) == answer.text == whole[1].text
    assert answer.stop_reason in ("stop", "length")
    assert (answer.usage.input_tokens or 0) > 10
    assert 0 < (answer.usage.output_tokens or 0) <= 12
    assert answer.usage.cached_tokens  # the second call finds the first one's prompt
    assert answer.model == whole[1].model
    assert (seen.status, bool(seen.request_id)) == (200, True)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_wrong_key_is_rejected(model: LocalModel, kind: str) -> None:
    async with provider(model, kind, key="wrong") as asked:
        with pytest.raises(errors.KeyRejected) as failed:
            await collect(asked, Ask(messages=[{"role": "user", "content": "x"}]), "m")
    assert "wrong" not in str(failed.value)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_prompt_that_is_too_long_is_unsupported(model: LocalModel, kind: str, stream: bool) -> None:
    prompt = "one two three four five " * 2000
    async with provider(model, kind) as asked:
        with pytest.raises(errors.Unsupported) as failed:
            await collect(asked, Ask(messages=[{"role": "user", "content": prompt}], max_tokens=4, stream=stream))
    assert failed.value.kind == "context"


async def test_the_model_list_tells_the_context(model: LocalModel) -> None:
    async with provider(model, "local") as asked:
        found = await asked.models()
    assert found[0].context_tokens == 2048


async def test_images_are_refused_by_a_model_without_eyes(model: LocalModel) -> None:
    part = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
    async with provider(model, "local") as asked:
        with pytest.raises(errors.Unsupported) as failed:
            await collect(asked, Ask(messages=[{"role": "user", "content": [part]}]))
    assert failed.value.kind == "vision"


async def test_json_mode_gives_json(model: LocalModel) -> None:
    ask = Ask(messages=[{"role": "user", "content": "A JSON object."}], json_mode=True, max_tokens=24, temperature=0)
    async with provider(model, "local") as asked:
        _, answer, _ = await collect(asked, ask)
    assert answer.text.lstrip().startswith("{")
