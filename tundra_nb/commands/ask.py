"""`tundra ask`: ask a model."""

from __future__ import annotations

import click

from tundra_nb.client import api
from tundra_nb.types import Reply

from . import options
from .command import TextCommand
from .command import command as _command
from .face import Face, pass_face


@_command("ask", cls=TextCommand)
@click.argument("text", nargs=-1)
@options.profile("Ask this profile first.")
@click.option("-m", "--model", help="Instead of the profile's own model.")
@click.option("-s", "--system", help="System prompt.")
@click.option("--max-tokens", type=click.IntRange(min=1), help="Longest answer.")
@click.option("--temperature", type=float, help="As the provider defines it.")
@click.option("--no-failover", is_flag=True, help="No other profile may answer.")
@click.option("--record", is_flag=True, help="Keep request and answer, masked: for `why` and `replay`.")
@pass_face
def command(
    face: Face,
    text: tuple[str, ...],
    profile: str | None,
    model: str | None,
    system: str | None,
    max_tokens: int | None,
    temperature: float | None,
    no_failover: bool,
    record: bool,
) -> Reply:
    """Ask a model; the answer appears as it comes.

    TEXT is the prompt. In a notebook the cell below `%%tundra ask` is; on the command line standard input is, when
    there is no TEXT.
    """
    parts = [" ".join(text), face.take_body(text) or ""]
    question = api.question(
        "\n\n".join(part for part in parts if part.strip()),
        profile=profile,
        model=model,
        system=system,
        max_tokens=max_tokens,
        temperature=temperature,
        failover=not no_failover,
        record=record,
    )
    if face.wants_json and not face.shows_frames:
        return face.client.ask_as(question)
    return face.show_answer(face.client.ask_as(question, stream=True), profile or "")
