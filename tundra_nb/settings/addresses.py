"""Addresses that settings hold."""

from __future__ import annotations

import ipaddress

from tundra_nb.errors import UsageError

DEFAULT_LISTEN = "127.0.0.1:4242"


def parse_listen(listen: str) -> tuple[str, int]:
    """Host and port of `gateway.listen`; without a host it is this machine only.

    Raises:
        UsageError: it is none.
    """
    host, colon, port = listen.rpartition(":")
    host = host.strip("[]") or "127.0.0.1"
    if not colon or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise UsageError(problem=f"{listen!r} is no address and port", field="listen", remedy=f"Like {DEFAULT_LISTEN}.")
    return host, int(port)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches it."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
