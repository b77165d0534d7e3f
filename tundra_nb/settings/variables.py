"""Names of variables where settings and commands want one: a key that was pasted there is refused, and never repeated.

Settings go into a file, into commits of the history and into every diff of it. So what stands where a variable's name
belongs must be a name, and must not look like a key.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from tundra_nb.errors import ConfigError, UsageError

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
SUFFIX = "_env"
"""Ends the name of each setting that holds a variable's name."""
_VENDOR = re.compile(
    r"(?:(?:sk|pk|rk|tnd|gsk|xai|hf|npm|pypi|r8|nvapi|glpat|gh[opsur]|github_pat|xox[abeoprs])[-_](?=\w*[0-9])\w{16,}"
    r"|A(?:KIA|SIA)[A-Z0-9]{16}|AIza\w{30,}|eyJ\w{12,})"
)
"""Keys whose vendor made them so that they could be names."""
_OF_A_VENDOR = re.compile(rf"{_VENDOR.pattern}|(?:sk|pk|rk)-(?=.*[0-9])[\w-]{{16,}}")
_HEXADECIMAL = re.compile(r"(?=.*[0-9])(?:[0-9a-f]{32,}|[0-9A-F]{32,})")
_RUN = re.compile(r"[A-Za-z0-9]{20,}")
_CHANGE = re.compile(r"(?<=[A-Za-z])(?=[0-9])|(?<=[0-9])(?=[A-Za-z])")
CHANGES = 4
"""Changes between letters and digits within such a run; a name has few (`KEY_2024`), a random text many."""
REMEDY = (
    'Put the key into a variable, for example `export MY_API_KEY=…`, and name that: "MY_API_KEY". '
    "A key that stood in a command, a file or a notebook should be revoked."
)


def is_name(text: str) -> bool:
    """Whether a text can be a variable's name, and is no key."""
    return NAME.fullmatch(text) is not None and not looks_like_key(text)


def looks_like_key(text: str) -> bool:
    """Whether a text that may be a name is rather a key: a vendor's form, or letters and digits at random."""
    if _VENDOR.match(text) or _HEXADECIMAL.fullmatch(text):
        return True
    return any(len(_CHANGE.findall(run)) >= CHANGES for run in _RUN.findall(text))


def holds_key(text: str) -> bool:
    """Whether a part of a name or an address is of a vendor's form of key; account numbers in addresses are none."""
    return without_keys(text) != text


def without_keys(text: str) -> str:
    """The text with `<key>` for each such part."""
    return re.sub(r"[\w.-]{16,}", lambda part: "<key>" if _OF_A_VENDOR.match(part[0]) else part[0], text)


def check(name: str, field: str) -> None:
    """Refuse what is no variable's name; an empty one names none, as for a server that takes no key.

    Raises:
        UsageError: it is none; what it is instead is not repeated.
    """
    if name and not is_name(name):
        is_odd = not _is_like_key(name) and bool(re.search(r"\s", name))
        remedy = "A name has no blanks." if is_odd else REMEDY
        raise UsageError(problem=f"{field} takes the name of a variable; {_told(name)}", field=field, remedy=remedy)


def check_tree(tree: Mapping[str, Any], sources: Mapping[str, str]) -> None:
    """Refuse settings in which something else stands where a variable's name belongs.

    Raises:
        ConfigError: it is so; says where, not what.
    """
    for path, value in _names(tree, ""):
        if value and not is_name(value):
            where = sources.get(path)
            raise ConfigError(
                where=f"{where}, {path}" if where else path,
                problem=f"this is the name of a variable; {_told(value)}",
                remedy=REMEDY,
            )


def _names(tree: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            inner = f"{path}.{key}" if path else str(key)
            if str(key).endswith(SUFFIX) and isinstance(value, str):
                yield inner, value
            else:
                yield from _names(value, inner)
    elif isinstance(tree, list | tuple):
        for index, item in enumerate(tree):
            name = item.get("name", index) if isinstance(item, Mapping) else index
            yield from _names(item, f"{path}.{name}")


def _is_like_key(value: str) -> bool:
    return looks_like_key(value) or re.match(r"(?:sk|pk|rk)-", value) is not None


def _told(value: str) -> str:
    if _is_like_key(value):
        return "what stands there looks like a key"
    return "what stands there is none (letters, digits and _)"
