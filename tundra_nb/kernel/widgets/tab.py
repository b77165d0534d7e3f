"""Opens a terminal's tab the first time that it is on a page."""

from __future__ import annotations

from typing import Any

import anywidget
import traitlets
from IPython.display import display

from .view import part


class TabOpener(anywidget.AnyWidget):
    """Presses a link to a terminal tab, once. It shows nothing, and in a saved notebook does nothing.

    Args:
        link: class of the output in which the link stands.
    """

    _esm = part("tab.js")
    link = traitlets.Unicode().tag(sync=True)

    def __init__(self, link: str) -> None:
        super().__init__(link=link)
        self._has_opened = False
        self.on_msg(self._heard)

    def _heard(self, *_: Any) -> None:
        if not self._has_opened:
            self._has_opened = True
            self.send({"type": "open"})

    def _ipython_display_(self) -> None:
        bundle = super()._repr_mimebundle_()
        data, metadata = bundle if isinstance(bundle, tuple) else (bundle or {}, {})
        data["text/plain"] = ""
        display(data, raw=True, metadata=metadata)  # type: ignore[no-untyped-call]
