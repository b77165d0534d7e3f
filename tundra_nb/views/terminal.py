"""What commands, shells, dialogues and screens look like."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

from tundra_nb.client.live import Run, ShellRun
from tundra_nb.client.pty_story import PtyStory
from tundra_nb.protocol.ptys import Matched
from tundra_nb.terminal.screen import Screen

from .blocks import Block, Cell, Facts, Heading, Output, Para, Shot, Styled, Table, Tone, duration, open_terminal

SHOWN_CHARACTERS = 200_000
"""How much of an output is shown: a notebook that carries more becomes slow to open."""


def run_blocks(run: Run) -> Sequence[Block]:
    """The output, and the line on how it ended."""
    made: list[Block] = []
    text = run.raw
    if len(text) > SHOWN_CHARACTERS:
        left = len(text) - SHOWN_CHARACTERS
        made.append(Para(Styled(f"… {left:,} characters before this are left out: `.text` has all of it", "dim")))
        text = text[-SHOWN_CHARACTERS:]
    if text:
        made.append(Output(text))
    return [*made, Para(Styled(summary(run), "dim" if run.is_ok else "bad"))]


def summary(run: Run) -> str:
    """One line: how it ended, how long it took, where its output is."""
    told = [run.ending, duration(run.seconds), f"PTY {run.pty_id}"]
    if isinstance(run, ShellRun) and run.cwd and not run.is_shell_ended:
        told.append(run.cwd)
    return " · ".join(told)


def matched_blocks(matched: Matched) -> Sequence[Block]:
    """What came before the match, the match, and its groups."""
    facts: list[tuple[str, Cell]] = [("pattern", str(matched.index)), ("matched", repr(matched.after))]
    facts += [(f"group {number}", repr(group)) for number, group in enumerate(matched.groups, 1)]
    before = matched.before[-SHOWN_CHARACTERS:]
    return [*([Output(before)] if before.strip() else []), Facts(facts)]


def screen_blocks(screen: Screen) -> Sequence[Block]:
    """The screen as it stands."""
    return [*([Heading(screen.title)] if screen.title else []), Shot(screen)]


def tab(pty_id: str, place: str) -> Sequence[Block]:
    """A link to a terminal's tab, and where else it is found."""
    return [
        Para(Styled(f"tundra-{pty_id}: open its terminal tab", None, open_terminal(pty_id))),
        Para(Styled(place, "dim")),
    ]


def story_blocks(story: PtyStory) -> Sequence[Block]:
    """How it ended, and each step with the time."""
    tone: Tone | None = {"exited": "good", "running": None}.get(story.state, "warn")
    head = f"PTY {story.pty_id}: {story.state}" + (f", {story.ending}" if story.ending else "")
    rows: list[list[Cell]] = [
        [
            dt.datetime.fromtimestamp(step.at / 1e6, dt.UTC).astimezone().strftime("%H:%M:%S"),
            step.who,
            Styled(step.state, "warn" if step.state == "lost" else None),
            step.what,
            f"{step.bytes_missed:,}" if step.bytes_missed else "",
        ]
        for step in story.steps
    ]
    columns = ["at", "who", "state", "what", "bytes missed"]
    return [Heading(Styled(head, tone)), Para(story.command), Table(columns, rows, right=frozenset({4}))]
