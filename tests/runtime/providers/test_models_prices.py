from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tundra_nb import errors
from tundra_nb.runtime.providers import listing, models, prices
from tundra_nb.runtime.providers.check import AskSize
from tundra_nb.runtime.providers.contract import ModelInfo
from tundra_nb.types import Ask, Usage


def listed(*names: str, **dates: float) -> list[ModelInfo]:
    return [ModelInfo(model=name, created_at=dates.get(name.replace("-", "_").replace(".", "_"))) for name in names]


@pytest.mark.parametrize(
    ("kind", "names", "expected"),
    [
        ("anthropic", ["claude-haiku-9", "claude-opus-9", "claude-sonnet-9", "claude-sonnet-8"], "claude-sonnet-9"),
        ("anthropic", ["claude-9-sonnet-20300101", "claude-9-sonnet"], "claude-9-sonnet"),
        ("openai", ["text-embedding-9", "gpt-9-mini", "gpt-9", "gpt-9-audio", "gpt-8"], "gpt-9"),
        ("openai", ["whisper-1", "gpt-image-9", "o9"], "o9"),
        ("openrouter", ["acme/x", "openai/gpt-9", "anthropic/claude-sonnet-9"], "anthropic/claude-sonnet-9"),
        ("local", ["nomic-embed-text", "base", "thing-instruct"], "thing-instruct"),
        ("local", ["/models/a.gguf"], "/models/a.gguf"),
        ("openai", ["my-finetune"], "my-finetune"),
        ("openai", [], None),
    ],
)
def test_a_general_chat_model_of_the_preferred_family_is_chosen(
    kind: str, names: list[str], expected: str | None
) -> None:
    assert models.choose(kind, listed(*names)) == expected


def test_the_newest_of_a_family_is_chosen_and_deprecated_ones_are_left() -> None:
    found = [
        ModelInfo(model="claude-sonnet-a", created_at=1.0),
        ModelInfo(model="claude-sonnet-b", created_at=3.0, deprecated=True),
        ModelInfo(model="claude-sonnet-c", created_at=2.0),
    ]
    assert models.choose("anthropic", found) == "claude-sonnet-c"


@settings(deadline=None)
@given(st.lists(st.text(max_size=12).filter(bool), min_size=1, max_size=6), st.sampled_from(sorted(models.PREFERRED)))
def test_some_model_is_chosen_from_any_list(names: list[str], kind: str) -> None:
    assert models.choose(kind, listed(*names)) in names


@pytest.mark.parametrize(
    ("asked", "expected"),
    [("claude-sonet-9", "anthropic/claude-sonnet-9"), ("gpt9", "openai/gpt-9"), ("zzzzzzzz", None)],
)
def test_a_name_that_missed_finds_the_nearest_with_or_without_its_vendor(asked: str, expected: str | None) -> None:
    assert models.closest(asked, listed("anthropic/claude-sonnet-9", "openai/gpt-9")) == expected


@pytest.mark.parametrize(
    ("known", "size", "kind"),
    [
        (ModelInfo(model="m", tools=False), AskSize(10, 0), "tools"),
        (ModelInfo(model="m", vision=False), AskSize(10, 1), "vision"),
        (ModelInfo(model="m", context_tokens=100), AskSize(5000, 0), "context"),
    ],
)
def test_what_a_model_is_known_not_to_do_is_refused(known: ModelInfo, size: AskSize, kind: str) -> None:
    ask = Ask(messages=[], tools=[{}])
    with pytest.raises(errors.Unsupported) as refused:
        models.refuse("p", known, ask, size)
    assert refused.value.kind == kind
    models.refuse("p", ModelInfo(model="m"), ask, AskSize(10**6, 5))  # nothing known, nothing refused


def entries(*told: dict[str, Any]) -> bytes:
    return json.dumps({"object": "list", "data": told}).encode()


def test_each_vendors_list_is_read() -> None:
    raw = entries(
        {"id": "a", "created": 5, "owned_by": "x"},
        {"id": "b", "meta": {"n_ctx_train": 8192, "n_ctx": 2048}},
        {"id": "c", "max_model_len": 4096},
        {"no": "name"},
    )
    assert listing.read("p", raw, listing.from_openai) == [
        ModelInfo(model="a", created_at=5.0),
        ModelInfo(model="b", context_tokens=2048),
        ModelInfo(model="c", context_tokens=4096),
    ]
    raw = entries({
        "id": "x/y", "context_length": 1000, "pricing": {"prompt": "0.000003", "completion": "-1"}, "created": 7,
        "architecture": {"input_modalities": ["text", "image"]}, "supported_parameters": ["stop"],
    })  # fmt: skip
    assert listing.read("p", raw, listing.from_openrouter) == [
        ModelInfo(model="x/y", context_tokens=1000, input_usd=3.0, created_at=7.0, vision=True, tools=False)
    ]
    raw = entries({
        "id": "claude", "created_at": "1970-01-01T00:01:00Z", "max_input_tokens": 200000, "lifecycle": "deprecated",
        "capabilities": {"image_input": {"supported": True}},
    })  # fmt: skip
    assert listing.read("p", raw, listing.from_anthropic) == [
        ModelInfo(model="claude", context_tokens=200_000, created_at=60.0, vision=True, deprecated=True)
    ]


