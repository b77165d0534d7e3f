"""Keys of this process's environment, which only this side can see: the daemon knows its own, as of its start."""

from __future__ import annotations

import os


def keys_here() -> str:
    """The set variables of which a daemon started from here would make profiles; none where it is not ours to start."""
    from tundra_nb.settings import VENDORS

    if os.environ.get("TUNDRA_URL"):
        return ""
    return " and ".join(variable for _, variable in VENDORS.values() if os.environ.get(variable))
