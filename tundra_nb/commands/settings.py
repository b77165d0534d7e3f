"""`tundra settings`: every setting, its value, where that came from, and its changes."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tundra_nb import paths, settings
from tundra_nb.client.results import Document
from tundra_nb.errors import ConfigError, IpcError, UsageError
from tundra_nb.settings import file as settings_file

from . import options
from .command import Command, Group
from .face import Face, pass_face

if TYPE_CHECKING:
    import pandas as pd


@click.group("settings", cls=Group)
@click.option("--changed", is_flag=True, help="Only those that are not at their default.")
@click.option("--history", is_flag=True, help="Every change of a setting instead: when, by whom, why.")
@options.all_
@click.pass_context
@pass_face
def command(face: Face, ctx: click.Context, changed: bool, history: bool, is_all: bool) -> pd.DataFrame | None:
    """Every setting in force with its default and where its value came from."""
    if ctx.invoked_subcommand is not None:
        return None
    if history:
        return face.client.versions.history("setting", all=is_all)
    found = face.client.settings(changed, all=is_all)
    for problem in face.client.status()["problems"]:
        if problem["what"] == "settings_file":
            face.write(f"{problem['message']}\n")
    return found


@command.command("set", cls=Command)
@click.argument("assignment", type=options.Assignment(), metavar="PATH=VALUE")
@click.option("--reason", default="", help="Why, for those who read the history.")
@click.option("--on", metavar="BRANCH", help="Only propose it, on this branch; `merge BRANCH` applies it.")
@pass_face
def set_(face: Face, assignment: str, reason: str, on: str | None) -> Document:
    """Change a setting in the settings file, in force at once where that is possible, and in the history.

    VALUE is TOML; what is no TOML is text.
    """
    path, is_assigned, text = assignment.partition("=")
    if not is_assigned or not path.strip():
        raise UsageError(problem=f"{assignment!r} is not PATH=VALUE", field="PATH=VALUE", remedy="breaker.failures=3")
    return _changed(face, path.strip(), _value(text.strip()), reason=reason, on=on)


@command.command("unset", cls=Command)
@click.argument("path", type=options.SettingPath())
@click.option("--reason", default="", help="Why, for those who read the history.")
@pass_face
def unset(face: Face, path: str, reason: str) -> Document:
    """Take the setting PATH out of the settings file: its default is in force again."""
    return _changed(face, path.strip(), None, reason=reason)


@command.command("history", cls=Command)
@click.argument("path", required=False, type=options.SettingPath())
@options.all_
@pass_face
def history_(face: Face, path: str | None, is_all: bool) -> pd.DataFrame:
    """What each commit made of the setting PATH, or of all."""
    return face.client.versions.history("setting", path, all=is_all)


def _changed(face: Face, path: str, value: Any, *, reason: str, on: str | None = None) -> Document:
    """Changed by the daemon; in a file that no daemon can start with, here."""
    try:
        return face.client.set_setting(path, value, reason=reason, on=on)
    except (ConfigError, UsageError, IpcError):
        file = paths.config_file(os.environ)
        if on is not None or face.client.link.paths is None or _fault(file) is None:
            raise
        fault = settings_file.mend(file, path, value, os.environ)
        told = {"path": path, "value": value, "file": str(file), "commit": None}
        return Document(told if fault is None else told | {"still_wrong": fault.message, "hint": fault.hint})


def _fault(file: Path) -> ConfigError | None:
    try:
        settings.load(file, os.environ)
    except ConfigError as fault:
        return fault
    return None


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"v = {text}")["v"]
    except tomllib.TOMLDecodeError:
        return text
