"""`tundra restore`."""

from __future__ import annotations

import concurrent.futures
import threading

import click

from tundra_nb.client.results import Document
from tundra_nb.errors import TundraError

from .command import command as _command
from .face import Face, pass_face

LEFT_SECONDS = 3.0
"""Longest that an interrupted restore waits to tell how it ended."""


@_command("restore")
@click.argument("folder", type=click.Path(file_okay=False), required=False)
@pass_face
def command(face: Face, folder: str | None) -> Document:
    """Replace the history by the backup in FOLDER; what was there is kept aside (not on Dolt).

    An interrupt does not end it, and tells how it ended.
    """
    versions = face.client.versions
    done: concurrent.futures.Future[Document] = concurrent.futures.Future()

    def work() -> None:
        try:
            done.set_result(versions.restore(folder))
        except BaseException as exc:  # noqa: BLE001 - raised where it is waited for
            done.set_exception(exc)

    # in a thread of its own: in this one an interrupt would close the connection, and the answer be lost
    thread = threading.Thread(target=work, name="tundra-restore", daemon=True)
    try:
        thread.start()
        return done.result()
    except KeyboardInterrupt:
        raise KeyboardInterrupt(_ended(done)) from None


def _ended(done: concurrent.futures.Future[Document]) -> str:
    try:
        kept = done.result(LEFT_SECONDS)["kept"]
    except TundraError as error:
        return f"the restore failed: {error}"
    except (TimeoutError, KeyboardInterrupt):
        return "the daemon carries the restore to its end, if it has begun; `tundra versions` tells what the history is"
    return f"the history is replaced by the backup; what was there is {kept or 'not kept'}"
