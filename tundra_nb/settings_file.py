"""Edits of the settings file: in place, comments kept, atomic, checked before they are saved."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tundra_nb import settings
from tundra_nb.errors import ConfigError, UsageError
from tundra_nb.settings import Loaded


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
        raise UsageError(problem=f"a profile {name!r} exists already", field="name", remedy="Choose another name.")
    table = tomlkit.table()
    table.update({key: value for key, value in profile.items() if value not in (None, "")})
    profiles.append(table)
    return _save(file, tomlkit.dumps(document), environ)


def set_value(file: Path, path: str, value: Any, environ: Mapping[str, str]) -> Loaded:
    """Write one value by key path (`breaker.failures`, `profile.NAME.rpm`); returns the settings then in force.

    Raises:
        UsageError: no such setting (names the nearest), or the value is not allowed. The file is unchanged.
    """
    import tomlkit

    document = _parse(file)
    *sections, key = path.split(".")
    if sections[:1] == ["profile"] and len(sections) == 2:
        found = [table for table in document.get("profile", []) if table.get("name") == sections[1]]
        if not found:
            raise UsageError(
                problem=f"the settings file has no profile {sections[1]!r}",
                field=path,
                remedy=f"Add it to {file} as a [[profile]], or with `providers add`.",
            )
        table: Any = found[0]
    else:
        table = document
        for section in sections:
            table = table.setdefault(section, tomlkit.table())
    table[key] = value
    return _save(file, tomlkit.dumps(document), environ)


def _parse(file: Path) -> Any:
    import tomlkit
    from tomlkit.exceptions import ParseError

    try:
        return tomlkit.parse(file.read_text(encoding="utf-8")) if file.exists() else tomlkit.document()
    except ParseError as exc:
        raise ConfigError(where=f"{file}, line {exc.line}", problem=f"not valid TOML: {exc}") from exc


def _save(file: Path, text: str, environ: Mapping[str, str]) -> Loaded:
    """Check the new text as a whole, then put it in place by rename."""
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor, draft_name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    draft = Path(draft_name)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
        try:
            loaded = settings.load(draft, environ)
        except ConfigError as exc:
            where = exc.where.replace(str(draft), str(file))
            raise UsageError(problem=f"{where}: {exc.problem}", remedy=exc.remedy) from exc
        if file.exists():
            draft.chmod(file.stat().st_mode & 0o777)
        draft.replace(file)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    return Loaded(
        settings=loaded.settings,
        sources={path: source.replace(str(draft), str(file)) for path, source in loaded.sources.items()},
        file=file,
    )
