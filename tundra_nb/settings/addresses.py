"""Addresses that settings hold."""

from __future__ import annotations

import ipaddress

from tundra_nb.errors import UsageError

from .model import GatewaySettings

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


def check_reach(listen: str, gateway: GatewaySettings) -> None:
    """Whether the gateway may listen there, beyond loopback too.

    Raises:
        UsageError: it is no address, or other machines reach it and there is no TLS.
    """
    host, _ = parse_listen(listen)
    if not (is_loopback(host) or has_tls(gateway) or gateway.insecure):
        raise UsageError(
            problem=f"{host} is reached from other machines, and there is no TLS",
            field="gateway.listen",
            remedy="Set `gateway.tls_cert` and `gateway.tls_key`; or `gateway.insecure = true`, which sends tokens "
            "and prompts in the clear.",
        )


def has_tls(gateway: GatewaySettings) -> bool:
    return bool(gateway.tls_cert and gateway.tls_key)
