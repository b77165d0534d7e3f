"""Writes the notebook of an incident, and runs it once, so that it reads as a report without a kernel."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime as dt
import hashlib
import importlib
import importlib.metadata
import os
import platform
import re
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tundra_nb.client.incidents import find as find_call
from tundra_nb.client.incidents import new as new_call
from tundra_nb.client.own_loop import on_own_loop
from tundra_nb.client.results import Document
from tundra_nb.errors import TundraError, UsageError
from tundra_nb.types import FRAME_VERSION

if TYPE_CHECKING:
    from tundra_nb.client.sync import Client

FORMAT = 1
"""Version of `metadata.tundra` in a notebook."""
CELL_SECONDS = 120
LEFT_SECONDS = 3.0
"""How long an interrupted `new` asks whether its incident was made."""
STARTING = "starting a kernel"
PACKAGES = ("tundra-nb", "pandas", "pyarrow", "ipykernel", "nbclient")
TELLING = (
    ("What happened", "%tundra incident story {{incident}}"),
    ("Timeline", "%tundra calls --plot"),
    ("By minute", "%tundra calls --by minute,outcome"),
    ("Errors by code", "%tundra calls --by code,profile"),
    ("The five worst calls", "%tundra incident worst {{incident}}"),
    ("The last errors", "%tundra errors --limit 20"),
    ("The limiter", "%tundra limit-history --limit 50"),
    ("The breakers", "%tundra breaker-history --plot"),
    ("Commands in terminals", "%tundra pty-history --limit 20"),
    ("Notes", "%tundra notes"),
    (
        "Settings in force, beside the defaults",
        "%tundra sql select path, value, author, at from setting where source <> 'default' order by path",
    ),
)
"""Headings and the commands below them."""


SLUG_CHARACTERS = 40


@contextlib.contextmanager
def telling(on_progress: Callable[[str], None] | None) -> Iterator[Callable[[str], None]]:
    """Gives what tells how far something is, and takes that away when it ends."""
    tell = on_progress or (lambda _: None)
    try:
        yield tell
    finally:
        tell("")


def library(name: str) -> Any:
    """A notebook library, which brings no types along, when it is needed: they take a while to import."""
    return importlib.import_module(name)


def new(
    client: Client,
    title: str,
    since: Any,
    until: Any = None,
    *,
    out: str | None = None,
    run: bool = True,
    on_progress: Callable[[str], None] | None = None,
) -> Document:
    """Pin a window under a title, and write its notebook; see `client.incidents.Incidents.new`."""
    file = Path(out).expanduser() if out else Path(f"incident-{slug(title)}.ipynb")
    if file.exists():
        raise UsageError(problem=f"{file} exists already", field="out", remedy="Choose another name with `--out`.")
    check_place(file)
    made: Document | None = None
    try:
        with telling(on_progress) as tell:
            tell("pinning the history")
            made = client._do(new_call(title, since, until))  # noqa: SLF001 - the call of this very method
            if not out and slug(made["title"]) != slug(title):  # a key was masked in it, and is no file's name either
                file = Path(f"incident-{made['ref'].removeprefix('incident/')}.ipynb")
            tell("writing the notebook")
            write(made, file)
            client.incidents.written(made["incident_id"], str(file.absolute()))
        if run:
            execute(file, on_progress=on_progress)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(_left(client, title, made, file)) from None
    return Document({**made, "notebook": str(file)})


def _left(client: Client, title: str, made: Document | None, file: Path) -> str:
    """What an interrupted `new` leaves: the incident with its notebook, not run; in words."""
    try:
        if made is None:
            found = client._do(dataclasses.replace(find_call(title), timeout=LEFT_SECONDS))  # noqa: SLF001 - as above
            if found["title"] != " ".join(title.split()) or found.get("notebook"):  # another one
                raise UsageError(problem=f"there is no incident {title!r}", field="title")
            made = found
        if not file.exists():
            write(made, file)
        client.incidents.written(made["incident_id"], str(file.absolute()))
    except TundraError:
        if made is None:
            return f"it is not known whether the incident {title!r} was made; `tundra incident list` tells"
        return f"the incident {title!r} is made, its notebook is not"
    return f"the incident {title!r} is made; its notebook {file} is not run to its end: open it and run it"


def check_place(file: Path) -> None:
    """Refuse a file that cannot be written, before any work.

    Raises:
        UsageError: its folder is missing or cannot be written, or a folder is where it should be.
    """
    folder = file.absolute().parent
    if not folder.is_dir():
        problem = f"there is no folder {folder}"
    elif not os.access(folder, os.W_OK | os.X_OK):
        problem = f"{folder} cannot be written"
    elif file.is_dir():
        problem = f"{file} is a folder"
    else:
        return
    raise UsageError(problem=problem, field="out", remedy="Give another place with `--out`.")


def write(found: Document, file: Path) -> None:
    """Write an incident's notebook, not run yet: whole, or not at all."""
    nbformat = library("nbformat")
    v4 = library("nbformat.v4")

    window = " – ".join(_time(found[name]) for name in ("since", "until"))
    cells = [
        v4.new_markdown_cell(
            f"# {found['title']}\n\nPinned as `{found['ref']}` · {window} · opened by {found['author']}\n\n"
            "Everything below is read at the pin and in the window, and can be checked: `tundra verify` runs it again."
        ),
        v4.new_code_cell(
            "\n".join(f"{name} = {found[name]!r}" for name in ("ref", "since", "until"))
            + f"\nincident = {found['incident_id']!r}",
            metadata={"tags": ["parameters"]},
        ),
        v4.new_code_cell(
            "%load_ext tundra_nb\n%tundra incident open {{incident}} --ref {{ref}} --between {{since}} {{until}}"
        ),
    ]
    for heading, command in TELLING:
        cells += [v4.new_markdown_cell(f"## {heading}"), v4.new_code_cell(command)]
    cells.append(v4.new_markdown_cell(f"## Environment\n\n{_environment()}"))
    book = v4.new_notebook(cells=cells)
    book.metadata.update(
        kernelspec={"name": "python3", "display_name": "Python 3", "language": "python"},
        language_info={"name": "python"},
        tundra={
            "format": FORMAT,
            "incident": found["incident_id"],
            "title": found["title"],
            "pin": {"tag": found["ref"], "frame_version": FRAME_VERSION, "digests": found.get("digests")},
            "window": [found["since"], found["until"]],
            "made_by": _versions(),
            "cells": sources(book),
        },
    )
    save(nbformat.from_dict(book), file)


