"""How an answer ends: the mark of a stream's end, and why it stopped, in the words of the OpenAI form.

Servers write both in many ways, and what they mean is the same: `[done]`, `"[DONE]"`; `STOP`, `eos`, `end_turn`.
"""

from __future__ import annotations

import re

_MARK = re.compile(rb"(?:[^\w{]*(?:DONE|END))+[^\w}]*", re.IGNORECASE)
_LONGEST_MARK = 64
STOP_REASONS = {
    "stop": "stop",
    "eos": "stop",
    "eos_token": "stop",
    "end_turn": "stop",
    "stop_sequence": "stop",
    "complete": "stop",
    "completed": "stop",
    "length": "length",
    "max_tokens": "length",
    "max_length": "length",
    "max_output_tokens": "length",
    "model_length": "length",
    "model_context_window_exceeded": "length",
    "tool_calls": "tool_calls",
    "tool_call": "tool_calls",
    "tool_use": "tool_calls",
    "content_filter": "content_filter",
    "content_filtered": "content_filter",
    "refusal": "content_filter",
    "safety": "content_filter",
    "sensitive": "content_filter",
}
"""In lower case; whatever else is told (`pause_turn`) stays as it is."""
_BROKEN_OFF = re.compile(
    r"error|fail|abort|cancel|interrupt|time_?d?_?out|overload|insufficient|unavailable|rate_?limit", re.IGNORECASE
)
"""What says that an answer is not whole, and so no success: `error` (OpenRouter, Cohere), `network_error` (Zhipu),
`insufficient_system_resource` (DeepSeek), `engine_overloaded` (Moonshot), `abort` (vLLM, SGLang) and their like."""
_BETWEEN = re.compile(r"[-\s]+")


def is_mark(data: bytes) -> bool:
    """Whether an event is the end mark of a stream, in whatever spelling."""
    return data == b"[DONE]" or (len(data) <= _LONGEST_MARK and _MARK.fullmatch(data) is not None)


def is_trifle(data: bytes) -> bool:
    """Whether an event can hold no part of an answer: after its end such a rest, a mark cut short, changes nothing."""
    return len(data) <= _LONGEST_MARK and b"{" not in data


def stop_reason(told: str) -> str:
    """A stop reason in the words of the OpenAI form; empty when none is told."""
    plain = _BETWEEN.sub("_", told.strip().lower().removeprefix("finishreason."))
    return STOP_REASONS.get(plain, told)


def is_broken_off(stop: str) -> bool:
    """Whether a stop reason says that the provider broke the answer off."""
    return stop not in STOP_REASONS and _BROKEN_OFF.search(stop) is not None
