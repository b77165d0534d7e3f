"""What an answer costs, from the genai-prices package: offline, and pinned by the package's version.

The package carries no date of its own, so its version stands as the price date: it names one table for good. Importing
it takes a third of a second, so it is loaded on first use; `load` does that ahead of time, in a thread. Prices that are
plain rates are kept per model (0.5 µs a call instead of 100); tiers and prices by time of day are the package's.
"""

from __future__ import annotations

import datetime as dt
import functools
import importlib.metadata
from decimal import Decimal
from typing import Any

import msgspec

from tundra_nb.runtime.clock import MACHINE
from tundra_nb.types import Usage

from .contract import ModelInfo

_PROVIDER = {"anthropic": "anthropic", "openai": "openai", "openrouter": "openrouter"}


class Rates(msgspec.Struct, frozen=True, kw_only=True):
    """Plain prices of one model, USD per million tokens."""

    input_usd: float
    output_usd: float
    cached_usd: float
    cache_write_usd: float


class Listed(msgspec.Struct, frozen=True, kw_only=True):
    """What the table says of one model."""

    input_usd: float | None
    output_usd: float | None
    context_tokens: int | None


def load() -> None:
    """Import the table, about 0.3 s. Later calls cost nothing."""
    _snapshot()


def is_loaded() -> bool:
    return _snapshot.cache_info().currsize > 0


def cost(kind: str, model: str, usage: Usage, base_url: str = "") -> tuple[float | None, str | None]:
    """Cost of an answer.

    Args:
        kind: of the profile.
        model: that answered.
        usage: normalised; its input includes cached tokens.
        base_url: of the profile: a vendor's model name at somebody else's address has that one's price, or none.

    Returns:
        USD and the price table it is by; (None, None) when the model, or the number of tokens, is not known.
    """
    if usage.input_tokens is None and usage.output_tokens is None:
        return None, None
    rates = _rates(kind, model, base_url)
    if rates is not None:
        cached = usage.cached_tokens or 0
        written = usage.cache_write_tokens or 0
        fresh = max((usage.input_tokens or 0) - cached - written, 0)
        total = (
            fresh * rates.input_usd
            + cached * rates.cached_usd
            + written * rates.cache_write_usd
            + (usage.output_tokens or 0) * rates.output_usd
        )
        return total / 1e6, dated()
    found = _find(kind, model, base_url)
    if found is None:
        return None, None
    provider, entry = found
    from genai_prices import Usage as TableUsage

    counted = TableUsage(
        input_tokens=usage.input_tokens or 0,
        output_tokens=usage.output_tokens or 0,
        cache_read_tokens=usage.cached_tokens or 0,
        cache_write_tokens=usage.cache_write_tokens or 0,
    )
    try:
        return float(entry.calc_price(counted, provider).total_price), dated()
    except ValueError:  # counts that contradict each other, as a server may send
        return None, None


def by_list(told: ModelInfo | None, usage: Usage) -> tuple[float | None, str | None]:
    """Cost of an answer by what the provider's own list says of its model: the table has no price.

    Cached tokens count as others: lists do not tell their price.

    Returns:
        USD and what it is by; (None, None) when a price, or the number of tokens, is not known.
    """
    read, written = usage.input_tokens, usage.output_tokens
    if told is None or told.input_usd is None or told.output_usd is None or (read is None and written is None):
        return None, None
    return ((read or 0) * told.input_usd + (written or 0) * told.output_usd) / 1e6, "the provider's list"


def most(
    kind: str, model: str, read: int, written: int, base_url: str = "", told: ModelInfo | None = None
) -> float | None:
    """What an answer costs at most, in USD: with nothing read from a cache, or all written to one.

    Args:
        kind: of the profile.
        model: that is asked.
        read: tokens of the prompt at most.
        written: tokens of the answer at most.
        base_url: of the profile.
        told: what the provider's own list says of the model; its price counts where the table has none.

    Returns:
        None when the model has no price.
    """
    fresh, _ = cost(kind, model, Usage(input_tokens=read, output_tokens=written), base_url)
    stored = Usage(input_tokens=read, output_tokens=written, cache_write_tokens=read)
    kept, _ = cost(kind, model, stored, base_url)
    if fresh is not None and kept is not None:
        return max(fresh, kept)
    return by_list(told, Usage(input_tokens=read, output_tokens=written))[0]


def listed(kind: str, model: str, base_url: str = "") -> Listed | None:
    """Price and context size of a model by the table; None when it does not have it."""
    found = _find(kind, model, base_url)
    if found is None:
        return None
    prices = found[1].get_prices(dt.datetime.fromtimestamp(MACHINE.now(), dt.UTC))
    return Listed(
        input_usd=_base(prices.input_mtok),
        output_usd=_base(prices.output_mtok),
        context_tokens=found[1].context_window,
    )


@functools.cache
def dated() -> str:
    """Which price table this is."""
    return f"genai-prices {importlib.metadata.version('genai-prices')}"


@functools.cache
def _snapshot() -> Any:
    from genai_prices import data_snapshot

    return data_snapshot.get_snapshot()


@functools.lru_cache(maxsize=1024)
def _find(kind: str, model: str, base_url: str) -> tuple[Any, Any] | None:
    provider_id = None if base_url else _PROVIDER.get(kind)
    if kind == "local" or not (provider_id or base_url):
        return None
    try:
        found: tuple[Any, Any] = _snapshot().find_provider_model(model, None, provider_id, base_url or None)
    except LookupError:
        return None
    return found


@functools.lru_cache(maxsize=1024)
def _rates(kind: str, model: str, base_url: str) -> Rates | None:
    found = _find(kind, model, base_url)
    if found is None or isinstance(found[1].prices, list):
        return None
    prices = found[1].prices
    given, written = prices.input_mtok, prices.output_mtok
    cached, stored = prices.cache_read_mtok, prices.cache_write_mtok
    per_request = getattr(prices, "requests_kcount", None)
    if per_request or not all(isinstance(p, Decimal) for p in (given, written)):
        return None
    if not all(p is None or isinstance(p, Decimal) for p in (cached, stored)):
        return None
    return Rates(
        input_usd=float(given),
        output_usd=float(written),
        cached_usd=float(given if cached is None else cached),
        cache_write_usd=float(given if stored is None else stored),
    )


def _base(price: Any) -> float | None:
    base = getattr(price, "base", price)
    return float(base) if isinstance(base, Decimal | int | float) else None
