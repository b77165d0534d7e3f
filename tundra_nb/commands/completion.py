"""`tundra completion bash|zsh|fish`: what makes a shell complete our commands."""

from __future__ import annotations

from typing import Literal

import click
from click.shell_completion import get_completion_class

from tundra_nb.views import Message

from .command import PlainCommand
from .command import command as _command
from .face import Face, pass_face
from .table import root

HOW = {
    "bash": 'eval "$(tundra completion bash)"      # in ~/.bashrc',
    "zsh": 'eval "$(tundra completion zsh)"       # in ~/.zshrc',
    "fish": "tundra completion fish | source       # in ~/.config/fish/config.fish",
}


@_command("completion", cls=PlainCommand)
@click.argument("shell", type=click.Choice(list(HOW)), required=False)
@pass_face
def command(face: Face, shell: Literal["bash", "zsh", "fish"] | None) -> Message | None:
    """Print the lines that make a shell complete commands, options and values; without SHELL, where they go."""
    if shell is None:
        return Message("\n".join(HOW.values()))
    kind = get_completion_class(shell)
    assert kind is not None
    face.write(f"{kind(root, {}, 'tundra', '_TUNDRA_COMPLETE').source()}\n")
    return None
