"""`tundra …`, also `jupyter tundra …`: the commands on the command line.

Exit codes: 0 fine, 1 found something wrong, 2 wrong usage. Results go to standard output, everything else to standard
error.
"""

from __future__ import annotations

import errno
import io
import os
import select
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TextIO

from tundra_nb._version import __version__
from tundra_nb.commands import command as commands
from tundra_nb.commands.face import Face
from tundra_nb.commands.table import root
from tundra_nb.errors import ConfigError, TundraError, UsageError
from tundra_nb.paths import PERMISSION
from tundra_nb.types import Reply

if TYPE_CHECKING:
    from tundra_nb.client.live import Live, R
    from tundra_nb.client.sync import Client, ReplyStream

COMPLETE = "_TUNDRA_COMPLETE"
"""Variable by which shells ask, as click has it."""
PAGED_ROWS = 1000
"""A frame with more rows is paged in a terminal; a pipe gets all."""
INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""


class CommandLine(Face):
    """The command line as a face. The client stays attached while the command runs."""

    name = "cli"
    prefix = "tundra "

    def __init__(self) -> None:
        super().__init__()
        self._client: Client | None = None
        self._has_read = False

    @property
    def client(self) -> Client:
        if self._client is None:
            from tundra_nb.client.sync import Client

            self._client = Client(caller="cli")
            self._client.link.on_wait = lambda seconds: print(
                f"waiting for the daemon ({seconds:.0f} s)", file=sys.stderr, flush=True
            )
        return self._client

    def take_body(self, text: Sequence[str] = (), *, waits: bool = True) -> str | None:
        """Standard input, when something is piped into it and no text was given as arguments."""
        if text or self._has_read or sys.stdin is None or sys.stdin.isatty():
            return None
        if not waits and not _is_there(sys.stdin):
            return None
        self._has_read = True
        try:
            return sys.stdin.buffer.read().decode()
        except UnicodeDecodeError as exc:
            raise UsageError(
                problem=f"standard input is not UTF-8: byte {exc.start + 1} is {exc.object[exc.start]:#04x}",
                field="stdin",
                remedy="Convert it, for example with `iconv -f latin1 -t utf-8`.",
            ) from None

    def show_answer(self, stream: ReplyStream, asked: str = "") -> Reply:
        del asked  # a terminal shows what is under way by itself: the prompt has not come back
        from tundra_nb.views.blocks import clean
        from tundra_nb.views.reply import summary

        def notice(told: Mapping[str, Any]) -> None:
            if told.get("kind") != "attempt":
                print(clean(str(told.get("message", ""))), file=sys.stderr, flush=True)

        stream.on_notice = notice
        ends_line = True
        try:
            with stream:
                for piece in stream:
                    text = clean(piece)
                    sys.stdout.write(text)
                    sys.stdout.flush()
                    ends_line = text.endswith("\n") if text else ends_line
        finally:  # what is said of an answer that broke off begins a line of its own
            if not ends_line:
                print(flush=True)
        for call in stream.reply.tool_calls:
            print(clean(f"{call.name}({call.arguments})"))
        print(clean(summary(stream.reply)), file=sys.stderr)
        return stream.reply

    def show_output(self, live: Live[R]) -> R:
        from tundra_nb.terminal.ansi import Colours
        from tundra_nb.views.terminal import summary

        colours = Colours(are_kept=sys.stdout.isatty())

        def show(piece: str) -> None:
            sys.stdout.write(colours.feed(piece.replace("\r\n", "\n")))
            sys.stdout.flush()

        run = live.drain(show)
        if run.raw and not run.raw.endswith("\n"):
            print(flush=True)
        print(summary(run), file=sys.stderr)
        return run

    def write(self, text: str) -> None:
        stream = sys.stderr if self.wants_json else sys.stdout  # what a program reads is the result alone
        stream.write(text)
        stream.flush()

    def progress(self, text: str) -> None:
        if sys.stderr.isatty():
            sys.stderr.write(f"\r\x1b[K{text}")
            sys.stderr.flush()

    def confirm(self, question: str) -> bool:
        if sys.stdin is None or not sys.stdin.isatty():
            return False
        self.progress("")
        sys.stderr.write(f"{self.words(question)} [y/N] ")
        sys.stderr.flush()
        return sys.stdin.readline().strip().lower() in ("y", "yes")

    def close(self) -> None:
        if self._client is not None:
            self._client.close()


def _is_there(stream: TextIO) -> bool:
    """Whether a stream can be read without waiting: it has something, or is at its end."""
    try:
        return bool(select.select([stream], [], [], 0)[0])
    except (OSError, ValueError):  # it has no descriptor
        return True


def main(args: Sequence[str] | None = None) -> None:
    """Entry point of the scripts; ends the process."""
    if asked := os.environ.get(COMPLETE):
        sys.exit(_complete(asked))
    sys.exit(run(sys.argv[1:] if args is None else args))


def _complete(asked: str) -> int:
    """Answer a shell that completes a line, or print the script that makes it ask (`bash_source`)."""
    from click.shell_completion import shell_complete

    face = CommandLine()
    try:
        return shell_complete(root, {"obj": face}, "tundra", COMPLETE, asked)
    except TundraError:  # a line that is no command yet
        return 1
    finally:
        face.close()


