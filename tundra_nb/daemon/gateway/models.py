"""`GET /v1/models`: what a caller may name, in one form that both vendors' SDKs read."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Sequence
from typing import Any

from tundra_nb import errors
from tundra_nb.nearest import nearest
from tundra_nb.runtime.profiles import ProfileSlot
from tundra_nb.settings.model import AUTO

from .choose import Choosing

_UNKNOWN = 0


async def model_list(choosing: Choosing, slots: Sequence[ProfileSlot]) -> dict[str, Any]:
    """Every model of the caller's profiles, the profiles' own names, and `auto`."""
    rows = list((await _rows(choosing, slots)).values())
    return {
        "object": "list",
        "data": rows,
        "has_more": False,
        "first_id": rows[0]["id"] if rows else None,
        "last_id": rows[-1]["id"] if rows else None,
    }


async def one_model(choosing: Choosing, slots: Sequence[ProfileSlot], name: str) -> dict[str, Any]:
    """One of them.

    Raises:
        Unsupported: there is none of this name; names the nearest.
    """
    rows = await _rows(choosing, slots)
    if name not in rows:
        raise errors.Unsupported(profile="gateway", kind="model", model=name, nearest=nearest(name, rows))
    return rows[name]


async def _rows(choosing: Choosing, slots: Sequence[ProfileSlot]) -> dict[str, dict[str, Any]]:
    await asyncio.gather(*(choosing.read_list(slot) for slot in slots))
    rows: dict[str, dict[str, Any]] = {}
    for slot in slots:
        profile = slot.profile
        listed = {name: slot.provider.listed(name) for name in slot.provider.known_models}
        if profile.model and profile.model not in listed:
            listed[profile.model] = None
        for name, info in listed.items():
            created = info.created_at if info is not None and info.created_at else _UNKNOWN
            rows.setdefault(name, _row(name, profile.name, created))
    for slot in slots:
        rows.setdefault(slot.profile.name, _row(slot.profile.name, slot.profile.name, _UNKNOWN))
    if slots:
        rows.setdefault(AUTO, _row(AUTO, "tundra", _UNKNOWN))
    return rows


def _row(name: str, owner: str, created: float) -> dict[str, Any]:
    at = dt.datetime.fromtimestamp(created, dt.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return {
        "id": name,
        "object": "model",
        "type": "model",
        "created": int(created),
        "created_at": at,
        "display_name": name,
        "owned_by": owner,
    }
