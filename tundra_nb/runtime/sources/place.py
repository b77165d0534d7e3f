"""Where sources are kept, and what stands there about each."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import msgspec

from tundra_nb.errors import UsageError
from tundra_nb.nearest import nearest
from tundra_nb.protocol.sources import NAME, Source

RECORD = "source.json"
UNFINISHED = ".part-"
"""Begins the name of a folder whose import has not ended."""


class SourcesFolder:
    """The folder of all sources."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def names(self) -> list[str]:
        """Names of all sources, sorted."""
        try:
            entries = sorted(os.listdir(self.folder))
        except FileNotFoundError:
            return []
        return [name for name in entries if re.fullmatch(NAME, name) and (self.folder / name / RECORD).is_file()]

    def all(self) -> list[Source]:
        """The sources, the oldest import first."""
        return sorted((self.find(name) for name in self.names()), key=lambda source: source.at)

    def find(self, name: str) -> Source:
        """What is known of a source.

        Raises:
            UsageError: there is none of this name; names the nearest.
        """
        if re.fullmatch(NAME, name):
            try:
                return msgspec.json.decode((self.folder / name / RECORD).read_bytes(), type=Source)
            except FileNotFoundError:
                pass
            except msgspec.DecodeError as exc:
                raise UsageError(
                    problem=f"source {name!r} cannot be read: {exc}",
                    field="source",
                    remedy=f"`%tundra sources remove {name}`, then import its file again.",
                ) from exc
        known = self.names()
        raise UsageError(
            problem=f"no source {name[:64]!r}",
            field="source",
            nearest=nearest(name, known),
            remedy=f"There are: {', '.join(known)}." if known else "`%tundra import FILE` makes one.",
        )

    def remove(self, name: str) -> None:
        """Forget a source. The record goes first, so that no half of it is ever read."""
        self.find(name)
        os.unlink(self.folder / name / RECORD)
        shutil.rmtree(self.folder / name)

    def sweep(self) -> None:
        """Remove what imports that were cut short have left."""
        if self.folder.is_dir():
            for left in self.folder.glob(f"{UNFINISHED}*"):
                shutil.rmtree(left, ignore_errors=True)