def run(args: Sequence[str]) -> int:
    """Run one command line; return the exit code."""
    if sys.stderr is None:  # closed: `print` would take standard output for it
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - until the process ends
    if sys.stdout is None:
        print("standard output is closed", file=sys.stderr)
        return 1
    try:
        code = _run(args)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read our output has enough
        _silence()
        return 0
    except OSError as exc:
        if exc.filename is not None or exc.errno not in _UNWRITABLE:
            raise
        _silence()
        print(f"standard output cannot be written: {exc.strerror}", file=sys.stderr)
        return 1
    return code


_UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF)


def _silence() -> None:
    """Let what is left in the buffer of standard output go nowhere, also when the process ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def _run(args: Sequence[str]) -> int:
    if list(args) == ["--version"]:
        print(f"tundra {__version__}")
        return 0
    face = CommandLine()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal of another encoding shows the rest
    try:
        _check_encoding(args)
        result = commands.run(root, args, face)
        if result.value is not None and (result.form or not _was_shown(result.value)):
            _print(result, face)
    except TundraError as error:
        _print_error(error, face)
        return 2 if isinstance(error, UsageError) else 1
    except PermissionError as exc:
        if exc.filename is None:
            raise
        _print_error(ConfigError(where=os.fsdecode(exc.filename), problem=exc.strerror or "", remedy=PERMISSION), face)
        return 1
    except KeyboardInterrupt as interrupt:
        print(f"interrupted: {interrupt}" if interrupt.args else "interrupted", file=sys.stderr)
        return INTERRUPTED
    finally:
        face.close()
    return result.exit_code


def _was_shown(value: object) -> bool:
    """Whether it is the end of something that was shown while it came."""
    from tundra_nb.client.live import Run

    return isinstance(value, Reply | Run)


def _check_encoding(args: Sequence[str]) -> None:
    """Refuse arguments that are not UTF-8: Python passes their bytes on as halves of surrogate pairs.

    Raises:
        UsageError: one is not.
    """
    for number, arg in enumerate(args, 1):
        if any("\ud800" <= character <= "\udfff" for character in arg):
            told = arg.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
            raise UsageError(
                problem=f"argument {number} is not UTF-8: {told[:40]!r}",
                field=f"argument {number}",
                remedy="Give it in UTF-8; the locale of this shell is another one.",
            )


def _print(result: commands.Result, face: Face) -> None:
    value = result.value
    _warn_of_lack(value, face)
    if result.form:
        from tundra_nb.views.data import advised, printed

        told = value.to_wire() if isinstance(value, TundraError) else value
        print(printed(advised(told, face.words), result.form))
        return
    if isinstance(value, TundraError):
        _print_error(value, face)
        return
    pandas = sys.modules.get("pandas")
    is_frame = pandas is not None and isinstance(value, pandas.DataFrame)
    if is_frame and not sys.stdout.isatty():
        _print_plain(value, face)
        return
    from rich.console import Console

    from tundra_nb.views import show, text
    from tundra_nb.views.frame import blocks

    console = Console(highlight=False, emoji=False, markup=False)
    with console.capture() as captured:
        text.show(blocks(value, PAGED_ROWS) if is_frame else show.blocks_of(value), console)
    _page(face.words(captured.get()), console.height)


def _print_plain(frame: Any, face: Face) -> None:
    """A frame for a pipe: all of it on standard output; that there is nothing is told beside it."""
    from tundra_nb.views.data import advised
    from tundra_nb.views.frame import emptiness, plain_lines

    if frame.empty:
        print(face.words(emptiness(frame)), file=sys.stderr)
    width = os.environ.get("COLUMNS", "")
    for line in plain_lines(advised(frame, face.words), int(width) if width.isdigit() and int(width) > 0 else None):
        sys.stdout.write(f"{line}\n")


def _page(text: str, height: int) -> None:
    """Write to the terminal, through a pager where it is longer than the screen; `PAGER=cat` never does."""
    import shlex
    import shutil
    import subprocess

    command = shlex.split(os.environ.get("PAGER", "less"))
    if not sys.stdout.isatty() or text.count("\n") < height or not command or shutil.which(command[0]) is None:
        sys.stdout.write(text)
        return
    env = {"LESS": "FRX", **os.environ}  # colours as they are; what fits is only printed
    subprocess.run(command, input=text.encode(), env=env, check=False)


def _warn_of_lack(value: object, face: Face) -> None:
    """Say on standard error that a frame is not whole: what reads our output may not look at its foot."""
    pandas = sys.modules.get("pandas")
    if pandas is None or not isinstance(value, pandas.DataFrame):
        return
    from tundra_nb.views.frame import is_cut

    if (lack := is_cut(value)) is not None:
        print(face.words(f"warning: {lack}"), file=sys.stderr)


def _print_error(error: TundraError, face: Face) -> None:
    from tundra_nb.views.blocks import clean

    print(clean(f"{error.code}: {error.message}"), file=sys.stderr)
    if error.hint:
        print(clean(face.words(f"  → {error.hint}")), file=sys.stderr)


if __name__ == "__main__":
    main()
