"""`tundra triage`: what failed, since when, whom it hits, what was changed before, what to do."""

from __future__ import annotations

import re

import click

from tundra_nb.commands import options
from tundra_nb.commands.command import TextCommand
from tundra_nb.commands.command import command as _command
from tundra_nb.commands.face import Face, pass_face
from tundra_nb.errors import UsageError
from tundra_nb.types.triage import Triage, TriageStep

_SECONDS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}


class _Duration(click.ParamType[float]):
    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", str(value).strip())
        if found is None or float(found.group(1)) == 0:
            self.fail(f"{value!r} is not a time such as 90s, 3m or 1h", param, ctx)
        return float(found.group(1)) * _SECONDS[found.group(2)]


class _Budget(click.ParamType[object]):
    name = "usd"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> object:
        if str(value) == "none":
            return value
        try:
            budget = float(str(value))
        except ValueError:
            budget = -1.0
        if not 0 <= budget < float("inf"):
            self.fail(f"{value!r} is neither an amount in USD nor `none`", param, ctx)
        return budget


@_command("triage", cls=TextCommand)
@click.argument("text", nargs=-1)
@options.profile("Ask this profile, and no other.")
@click.option("--since", type=options.Time(), help="From when on.  [default: 24h before the newest row]")
@click.option("--at", metavar="REF", help="Read the history as of a commit, branch, tag or time.")
@click.option("--budget", type=_Budget(), default="0.5", show_default=True, help="USD at most; `none` keeps no budget.")
@click.option("--deadline", type=_Duration(), default="3m", show_default=True, help="Longest time.")
@click.option("--calls", type=click.IntRange(min=1), default=12, show_default=True, help="Most calls of the model.")
@click.option("--act", is_flag=True, help="Offer commands that act; each is asked for with its exact line.")
@click.option("--no-model", is_flag=True, help="Only the rules, which need no model.")
@click.option("--cells", is_flag=True, help="Notebook: put the commands that show the evidence into a new cell.")
@pass_face
def command(
    face: Face,
    text: tuple[str, ...],
    profile: str | None,
    since: str | None,
    at: str | None,
    budget: object,
    deadline: float,
    calls: int,
    act: bool,
    no_model: bool,
    cells: bool,
) -> Triage:
    """Find out what failed, since when, whom it hits, what was changed before, and what to do.

    TEXT is `last`, the id of a call or its last digits, an incident by its id or title, or a question in words. The
    rules come first; then a model reads further with tools that only read, as of one pin. When no profile can be asked,
    the rules' report is the answer.
    """
    if cells and face.name != "kernel":
        raise UsageError(problem="`--cells` needs a notebook", field="--cells")
    target = " ".join([*text, *(face.take_body(text, waits=False) or "").split()]) or "last"

    def show(step: TriageStep) -> None:
        face.progress("")
        face.write(_line(step))
        if not no_model:
            face.progress(f"waiting for the model, {deadline:.0f} s at most …")

    try:
        found = face.client.triage(
            target,
            profile=profile,
            since=since,
            at=at,
            budget_usd=None if budget == "none" else float(str(budget)),
            deadline=deadline,
            calls=calls,
            act=act,
            model=not no_model,
            on_step=None if face.wants_json else show,
            approve=lambda line: face.confirm(f"Run `{line}`?"),
        )
    finally:
        face.progress("")
    face.client.note(found.report, subject=f"triage {found.run_id}")
    if cells:
        face.offer_cell(_cell(found))
    return found


def _line(step: TriageStep) -> str:
    what = {"model": "the model answered", "finding": "a finding", "approval": "a command that acts"}
    told = what.get(step.kind, step.tool.removeprefix("tundra_").replace("_", " "))
    took = f" · {step.seconds:.1f} s" if step.seconds is not None else ""
    how = "" if step.outcome == "ok" else f" · {step.outcome}"
    return f"{step.seq}. {told}{how}{took}\n"


def _cell(found: Triage) -> str:
    ids = list(dict.fromkeys(finding.evidence[0] for finding in found.findings if finding.evidence))
    return "\n".join([f"# triage {found.run_id}", *(f"%tundra why {identity}" for identity in ids)])
