"""What an answer is made of while it comes: text, reasoning, tool calls, and frames passed on as they are.

The same values go from wire format through provider, operation and daemon to the client.
"""

from __future__ import annotations

import msgspec


class Text(msgspec.Struct, frozen=True, tag="text"):
    """A part of the answer's text."""

    text: str


class Reasoning(msgspec.Struct, frozen=True, tag="reasoning"):
    """A part of the reasoning that a model shows beside its answer; not part of the answer's text."""

    text: str


class ToolCallPiece(msgspec.Struct, frozen=True, tag="tool_call"):
    """The start of a tool call, or more of its arguments.

    The first piece of a call has its id and name, later ones have them empty and more of the JSON text of `arguments`.
    """

    index: int
    """Place of the call in the answer: 0, 1, … in order of appearance, however the provider numbers them."""
    id: str = ""
    name: str = ""
    arguments: str = ""


class Raw(msgspec.Struct, frozen=True, tag="raw"):
    """One frame of a relayed answer, byte for byte."""

    data: bytes
    event: str = ""


Piece = Text | Reasoning | ToolCallPiece | Raw
