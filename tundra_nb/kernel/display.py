"""How answers and results look in a notebook.

An answer is one output that grows: at most 20 updates a second, its final form saved once, with the operation's id in
the output's metadata. Everything else is a result with a view, shown by formatters that are registered by name, so
that no view is imported before there is something to show.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tundra_nb.client.sync import ReplyStream
    from tundra_nb.types import Reply

MIN_PAUSE_SECONDS = 0.05
"""Between two updates of a growing answer."""
CHARS_PER_SECOND = 400_000
"""Each update sends the whole text: the longer it is, the rarer they come. Jupyter drops output above 1 MB/s."""
KEPT_NOTICES = 3

Bundle = tuple[dict[str, Any], dict[str, Any]]

_VIEWED = (
    ("tundra_nb.client.results", "Status"),
    ("tundra_nb.client.results", "DaemonStatus"),
    ("tundra_nb.client.results", "Why"),
    ("tundra_nb.client.results", "Last"),
    ("tundra_nb.client.results", "Document"),
    ("tundra_nb.client.explain", "Explanation"),
    ("tundra_nb.commands.views", "Message"),
    ("tundra_nb.commands.views", "Lines"),
)
_FRAMES = (("pandas", "DataFrame"), ("pandas.core.frame", "DataFrame"))
"""Where pandas since 3.0, and pandas before, says its frames live."""
_REPLY = ("tundra_nb.types", "Reply")

_shown: list[Reply] = []
"""The reply that was shown live last; as the value of the cell it is not shown again."""


def show_live(stream: ReplyStream, shell: Any) -> Reply:
    """Show an answer while it comes; return its reply."""
    if not is_kernel(shell):
        return _print_live(stream)
    output = _Growing()
    stream.on_notice = output.notice
    try:
        with stream:
            for piece in stream:
                output.add(piece)
    except BaseException as exc:
        output.break_off("interrupted" if isinstance(exc, KeyboardInterrupt) else "the answer broke off here")
        raise
    output.finish(stream.reply)
    _shown[:] = [stream.reply]
    return stream.reply


def is_kernel(shell: Any) -> bool:
    """Whether outputs can be updated: a Jupyter kernel, not terminal IPython."""
    return getattr(shell, "kernel", None) is not None


class _Growing:
    """One output that is updated as the answer grows."""

    def __init__(self) -> None:
        self._text = ""
        self._notices: list[str] = []
        self._handle: Any = None
        self._due = 0.0

    def notice(self, told: Mapping[str, Any]) -> None:
        if told.get("kind") != "attempt":
            self._notices = [*self._notices, str(told.get("message") or told.get("kind"))][-KEPT_NOTICES:]
            self._draw(self._notices)

    def add(self, piece: str) -> None:
        self._text += piece
        now = time.monotonic()
        if now >= self._due:
            self._draw(self._notices)
            took = time.monotonic() - now
            self._due = now + max(MIN_PAUSE_SECONDS, 4 * took, len(self._text) / CHARS_PER_SECOND)

    def finish(self, reply: Reply) -> None:
        from tundra_nb.commands.views import reply as view

        self._text = reply.text
        foot = view.summary(reply)
        calls = [f"{call.name}({call.arguments})" for call in reply.tool_calls]
        self._draw([foot], code="\n".join(calls), metadata=metadata_of(reply))

    def break_off(self, why: str) -> None:
        if self._handle is not None:
            self._draw([*self._notices, why])

    def _draw(self, lines: Sequence[str], *, code: str = "", metadata: dict[str, Any] | None = None) -> None:
        from tundra_nb.commands.views import html
        from tundra_nb.commands.views.blocks import Block, Code, Para, Prose, Styled, clean

        blocks: list[Block] = [Prose(self._text)] if self._text else []
        if code:
            blocks.append(Code(code))
        blocks += [Para(Styled(line, "dim")) for line in lines]
        plain = clean("\n\n".join(filter(None, [self._text, code, "\n".join(lines)])))
        data = {"text/plain": plain, "text/html": html.render(blocks)}
        if self._handle is None:
            self._handle = _display(data, raw=True, metadata=metadata, display_id=True)
        else:
            self._handle.update(data, raw=True, metadata=metadata)


def _print_live(stream: ReplyStream) -> Reply:
    from tundra_nb.commands.views.blocks import clean

    def notice(told: Mapping[str, Any]) -> None:
        if told.get("kind") != "attempt":
            sys.stderr.write(clean(f"{told.get('message')}\n"))

    stream.on_notice = notice
    with stream:
        for piece in stream:
            sys.stdout.write(clean(piece))
            sys.stdout.flush()
    sys.stdout.write("\n")
    _shown[:] = [stream.reply]
    return stream.reply


def metadata_of(value: Any) -> dict[str, Any]:
    """What an output's metadata says of where it came from."""
    found: dict[str, Any] = {}
    if hasattr(value, "attrs"):  # a frame, whose columns are attributes too
        from tundra_nb.commands.views.frame import provenance

        found = provenance(value)
    elif operation_id := getattr(value, "operation_id", None):
        found["operation_id"] = str(operation_id)
    return {"tundra": found} if found else {}


def bundle(value: Any) -> Bundle:
    """A result as MIME bundle and metadata."""
    from tundra_nb.commands.views import html, show, text

    blocks = show.blocks_of(value)
    return {"text/plain": text.plain(blocks), "text/html": html.render(blocks)}, metadata_of(value)


def register_formatters(shell: Any) -> Callable[[], None]:
    """Have the shell show our results by their views; returns what undoes it."""
    formatters = shell.display_formatter
    bundles, displays = formatters.mimebundle_formatter, formatters.ipython_display_formatter
    for module, name in _VIEWED:
        bundles.for_type_by_name(module, name, bundle)
    for module, name in _FRAMES:
        bundles.for_type_by_name(module, name, _frame_bundle)
    displays.for_type_by_name(*_REPLY, lambda reply: _display_reply(reply, shell))

    def undo() -> None:
        for formatter, keys in ((bundles, (*_VIEWED, *_FRAMES)), (displays, (_REPLY,))):
            for module, name in keys:
                formatter.deferred_printers.pop((module, name), None)
                found = getattr(sys.modules.get(module), name, None)
                formatter.type_printers.pop(found, None)

    return undo


def _display(data: dict[str, Any], **options: Any) -> Any:
    from IPython.display import display

    return display(data, **options)  # type: ignore[no-untyped-call]


def _display_reply(reply: Reply, shell: Any) -> None:
    if any(reply is shown for shown in _shown):
        _shown.clear()
        if not is_kernel(shell):
            from tundra_nb.commands.views.reply import summary

            sys.stdout.write(summary(reply))
        return
    data, metadata = bundle(reply)
    _display(data, raw=True, metadata=metadata)


def _frame_bundle(frame: Any) -> Bundle | None:
    """A frame of ours as pandas shows it, with where it came from below and in the metadata; others as ever."""
    metadata = metadata_of(frame)
    if not metadata:
        own = getattr(frame, "_repr_mimebundle_", None)
        return own() if own is not None else None
    from tundra_nb.commands.views import html
    from tundra_nb.commands.views.blocks import Para, Styled
    from tundra_nb.commands.views.frame import summary

    told = summary(frame)
    table = frame._repr_html_() or ""
    foot = html.render([Para(Styled(told, "dim"))])
    return {"text/plain": f"{frame!r}\n\n{told}", "text/html": f"{table}{foot}"}, metadata
