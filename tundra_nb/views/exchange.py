"""The prompt and the answer of a call, where recording keeps them; of two calls, what differs."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tundra_nb.client.results import Why

from .blocks import Block, Code, Details, Heading, Para, Styled

SHOWN_CHARACTERS = 20_000
SWITCH = "`%tundra settings set record.content=all` keeps prompts and answers, redacted, from now on"


def blocks(why: Why) -> list[Block]:
    """Prompt and answer to read and copy; without a recording, how to have one next time."""
    kept = list(why.get("exchanges") or ())
    if not kept:
        return [Para(Styled(SWITCH, "dim"))] if why.get("record") == "off" else []
    if kept[-1].get("recording") and not kept[-1].get("request"):
        return [Para(Styled("the recording is not on this machine: too old, or made elsewhere", "dim"))]
    prompt, answer = texts(kept[-1])
    parts: list[Block] = []
    for name, text in (("prompt", prompt), ("answer", answer)):
        shown = text[:SHOWN_CHARACTERS]
        left = len(text) - len(shown)
        parts += [Heading(name), Code(shown or "(nothing)")]
        if left:
            parts.append(Para(Styled(f'and {left:,} characters more: `why(…)["exchanges"]` has all', "dim")))
    return [Details("prompt and answer", parts, in_text=True)]


def difference(one: Why, other: Why) -> Sequence[Block]:
    """What differs between the prompts and answers of two calls, line by line."""
    sides = [list(why.get("exchanges") or ()) for why in (one, other)]
    names = [f"call …{why.operation_id[-5:]}" for why in (one, other)]
    missing = [name for name, kept in zip(names, sides, strict=True) if not kept]
    if missing:
        return [Para(Styled(f"nothing is kept of {' and '.join(missing)}", "warn")), Para(Styled(SWITCH, "dim"))]
    made: list[Block] = [Heading(" → ".join(names))]
    for index, what in enumerate(("prompt", "answer")):
        before, after = (texts(kept[-1])[index].splitlines() for kept in sides)
        lines = list(difflib.unified_diff(before, after, names[0], names[1], lineterm="", n=2))[2:]
        made += [Heading(what), Code("\n".join(lines)) if lines else Para(Styled("the same", "dim"))]
    return made


def texts(kept: Mapping[str, Any]) -> tuple[str, str]:
    """Prompt and answer of a recorded exchange, as people read them; what is no JSON stays as it is."""
    return _prompt(str(kept.get("request") or "")), _answer(str(kept.get("response") or ""))


def _prompt(request: str) -> str:
    try:
        body = json.loads(request)
    except ValueError:
        return request
    messages = body.get("messages") if isinstance(body, dict) else None
    if not isinstance(messages, list):
        return json.dumps(body, indent=2, ensure_ascii=False)
    told = [f"{m.get('role')}: {_content(m.get('content'))}" for m in messages if isinstance(m, dict)]
    system = body.get("system")
    return "\n\n".join([*([f"system: {_content(system)}"] if system else []), *told])


def _content(content: Any) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "\n".join(str(p.get("text") or f"({p.get('type')})") for p in content if isinstance(p, dict))
    return "" if content is None else json.dumps(content, ensure_ascii=False)


def _answer(response: str) -> str:
    if "data:" not in response and not response.lstrip().startswith("{"):
        return response
    found = "".join(_pieces(response))
    return found or response


def _pieces(response: str) -> Iterator[str]:
    """The text of an answer in either form, whole or as server-sent events."""
    bodies = [line[5:] for line in response.splitlines() if line.startswith("data:")] or [response]
    for body in bodies:
        try:
            value = json.loads(body)
        except ValueError:
            continue
        if not isinstance(value, dict):
            continue
        for choice in value.get("choices") or ():
            part = choice.get("delta") or choice.get("message") or {}
            yield str(part.get("content") or "")
        delta = value.get("delta")
        if isinstance(delta, dict):
            yield str(delta.get("text") or "")
        for part in value.get("content") or ():
            if isinstance(part, dict):
                yield str(part.get("text") or "")
