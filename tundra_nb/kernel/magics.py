"""`%tundra` and `%%tundra`: a command of the table, given in a notebook."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from IPython.core.magic import (
    Magics,
    line_cell_magic,
    magics_class,
    needs_local_scope,
    no_var_expand,
)

from .interrupt import interruptible

if TYPE_CHECKING:
    from tundra_nb.client.sync import Client
    from tundra_nb.commands.face import Face

TRACEBACK = "--traceback"
"""Anywhere before the command: show the whole traceback of an error instead of its one line."""


@magics_class
class TundraMagics(Magics):
    """The magics of one shell, and their client."""

    shell: Any

    def __init__(self, shell: Any) -> None:
        super().__init__(shell)
        self._client: Client | None = None

    @property
    def client(self) -> Client:
        """The client of this kernel; made at first use, connected when a command needs it."""
        if self._client is None:
            from tundra_nb.client.sync import Client

            self._client = Client(caller="kernel")
            self._client.link.on_wait = lambda seconds: print(f"waiting for the daemon ({seconds:.0f} s)", flush=True)
        return self._client

    def face(self, body: str | None = None) -> Face:
        """A face for one command."""
        from .notebook import Notebook

        return Notebook(self.shell, lambda: self.client, body)

    @no_var_expand
    @needs_local_scope
    @line_cell_magic
    def tundra(self, line: str, cell: str | None = None, local_ns: Mapping[str, Any] | None = None) -> Any:
        r"""Give a tundra command; `%tundra --help` lists them.

        `x = %tundra calls --since 1h` binds the result, as does `%%tundra sql --as x` for a cell; `{{name}}` stands for
        a variable's text, `\{{` for two braces, and a semicolon at the line's end shows nothing.
        """
        from tundra_nb.errors import TundraError

        line = line.strip()
        wants_traceback = line.startswith(TRACEBACK) or line.endswith(f" {TRACEBACK}")
        if wants_traceback:
            line = line.removeprefix(TRACEBACK).removesuffix(f" {TRACEBACK}")
        try:
            with interruptible():
                result = self._run(line, cell, local_ns)
        except TundraError as error:
            if wants_traceback:
                self._show_whole(error)
            raise
        return result

    def close(self) -> None:
        """Detach from the daemon and close the connections."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def _run(self, line: str, cell: str | None, local_ns: Mapping[str, Any] | None) -> Any:
        from tundra_nb.commands import command as commands
        from tundra_nb.commands.table import root

        from .line import asks_for_help, expand, split

        if cell is None and asks_for_help(line, root):
            line = f"{line.rstrip('?')} --help"
        names = self._names()
        if local_ns is self.shell.user_ns:  # not in a function
            local_ns = None
        words = split(line, root, names, local_ns)
        # IPython ends each cell with a newline of its own
        face = self.face(None if cell is None else expand(cell.removesuffix("\n"), names, local_ns))
        try:
            result = commands.run(root, words, face)
        finally:
            if self._client is not None and self._client.link.place is not None:
                self._client.attach("kernel")
        if result.form and result.value is not None:
            from tundra_nb.views.data import printed

            print(printed(result.value, result.form))
        if result.as_name is not None:
            self.shell.push({result.as_name: result.value})
        return None if result.form or result.as_name is not None else result.value

    def _names(self) -> Mapping[str, Any]:
        """What is the user's own, without what the shell has put among it: `exit`, `open`, `get_ipython`."""
        hidden = self.shell.user_ns_hidden
        shells = {name for name in ("exit", "quit") if callable(self.shell.user_ns.get(name))}
        return {
            name: value
            for name, value in self.shell.user_ns.items()
            if name.startswith("_")
            or name in ("In", "Out")
            or (name not in shells and hidden.get(name, self) is not value)
        }

    def _show_whole(self, error: BaseException) -> None:
        def render() -> list[str]:
            told: list[str] = self.shell.InteractiveTB.structured_traceback(type(error), error, error.__traceback__)
            return told

        vars(error)["_render_traceback_"] = render
