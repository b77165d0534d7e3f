"""`tundra pty …`: the open pseudo-terminals, and dialogues with what runs in them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tundra_nb.client.pty_story import PtyStory
from tundra_nb.client.results import Document
from tundra_nb.errors import UsageError
from tundra_nb.protocol.ptys import Matched
from tundra_nb.views import Message, Transcript

from . import options
from .command import CodeCommand, Command, Group, ShellCommand
from .face import Face, pass_face

if TYPE_CHECKING:
    import pandas as pd

pty_id = click.argument("pty_id", metavar="ID", type=options.PtyId())


@click.group("pty", cls=Group)
@click.pass_context
@pass_face
def command(face: Face, ctx: click.Context) -> pd.DataFrame | None:
    """The pseudo-terminals that are open."""
    return _listed(face) if ctx.invoked_subcommand is None else None


@command.command("list", cls=Command)
@pass_face
def list_(face: Face) -> pd.DataFrame:
    """The pseudo-terminals that are open, and on the last line what their transcripts take of the disk."""
    return _listed(face)


def _listed(face: Face) -> pd.DataFrame:
    found = face.client.ptys()
    used = found.attrs.get("transcripts")
    if used and not face.wants_json:
        share = f"{used['used_bytes'] / 1e6:,.1f} of {used['limit_bytes'] / 1e6:,.0f} MB"
        face.write(f"Transcripts: {share} (`pty.transcripts_mb`); those of ended terminals go first.\n")
        stopped = [f"{row.pty_id}: {row.warning}" for row in found.itertuples() if isinstance(row.warning, str)]
        face.write("".join(f"{line}\n" for line in stopped))
    return found


@command.command("open", cls=ShellCommand)
@click.argument("text", nargs=-1)
@click.option("--rows", type=int, help="Rows of the screen.  [default: 24]")
@click.option("--columns", type=int, help="Columns of the screen.  [default: 80]")
@click.option("--persistent", is_flag=True, help="Do not end it when nobody looks at it, or nothing happens.")
@click.option("--widget", is_flag=True, help="Notebook: a live screen to type into.")
@click.option(
    "--lab", is_flag=True, help="Notebook: open it in a terminal tab of Jupyter's; elsewhere, say where it is."
)
@options.child
@pass_face
def open_(
    face: Face,
    text: tuple[str, ...],
    rows: int | None,
    columns: int | None,
    persistent: bool,
    widget: bool,
    lab: bool,
    cwd: str | None,
    env: tuple[str, ...],
    with_keys: tuple[str, ...],
) -> Any:
    """Start a command that lives on, to talk to; TEXT is its command line, a bash by default.

    It is ended `pty.grace_seconds` after its last viewer (a terminal tab) has gone, and when it has been idle (no
    output, input, or CPU time) for `pty.idle_seconds`.
    """
    opened = face.client.ptys.open(
        " ".join(text) or "bash",
        rows=rows,
        columns=columns,
        cwd=cwd,
        env=options.variables(env),
        with_keys=with_keys,
        persistent=persistent,
    )
    if lab:
        face.link_terminal(opened.id, opens=True)
    return face.terminal_widget(opened.id) if widget else opened.info


@command.command("show", cls=Command)
@pty_id
@click.option("--text", "is_text", is_flag=True, help="All output instead of the screen.")
@click.option("--widget", is_flag=True, help="Notebook: a live screen to type into.")
@pass_face
def show(face: Face, pty_id: str, is_text: bool, widget: bool) -> Any:
    """The screen of a PTY, open or ended, as it stands."""
    if widget:
        return face.terminal_widget(pty_id)
    pty = face.client.ptys[pty_id]
    if is_text:
        return Transcript(pty.raw)
    screen = pty.screen
    if not face.wants_json and pty_id in face.client.ptys.ids():
        face.link_terminal(pty_id)
    return screen


@command.command("why", cls=Command)
@pty_id
@pass_face
def why(face: Face, pty_id: str) -> PtyStory:
    """What happened to a PTY: who looked at it, when they were lost and what they missed, and why it ended."""
    return face.client.ptys.why(pty_id)


@command.command("send", cls=Command)
@pty_id
@click.argument("words", metavar="TEXT", nargs=-1)
@click.option("--no-enter", is_flag=True, help="Do not type Enter after it.")
@pass_face
def send(face: Face, pty_id: str, words: tuple[str, ...], no_enter: bool) -> Message:
    """Type TEXT and Enter into a PTY."""
    warning = face.client.ptys[pty_id].send(" ".join(words) + ("" if no_enter else "\n"))
    return Message(f"Typed, but {warning}." if warning else "Typed.")


@command.command("expect", cls=Command)
@pty_id
@click.argument("pattern")
@click.option("--send", "typed", metavar="TEXT", help="Then type this and Enter.")
@click.option(
    "--send-env",
    type=options.Variable(),
    metavar="NAME",
    help="Then type the value of this variable and Enter, once nothing echoes.",
)
@click.option("--timeout", type=float, default=30.0, show_default=True, metavar="SECONDS", help="Wait so long.")
@pass_face
def expect(face: Face, pty_id: str, pattern: str, typed: str | None, send_env: str | None, timeout: float) -> Matched:
    """Wait until the output of a PTY matches PATTERN, from the last match on; then type what is asked for.

    PATTERN is a regular expression. A secret is given by its variable's name: its value never stands in a notebook,
    and is masked wherever it would appear.
    """
    if typed is not None and send_env is not None:
        raise UsageError(problem="--send and --send-env exclude each other", field="--send")
    pty = face.client.ptys[pty_id]
    matched = pty.expect(pattern, timeout)
    if typed is not None and (warning := pty.send(f"{typed}\n")):
        face.write(f"{warning}\n")
    if send_env is not None:
        pty.send_secret(send_env)
    return matched


@command.command("interrupt", cls=Command)
@pty_id
@pass_face
def interrupt(face: Face, pty_id: str) -> Message:
    """Interrupt what runs in a PTY, as Ctrl-C does; commands and cells also harder, until they end."""
    sent = face.client.ptys[pty_id].interrupt()
    return Message(f"Interrupted ({sent})." if sent else "Nothing was running.")


@command.command("kill", cls=Command)
@pty_id
@pass_face
def kill(face: Face, pty_id: str) -> Document:
    """End a PTY and every process of its session."""
    pty = face.client.ptys[pty_id]
    pty.close()
    return pty.info


@command.command("resize", cls=Command)
@pty_id
@click.option("--rows", type=int, required=True)
@click.option("--columns", type=int, required=True)
@pass_face
def resize(face: Face, pty_id: str, rows: int, columns: int) -> Document:
    """Change the size of a PTY's screen."""
    pty = face.client.ptys[pty_id]
    pty.resize(rows, columns)
    return pty.info


@command.command("export", cls=Command)
@pty_id
@click.argument("file", type=click.Path(dir_okay=False), required=False)
@pass_face
def export(face: Face, pty_id: str, file: str | None) -> Message:
    """Write a PTY's session to FILE as an asciicast v2 recording, which asciinema plays."""
    path = Path(file or f"{pty_id}.cast")
    made = face.client.ptys[pty_id].asciicast()
    try:
        path.write_text(made, encoding="utf-8")
    except OSError as exc:
        raise UsageError(problem=f"{path} cannot be written: {exc.strerror}", field="file") from exc
    return Message(f"{path}: {made.count(chr(10)) - 1:,} events.")


@command.command("search", cls=CodeCommand)
@click.argument("pattern", nargs=-1)
@click.option("--limit", type=click.IntRange(1, 1000), default=1000, help="At most so many lines.")
@pass_face
def search(face: Face, pattern: tuple[str, ...], limit: int) -> pd.DataFrame:
    """Lines of all transcripts, open and kept, that match PATTERN (a regular expression); newest session first."""
    return face.client.ptys.search(" ".join(pattern), limit)
