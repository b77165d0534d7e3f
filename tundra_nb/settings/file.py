"""Edits of the settings file: in place, comments kept, atomic, checked before they are saved."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tundra_nb.errors import ConfigError, UsageError
from tundra_nb.nearest import nearest

from .loader import Loaded, lines, load, read, read_text
from .model import Settings

CHANGEABLE = ("base_url", "model", "api_key_env", "priority", "rpm", "tpm")
"""Fields of a profile that `providers set` changes."""
_NAMES = ("gateway.models",)
"""Tables whose keys are names that users give."""


def add_profile(file: Path, profile: Mapping[str, Any], environ: Mapping[str, str]) -> Loaded:
    """Append a `[[profile]]`; returns the settings then in force.

    Raises:
        UsageError: a profile of this name exists, or a value is not allowed. The file is unchanged.
        ConfigError: the file as it is cannot be read.
    """
    import tomlkit

    document = _parse(file)
    profiles = document.setdefault("profile", tomlkit.aot())
    name = profile.get("name")
    if any(known.get("name") == name for known in profiles):
        given = " ".join(f"--{key.replace('_', '-')} {value}" for key, value in profile.items() if key in CHANGEABLE)
        raise UsageError(
            problem=f"a profile {name!r} exists already",
            field="name",
            remedy=f"`%tundra providers set {name} {given or '--model …'}` changes it.",
        )
    table = tomlkit.table()
    for key, value in profile.items():
        if value not in (None, ""):
            table[key] = _as_toml(value, key)
    profiles.append(table)
    return _save(file, tomlkit.dumps(document), environ)


def remove_profile(file: Path, name: str, environ: Mapping[str, str]) -> Loaded:
    """Take a `[[profile]]` out; returns the settings then in force.

    Raises:
        UsageError: the file has none of this name. The file is unchanged.
    """
    import tomlkit

    document = _parse(file)
    profiles = document.get("profile", [])
    places = [index for index, known in enumerate(profiles) if known.get("name") == name]
    if not places:
        known = [str(profile.get("name")) for profile in profiles]
        raise UsageError(
            problem=f"the settings file has no profile {name!r}",
            field="name",
            nearest=nearest(name, known),
            remedy=f"It may come from a key in the environment; {file} has: {', '.join(known) or 'none'}.",
        )
    del profiles[places[0]]
    if not len(profiles):
        del document["profile"]
    return _save(file, tomlkit.dumps(document), environ)


def set_value(file: Path, path: str, value: Any, environ: Mapping[str, str]) -> Loaded:
    """Write one value by key path (`breaker.failures`, `profile.NAME.rpm`); returns the settings then in force.

    Raises:
        UsageError: no such setting (names the nearest), or the value is not allowed. The file is unchanged.
    """
    return _save(file, _edited(file, path, value), environ)


def set_values(file: Path, values: Mapping[str, Any], environ: Mapping[str, str]) -> Loaded:
    """Write several values by their paths, all of them or none; returns the settings then in force.

    Raises:
        UsageError: as `set_value` does. The file is unchanged.
    """
    import tomlkit

    document = _parse(file)
    for path, value in values.items():
        _edit(document, file, path, value)
    return _save(file, tomlkit.dumps(document), environ)


def with_value(file: Path, path: str, value: Any, environ: Mapping[str, str]) -> Loaded:
    """The settings that would be in force after `set_value`; the file stays as it is.

    Raises:
        UsageError: as `set_value` does.
    """
    loaded, draft = _checked(file, _edited(file, path, value), environ)
    draft.unlink()
    return loaded


def mend(file: Path, path: str, value: Any, environ: Mapping[str, str]) -> ConfigError | None:
    """Write one value into a file that is faulty, also where another fault remains; returns that one.

    Raises:
        UsageError: no such setting, or the value is not allowed. The file is unchanged.
        ConfigError: the file is no TOML.
    """
    if value is not None and not path.startswith("profile."):
        alone = file.with_name(f".{file.name}.alone")
        try:
            with_value(alone, path, value, {})  # an earlier fault would hide that of this
        except UsageError as exc:
            raise dataclasses.replace(exc, problem=exc.problem.replace(str(alone), str(file))) from exc
    text = _edited(file, path, value)
    try:
        _save(file, text, environ)
    except UsageError as exc:
        remaining = exc.__cause__
        if not isinstance(remaining, ConfigError):
            raise
        where = remaining.where.rpartition(", ")[2]
        if path == where or path.startswith(f"{where}."):
            raise
        draft = _draft(file, text)
        _put_in_place(draft, file)
        try:
            load(file, environ)
        except ConfigError as fault:
            return fault
    return None


def _edited(file: Path, path: str, value: Any) -> str:
    import tomlkit

    document = _parse(file)
    _edit(document, file, path, value)
    return str(tomlkit.dumps(document))


def _edit(document: Any, file: Path, path: str, value: Any) -> None:
    import tomlkit

    *sections, key = _keys(path)
    if sections[:1] == ["profile"] and len(sections) > 1:
        name = ".".join(sections[1:])
        found = [table for table in document.get("profile", []) if table.get("name") == name]
        if not found:
            raise UsageError(
                problem=f"the settings file has no profile {name!r}",
                field=path,
                remedy=f"Add it to {file} as a [[profile]], or with `providers add`.",
            )
        table: Any = found[0]
    else:
        table = document
        for section in sections:
            table = table.get(section, {}) if value is None else table.setdefault(section, tomlkit.table())
            if not isinstance(table, dict):
                raise UsageError(problem=f"{section} is a setting, not a section", field=path)
    if value is None:  # TOML has no null: a value that is not written has its default
        if key not in table and sections[:1] != ["profile"]:
            _check_known(path)
        table.pop(key, None)
    else:
        table[key] = _as_toml(value, path)


def _keys(path: str) -> list[str]:
    """The keys that a path leads through; names that the user gives may have dots, and may be quoted as in TOML."""
    for table in _NAMES:
        if path.startswith(f"{table}.") and (name := path.removeprefix(f"{table}.")):
            is_quoted = len(name) > 2 and name[0] == name[-1] and name[0] in "'\""
            return [*table.split("."), name[1:-1] if is_quoted else name]
    return path.split(".")


def _check_known(path: str) -> None:
    known = [line.path for line in lines(Loaded(settings=Settings(), sources={}, file=Path()))]
    if path not in known:
        close = nearest(path, known)
        remedy = "" if close else "`tundra settings` lists every setting."
        raise UsageError(problem=f"there is no setting {path!r}", field=path, nearest=close, remedy=remedy)


def _as_toml(value: Any, field: str) -> Any:
    """The value as TOML writes it.

    Raises:
        UsageError: TOML has no such value.
    """
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    try:
        return tomlkit.item(value)
    except (TOMLKitError, ValueError, TypeError, RecursionError) as exc:
        raise UsageError(problem=f"{field}: this value cannot stand in a settings file", field=field) from exc


def _parse(file: Path) -> Any:
    import tomlkit
    from tomlkit.exceptions import ParseError

    try:
        return tomlkit.parse(read_text(file))
    except ParseError as exc:
        raise ConfigError(where=f"{file}, line {exc.line}", problem=f"not valid TOML: {exc}") from exc


def _save(file: Path, text: str, environ: Mapping[str, str]) -> Loaded:
    """Check the new text as a whole, then put it in place by rename."""
    loaded, draft = _checked(file, text, environ)
    _put_in_place(draft, file)
    return loaded


def _put_in_place(draft: Path, file: Path) -> None:
    with _on_disk(file):
        try:
            if file.exists():
                draft.chmod(file.stat().st_mode & 0o777)
            draft.replace(file)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise


def _draft(file: Path, text: str) -> Path:
    """A new file beside `file` that holds the text."""
    with _on_disk(file):
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
                stream.write(text)
        except BaseException:
            os.unlink(name)
            raise
    return Path(name)


@contextlib.contextmanager
def _on_disk(file: Path) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise ConfigError(
            where=str(file),
            problem=f"cannot be written: {exc.strerror or exc}",
            remedy=f"Check the permissions of {file.parent}, into which the new file is put, and its disk.",
        ) from exc


def _checked(file: Path, text: str, environ: Mapping[str, str]) -> tuple[Loaded, Path]:
    """The settings that a text makes, and the draft beside the file that holds it: the caller moves or removes it."""
    draft = _draft(file, text)
    try:
        try:
            loaded = read(draft, environ)
        except ConfigError as exc:
            where = exc.where.replace(str(draft), str(file))
            raise UsageError(problem=f"{where}: {exc.problem}", remedy=exc.remedy) from exc
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    sources = {path: source.replace(str(draft), str(file)) for path, source in loaded.sources.items()}
    return Loaded(settings=loaded.settings, sources=sources, file=file), draft
