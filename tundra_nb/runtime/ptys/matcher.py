"""Match the user's patterns in a process of their own: a bad one keeps `re` busy for ever, the GIL in its hands.

    python -I -S matcher.py      one request after the other on standard input, one answer each on standard output

A request is a line of JSON: `{"patterns": […]}` compiles them, `{"text": …}` searches it. The answer of a search is the
pattern whose match begins first, or null. `Matchers` is the daemon's side: it keeps idle processes for the next
dialogue and kills one that is still at work when its deadline is over. The process's side imports the standard library
only, so that it is there in ten milliseconds.
"""

from __future__ import annotations

import json
import re
import sys
from typing import Any

MEMORY_BYTES = 1 << 30
"""Most memory of one process: `(x{1000}){1000}` wants all there is."""


def serve() -> None:
    """Answer until standard input ends."""
    _limit_memory()
    compiled: list[re.Pattern[str]] = []
    for line in sys.stdin.buffer:
        request = json.loads(line)
        answer: Any = None
        try:
            if "patterns" in request:
                compiled = [re.compile(pattern, re.DOTALL) for pattern in request["patterns"]]
                answer = {}
            else:
                answer = first_match(compiled, request["text"])
        except (re.error, RecursionError, OverflowError, MemoryError) as exc:
            answer = {"error": str(exc) or type(exc).__name__, "pattern": _broken(request)}
        sys.stdout.buffer.write(json.dumps(answer).encode() + b"\n")
        sys.stdout.buffer.flush()


def first_match(patterns: list[re.Pattern[str]], text: str) -> dict[str, Any] | None:
    """The match that begins first; of several that begin there, the one of the first pattern."""
    best: re.Match[str] | None = None
    index = 0
    for number, pattern in enumerate(patterns):
        match = pattern.search(text)
        if match is not None and (best is None or match.start() < best.start()):
            best, index = match, number
    if best is None:
        return None
    return {"index": index, "start": best.start(), "end": best.end(), "groups": best.groups()}


def _broken(request: dict[str, Any]) -> str | None:
    for pattern in request.get("patterns", ()):
        try:
            re.compile(pattern, re.DOTALL)
        except (re.error, RecursionError, OverflowError, MemoryError):
            return str(pattern)
    return None


def _limit_memory() -> None:
    import contextlib

    with contextlib.suppress(ImportError, OSError, ValueError):  # a smaller limit is in force already
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    serve()
