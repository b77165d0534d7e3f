"""Reads the settings in force: environment over file over preset over default, each value with its source."""

from __future__ import annotations

import io
import math
import os
import re
import stat
import tomllib
import typing
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from tundra_nb.errors import ConfigError, UsageError
from tundra_nb.nearest import nearest
from tundra_nb.types import ProviderKind

from . import variables
from .addresses import parse_listen
from .log_filter import parse_filter
from .model import (
    AUTO,
    FORMS,
    NAME_CHARACTERS,
    PRESETS,
    VENDORS,
    ProfileSettings,
    Section,
    Settings,
    SharedLimitsSettings,
)

MOST_BYTES = 1_000_000
"""Of a settings file: thousands of profiles."""


class Loaded(msgspec.Struct, frozen=True, kw_only=True):
    """Settings with where each value came from."""

    settings: Settings
    sources: dict[str, str]
    """Source by key path (`breaker.failures`, `profile.NAME.rpm`); paths that are missing have their default."""
    file: Path


class SettingLine(msgspec.Struct, frozen=True, kw_only=True):
    """One line of `tundra settings`."""

    path: str
    value: Any
    default: Any
    source: str


def load(file: Path, environ: Mapping[str, str]) -> Loaded:
    """Read the settings in force.

    Args:
        file: the settings file; it need not exist.
        environ: where `TUNDRA_SECTION__KEY` and the presence of key variables are read from.

    Raises:
        ConfigError: a syntax error (file and line), an unknown key (names the nearest), or a value that is not allowed
            (file and line, key path and what is expected). The hint says how to mend it.
    """
    try:
        return read(file, environ)
    except ConfigError as exc:
        source, _, path = exc.where.rpartition(", ")
        if source == str(file) and not path.startswith("line "):
            remedy = _mending(path, is_unknown=exc.problem == UNKNOWN)
            line = _line_of(file, path)
            source = f"{source}, line {line}" if line else source
        elif source.startswith("TUNDRA_"):
            remedy = f"Correct the variable {source}, or unset it."
        else:
            raise
        where = f"{source}, {path}"
        raise ConfigError(where=where, problem=exc.problem, remedy=f"{exc.remedy} {remedy}".strip()) from exc


def _mending(path: str, *, is_unknown: bool) -> str:
    """What mends the file where this path is at fault: a command only where it does so."""
    if path == "profile":
        return "Each profile is a table of its own that begins with `[[profile]]`, in two brackets."
    name, _, key = path.removeprefix("profile.").rpartition(".")
    if path.startswith("profile.") and not (name and (is_unknown or key in ProfileSettings.__struct_fields__)):
        return "Correct that `[[profile]]` in the file: each has a `name`, which no other one has."
    ways = [f"`tundra settings set {path}=VALUE`", f"`tundra settings unset {path}`"]
    is_section = isinstance(_get(msgspec.to_builtins(Settings()), path), dict)
    return f"{' or '.join(ways[is_unknown or is_section :])} mends the file."  # there nothing can be set


def read(file: Path, environ: Mapping[str, str]) -> Loaded:
    """As `load`; its errors do not say how to mend a file, because this one may be a draft."""
    written = _read_file(file)
    sources: dict[str, str] = {}
    _mark(written, str(file), sources)
    for path, text, variable in _environment_settings(environ):
        _put(written, path, text, variable)
        sources[".".join(path)] = variable
    _check_keys(written, Settings, (), sources)
    variables.check_tree(written, sources)
    preset = written.get("preset", "production")
    filled = _merge(PRESETS.get(preset, {}) if isinstance(preset, str) else {}, written)
    _mark(PRESETS.get(str(preset), {}), f"preset {preset}", sources)
    _check_finite(filled, sources, file)
    settings = _convert(filled, sources, file)
    _check_texts(settings, sources, file)
    _check_profiles(settings.profile, file)
    _check_shared(settings.limits.shared, file)
    if not settings.profile:
        found = _profiles_from_keys(environ)
        settings = msgspec.structs.replace(settings, profile=found)
        for profile in found:
            sources[f"profile.{profile.name}"] = f"{VENDORS[profile.kind][1]} is set"
    settings = msgspec.structs.replace(settings, profile=tuple(_with_vendor(p) for p in settings.profile))
    return Loaded(settings=settings, sources=sources, file=file)


