"""Reading each vendor's model list. What a list does not say stays None."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any

from tundra_nb.errors import ParseError
from tundra_nb.surrogates import mended

from . import classify
from .contract import ModelInfo
from .lenient import NotJsonError, amount, loads, word

Entry = dict[str, Any]


def read(profile: str, body: bytes, entry: Callable[[Entry], ModelInfo]) -> list[ModelInfo]:
    """Read a model list, one `entry` each; entries without a name are left out.

    Raises:
        ParseError: it is no model list.
    """
    try:
        value = mended(loads(body))
    except NotJsonError as exc:
        raise ParseError(profile=profile, problem=f"the model list cannot be read: {exc}") from exc
    entries = value  # Together lists them bare
    if isinstance(value, dict):
        entries = next((told for name in ("data", "models") if isinstance(told := value.get(name), list)), None)
    if not isinstance(entries, list) or (entries is value and not entries):
        fault = classify.read(value)
        told = f": {classify.clip(fault.message)}" if fault is not None else ""
        raise ParseError(profile=profile, problem=f"the model list has no list in it{told}")
    return [entry(told) for found in entries if (told := _named(found)) is not None]


def _named(told: Any) -> Entry | None:
    """An entry with its `id`, by whatever name the server calls it; None when it has none."""
    if isinstance(told, str):
        return {"id": told} if told else None
    if not isinstance(told, dict):
        return None
    names = (word(told.get(name)) for name in ("id", "model", "name", "key"))
    name = next((name for name in names if name), "")
    return {**told, "id": name} if name else None


def from_openai(told: Entry) -> ModelInfo:
    """OpenAI (name and date only), llama.cpp (`meta.n_ctx`) and vLLM (`max_model_len`)."""
    meta = told.get("meta")
    meta = meta if isinstance(meta, dict) else {}
    context = (
        _count(told.get("max_model_len"))
        or _count(told.get("context_length"))
        or _count(meta.get("n_ctx"))
        or _count(meta.get("n_ctx_train"))
    )
    return ModelInfo(model=told["id"], context_tokens=context, created_at=_number(told.get("created")))


def ignores_tools(props: bytes) -> bool:
    """Whether a llama.cpp server says of itself (`/props`) that its chat template has no place for tools.

    Such a server answers 200 to a request with tools, whatever `tool_choice` says, and the model never sees them.
    """
    try:
        told = loads(props)
    except NotJsonError:
        return False
    able = told.get("chat_template_caps") if isinstance(told, dict) else None
    return isinstance(able, dict) and able.get("supports_tools") is False and able.get("supports_tool_calls") is False


def from_openrouter(told: Entry) -> ModelInfo:
    """OpenRouter: prices are USD per token, as text; -1 stands for "depends" (its routers)."""
    pricing = told.get("pricing")
    pricing = pricing if isinstance(pricing, dict) else {}
    architecture = told.get("architecture")
    inputs = architecture.get("input_modalities") if isinstance(architecture, dict) else None
    able = told.get("supported_parameters")
    return ModelInfo(
        model=told["id"],
        context_tokens=_count(told.get("context_length")),
        input_usd=_per_million(pricing.get("prompt")),
        output_usd=_per_million(pricing.get("completion")),
        created_at=_number(told.get("created")),
        vision="image" in inputs if isinstance(inputs, list) else None,
        tools="tools" in able if isinstance(able, list) else None,
        deprecated=told.get("expiration_date") is not None,
    )


def from_anthropic(told: Entry) -> ModelInfo:
    """Anthropic's list, with lifecycle and capabilities where the server tells them."""
    able = told.get("capabilities")
    image = able.get("image_input") if isinstance(able, dict) else None
    vision = image.get("supported") if isinstance(image, dict) else None
    return ModelInfo(
        model=told["id"],
        context_tokens=_count(told.get("max_input_tokens")),
        created_at=_when(told.get("created_at")),
        vision=vision if isinstance(vision, bool) else None,
        deprecated=told.get("lifecycle", "active") != "active",
    )


def _count(value: Any) -> int | None:
    return (
        int(value) if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1 << 53 else None
    )


def _number(value: Any) -> float | None:
    return None if isinstance(value, str) else amount(value) or None


def _per_million(value: Any) -> float | None:
    price = amount(value)
    return None if price is None else round(price * 1e6, 9)


def _when(value: Any) -> float | None:
    if not isinstance(value, str):
        return _number(value)
    try:
        return dt.datetime.fromisoformat(value).timestamp() or None
    except (ValueError, OverflowError):
        return None
