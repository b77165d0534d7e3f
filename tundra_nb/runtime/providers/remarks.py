"""What whoever reads an answer should know beside its text."""

from __future__ import annotations

from tundra_nb.types import Ask

from .contract import Answer


def remarks(ask: Ask, answer: Answer) -> list[str]:
    """In one short sentence each; none for the usual answer."""
    told = []
    if answer.stop_reason == "content_filter":
        told.append("the provider's content filter ended the answer")
    if not answer.tool_calls and is_tool_required(ask):
        told.append("a tool call was required, and the model made none")
    if not answer.text and not answer.tool_calls:
        if answer.reasoning:
            told.append("the answer is only reasoning, without a text; a larger max_tokens may help")
        else:
            told.append("the answer is empty")
    return told


def is_tool_required(ask: Ask) -> bool:
    """Whether the caller asked for a tool call whatever else."""
    return bool(ask.tools) and (ask.tool_choice == "required" or isinstance(ask.tool_choice, dict))
