"""What people change in the history, and what of it takes effect: settings, merges, reverts, notes.

The settings file stays the source. A change on `main` goes to the file, into force and into the history, in this
order; a proposal goes to its branch only, and takes effect when the branch is merged. A merge, a revert or a pull is
followed by the same step: what `main` then says of a setting is put into the file, and what is truly in force
(the environment may override the file) is written down again.
"""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any, Literal

import msgspec

from tundra_nb import settings
from tundra_nb.errors import StoreError, TundraError, UsageError
from tundra_nb.runtime.history.service import History
from tundra_nb.runtime.history.values import Brought
from tundra_nb.runtime.history.versions import Ref
from tundra_nb.runtime.in_force import InForce, differing, signature
from tundra_nb.runtime.rows import Journal
from tundra_nb.settings import Loaded, variables
from tundra_nb.settings import file as settings_file
from tundra_nb.settings.addresses import check_reach
from tundra_nb.types import Note

NEEDS_RESTART = ("store", "log", "daemon")
"""Sections that a running daemon cannot change."""
SUBJECT_CHARACTERS = 255

_log = logging.getLogger("tundra.history")


class Versioning:
    """Changes of the versioned tables by people. One at a time: each compares what is in force with what was."""

    def __init__(self, in_force: InForce, history: History, journal: Journal, data_dir: Path) -> None:
        self._in_force = in_force
        self._history = history
        self._journal = journal
        self._data_dir = data_dir

    async def set_setting(
        self, path: str, value: Any, *, author: str, reason: str, branch: str | None = None
    ) -> dict[str, Any]:
        """Change a setting: in the file, in force where that is possible, and as a commit of the history.

        With `branch` it is only proposed there: nothing takes effect before the branch is merged.

        Returns:
            `path`, `value`, `was`, `restart` (whether it needs one), `overridden_by` (the variable of the environment
            that wins over the file, None when none does), `branch` and `commit` (None when nothing changed).

        Raises:
            UsageError: no such setting, or not allowed; nothing changed.
        """
        _refuse_nul(reason, "reason")
        if path == "store.reserve_mb" and isinstance(value, int | float):
            disk_mb = shutil.disk_usage(self._data_dir).total / 1e6
            if value > disk_mb:
                problem = f"the disk of {self._data_dir} has {disk_mb:,.0f} MB in all: no more can be kept free"
                raise UsageError(problem=problem, field=path, remedy="Nothing would be kept; the default is 64.")
        async with self._in_force.changing():
            before = self._in_force.loaded
            if path == "gateway.listen" and value:
                draft = settings_file.with_value(before.file, path, value, self._in_force.environ)
                check_reach(draft.settings.gateway.listen, draft.settings.gateway)
            if branch is None or branch == "main":
                after = settings_file.set_value(before.file, path, value, self._in_force.environ)
                self._in_force.apply(after)
            else:
                after = settings_file.with_value(before.file, path, value, self._in_force.environ)
            source = after.sources.get(path, "")
            told = {
                "path": path,
                "value": _value(after, path),
                "was": _value(before, path),
                "restart": path.split(".", maxsplit=1)[0] in NEEDS_RESTART,
                "overridden_by": source if source.startswith("TUNDRA_") else None,
                "branch": branch or "main",
            }
            message = f"{path}: {_text(told['was'])} → {_text(told['value'])}" + (f": {reason}" if reason else "")
            if after is self._in_force.loaded:
                try:
                    return told | {"commit": await self._in_force.write_down(author, reason, message=message)}
                except StoreError as error:  # the file has it: who mends the store by a setting must not need the store
                    _log.warning("%s is not in the history yet: %s", path, error)
                    return told | {"commit": None, "waits": f"not in the history yet: {error}"}
            rows = differing(before, after, self._journal.clock.now_us(), author, reason)
            if not rows:
                raise UsageError(
                    problem=f"{path} is {_text(told['was'])} already", field=path, remedy="There is nothing to propose."
                )
            assert branch is not None
            commit = await self._history.versions.propose(branch, rows, message, signature(author))
            return told | {"commit": commit}

    async def commit(self, message: str, *, author: str) -> str:
        """Commit what is not committed yet.

        Raises:
            UsageError: the message holds what no commit's can.
        """
        _refuse_nul(message, "message")
        async with self._in_force.changing():
            return await self._history.versions.commit(message, signature(author))

    async def add_profile(self, profile: dict[str, Any], *, author: str) -> None:
        """Append a profile to the settings file, put it into force and write it down.

        Raises:
            UsageError: a profile of this name exists, or a value is not allowed; nothing changed.
        """
        async with self._in_force.changing():
            self._in_force.apply(settings_file.add_profile(self._in_force.loaded.file, profile, self._in_force.environ))
            try:
                await self._in_force.write_down(author, "providers add", message=f"profile {profile['name']} added")
            except StoreError as error:  # it is in force all the same; the next change writes it down
                _log.warning("profile %s is not in the history yet: %s", profile["name"], error)

    async def remove_profile(self, name: str, *, author: str) -> None:
        """Take a profile out of the settings file, and put that into force and write it down.

        Raises:
            UsageError: the file has no profile of this name; nothing changed.
        """
        async with self._in_force.changing():
            self._in_force.apply(settings_file.remove_profile(self._in_force.loaded.file, name, self._in_force.environ))
            try:
                await self._in_force.write_down(author, "providers remove", message=f"profile {name} removed")
            except StoreError as error:
                _log.warning("that profile %s was removed is not in the history yet: %s", name, error)

    async def merge(
        self, branch: str, *, author: str, strategy: Literal["ours", "theirs"] | None = None
    ) -> dict[str, Any]:
        """Bring a branch into `main`, and its settings into force.

        Returns:
            `commit` (None with conflicts), `conflicts` (nothing changed then), `is_new` (False too where `main` had all
            of the branch), `applied` and `problems`: settings that took effect, or could not.
        """
        if branch == "main":
            problem = "main is what branches are merged into"
            raise UsageError(problem=problem, field="branch", remedy="`%tundra branch` lists the others.")
        versions = self._history.versions
        async with self._in_force.changing():
            merged = await versions.merge(branch, f"merge {branch}", signature(author), strategy)
            found = {"commit": merged.commit, "conflicts": merged.conflicts, "is_new": merged.is_new}
            return found | await self._put_in_force(merged, author, f"merge {branch}")

    async def revert(self, ref: Ref, *, author: str) -> dict[str, Any]:
        """Commit the opposite of a commit of settings, profiles, prices or notes, and put the settings into force.

        Raises:
            UsageError: the commit holds events, which are facts and stay.
        """
        versions = self._history.versions
        if self._in_force.is_start_due:  # writing it down would move `HEAD` to another commit
            ref = await versions.resolve(ref)
        async with self._in_force.changing():
            reverted = await versions.revert(ref, signature(author))
            return {"commit": reverted.commit} | await self._put_in_force(reverted, author, f"revert {reverted.ref}")

    async def pull(self, remote: str, *, author: str) -> dict[str, Any]:
        """Merge a remote's `main` into ours. Its settings are another machine's: ours stay in force."""
        async with self._in_force.changing():
            commit = await self._history.versions.pull(remote)
            kept = await self._in_force.write_down(
                author, "pull", message=f"settings of this machine after a pull from {remote}"
            )
            return {"commit": kept or commit}

    async def note(self, body: str, *, subject: str, author: str) -> dict[str, Any]:
        """Write an annotation down; it is there for every later commit.

        Raises:
            UsageError: it is empty, or its subject is too long.
        """
        if not body.strip():
            raise UsageError(problem="the note is empty", field="body", remedy="Say what was seen or done.")
        if len(subject) > SUBJECT_CHARACTERS:
            raise UsageError(problem=f"the subject is longer than {SUBJECT_CHARACTERS} characters", field="subject")
        row = Note(
            note_id=self._journal.ids.next(),
            at=self._journal.clock.now_us(),
            author=author,
            subject=subject,
            body=self._journal.redactor.text(body),
        )
        self._journal.record(row)
        return msgspec.structs.asdict(row)

    async def _put_in_force(self, brought: Brought, author: str, reason: str) -> dict[str, Any]:
        """The settings that have another value now; the history is asked nothing more where none and no profile has."""
        applied: list[dict[str, Any]] = []
        problems: list[dict[str, Any]] = []
        for path, text in brought.settings.items():
            value = json.loads(text)
            if _value(self._in_force.loaded, path) == value:
                continue
            is_pasted = path.endswith(variables.SUFFIX) and not variables.is_name(str(value or "NONE"))
            was_in_force = _value(self._in_force.loaded, path)
            told = {"path": path, "was": was_in_force, "value": "<key>" if is_pasted else value}
            try:
                self._in_force.apply(
                    settings_file.set_value(self._in_force.loaded.file, path, value, self._in_force.environ)
                )
            except TundraError as error:
                problems.append(told | {"problem": str(error)})
                continue
            if _value(self._in_force.loaded, path) != value:
                problems.append(told | {"problem": f"{self._in_force.loaded.sources.get(path)} overrides the file"})
                continue
            applied.append(told | {"restart": path.split(".", maxsplit=1)[0] in NEEDS_RESTART})
        for problem in problems:
            _log.warning("%s: %s stays %s: %s", reason, problem["path"], problem["was"], problem["problem"])
        if {"setting", "profile"} & {*brought.tables}:
            await self._in_force.write_down(author, reason, message=f"settings in force after {reason}")
        return {"applied": applied, "problems": problems}


def _refuse_nul(text: str, field: str) -> None:
    if "\0" in text:
        raise UsageError(
            problem=f"the {field} holds a NUL character, which the message of a commit cannot", field=field
        )


def _value(loaded: Loaded, path: str) -> Any:
    return next((line.value for line in settings.lines(loaded) if line.path == path), None)


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
