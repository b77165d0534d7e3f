"""`log.filter`: which log lines are kept, as settings and `log-level` write it."""

from __future__ import annotations

import logging

import msgspec

from tundra_nb.errors import ConfigError
from tundra_nb.nearest import nearest

ROOT = "tundra"
ROOMS = ("daemon", "server", "router", "limiter", "breaker", "providers", "ptys", "history", "kernel")
LIBRARIES = ("uvicorn", "asyncio", "aiohttp", "httpx", "websockets")
"""Loggers of others that a filter may name; unless it does, only their warnings are kept."""
LEVELS: dict[str, int] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "critical": logging.CRITICAL,
    "off": logging.CRITICAL + 1,
}
SYNONYMS = {"trace": "debug", "warn": "warning"}
"""Words of other systems' filters, understood because people bring them along."""


class Filter(msgspec.Struct, frozen=True):
    """A parsed `log.filter`: the level of our loggers, and exceptions by logger name."""

    level: int
    loggers: dict[str, int]


def parse_filter(text: str, where: str = "log.filter") -> Filter:
    """Read a filter such as `info,tundra.daemon=debug`: a level, and `logger=level` for exceptions, in any order.

    A logger is one of ours (`tundra.ptys`, also below: `tundra.ptys.pool`), `tundra` for all of them, or a library's.

    Raises:
        ConfigError: an unknown logger or level (names the nearest), or two levels without a logger.
    """
    default: int | None = None
    loggers: dict[str, int] = {}
    for part in (piece.strip() for piece in text.split(",")):
        if not part:
            continue
        name, equals, level = (piece.strip() for piece in part.rpartition("="))
        if equals:
            loggers[_logger(name, where)] = _level(level, where)
        elif default is not None:
            raise ConfigError(
                where=where,
                problem=f"{part!r} is a second level without a logger",
                remedy="Write one level, then exceptions: info,tundra.daemon=debug",
            )
        else:
            default = _level(part, where)
    return Filter(logging.INFO if default is None else default, loggers)


def _level(word: str, where: str) -> int:
    known = SYNONYMS.get(word.lower(), word.lower())
    if known not in LEVELS:
        close = nearest(word.lower(), [*LEVELS, *SYNONYMS])
        raise ConfigError(
            where=where,
            problem=f"unknown level {word!r}",
            remedy=f"Did you mean {close!r}?" if close else f"Levels: {', '.join(LEVELS)}.",
        )
    return LEVELS[known]


def _logger(name: str, where: str) -> str:
    ours = [ROOT, *(f"{ROOT}.{room}" for room in ROOMS)]
    if any(name == known or (known != ROOT and name.startswith(known + ".")) for known in (*ours, *LIBRARIES)):
        return name
    close = nearest(name, [*ours, *LIBRARIES]) or (f"{ROOT}.{name}" if name in ROOMS else None)
    raise ConfigError(
        where=where,
        problem=f"unknown logger {name!r}",
        remedy=f"Did you mean {close!r}?" if close else f"Loggers: {', '.join(ours)}.",
    )
