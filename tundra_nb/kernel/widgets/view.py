"""What all widgets have in common: one state that the script draws, and a static picture beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import anywidget
import msgspec
import traitlets
from IPython.display import DisplayHandle, display

from tundra_nb.client.sync import Client
from tundra_nb.errors import TundraError

from . import messages

_HERE = Path(__file__).parent


def part(name: str, *, shared: bool = True) -> str:
    """A script or style file of this package; `shared`: with what all of its kind share before it."""
    kind = name.rpartition(".")[2]
    files = (f"shared.{kind}", name) if shared else (name,)
    return "\n".join((_HERE / file).read_text(encoding="utf-8") for file in files)


class LiveView(anywidget.AnyWidget):
    """A widget over a client's daemon.

    It looks through a connection of its own, which never starts a daemon. `close` ends what goes on behind it, and
    that connection.
    """

    state = traitlets.Dict().tag(sync=True)
    """A message of `messages`, as plain values."""
    still = traitlets.Unicode().tag(sync=True)
    """Class of the static pictures, by which the script finds them."""
    from_script: ClassVar[Any] = messages.FromScript
    """The messages that it understands."""
    without_kernel: ClassVar[str]
    """What stands in place of the live view where there is no kernel."""

    def __init__(self, client: Client) -> None:
        super().__init__()
        self.still = f"tundra-still-{self.model_id}"
        self._client = Client(link=client.link.quiet(), caller=client.caller)
        self._views: set[str] = set()
        self._stills: list[DisplayHandle] = []
        self.on_msg(self._heard)

    def look(self) -> None:
        """Fetch the state once, and show what has changed."""
        raise NotImplementedError

    def _picture(self) -> tuple[str, str]:
        """The static picture: HTML and plain text."""
        raise NotImplementedError

    def _shown(self) -> None:
        """A view of it is on a page."""

    def _hidden(self) -> None:
        """No view of it is on any page, or it is closed."""

    def _act(self, told: Any) -> None:
        """Do what its script asks for; nobody sees what is raised. May run beside the user's code, in the thread of a
        subshell: what it shares with looks is locked.
        """

    def close(self) -> None:
        """End what goes on behind it, and take it off every page; its static picture stays."""
        if hasattr(self, "_client"):  # the base class closes what failed to be made, too
            self._hidden()
            self._client.close()
        super().close()

    def _tell(self, state: msgspec.Struct) -> None:
        """Send a state to the script, where it is another."""
        plain = msgspec.to_builtins(state)
        if plain != self.state:
            self.state = plain

    def _update_stills(self) -> None:
        if self._stills:
            data = self._still()
            for still in self._stills:
                still.update(data, raw=True)  # type: ignore[no-untyped-call]

    def _still(self) -> dict[str, str]:
        fragment, plain = self._picture()
        # the script hides this class while the widget lives
        return {"text/html": f'<div class="{self.still}">{fragment}</div>', "text/plain": plain}

    def _ipython_display_(self) -> None:
        self.look()
        still = display(self._still(), raw=True, display_id=True)  # type: ignore[no-untyped-call]
        if still is not None:
            self._stills.append(still)
        bundle = super()._repr_mimebundle_()
        data, metadata = bundle if isinstance(bundle, tuple) else (bundle or {}, {})
        data["text/plain"] = self.without_kernel
        display(data, raw=True, metadata=metadata)  # type: ignore[no-untyped-call]
        self._shown()

    def _heard(self, _: Any, content: Any, __: Any) -> None:
        try:
            told = msgspec.convert(content, self.from_script)
        except msgspec.ValidationError:
            return  # a newer or older script than this kernel's
        match told:
            case messages.ViewOpened(view=view):
                self._views.add(view)
                self._shown()
            case messages.ViewClosed(view=view):
                self._views.discard(view)
                if not self._views:
                    self._hidden()
            case _:
                self._act(told)


def problem(error: TundraError) -> str:
    """An error, and what to do about it, as one line."""
    return f"{error.message}. {error.hint}".strip()
