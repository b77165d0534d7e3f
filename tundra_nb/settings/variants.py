"""Settings that nobody has put in force: of rows of the history, and with other values in some places."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from tundra_nb.errors import UsageError
from tundra_nb.nearest import nearest

from .model import Settings

PROFILE = "profile."


def of_rows(values: Mapping[str, Any], profiles: Sequence[Mapping[str, Any]]) -> Settings:
    """Settings as the history tells them.

    Args:
        values: by path (`breaker.failures`); paths of profiles and those of other versions are left out.
        profiles: fields of each profile.
    """
    tree: dict[str, Any] = msgspec.to_builtins(Settings())
    for path, value in values.items():
        if not path.startswith(PROFILE):
            place, key = _place(tree, path)
            if key in place:
                place[key] = value
    tree["profile"] = [{name: value for name, value in one.items() if value is not None} for one in profiles]
    return msgspec.convert(tree, Settings)


def changed(settings: Settings, values: Mapping[str, Any]) -> Settings:
    """The same settings with other values at these paths (`breaker.failures`, `profile.NAME.rpm`).

    Raises:
        UsageError: there is no such setting (names the nearest), or the value is not allowed.
    """
    tree: dict[str, Any] = msgspec.to_builtins(settings)
    for path, value in values.items():
        if path.startswith(PROFILE):
            name, _, key = path.removeprefix(PROFILE).rpartition(".")
            place = next((one for one in tree["profile"] if one["name"] == name), None)
            known = [f"{PROFILE}{one['name']}.{key}" for one in tree["profile"]]
        else:
            place, key = _place(tree, path)
            known = list(_paths(tree))
        if not place or key not in place or isinstance(place[key], dict):
            raise UsageError(problem=f"no setting {path!r}", field="set", nearest=nearest(path, known))
        place[key] = value
    try:
        return msgspec.convert(tree, Settings)
    except msgspec.ValidationError as exc:
        told = ", ".join(f"{path}={value}" for path, value in values.items())
        raise UsageError(problem=f"{told}: {exc}", field="set") from None


def variants(given: Sequence[str]) -> list[dict[str, Any]]:
    """Every combination of `PATH=VALUE,VALUE…`; one without any value is what there is.

    Raises:
        UsageError: one is not of that form.
    """
    choices = []
    for text in given:
        path, equals, values = text.partition("=")
        if not equals or not path or not values.strip():
            raise UsageError(
                problem=f"{text!r} is not of the form PATH=VALUE,VALUE…",
                field="set",
                remedy="For example `breaker.failures=3,5,8`.",
            )
        choices.append([(path.strip(), _value(value)) for value in values.split(",")])
    return [dict(combination) for combination in itertools.product(*choices)]


def _value(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=str)  # NaN is no number here
    except ValueError:
        return text.strip()


def _place(tree: dict[str, Any], path: str) -> tuple[dict[str, Any], str]:
    *sections, key = path.split(".")
    place: Any = tree
    for section in sections:
        place = place.get(section) if isinstance(place, dict) else None
    return (place if isinstance(place, dict) else {}), key


def _paths(tree: Mapping[str, Any], before: str = "") -> Iterator[str]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _paths(value, f"{before}{key}.")
        else:
            yield before + key
