"""The table of sub-commands: to add one, write a module with `command` and name it here."""

from __future__ import annotations

import click

from .command import CONTEXT, LazyGroup
from .face import Face, pass_face

TABLE = {
    "status": "status",
    "ask": "ask",
    "last": "last",
    "why": "why",
    "explain": "explain",
    "guide": "guide",
    "doctor": "doctor",
    "bundle": "bundle",
    "dash": "dash",
    "calls": "calls",
    "attempts": "attempts",
    "errors": "errors",
    "limit-history": "limit_history",
    "breaker-history": "breaker_history",
    "run": "run",
    "sh": "sh",
    "pty": "pty",
    "pty-history": "pty_history",
    "connections": "connections",
    "sql": "sql",
    "commits": "commits",
    "diff": "diff",
    "stat": "stat",
    "history": "history",
    "blame": "blame",
    "versions": "versions",
    "checkout": "checkout",
    "commit": "commit",
    "branch": "branch",
    "tag": "tag",
    "merge": "merge",
    "revert": "revert",
    "push": "push",
    "pull": "pull",
    "clone": "clone",
    "incident": "incident",
    "verify": "verify",
    "record": "record",
    "replay": "replay",
    "simulate": "simulate",
    "import": "import_",
    "sources": "sources",
    "note": "note",
    "notes": "notes",
    "backup": "backup",
    "restore": "restore",
    "dolt": "dolt",
    "migrate-store": "migrate_store",
    "archive": "archive",
    "providers": "providers",
    "models": "models",
    "limits": "limits",
    "breakers": "breakers",
    "fault": "fault",
    "settings": "settings",
    "keys": "keys",
    "triage": "tundra_nb.agents.triage_command",
    "agent-runs": "agent_runs",
    "agent-steps": "agent_steps",
    "gateway": "gateway",
    "token": "token",
    "mcp": "tundra_nb.agents.mcp_command",
    "daemon": "daemon",
    "logs": "logs",
    "log-level": "log_level",
    "clean": "clean",
    "completion": "completion",
}
"""Command → module, of this package where nothing else is said, in the order of the help."""


@click.group("tundra", cls=LazyGroup, table=TABLE, context_settings=CONTEXT)
@click.pass_context
@pass_face
def root(face: Face, ctx: click.Context) -> object:
    """Make LLM calls safely, and see what happened to them.

    Without a command: the status.
    """
    return face.client.status() if ctx.invoked_subcommand is None else None