def lines(loaded: Loaded) -> Iterator[SettingLine]:
    """Every setting in force, flat, with default and source."""
    default = msgspec.to_builtins(Settings())
    for path, value in _flat(msgspec.to_builtins(loaded.settings)):
        source = next(
            (
                loaded.sources[prefix]
                for prefix in (path, path.rpartition(".")[0])
                if prefix in loaded.sources and (prefix == path or path.startswith("profile."))
            ),
            "default",
        )
        yield SettingLine(path=path, value=value, default=_get(default, path), source=source)


def read_text(file: Path) -> str:
    """The text of the settings file; "" where there is none.

    A pipe is not waited for, and what is far too long is not read: the daemon looks at the file while it serves calls.

    Raises:
        ConfigError: it cannot be read, is no file, is too long, or not UTF-8.
    """
    try:
        with open(file, "rb", buffering=0, opener=_without_waiting) as stream:
            mode = os.fstat(stream.fileno()).st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISCHR(mode)):
                raise ConfigError(where=str(file), problem="this is no file", remedy="Put a TOML file in its place.")
            content = io.BufferedReader(stream).read(MOST_BYTES + 1) or b""
        if len(content) > MOST_BYTES:
            problem = f"this file has more than {MOST_BYTES:,} bytes"
            raise ConfigError(where=str(file), problem=problem, remedy="Is it a settings file? Shorten it.")
        return content.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as exc:
        remedy = "Put a file that you may read in its place."
        if isinstance(exc, UnicodeDecodeError):
            remedy = "Save it as UTF-8 text."
        raise ConfigError(where=str(file), problem=f"cannot be read: {exc}", remedy=remedy) from exc


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def _read_file(file: Path) -> dict[str, Any]:
    text = read_text(file)
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        line = re.search(r"line (\d+)", str(exc))
        number = line.group(1) if line else str(text.count("\n") + 1)
        raise ConfigError(
            where=f"{file}, line {number}", problem=f"not valid TOML: {exc}", remedy="Correct that line."
        ) from exc
    except RecursionError as exc:
        raise ConfigError(where=str(file), problem="lists or tables lie too deep in one another") from exc


def _line_of(file: Path, path: str) -> int | None:
    """The line that sets a key, where it stands in a section of its own; None where it is written in another way."""
    section, _, key = path.rpartition(".")
    here = ""
    for number, line in enumerate(read_text(file).splitlines(), 1):
        if header := re.match(r"\s*\[\s*([A-Za-z0-9_.-]+)\s*\]", line):
            here = header.group(1)
            if here == path:
                return number
        elif line.lstrip().startswith("["):
            here = "[["
        elif here == section and re.match(rf"\s*{re.escape(key)}\s*=", line):
            return number
    return None


def _environment_settings(environ: Mapping[str, str]) -> Iterator[tuple[tuple[str, ...], Any, str]]:
    for variable in sorted(environ):
        if variable == "TUNDRA_PRESET":
            yield ("preset",), environ[variable], variable
        elif variable.startswith("TUNDRA_") and "__" in variable:
            path = tuple(part.lower() for part in variable.removeprefix("TUNDRA_").split("__"))
            yield path, _parse_value(environ[variable]), variable


def _parse_value(text: str) -> Any:
    try:
        return tomllib.loads(f"v = {text}")["v"]
    except tomllib.TOMLDecodeError:
        return text


def _put(tree: dict[str, Any], path: tuple[str, ...], value: Any, variable: str) -> None:
    for part in path[:-1]:
        inner = tree.setdefault(part, {})
        if not isinstance(inner, dict):
            raise ConfigError(where=variable, problem=f"{part!r} is not a section that a variable can set")
        tree = inner
    tree[path[-1]] = value


