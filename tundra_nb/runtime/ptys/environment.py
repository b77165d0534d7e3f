"""What a child may know of the daemon's environment: everything but keys.

Withheld are the variables that profiles name, and every other one whose name or value looks like a key. Each can be let
through by name (`with_keys`), and what the caller sets itself is passed as it is; but the values of all of them are
masked in the session's output.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import NamedTuple

from tundra_nb.errors import UsageError
from tundra_nb.runtime.telemetry.redact import NOT_A_KEY, looks_like_key

from .processes import MARKER

TERM = "xterm-256color"
OURS = re.compile(r"TUNDRA_(?:TOKEN|GUARD)$")


class ChildEnvironment(NamedTuple):
    """The environment of a child, and what its output must not show."""

    variables: dict[str, str]
    secrets: dict[str, str]
    """Values by the variable's name: of withheld, let-through and explicitly set keys."""
    withheld: tuple[str, ...]


def build(
    inherited: Mapping[str, str],
    extra: Mapping[str, str],
    *,
    mark: str,
    key_variables: Collection[str],
    with_keys: Collection[str] = (),
    offered: Mapping[str, str],
) -> ChildEnvironment:
    """Work out the environment of a child.

    Args:
        inherited: the daemon's own environment.
        extra: what the caller sets; stronger than the rest.
        mark: value of the session's marker.
        key_variables: names that profiles take their keys from.
        with_keys: names to let through although they hold keys.
        offered: keys that the daemon holds in memory only, by name; let through in the same way.

    Raises:
        UsageError: a name of `with_keys` that is set nowhere.
    """
    known = {**inherited, **offered}
    for name in with_keys:
        if name not in known:
            raise UsageError(
                problem=f"{name} is not set in the daemon's environment", field="with_keys", remedy="Offer it first."
            )
    variables: dict[str, str] = {}
    secrets: dict[str, str] = {}
    for name, value in known.items():
        is_key = name in key_variables or name in offered or looks_like_key(name, value)
        if is_key and name not in NOT_A_KEY:
            secrets[name] = value
        if not is_key or (name in with_keys and not OURS.match(name)):
            variables[name] = value
    secrets.update({name: value for name, value in extra.items() if looks_like_key(name, value)})
    withheld = tuple(sorted(secrets.keys() - variables.keys() - extra.keys()))
    # A daemon without a terminal has no TERM, or that of a terminal the child never sees; sizes follow the window.
    for name in ("COLUMNS", "LINES", "TERM"):
        variables.pop(name, None)
    return ChildEnvironment({"TERM": TERM, **variables, **extra, MARKER: mark}, secrets, withheld)
