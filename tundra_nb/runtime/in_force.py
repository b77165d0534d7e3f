"""What was in force when: settings, profiles and prices as rows of the versioned tables.

The settings file is the source; these tables hold what was in force, committed at each change with author and reason,
so that `diff yesterday now` names the setting that changed beside the errors that followed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from tundra_nb.runtime.history.query import FrameQuery
from tundra_nb.runtime.history.service import History
from tundra_nb.settings import Loaded, lines
from tundra_nb.types import TABLE_OF, Price, ProfileRow, Setting

VersionedRow = Setting | ProfileRow | Price
_IGNORED = frozenset({"at", "author", "reason", "source"})
"""Columns that do not make a row different."""


def stable_id(*words: str) -> int:
    """The key of a versioned row: the same on every machine and engine. 62 bits of SHA-256."""
    digest = hashlib.sha256("\0".join(words).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 2


def rows_of(loaded: Loaded, now_us: int, author: str, reason: str) -> list[VersionedRow]:
    """All settings and profiles in force."""
    rows: list[VersionedRow] = [
        Setting(
            setting_id=stable_id("setting", line.path),
            path=line.path,
            value=json.dumps(line.value),
            source=line.source,
            at=now_us,
            author=author,
            reason=reason,
        )
        for line in lines(loaded)
    ]
    rows += [
        ProfileRow(
            profile_id=stable_id("profile", profile.name),
            name=profile.name,
            kind=profile.kind,
            base_url=profile.base_url,
            model=profile.model or None,
            priority=profile.priority,
            enabled=profile.enabled,
            api_key_env=profile.api_key_env,
            rpm=profile.rpm,
            tpm=profile.tpm,
            at=now_us,
        )
        for profile in loaded.settings.profile
    ]
    return rows


def differing(before: Loaded, after: Loaded, now_us: int, author: str, reason: str) -> dict[str, list[tuple[Any, ...]]]:
    """What is new or different in `after`, by table: rows of a proposal."""
    old = {(type(row), _key(row)): _content(msgspec.structs.asdict(row)) for row in rows_of(before, now_us, "", "")}
    found: dict[str, list[tuple[Any, ...]]] = {}
    for row in rows_of(after, now_us, author, reason):
        if old.get((type(row), _key(row))) != _content(msgspec.structs.asdict(row)):
            found.setdefault(TABLE_OF[type(row)], []).append(msgspec.structs.astuple(row))
    return found


async def changed(history: History, rows: Iterable[VersionedRow]) -> list[VersionedRow]:
    """Those of the rows that differ from what the history holds; a profile that is gone comes back disabled."""
    wanted = {(type(row), _key(row)): row for row in rows}
    found: list[VersionedRow] = []
    stored: dict[tuple[type[Any], int], dict[str, Any]] = {}
    for table, form in (("setting", Setting), ("profile", ProfileRow)):
        for stored_row in await history.rows(FrameQuery(table=table)):
            stored[form, stored_row[f"{table}_id"]] = stored_row
    for key, row in wanted.items():
        if _content(stored.get(key)) != _content(msgspec.structs.asdict(row)):
            found.append(row)
    now = max((row.at for row in wanted.values()), default=0)
    for key, old in stored.items():
        if key[0] is ProfileRow and key not in wanted and old["enabled"]:
            found.append(msgspec.convert({**old, "enabled": False, "at": now, "type": "Profile"}, ProfileRow))
    return found


def _key(row: VersionedRow) -> int:
    if isinstance(row, Setting):
        return row.setting_id
    return row.profile_id if isinstance(row, ProfileRow) else row.price_id


def _content(row: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if row is None:
        return None
    return {name: value for name, value in row.items() if name not in _IGNORED}