def _section_fields(section: Any) -> dict[str, Any]:
    hints = typing.get_type_hints(section)
    names = section.__struct_encode_fields__
    return {name: hints[field] for name, field in zip(names, section.__struct_fields__, strict=True)}


def _check_keys(tree: Mapping[str, Any], section: Any, path: tuple[str, ...], sources: Mapping[str, str]) -> None:
    known = _section_fields(section)
    for key, value in tree.items():
        here = (*path, key)
        if key not in known:
            close = nearest(key, known)
            raise ConfigError(
                where=f"{_source(here, sources)}, {'.'.join(here)}",
                problem=UNKNOWN,
                remedy=f"Did you mean {'.'.join((*path, close))!r}?" if close else f"Known here: {', '.join(known)}.",
            )
        inner = known[key]
        if isinstance(inner, type) and issubclass(inner, Section) and isinstance(value, dict):
            _check_keys(value, inner, here, sources)
        elif key == "profile" and isinstance(value, list):
            for index, profile in enumerate(value):
                if isinstance(profile, dict):
                    name = str(profile.get("name", index))
                    _check_keys(profile, ProfileSettings, ("profile", name), sources)


def _source(path: tuple[str, ...], sources: Mapping[str, str]) -> str:
    return sources.get(".".join(path), "settings")


def _convert(tree: dict[str, Any], sources: Mapping[str, str], file: Path) -> Settings:
    try:
        return msgspec.convert(tree, Settings, strict=True)
    except msgspec.ValidationError as exc:
        told = str(exc)
        problem, _, at = told.partition(" - at `$")
        path = at.rstrip("`").lstrip(".") or "settings"
        path = _name_profile(path, tree)
        where = sources.get(path, str(file))
        for pattern, words in FORMS.items():
            problem = problem.replace(f"`str` matching regex {pattern!r}", words)
        raise ConfigError(where=f"{where}, {path}", problem=problem[0].lower() + problem[1:]) from exc


def _check_finite(tree: Mapping[str, Any], sources: Mapping[str, str], file: Path) -> None:
    for path, value in _flat(tree):
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(
                where=f"{sources.get(path, file)}, {path}",
                problem=f"{value} is not a finite number",
                remedy="Write a finite number.",
            )


def _check_texts(settings: Settings, sources: Mapping[str, str], file: Path) -> None:
    """What is written in a small language of its own: refused here, before a daemon refuses to start with it."""
    checks: dict[str, tuple[str, Callable[[str], object]]] = {
        "log.filter": (settings.log.filter, parse_filter),
        "gateway.listen": (settings.gateway.listen, parse_listen),
    }
    for path, (text, parse) in checks.items():
        try:
            if text:
                parse(text)
        except (ConfigError, UsageError) as exc:
            where = f"{sources.get(path, file)}, {path}"
            raise ConfigError(where=where, problem=exc.problem, remedy=exc.remedy) from exc


def _name_profile(path: str, tree: Mapping[str, Any]) -> str:
    index = re.match(r"profile\[(\d+)\](.*)", path)
    profiles = tree.get("profile")
    if not index or not isinstance(profiles, list) or not isinstance(profiles[int(index.group(1))], dict):
        return path
    name = str(profiles[int(index.group(1))].get("name", index.group(1)))
    return f"profile.{name if len(name) <= NAME_CHARACTERS else name[: NAME_CHARACTERS - 1] + '…'}{index.group(2)}"


