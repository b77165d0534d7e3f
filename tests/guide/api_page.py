"""The page of the Python names, from their docstrings and signatures."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

import tundra_nb
from tundra_nb.client.endpoints import awaited, blocking

INTRO = """\
What `import tundra_nb` gives. Methods of `AsyncClient` have the same names and arguments as those of `Client`, and are
awaited. Every failure raises a `TundraError`; the tree is in [errors](errors/index.md), `except tundra_nb.errors.NAME`
catches one kind."""
FUNCTIONS = ("connect", "connect_async")
TWINS = {"AsyncClient": "Client", "AsyncPty": "Pty", "AsyncReplyStream": "ReplyStream"}


def api_page(note: str) -> str:
    """The whole page."""
    parts = ["# Python", note, INTRO]
    parts += [f"## {name}\n\n{_function(name, getattr(tundra_nb, name))}" for name in FUNCTIONS]
    from tundra_nb.client.ptys import Ptys
    from tundra_nb.client.versions import Versions

    for name in tundra_nb.__all__:
        found = getattr(tundra_nb, name)
        if not inspect.isclass(found) or name in TWINS:
            continue
        parts.append(f"## {name}\n\n{_class(found)}")
        if name == "Client":
            parts.append(f"## t.ptys\n\n{_class(Ptys)}")
            parts.append(f"## t.versions\n\n{_class(Versions)}")
    twins = "\n".join(f"- `{one}` is the awaited `{other}`." for one, other in TWINS.items())
    parts.append(f"## Awaited\n\n{twins}")
    return "\n\n".join(parts) + "\n"


def _class(cls: type) -> str:
    parts = [_lists(inspect.getdoc(cls) or "")]
    if fields := _fields(cls):
        parts.append(fields)
    parts += [_function(name, function) for name, function in _methods(cls)]
    return "\n\n".join(parts)


def _fields(cls: type) -> str:
    if not (dataclasses.is_dataclass(cls) or issubclass(cls, msgspec.Struct)):
        return ""
    names = msgspec.structs.fields(cls) if issubclass(cls, msgspec.Struct) else dataclasses.fields(cls)
    hints = {name: str(hint) for name, hint in inspect.get_annotations(cls).items()}
    return (
        "Fields: "
        + ", ".join(
            f"`{field.name}: {hints[field.name]}`" if field.name in hints else f"`{field.name}`" for field in names
        )
        + "."
    )


def _methods(cls: type) -> Iterator[tuple[str, Any]]:
    for name, value in vars(cls).items():
        if name.startswith("_") and name != "__call__":
            continue
        if isinstance(value, blocking | awaited):
            yield name, value.function
        elif (isinstance(value, property) and value.fget is not None) or (
            inspect.isfunction(value) and inspect.getdoc(value)
        ):
            yield name, value


def _function(name: str, function: Callable[..., Any] | property) -> str:
    if isinstance(function, property):
        assert function.fget is not None
        told = f"`.{name}`{_result(function.fget)}"
    else:
        told = f"`{name}({_arguments(function)})`{_result(function)}"
    return f"### {name}\n\n{told}\n\n{_lists(inspect.getdoc(function) or '')}".rstrip()


def _arguments(function: Callable[..., Any]) -> str:
    signature = inspect.signature(function)
    kept = [parameter for name, parameter in signature.parameters.items() if name != "self"]
    return re.sub(
        r"'|<function .*? at 0x[0-9a-f]+>",
        lambda found: "…" if len(found[0]) > 1 else "",
        str(signature.replace(parameters=kept, return_annotation=inspect.Signature.empty)),
    )[1:-1]


def _result(function: Callable[..., Any]) -> str:
    told = str(inspect.get_annotations(function).get("return", ""))
    inner = re.fullmatch(r"(?:Call|Flow)\[(.*)\]", told)
    told = inner[1] if inner else told
    return f" → `{told}`" if told and told != "None" else ""


def _lists(text: str) -> str:
    """A docstring whose sections are lists."""
    lines: list[str] = []
    is_section = False
    for line in text.splitlines():
        if line in ("Args:", "Raises:", "Returns:"):
            is_section = True
            lines += [line, ""]
        elif not is_section or not line:
            lines.append(line)
            is_section = is_section and not line
        elif not line.startswith("     ") and (item := re.match(r"    ([\w, ]+): (.*)", line)):
            lines.append(f"- `{item[1]}`: {item[2]}")
        else:
            lines.append(f"  {line.strip()}")
    return "\n".join(lines)
