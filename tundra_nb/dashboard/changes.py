"""What was changed, and by whom: settings, profiles, and commits that people made."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from .hour import Change

if TYPE_CHECKING:
    import pandas as pd

    from tundra_nb.client.sync import Client

OWN_COMMITS = ("settings at start", "Pin of ", "incident ", "pinned for a triage")
"""Beginnings of messages of commits that nobody made to change anything."""
OWN_AUTHORS = ("tundra_nb", "doltlite", "dolt")
MOST_COMMITS = 500
COMMIT_SECONDS = 2.0
"""Longest time from a change of a setting to the commit of it."""
PROFILE_FIELDS = ("base_url", "model", "priority", "api_key_env", "rpm", "tpm")
_IS_NO = "False"


def read(client: Client, since: float, until: float, source: str | None = None) -> list[Change] | None:
    """Changes of a time, the oldest first; None where they are not known, as of another program's log."""
    if source is not None:
        known = _of_source(client, source)
        if known is None:
            return None
    else:
        settings, profiles = client.versions.history("setting"), client.versions.history("profile")
        known = [*_of_settings(settings), *_of_profiles(profiles)]
        told = [one.at for one in known]
        told += [at for rows in (settings, profiles) for at in _proposed(rows)]
        known += _of_commits(client.versions.log(limit=MOST_COMMITS), told)
    return sorted((one for one in known if since <= one.at <= until), key=lambda one: one.at)


def _of_source(client: Client, source: str) -> list[Change] | None:
    """The change log that an incident brings; of other sources what their settings say of themselves."""
    import pandas as pd

    log = (client.sources[source].get("about") or {}).get("changes") or {}
    frames = {table: pd.DataFrame(rows) for table, rows in log.items() if rows}
    if frames:
        with contextlib.suppress(KeyError, ValueError, TypeError):  # it may be from anybody
            for frame in frames.values():
                for name in ("at", "committed_at"):
                    frame[name] = pd.to_datetime(frame[name], utc=True, format="ISO8601")
            nothing = pd.DataFrame()
            return [
                *_of_settings(frames.get("setting", nothing)),
                *_of_profiles(frames.get("profile", nothing)),
            ]
    rows: Any = client.history("setting", since="all", source=source)
    if not len(rows):
        return None
    changed = rows[rows["at"] > rows["at"].min()]  # those of the start are no change
    return [
        Change(row["at"].timestamp(), f"{row['path']} = {row['value']}", as_word(row["author"]))
        for row in changed.to_dict("records")
    ]


def _of_commits(rows: pd.DataFrame, told: list[float]) -> Iterator[Change]:
    """Commits that people made; `told`: when settings were proposed and changed, whose commits say nothing more."""
    for row in rows.to_dict("records"):
        at, message = row["at"].timestamp(), str(row["message"]).partition("\n")[0]
        author = str(row["author"] or "").partition(" <")[0]
        is_own = author in OWN_AUTHORS or message.startswith(OWN_COMMITS)
        if not is_own and all(abs(at - other) >= COMMIT_SECONDS for other in told):
            yield Change(at, message, author, is_commit=True)


def _of_settings(rows: pd.DataFrame) -> Iterator[Change]:
    known: dict[str, Any] = {}
    for row in rows.to_dict("records"):
        before, known[row["path"]] = known.get(row["path"]), row["value"]
        section, _, field = str(row["path"]).rpartition(".")
        if section.startswith("profile.") and field in (*PROFILE_FIELDS, "enabled"):
            continue  # told by the profile's own row
        if before is not None and before != row["value"] and row["diff_type"] != "removed":
            yield Change(_in_force(row), f"{row['path']} {before} → {row['value']}", as_word(row["author"]))


def _of_profiles(rows: pd.DataFrame) -> Iterator[Change]:
    known: dict[str, Mapping[Any, Any]] = {}
    first = None
    for row in rows.to_dict("records"):
        name, author = str(row["name"]), as_word(row["committer"]).partition(" <")[0]
        first = first or row["commit"]
        before = known.get(name)
        at = _in_force(row)
        if row["diff_type"] == "removed":
            known.pop(name, None)
            yield Change(at, f"profile {name} removed", author, takes_out=name)
            continue
        known[name] = row
        if before is None:
            if row["commit"] != first:  # those of the start are no change
                yield Change(at, f"profile {name} added", author)
            continue
        was, is_ = as_word(before["enabled"]), as_word(row["enabled"])
        if was != is_ and _IS_NO in (was, is_):  # of one that was removed its row stays, switched off
            yield Change(
                at, f"profile {name} {'taken out of use' if is_ == _IS_NO else 'back in use'}", author,
                takes_out=name if is_ == _IS_NO else "",
            )  # fmt: skip
        told = [
            f"{field} {as_word(before[field]) or 'none'} → {as_word(row[field]) or 'none'}"
            for field in PROFILE_FIELDS
            if as_word(before[field]) != as_word(row[field])
        ]
        if told:
            yield Change(at, f"{name} {', '.join(told)}", author)


def _in_force(row: Mapping[Any, Any]) -> float:
    """Since when a change is in force: one that was proposed on a branch, or is reverted to, is older than that."""
    at, committed = row["at"], row["committed_at"]
    if row["diff_type"] == "removed" or (committed - at).total_seconds() >= COMMIT_SECONDS:  # not a number: never
        at = committed
    return float(at.timestamp())


def _proposed(rows: pd.DataFrame) -> Iterator[float]:
    """When those changes were made that came into force later."""
    for row in rows.to_dict("records"):
        if row["diff_type"] != "removed" and (at := row["at"].timestamp()) != _in_force(row):
            yield at


def as_word(value: Any) -> str:
    """A cell as a word; nothing where there is nothing."""
    if value is None or str(value) in ("nan", "<NA>", "NaT", "None"):
        return ""
    return str(value)