@pytest.mark.parametrize("raw", [b"<html>", b"[]", b'{"data": 5}', b"\xff"])
def test_what_is_no_list_is_said_to_be_none(raw: bytes) -> None:
    with pytest.raises(errors.ParseError):
        listing.read("p", raw, listing.from_openai)


def test_the_words_of_an_error_in_the_place_of_a_list_are_kept() -> None:
    with pytest.raises(errors.ParseError, match="Invalid API key"):
        listing.read("p", b'{"error":{"message":"Invalid API key"}}', listing.from_openai)


ENTRY = st.dictionaries(
    st.sampled_from(["id", "created", "created_at", "meta", "pricing", "architecture", "context_length", "prompt"]),
    st.none()
    | st.text(max_size=5)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.lists(st.text(max_size=2), max_size=2)
    | st.sampled_from([10**400, {"prompt": "nan"}, {"prompt": 10**400}]),
)


@settings(deadline=None)
@given(ENTRY)
def test_no_entry_makes_a_list_unreadable(entry: dict[str, Any]) -> None:
    raw = entries({**entry, "id": "m"})
    for read in (listing.from_openai, listing.from_openrouter, listing.from_anthropic):
        assert [model.model for model in listing.read("p", raw, read)] == ["m"]


# --- prices -----------------------------------------------------------------------------------------------------------

COUNTS = st.integers(0, 10**6)


@settings(deadline=None)
@given(
    COUNTS,
    COUNTS,
    COUNTS,
    COUNTS,
    st.sampled_from([("openai", "gpt-4o-mini"), ("anthropic", "claude-3-5-haiku-latest")]),
)
def test_the_quick_rates_give_what_the_price_package_gives(
    fresh: int, cached: int, written: int, output: int, of: tuple[str, str]
) -> None:
    from genai_prices import Usage as TableUsage
    from genai_prices import calc_price

    kind, model = of
    written = written if kind == "anthropic" else 0  # elsewhere there is no such price
    total = fresh + cached + written
    usage = Usage(input_tokens=total, output_tokens=output, cached_tokens=cached, cache_write_tokens=written)
    counted = TableUsage(input_tokens=total, output_tokens=output, cache_read_tokens=cached, cache_write_tokens=written)
    expected = calc_price(counted, model, provider_id=kind).total_price
    assert prices.cost(kind, model, usage)[0] == pytest.approx(float(expected), rel=1e-9, abs=1e-12)


def test_an_unknown_model_has_no_price_and_a_known_one_is_dated() -> None:
    usage = Usage(input_tokens=1000, output_tokens=10)
    assert prices.cost("openai", "no-such-model-anywhere", usage) == (None, None)
    assert prices.cost("local", "gpt-4o-mini", usage) == (None, None)
    assert prices.cost("openai", "gpt-4o-mini", Usage()) == (None, None)
    assert prices.cost("openai", "gpt-4o-mini", usage, "http://127.0.0.1:8000/v1") == (None, None)
    cost, dated = prices.cost("openai", "gpt-4o-mini", usage, "https://api.openai.com/v1")
    assert cost == pytest.approx(0.000156)
    assert (dated or "").startswith("genai-prices ")


def test_tiered_prices_and_contradicting_counts_are_the_packages_to_judge() -> None:
    tiered = next(
        model.id
        for provider in prices._snapshot().providers
        if provider.id == "openrouter"
        for model in provider.models
        if prices._rates("openrouter", model.id, "") is None and prices._find("openrouter", model.id, "")
    )
    assert (prices.cost("openrouter", tiered, Usage(input_tokens=10, output_tokens=10))[0] or 0) >= 0
    prices.cost("openrouter", tiered, Usage(input_tokens=1, output_tokens=1, cached_tokens=50))  # does not raise


def test_the_price_table_is_not_loaded_before_it_is_needed() -> None:
    code = "import sys; import tundra_nb.runtime.providers.provider; print('genai_prices' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
