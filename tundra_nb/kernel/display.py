"""How answers and results look in a notebook.

An answer is one output that grows: at most 20 updates a second, its final form saved once, with the operation's id in
the output's metadata. Everything else is a result with a view, shown by formatters that are registered by name, so
that no view is imported before there is something to show.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tundra_nb.client import times

from .ipython import display_data

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
    ("tundra_nb.client.results", "Stories"),
    ("tundra_nb.client.versions", "Merged"),
    ("tundra_nb.client.pty_story", "PtyStory"),
    ("tundra_nb.client.explain", "Explanation"),
    ("tundra_nb.client.explain", "Contents"),
    ("tundra_nb.guide.pages", "Page"),
    ("tundra_nb.doctor.check", "Checkup"),
    ("tundra_nb.protocol.ptys", "Matched"),
    ("tundra_nb.doctor.bundle", "Bundle"),
    ("tundra_nb.terminal.screen", "Screen"),
    ("tundra_nb.types.triage", "Triage"),
    ("tundra_nb.views", "Compared"),
    ("tundra_nb.views.plots", "Plotted"),
    ("tundra_nb.views", "Message"),
    ("tundra_nb.views", "Lines"),
    ("tundra_nb.views", "Transcript"),
)
_FRAMES = (("pandas", "DataFrame"), ("pandas.core.frame", "DataFrame"))
"""Where pandas since 3.0, and pandas before, says its frames live."""
_LIVE = (
    ("tundra_nb.types.calls", "Reply"),
    ("tundra_nb.client.live", "Run"),
    ("tundra_nb.client.live", "ShellRun"),
)

_shown: list[Any] = []
"""What was shown live last; as the value of the cell it is not shown again."""


def show_live(stream: ReplyStream, shell: Any, asked: str = "") -> Reply:
    """Show an answer while it comes; return its reply. `asked` is the profile that was named."""
    from .growing import can_update

    if not can_update(shell):
        return _print_live(stream)
    output = _Answer(shell, asked)
    stream.on_notice = output.notice
    try:
        with stream:
            for piece in stream:
                output.add(piece)
    except BaseException as exc:
        output.break_off("interrupted" if isinstance(exc, KeyboardInterrupt) else "the answer broke off here")
        raise
    output.finish(stream.reply)
    was_shown(stream.reply)
    return stream.reply


def is_kernel(shell: Any) -> bool:
    """Whether there is a kernel, and so a place for widgets: not in terminal IPython."""
    return getattr(shell, "kernel", None) is not None


class _Answer:
    """One output that is updated as the answer grows."""

    def __init__(self, shell: Any, asked: str) -> None:
        from .growing import Growing

        self._text = ""
        self._asked = asked
        self._notices: list[str] = []
        self._due = 0.0
        self._output = Growing(shell, self._wait)

    def notice(self, told: Mapping[str, Any]) -> None:
        with self._output.lock:
            if told.get("kind") == "attempt":
                self._asked = str(told.get("profile") or "")
                return
            self._notices = [*self._notices, str(told.get("message") or told.get("kind"))][-KEPT_NOTICES:]
            self._draw(self._notices)

    def add(self, piece: str) -> None:
        from .growing import as_of_now

        self._output.settle()
        with self._output.lock:
            self._text += piece
            now = time.monotonic()
            if now >= self._due:
                self._draw([*self._notices, as_of_now("answering")])
                took = time.monotonic() - now
                self._due = now + max(MIN_PAUSE_SECONDS, 4 * took, len(self._text) / CHARS_PER_SECOND)

    def finish(self, reply: Reply) -> None:
        from tundra_nb.views import reply as view

        self._output.settle()
        self._text = reply.text
        foot = view.summary(reply)
        calls = [f"{call.name}({call.arguments})" for call in reply.tool_calls]
        data = self._bundle([foot], code="\n".join(calls))
        self._output.finish(data, metadata_of(reply))

    def break_off(self, why: str) -> None:
        """It has no end: what had come stays, and that nothing had come is no answer that broke off."""
        self._output.settle()
        with self._output.lock:
            if self._text or (self._output.is_shown and why == "interrupted"):
                self._output.finish(self._bundle([*self._notices, why]), {})
            elif self._output.is_shown:
                self._output.finish(self._bundle(self._notices or ["no answer came"]), {})

    def _wait(self, seconds: float) -> None:
        from .growing import as_of_now

        whom = f" {self._asked}" if self._asked else ""
        self._draw([*self._notices, f"{as_of_now(f'asking{whom}')}, {seconds:.0f} s without a word so far"])

    def _draw(self, lines: Sequence[str]) -> None:
        self._output.draw(self._bundle(lines), {})

    def _bundle(self, lines: Sequence[str], *, code: str = "") -> dict[str, Any]:
        from tundra_nb.views import html
        from tundra_nb.views.blocks import Block, Code, Para, Prose, Styled, clean

        blocks: list[Block] = [Prose(self._text)] if self._text else []
        if code:
            blocks.append(Code(code))
        blocks += [Para(Styled(line, "dim")) for line in lines]
        plain = clean("\n\n".join(filter(None, [self._text, code, "\n".join(lines)])))
        return {"text/plain": plain, "text/html": html.render(blocks)}


def _print_live(stream: ReplyStream) -> Reply:
    from tundra_nb.views.blocks import clean

    def notice(told: Mapping[str, Any]) -> None:
        if told.get("kind") != "attempt":
            sys.stderr.write(clean(f"{told.get('message')}\n"))

    stream.on_notice = notice
    with stream:
        for piece in stream:
            sys.stdout.write(clean(piece))
            sys.stdout.flush()
    sys.stdout.write("\n")
    for call in stream.reply.tool_calls:
        sys.stdout.write(clean(f"{call.name}({call.arguments})\n"))
    was_shown(stream.reply)
    return stream.reply


def metadata_of(value: Any) -> dict[str, Any]:
    """What an output's metadata says of where it came from."""
    found: dict[str, Any] = {}
    value = getattr(value, "frame", value) if type(value).__name__ == "Plotted" else value
    if hasattr(value, "attrs"):  # a frame, whose columns are attributes too
        from tundra_nb.views.frame import provenance

        found = provenance(value)
        if found:
            found["rows"] = len(value)
    else:
        for name in ("operation_id", "pty_id"):
            if told := getattr(value, name, None):
                found[name] = str(told)
    return {"tundra": found} if found else {}


