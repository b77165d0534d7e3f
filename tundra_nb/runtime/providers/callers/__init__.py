"""The forms in which programs ask us: what a caller's request means, and answers, streams and errors in its own words.

One module per form (`chat`, `responses`, `messages`). A request is read into a `Question`, whose `Ask` any provider's
wire format can send; the pieces of the answer are written back in the caller's form. What the neutral form cannot say
is refused by name, what changes nothing of the answer is dropped by name; nothing is lost in silence. Pure: no I/O.
May import what `providers` may; `providers` itself imports nothing from here.
"""

from __future__ import annotations

from .chat import ChatForm
from .failure import error_body
from .form import CallerForm, Question, StreamWriter
from .messages import MessagesForm
from .responses import ResponsesForm

__all__ = ["FORMS", "CallerForm", "Question", "StreamWriter", "error_body"]

FORMS: dict[str, CallerForm] = {"chat": ChatForm(), "responses": ResponsesForm(), "messages": MessagesForm()}
"""Caller's form by name."""
