"""What a database says first to whoever connects, before any login: MySQL's protocol 10, which Dolt speaks too."""

from __future__ import annotations

import socket

WAIT_SECONDS = 2.0
FIRST_BYTES = 5
"""A packet's head of four bytes, and the first of its content."""
LIKE_DOLT = "MySQL or Dolt"
_PROTOCOL_10 = b"\x0a"
_ERROR = b"\xff"


def ask(host: str, port: int) -> str | None:
    """The version that whoever listens there names; empty for no database, None for nobody. Takes up to 4 s."""
    try:
        with socket.create_connection((host, port), WAIT_SECONDS) as sock:
            sock.settimeout(WAIT_SECONDS)
            packet = sock.recv(256)
    except TimeoutError:
        return ""
    except OSError:
        return None
    return version(packet)


def is_database(packet: bytes) -> bool:
    """Whether the first bytes of an answer are a greeting, or the error that stands in its place."""
    return packet[FIRST_BYTES - 1 : FIRST_BYTES] in (_PROTOCOL_10, _ERROR)


def version(packet: bytes) -> str:
    """The version that the greeting names; empty where it is none."""
    if packet[FIRST_BYTES - 1 : FIRST_BYTES] != _PROTOCOL_10:
        return ""
    return packet[FIRST_BYTES:].split(b"\0", 1)[0].decode("ascii", "replace")


def product(version: str) -> str:
    """Which program names such a version: MariaDB says its name, MySQL and Dolt do not; none is no database."""
    if "mariadb" in version.lower():
        return "MariaDB"
    return LIKE_DOLT if version else "another program"


def is_oracles(version: str) -> bool:
    """Whether it is MySQL itself: that names its version alone; Dolt says 8.0.33 or names itself."""
    return version.startswith(("5.", "9.")) or "percona" in version.lower()
