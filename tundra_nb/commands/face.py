"""What differs between the command line and a notebook, as commands see it."""

from __future__ import annotations

import abc
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

import click

from tundra_nb.errors import UsageError
from tundra_nb.errors.spelling import as_typed
from tundra_nb.types import Reply

if TYPE_CHECKING:
    from tundra_nb.client.live import Live, R
    from tundra_nb.client.sync import Client, ReplyStream


class Face(abc.ABC):
    """Where a command was given, and where its output goes while it runs.

    `body` is the cell below a cell magic, or standard input of the command line; None when there is none.
    """

    name: Literal["cli", "kernel", "agent"]
    prefix: str
    """Put before a command to give it: `tundra ` or `%tundra `."""

    def __init__(self, body: str | None = None) -> None:
        self.body = body
        self.wants_json = False

    @property
    @abc.abstractmethod
    def client(self) -> Client:
        """The client, connected when it is used."""

    @abc.abstractmethod
    def show_answer(self, stream: ReplyStream, asked: str = "") -> Reply:
        """Show an answer while it comes; return its reply. `asked` is the profile that was named, if any."""

    @abc.abstractmethod
    def show_output(self, live: Live[R]) -> R:
        """Show the output of a command while it comes; return how it ended."""

    @abc.abstractmethod
    def write(self, text: str) -> None:
        """Show lines while the command goes on."""

    def show_lines(self, texts: Iterator[str]) -> None:
        """Show lines as they come, until interrupted; an empty text says that nothing has come."""
        for text in texts:
            if text:
                self.write(text)

    def progress(self, text: str) -> None:
        """Show how far a command is, in place of what was shown before; empty takes it away."""
        del text  # a face without a screen shows nothing

    def cells(self) -> Sequence[str]:
        """The last cells of the notebook, oldest first; none on the command line."""
        return ()

    def confirm(self, question: str) -> bool:
        """Ask a person yes or no; no where nobody can be asked."""
        del question
        return False

    def offer_cell(self, text: str) -> None:
        """Put lines where the person can run them next."""
        self.write(f"{text}\n")

    def widget(self, name: str, *given: Any) -> Any:
        """A live view, for the face to show, of what its command was given.

        Raises:
            UsageError: here nothing can be shown live.
        """
        raise UsageError(
            problem=f"the live view of {name} needs a notebook",
            field="--widget",
            remedy=f"Leave --widget out, or give `%tundra {name} --widget` in JupyterLab.",
        )

    def terminal_widget(self, pty_id: str) -> Any:
        """The live screen of a PTY, for the face to show.

        Raises:
            UsageError: here nothing can be shown live.
        """
        return self.widget(f"pty show {pty_id}")

    def link_terminal(self, pty_id: str, *, opens: bool = False) -> None:
        """Show where a PTY is as a terminal tab of Jupyter's; with `opens`, open it where that can be done."""
        del opens
        self.write(f"tundra-{pty_id} in Jupyter's list of running terminals\n")

    @property
    def shows_live(self) -> bool:
        """Whether `widget` can show something here."""
        return False

    @property
    def shows_frames(self) -> bool:
        """Whether results are DataFrames for further work, rather than for reading."""
        return self.name == "kernel"

    def words(self, text: str) -> str:
        """A text in which commands are given as this face gives them."""
        return text if self.prefix == "%tundra " else as_typed(text, self.prefix)

    def take_body(self, text: Sequence[str] = (), *, waits: bool = True) -> str | None:
        """The body, taken by the command that understands it.

        Args:
            text: what was given as arguments; beside it the command line leaves standard input alone.
            waits: for standard input to come; otherwise only what is there already is taken.
        """
        del text, waits  # a cell is whole
        body, self.body = self.body, None
        return body

    def check_body_taken(self, command: str) -> None:
        """Refuse a cell below a command that takes none.

        Raises:
            UsageError: there is one.
        """
        if self.name == "kernel" and self.body is not None and self.body.strip():
            if not command:
                raise UsageError(
                    problem="`%%tundra` alone takes no text in the cell below it",
                    field="cell",
                    remedy="Name what to do with the text, as `%%tundra ask` does.",
                )
            raise UsageError(
                problem=f"`{command}` takes no text in the cell below it",
                field="cell",
                remedy=f"Put it on a line of its own: `%tundra {command}`.",
            )


pass_face = click.make_pass_decorator(Face)  # type: ignore[type-abstract]


def face_of(ctx: click.Context) -> Face:
    """The face that a command was given on."""
    found = ctx.find_object(Face)  # type: ignore[type-abstract]
    assert found is not None
    return found