def _check_profiles(profiles: tuple[ProfileSettings, ...], file: Path) -> None:
    seen: set[str] = set()
    for profile in profiles:
        if profile.name in seen:
            raise ConfigError(where=f"{file}, profile.{profile.name}", problem="two profiles have this name")
        if profile.name == AUTO:
            raise ConfigError(
                where=f"{file}, profile.{profile.name}.name",
                problem="programs at the gateway ask for whichever profile fits by this name",
                remedy="Give the profile another one.",
            )
        seen.add(profile.name)
        if profile.kind == "local" and not profile.base_url:
            raise ConfigError(
                where=f"{file}, profile.{profile.name}.base_url",
                problem="a local profile needs the address of its server",
                remedy='For example base_url = "http://127.0.0.1:8080/v1".',
            )
        if profile.base_url and not re.match(r"https?://[^/\s]+", profile.base_url):
            raise ConfigError(
                where=f"{file}, profile.{profile.name}.base_url", problem=f"{profile.base_url!r} is not an http(s) URL"
            )
        for field in ("name", "base_url"):
            if variables.holds_key(getattr(profile, field)):  # neither is quoted, then
                where = f"{file}, {field} of a profile"
                raise ConfigError(where=where, problem="what stands there looks like a key", remedy=variables.REMEDY)
        if re.search(r"//[^/]*@|[?#]", profile.base_url):
            raise ConfigError(  # not quoted: it may hold a password
                where=f"{file}, profile.{profile.name}.base_url",
                problem="the URL names a user, a query or a fragment: settings are recorded, and must hold no secret",
                remedy="Leave only scheme, host and path; `api_key_env` names the variable with the key.",
            )


UNKNOWN = "unknown setting"
_SHARED_URL = re.compile(r"(?:valkeys?|rediss?)://(?:\[[0-9a-fA-F:]+\]|[^/\s:\[\]]+)(?::\d{1,5})?(?:/\d{0,3})?")


def _check_shared(shared: SharedLimitsSettings, file: Path) -> None:
    where = f"{file}, limits.shared.url"
    if not shared.url:
        return
    if re.search(r"//[^/]*@|[?#]", shared.url):
        raise ConfigError(  # not quoted: it may hold a password
            where=where,
            problem="the address names a user, a query or a fragment: settings are recorded, and must hold no secret",
            remedy="Leave only scheme, host, port and database; `user` and `password_env` say who logs in.",
        )
    if not _SHARED_URL.fullmatch(shared.url):
        raise ConfigError(
            where=where,
            problem=f"{shared.url!r} is not the address of a Valkey server",
            remedy='For example "valkey://limits.example:6379", or "valkeys://…" with TLS.',
        )


def _profiles_from_keys(environ: Mapping[str, str]) -> tuple[ProfileSettings, ...]:
    return tuple(
        ProfileSettings(name=vendor, kind=typing.cast("ProviderKind", vendor), priority=index * 10)
        for index, (vendor, (_, variable)) in enumerate(VENDORS.items())
        if environ.get(variable)
    )


def _with_vendor(profile: ProfileSettings) -> ProfileSettings:
    """Fill the vendor's host and key variable; a key never goes to another host without being named."""
    base_url, variable = VENDORS.get(profile.kind, ("", ""))
    if profile.base_url and profile.base_url.rstrip("/").removesuffix("/v1") != base_url.removesuffix("/v1"):
        return profile
    return msgspec.structs.replace(profile, base_url=base_url, api_key_env=profile.api_key_env or variable)


def _merge(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(under)
    for key, value in over.items():
        below = merged.get(key)
        merged[key] = _merge(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def _mark(tree: Mapping[str, Any], source: str, sources: dict[str, str]) -> None:
    for path, _ in _flat(tree):
        sources.setdefault(path, source)


def _flat(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            yield from _flat(value, f"{path}.{key}" if path else str(key))
    elif path == "profile" and isinstance(tree, list | tuple):
        for index, profile in enumerate(tree):
            name = profile.get("name", index) if isinstance(profile, Mapping) else index
            yield from _flat(profile, f"profile.{name}")
    else:
        yield path, tree


def _get(tree: Any, path: str) -> Any:
    for part in path.split("."):
        if not isinstance(tree, Mapping) or part not in tree:
            return None
        tree = tree[part]
    return tree
