"""The logins of a Dolt server that we manage: one file, 0600, in its folder of the data directory.

Read by the daemon, written by `tundra dolt start`. Which server they belong to stands beside them, so that they are
never sent to another one.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import msgspec

from tundra_nb.errors import ConfigError

READER = "tundra_reader"
"""May SELECT, nothing else: the user of free SQL."""
FILE = "login.json"


class Login(msgspec.Struct, frozen=True, kw_only=True):
    """Who may log in, and where. `repr` hides the passwords."""

    host: str
    port: int
    database: str
    user: str = "root"
    password: str
    reader: str = READER
    reader_password: str

    def __repr__(self) -> str:
        return f"<Login {self.user}, {self.reader} at {self.host}:{self.port}/{self.database}>"

    def fits(self, host: str, port: int, user: str) -> bool:
        """Whether these are the logins of that user at that server."""
        return (host, port, user) == (self.host, self.port, self.user)


def make(host: str, port: int, database: str) -> Login:
    """Logins with fresh random passwords."""
    first, second = (secrets.token_urlsafe(24) for _ in range(2))
    return Login(host=host, port=port, database=database, password=first, reader_password=second)


def save(folder: Path, login: Login) -> None:
    """Write the file, readable by its owner only from its first byte on."""
    draft = folder / f"{FILE}.new"
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(msgspec.json.encode(login))
    draft.replace(folder / FILE)


def load(folder: Path) -> Login | None:
    """The logins; None when no server of ours was ever set up there.

    Raises:
        ConfigError: the file cannot be read, or is not ours.
    """
    file = folder / FILE
    try:
        return msgspec.json.decode(file.read_bytes(), type=Login)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as exc:
        raise ConfigError(where=str(file), problem=f"cannot be read: {exc}") from exc
