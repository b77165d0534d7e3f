"""All endpoints, by name."""

from __future__ import annotations

from types import ModuleType

from . import (
    agents,
    archive,
    daemon,
    doors,
    events,
    faults,
    history,
    incidents,
    metrics,
    operations,
    profiles,
    ptys,
    sources,
    status,
    versions,
)
from .endpoint import Endpoint

ROOMS: tuple[ModuleType, ...] = (
    status,
    profiles,
    faults,
    operations,
    history,
    versions,
    incidents,
    sources,
    archive,
    events,
    metrics,
    ptys,
    agents,
    doors,
    daemon,
)
"""Modules of this package that hold endpoints; each has its namesake in `daemon/routes`."""

ENDPOINTS: dict[str, Endpoint] = {
    f"{room.__name__.rpartition('.')[2]}.{name}": value
    for room in ROOMS
    for name, value in vars(room).items()
    if isinstance(value, Endpoint)
}
"""Endpoint by `room.NAME`."""
