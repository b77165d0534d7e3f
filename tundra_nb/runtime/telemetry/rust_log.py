"""`RUST_LOG` directives, which people bring along from Auto-Tundra: `warn,at_harness=debug,at_session::pty_pool=trace`.

Understood only where `log.filter` is set nowhere. The grammar is that of Rust's `env_filter`: directives with commas
between them; each a level, a target, or `target=level`, where a target may go on with `::module` and `[span]`, which
have no counterpart here. A target that is not one of the original's crates is passed over.
"""

from __future__ import annotations

import logging
import re

CRATES: dict[str, tuple[str, ...]] = {
    "at_agents": ("tundra.kernel",),
    "at_bridge": ("tundra.server",),
    "at_core": ("tundra.history",),
    "at_daemon": ("tundra.daemon",),
    "at_harness": ("tundra.limiter", "tundra.breaker", "tundra.router"),
    "at_intelligence": ("tundra.providers",),
    "at_session": ("tundra.ptys",),
    "at_sessions": ("tundra.ptys",),
    "at_telemetry": ("tundra.daemon",),
}
"""Rooms by the crate that did their work. `at_sessions` is how the original's guide spells it."""
LEVELS = {
    "off": logging.CRITICAL + 1,
    "error": logging.ERROR,
    "warn": logging.WARNING,
    "info": logging.INFO,
    "debug": logging.DEBUG,
    "trace": logging.DEBUG,
}
_DIRECTIVE = re.compile(r"(?P<target>[\w:]+)?(?:\[[^\]]*\])?(?:=(?P<level>\w+))?$")


def parse(text: str) -> tuple[int, dict[str, int]]:
    """The level of all our loggers, and levels by logger. What is not understood is passed over."""
    default = logging.ERROR  # of the original, once a directive is there
    loggers: dict[str, int] = {}
    seen_one = False
    for part in text.split(","):
        match = _DIRECTIVE.match(part.strip())
        if match is None or not part.strip():
            continue
        target, level = match["target"] or "", (match["level"] or "").lower()
        if target.lower() in LEVELS and not level:
            default, seen_one = LEVELS[target.lower()], True
            continue
        for logger in CRATES.get(target.partition("::")[0], ()):
            loggers[logger] = LEVELS.get(level or "trace", logging.INFO)
            seen_one = True
    return (default if seen_one else logging.INFO), loggers