def sources(book: Any) -> list[list[str]]:
    """Id and code of each cell with code: what verifying finds missing when somebody takes one out."""
    return [[cell.id, cell.source] for cell in book.cells if cell.cell_type == "code"]


def execute(file: Path, env: dict[str, str] | None = None, on_progress: Callable[[str], None] | None = None) -> None:
    """Run a notebook in a kernel of its own, in its folder, and save it with its outputs, trusted by this user."""
    with telling(on_progress) as tell:
        tell(STARTING)  # the libraries take a while, too
        nbformat = library("nbformat")
        runner_of = library("nbclient").NotebookClient
        problems = library("nbclient.exceptions")
        notary = library("nbformat.sign").NotebookNotary()

    book = nbformat.read(file, as_version=4)
    runner = runner_of(
        book, timeout=CELL_SECONDS, record_timing=False, resources={"metadata": {"path": str(file.parent.absolute())}}
    )
    try:
        run_through(runner, env or dict(os.environ), on_progress)
    except (problems.CellExecutionError, problems.CellTimeoutError, problems.DeadKernelError) as exc:
        last = str(exc).strip().splitlines()[-1]
        raise UsageError(
            problem=f"the notebook {file} was written, but one of its cells failed: {last}",
            field="run",
            remedy="Open it and run it; the incident and its pin are made.",
        ) from exc
    finally:
        save(book, file)
    notary.sign(book)


def run_through(runner: Any, env: dict[str, str], on_progress: Callable[[str], None] | None = None) -> None:
    """Have an `nbclient.NotebookClient` execute its notebook; its kernel is gone afterwards.

    It runs in a thread of its own: in the main one it takes Ctrl-C for itself, and dies of it in a traceback.
    `on_progress` is told in this thread which cell runs, and at last an empty text.

    Raises:
        KeyboardInterrupt: it was interrupted.
    """
    # what its kernel warns of at its start, "running over TCP" say, would stand on the standard error of our command
    runner.extra_arguments = ["--IPKernelApp.log_level=ERROR"]
    doing = [STARTING]
    runner.on_cell_start = lambda cell, cell_index: doing.append(
        f"cell {cell_index + 1} of {len(runner.nb.cells)}: {cell.source.strip().splitlines()[-1][:60]}"
    )
    told = ""

    def look() -> None:
        nonlocal told
        if doing[-1] != told:
            tell(told := doing[-1])

    async def work() -> None:
        try:
            await runner.async_execute(env=env)
        except asyncio.CancelledError:
            if runner.km is not None and runner.km.has_kernel:  # nbclient leaves one that was not ready yet
                await runner.km.shutdown_kernel(now=True)
            if runner.kc is not None:  # a thread of its own would ask for that kernel's heartbeat for ever
                runner.kc.stop_channels()
            raise

    with telling(on_progress) as tell:
        on_own_loop(work(), "notebook", look)


def save(book: Any, file: Path) -> None:
    """Write a notebook in one step: what was there stays whole until the new one is.

    Raises:
        UsageError: the disk is full, or the folder cannot be written.
    """
    nbformat = library("nbformat")

    draft = file.with_name(f".{file.name}.new")
    try:
        draft.write_text(nbformat.writes(book) + "\n")
        draft.replace(file)
    except OSError as exc:
        draft.unlink(missing_ok=True)
        raise not_written(file, exc) from exc


def not_written(file: Path, exc: OSError) -> UsageError:
    """A file of somebody's own choice that cannot be written: the history has nothing to do with it."""
    return UsageError(
        problem=f"{file} cannot be written: {exc.strerror or exc}",
        field="out",
        remedy="Make room there, or give another place.",
    )


def slug(title: str) -> str:
    """A title as part of a file's name, with a mark of the whole title where not all of its words are in it."""
    words = re.findall(r"[^\W_]+", title.lower())
    letters = unicodedata.normalize("NFKD", " ".join(words)).encode("ascii", "ignore").decode()
    name = "-".join(letters.split())[:SLUG_CHARACTERS].strip("-")
    if words and name == "-".join(words):
        return name
    return f"{name or 'untitled'}-{hashlib.sha256(title.encode()).hexdigest()[:6]}"


def _time(text: str) -> str:
    return f"{dt.datetime.fromisoformat(text).astimezone():%Y-%m-%d %H:%M:%S %Z}"


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _environment() -> str:
    return "\n".join(f"- {name} {version}" for name, version in _versions().items())
