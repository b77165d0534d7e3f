"""Which model to ask when none is set, which one was meant, and what one is known not to be able to do.

No model is named here: models come and go within months. Families are, by pattern, in a dated table; within a family
the provider's own list decides by date.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import msgspec

from tundra_nb.errors import Unsupported
from tundra_nb.nearest import nearest
from tundra_nb.settings import ProfileSettings
from tundra_nb.types import Ask

from .check import AskSize
from .contract import ModelInfo
from .remarks import is_tool_required

PREFERRED_DATED = "2026-11"
"""When the table was last looked through."""

PREFERRED: dict[str, tuple[str, ...]] = {
    "anthropic": (r"claude-(.+-)?sonnet\b", r"claude-(.+-)?opus\b", r"claude-(.+-)?haiku\b", r"claude-"),
    "openai": (r"gpt-\d+(\.\d+)?-terra$", r"gpt-\d+(\.\d+)?$", r"gpt-\d+(\.\d+)?-(sol|mini)$", r"gpt-\d", r"o\d"),
    "openrouter": (
        r"anthropic/claude-(.+-)?sonnet\b",
        r"openai/gpt-\d+(\.\d+)?(-terra)?$",
        r"anthropic/",
        r"openai/gpt",
    ),
    "local": (r".*(instruct|chat|[-_.:]it\b)",),
}
"""Families of general chat models by kind of provider, best first: the middle of each range, for price and quality."""

_NOT_FOR_CHAT = re.compile(
    r"embed|rerank|whisper|tts|transcri|translate|realtime|audio|dall-e|image|video|sora|moderation|guard|cyber|davinci"
    r"|babbage|instruct-0914|search|deep-research|computer-use|codex|:batch|-live|vision-only|clip|^~",
    re.IGNORECASE,
)
SAMPLING = frozenset({"temperature", "top_p", "top_k", "top_logprobs"})
WITHOUT_SAMPLING_SINCE = "2026-10-21"
"""The version of Anthropic's API that refuses sampling parameters (its migration guide)."""
CLAUDE_WITHOUT_SAMPLING = (4, 7)
"""Models from here on refuse them under every version."""
GPT_WITHOUT_SAMPLING = 6
"""OpenAI's from here on take them only without reasoning."""
_CLAUDE = re.compile(r"claude-(?:[a-z]+-)?(\d{1,2})(?:[-.](\d{1,2}))?(?![\d])")
_GPT = re.compile(r"gpt-(\d+)")
_FEWEST_BYTES_PER_TOKEN = 12
"""No natural text has so few tokens for its bytes: what is too long by this measure is too long by any."""


def choose(kind: str, listed: Sequence[ModelInfo]) -> str | None:
    """The model to ask when none is set: the newest of the first family that the list has; None for an empty list."""
    chat = [model for model in listed if not _NOT_FOR_CHAT.search(model.model)] or list(listed)
    usable = [model for model in chat if not model.deprecated] or chat
    for family in PREFERRED.get(kind, ()):
        pattern = re.compile(family, re.IGNORECASE)
        if found := [model for model in usable if pattern.match(model.model)]:
            return _newest(found)
    if kind == "local" and usable:
        return usable[0].model  # the server's own order: what it has loaded comes first
    return _newest(usable) if usable else None


def closest(model: str, listed: Iterable[ModelInfo]) -> str | None:
    """The listed model whose name is nearest to a name that missed; with or without a vendor's prefix."""
    names = [known.model for known in listed]
    if found := nearest(model, names):
        return found
    short = {name.rpartition("/")[2]: name for name in names}
    found = nearest(model.rpartition("/")[2], short)
    return short[found] if found else None


def refuse(profile: str, known: ModelInfo, ask: Ask, size: AskSize) -> None:
    """Refuse what this model is known not to be able to do, before anything is sent.

    Raises:
        Unsupported: tools, images, or a prompt that cannot fit.
    """
    if ask.tools and known.tools is False:
        raise Unsupported(profile=profile, kind="tools", model=known.model, detail="by the provider's model list")
    if known.ignores_tools and is_tool_required(ask):
        detail = "a tool call was required, and the chat template of this server has no place for tools"
        raise Unsupported(profile=profile, kind="tools", model=known.model, detail=detail)
    if size.images and known.vision is False:
        raise Unsupported(profile=profile, kind="vision", model=known.model, detail="by the provider's model list")
    if known.context_tokens is not None and size.text_bytes > known.context_tokens * _FEWEST_BYTES_PER_TOKEN:
        detail = f"{size.text_bytes} bytes of text, {known.context_tokens} tokens of context"
        raise Unsupported(profile=profile, kind="context", model=known.model, detail=detail)


def sayable(profile: ProfileSettings, model: str, ask: Ask) -> tuple[Ask, list[str]]:
    """The ask without what this model is known to refuse even at its default, and the names of what was left out.

    Newer models choose their sampling themselves: a `temperature` is a 400 there, and the answer is one without it.
    """
    if not _refuses_sampling(profile, model, ask):
        return ask, []
    left_out = [name for name in ("temperature", "top_p") if getattr(ask, name) is not None]
    extra = ask.extra
    if extra and (unwanted := SAMPLING & extra.keys()):
        left_out += sorted(f"extra.{name}" for name in unwanted)
        extra = {name: value for name, value in extra.items() if name not in unwanted}
    if not left_out:
        return ask, []
    return msgspec.structs.replace(ask, temperature=None, top_p=None, extra=extra), left_out


def _refuses_sampling(profile: ProfileSettings, model: str, ask: Ask) -> bool:
    if profile.kind == "anthropic":
        if profile.anthropic_version >= WITHOUT_SAMPLING_SINCE:
            return True
        told = _CLAUDE.search(model)
        return told is not None and (int(told.group(1)), int(told.group(2) or 0)) >= CLAUDE_WITHOUT_SAMPLING
    if profile.kind == "openai":
        told = _GPT.match(model)
        return told is not None and int(told.group(1)) >= GPT_WITHOUT_SAMPLING and ask.effort != "none"
    return False


def _newest(found: Sequence[ModelInfo]) -> str:
    """The newest; of equally old ones the shortest name (an alias rather than a dated snapshot), then the highest."""
    newest = max(model.created_at or 0.0 for model in found)
    same = [model.model for model in found if (model.created_at or 0.0) == newest]
    shortest = min(len(name) for name in same)
    return max(name for name in same if len(name) == shortest)
