"""The notebook's face: `%tundra` and `%%tundra`, their completion, and how results look in a notebook.

What lives here: the magic (`magics`), the reading of its line (`transform`, `line`), output that grows (`growing`,
`output`), the live answer and the formatters (`display`), completion (`completion`), and interrupts (`interrupt`). It
is separate because it is all that needs IPython: a magic parses, calls a command, returns its result. May import
`commands` and what is below it, and IPython. Works in Jupyter kernels, terminal IPython, nbclient and papermill;
`%load_ext` must stay below 60 ms, so commands are imported at first use.
"""

from __future__ import annotations

from typing import Any

_LOADED = "_tundra_extension"


def load(shell: Any) -> None:
    """Put the magics, their completion and the formatters into a shell; twice is once."""
    if getattr(shell, _LOADED, None) is not None:
        return
    from .completion import make_matcher
    from .display import register_formatters
    from .magics import TundraMagics
    from .transform import TundraLine

    magics = TundraMagics(shell)
    shell.register_magics(magics)
    matcher = make_matcher(magics)
    if shell.Completer is not None:
        shell.Completer.custom_matchers.append(matcher)
    shell.input_transformer_manager.token_transformers.append(TundraLine)
    undo = register_formatters(shell)
    setattr(shell, _LOADED, (magics, matcher, undo))


def unload(shell: Any) -> None:
    """Take all of it out again, and detach from the daemon."""
    found = getattr(shell, _LOADED, None)
    if found is None:
        return
    from .transform import TundraLine

    magics, matcher, undo = found
    setattr(shell, _LOADED, None)
    undo()
    if shell.Completer is not None and matcher in shell.Completer.custom_matchers:
        shell.Completer.custom_matchers.remove(matcher)
    transformers = shell.input_transformer_manager.token_transformers
    if TundraLine in transformers:
        transformers.remove(TundraLine)
    for kind in ("line", "cell"):
        shell.magics_manager.magics[kind].pop("tundra", None)
    magics.close()
