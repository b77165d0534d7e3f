"""What one endpoint is."""

from __future__ import annotations

import re
import urllib.parse
from typing import Any, Generic, Literal, TypeVar

import msgspec

from tundra_nb.errors import UsageError

from .words import JSON

Method = Literal["GET", "POST", "PUT", "DELETE", "WS"]
T = TypeVar("T")

_PART = re.compile(r"\{(\w+)(:path)?\}")


class Rows(msgspec.Struct, Generic[T], frozen=True):
    """An answer that is a list of rows."""

    rows: list[T]


class Endpoint(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """One method of one path. `path` is as Starlette writes it: `{id}` is a segment, `{ref:path}` may hold slashes."""

    method: Method
    path: str
    summary: str
    """One line, for the pages of the guide."""
    query: type[msgspec.Struct] | None = None
    """Its parameters; None takes none."""
    more: str = ""
    """What may stand in the query beside it, in words."""
    body: Any = None
    """Type of the JSON body; None takes none."""
    answer: Any = None
    """Type of the JSON answer; None: none, or not JSON."""
    media: tuple[str, ...] = (JSON,)
    """What it can answer with; `Accept` chooses, the first is the default."""
    status: int = 200

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the variable parts of the path."""
        return tuple(name for name, _ in _PART.findall(self.path))

    @property
    def template(self) -> str:
        """The path as OpenAPI writes it."""
        return _PART.sub(r"{\1}", self.path)

    def at(self, **parts: object) -> str:
        """The path with its variable parts filled in.

        Raises:
            UsageError: one can be none: it is empty, or would lead to another path.
        """

        def filled(part: re.Match[str]) -> str:
            name, given = part[1], str(parts[part[1]])
            if not given:
                raise UsageError(problem=f"the {name} is empty", field=name)
            if given in (".", "..") or ("/" in given and part[2] is None):
                raise UsageError(problem=f"{given!r} cannot be the {name} of anything", field=name)
            return quoted(given)

        return _PART.sub(filled, self.path)


def quoted(part: object) -> str:
    """One path segment, safe for any text.

    Raises:
        UsageError: it is no text, but for half a character.
    """
    try:
        return urllib.parse.quote(str(part), safe="~")
    except UnicodeEncodeError as exc:
        raise no_text(exc) from None


def no_text(exc: UnicodeEncodeError) -> UsageError:
    """A lone surrogate: half of a pair that stands for one character in UTF-16, and nothing by itself."""
    around = exc.object[max(exc.start - 12, 0) : exc.start].encode("utf-8", "replace").decode()
    return UsageError(
        problem=f"the text cannot be sent: character {exc.start + 1}, after {around!r}, is half a surrogate pair",
        field="text",
        remedy='`text.encode("utf-8", "replace").decode()` makes a question mark of it.',
    )


def params(query: msgspec.Struct | None) -> tuple[tuple[str, str], ...]:
    """A query as parameters, without those that have their default."""
    if query is None:
        return ()
    return tuple(
        (field.encode_name, text(value))
        for field in msgspec.structs.fields(query)
        if (value := getattr(query, field.name)) is not None and value != field.default
    )


def text(value: object) -> str:
    """A value as a parameter."""
    return str(value).lower() if isinstance(value, bool) else str(value)
