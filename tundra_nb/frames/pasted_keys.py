"""Keys that stand in the history where a variable's name belongs: written before such were refused, or pulled."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from tundra_nb.settings import variables

if TYPE_CHECKING:
    import pandas as pd


@dataclasses.dataclass(frozen=True)
class PastedKey:
    """A commit that holds a key: which, when, and in which setting. The key itself is not here."""

    commit: str
    at: object
    """A time, as the frame has it."""
    path: str

    @property
    def remedy(self) -> str:
        return f"Revoke the key that {self.path} held in commit {self.commit[:10]}: whoever has the history has it."


def pasted_keys(settings: pd.DataFrame, profiles: pd.DataFrame) -> list[PastedKey]:
    """The commits whose settings or profiles name a variable by what looks like a key.

    Args:
        settings: what `versions.history("setting")` gives.
        profiles: what `versions.history("profile")` gives.
    """
    found: dict[tuple[str, str], PastedKey] = {}

    def note(commit: object, at: object, path: str, value: object) -> None:
        text = str(value).strip('"') if isinstance(value, str) else ""
        if text and not text.startswith("<") and not variables.is_name(text):  # `<key>` has been masked
            found.setdefault((str(commit), path), PastedKey(str(commit), at, path))

    for row in settings.itertuples():
        if str(row.path).endswith(variables.SUFFIX):
            note(row.commit, row.committed_at, str(row.path), row.value)
    for row in profiles.itertuples():
        note(row.commit, row.committed_at, f"profile.{row.name}.api_key_env", row.api_key_env)
    return list(found.values())