def bundle(value: Any) -> Bundle:
    """A result as MIME bundle and metadata."""
    from tundra_nb.views import html, show, text

    blocks = show.blocks_of(value)
    return {"text/plain": text.plain(blocks), "text/html": html.render(blocks)}, metadata_of(value)


def _view_bundle(value: Any) -> Bundle:
    """A result that is looked at, with the SHA-256 of each representation: an edit of a saved one can be found."""
    data, metadata = bundle(value)
    return data, {"tundra": metadata.get("tundra", {}) | _record(data)}


def register_formatters(shell: Any) -> Callable[[], None]:
    """Have the shell show our results by their views; returns what undoes it."""
    formatters = shell.display_formatter
    bundles, displays = formatters.mimebundle_formatter, formatters.ipython_display_formatter
    for module, name in _VIEWED:
        bundles.for_type_by_name(module, name, _view_bundle)
    for module, name in _FRAMES:
        bundles.for_type_by_name(module, name, _frame_bundle)
    for module, name in _LIVE:
        displays.for_type_by_name(module, name, lambda value: _display_live(value, shell))
    shell.events.register("post_run_cell", _forget_shown)

    def undo() -> None:
        shell.events.unregister("post_run_cell", _forget_shown)
        for formatter, keys in ((bundles, (*_VIEWED, *_FRAMES)), (displays, _LIVE)):
            for module, name in keys:
                formatter.deferred_printers.pop((module, name), None)
                found = getattr(sys.modules.get(module), name, None)
                formatter.type_printers.pop(found, None)

    return undo


def was_shown(value: Any) -> None:
    """As the value of the cell, this is not to be shown again."""
    _shown[:] = [value]


def _forget_shown(_result: Any) -> None:
    """The cell is over: asked for by name in a later one, the value is shown again."""
    _shown.clear()


def _display_live(value: Any, shell: Any) -> None:
    if any(value is shown for shown in _shown):
        _shown.clear()
        if not is_kernel(shell):
            from tundra_nb.views import reply, terminal

            told = reply.summary(value) if type(value).__name__ == "Reply" else terminal.summary(value)
            sys.stdout.write(f"{told}\n")
        return
    data, metadata = bundle(value)
    display_data(data, raw=True, metadata=metadata)


def _with_hashes(made: Bundle) -> Bundle:
    """The SHA-256 of each representation that is shown, beside what it was computed from: an edit can be found."""
    data, metadata = made
    if not metadata.get("tundra", {}).get("digest"):
        return made
    return data, metadata | {"tundra": metadata["tundra"] | _record(data)}


def _record(data: Mapping[str, Any]) -> dict[str, Any]:
    """What lets `verify` find an edit: hashes, and what the same values look the same with."""
    shown = {kind: hashlib.sha256(str(text).encode()).hexdigest() for kind, text in data.items()}
    return {"shown": shown, "made_with": _versions(), "zone": times.zone_name()}


@functools.cache
def _versions() -> str:
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("tundra-nb", "pandas"))


def _frame_bundle(frame: Any) -> Bundle | None:
    """See `_frame`; what was read at a pin carries hashes."""
    made = _frame(frame)
    return None if made is None else _with_hashes(made)


def _frame(frame: Any) -> Bundle | None:
    """A frame of ours in our style, with where it came from below and in the metadata; others as ever.

    What a user has made of one, with an index that says something, is shown as pandas shows it.
    """
    metadata = metadata_of(frame)
    if not metadata:
        own = getattr(frame, "_repr_mimebundle_", None)
        return own() if own is not None else None
    import pandas as pd

    from tundra_nb.views import html, text
    from tundra_nb.views.blocks import Block, Para, Styled
    from tundra_nb.views.frame import blocks, notebook_blocks, summary

    banner: list[Block] = []
    if checked_out := frame.attrs.get("checkout"):
        banner = [Para(Styled(f"as of {checked_out} · `%tundra checkout main` shows the present", "warn"))]
    index = frame.index
    if index.nlevels > 1 or frame.columns.nlevels > 1 or not pd.api.types.is_integer_dtype(index.dtype):
        foot = [Para(Styled(summary(frame), "dim"))]
        table = f"{html.render(banner)}{frame._repr_html_() or ''}{html.render(foot)}"
        return {"text/plain": f"{frame!r}\n\n{summary(frame)}", "text/html": table}, metadata
    plain = text.plain([*banner, *blocks(frame)])
    return {"text/plain": plain, "text/html": html.render([*banner, *notebook_blocks(frame)])}, metadata
