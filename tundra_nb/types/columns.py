"""How the columns of a table follow from a struct: a field's order and annotation are the column's."""

from __future__ import annotations

import typing
from typing import Annotated, Any, Literal

import msgspec

ColumnType = Literal["id", "int", "float", "text", "long_text", "time", "bool", "category"]


class Column(msgspec.Struct, frozen=True):
    """One column of a history table. `values` is the closed set of a category, () when it is open."""

    name: str
    type: ColumnType
    nullable: bool
    values: tuple[str, ...] = ()


def _kind(column_type: ColumnType, form: str = "") -> msgspec.Meta:
    return msgspec.Meta(extra={"column": column_type}, extra_json_schema={"format": form} if form else None)


Id = Annotated[int, _kind("id", "id")]
"""In JSON a string: JavaScript rounds large integers."""
Time = Annotated[int, _kind("time", "date-time")]
"""In JSON ISO 8601."""
Text = Annotated[str, _kind("text")]
"""At most 255 characters; anything longer is `LongText`."""
LongText = Annotated[str, _kind("long_text")]
Json = Annotated[Any, _kind("text")]
"""Any JSON value, shown as text."""
Category = Annotated[str, _kind("category")]
"""An open set of few values (profile and model names): dictionary-encoded in Arrow, categorical in pandas."""


def columns_of(row: type[msgspec.Struct]) -> tuple[Column, ...]:
    hints = typing.get_type_hints(row, include_extras=True)
    return tuple(_read_column(name, hints[name]) for name in row.__struct_fields__)


def _read_column(name: str, hint: Any) -> Column:
    nullable = False
    options = typing.get_args(hint)
    if type(None) in options:
        nullable = True
        rest = [option for option in options if option is not type(None)]
        hint = rest[0]
    if typing.get_origin(hint) is Literal:
        return Column(name, "category", nullable, typing.get_args(hint))
    for meta in getattr(hint, "__metadata__", ()):
        if isinstance(meta, msgspec.Meta) and meta.extra:
            return Column(name, meta.extra["column"], nullable)
    plain: dict[Any, ColumnType] = {int: "int", float: "float", bool: "bool", str: "text"}
    return Column(name, plain[hint], nullable)
