"""Proxies by environment variables, from a mapping that is passed in."""

from __future__ import annotations

import base64
import ipaddress
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import httpx

if TYPE_CHECKING:
    import yarl


class Proxy(NamedTuple):
    """A proxy's address, without credentials, and the `Proxy-Authorization` it wants."""

    url: yarl.URL
    authorization: str | None


class Proxies:
    """Which proxy, if any, stands before an origin, by the variables that curl, urllib and httpx read.

    Lower-case names win over upper-case ones. `NO_PROXY` takes host names (which cover their sub-domains),
    `host:port`, addresses, networks (`10.0.0.0/8`) and `*`.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        found = {name.lower(): value.strip() for name, value in environ.items() if name.lower().endswith("_proxy")}
        found |= {name: value.strip() for name, value in environ.items() if name.endswith("_proxy")}
        self._by_scheme = {name.removesuffix("_proxy"): value for name, value in found.items() if value}
        self._exempt = [name for part in found.get("no_proxy", "").split(",") if (name := part.strip().lower())]
        self._cache: dict[tuple[str, str, int | None], Proxy | None] = {}

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self._by_scheme)

    def find(self, scheme: str, host: str, port: int | None) -> Proxy | None:
        """The proxy for an origin, or None for a direct connection.

        Raises:
            httpx.ProxyError: it is not an `http://` or `https://` proxy.
        """
        if not self._by_scheme:
            return None
        origin = (scheme, host, port)
        if origin not in self._cache:
            self._cache[origin] = self._find(*origin)
        return self._cache[origin]

    def _find(self, scheme: str, host: str, port: int | None) -> Proxy | None:
        value = self._by_scheme.get(scheme) or self._by_scheme.get("all")
        if value is None or any(_covers(name, host.lower(), port) for name in self._exempt):
            return None
        import yarl  # only where there is a proxy

        try:
            proxy = yarl.URL(value if "://" in value else f"http://{value}")
        except ValueError:
            proxy = yarl.URL()
        if proxy.scheme not in ("http", "https") or not proxy.host:
            # The value itself may hold a password: it is not shown.
            raise httpx.ProxyError(f"{scheme.upper()}_PROXY or ALL_PROXY must be an http:// or https:// URL")
        # Apart: aiohttp would show them in its errors, and takes only Latin-1 from a URL.
        user, password = proxy.user, proxy.password or ""
        secret = base64.b64encode(f"{user}:{password}".encode()).decode()
        authorization = None if user is None else f"Basic {secret}"
        return Proxy(proxy.with_user(None), authorization)


def _covers(name: str, host: str, port: int | None) -> bool:
    """Whether one entry of `NO_PROXY` covers a host."""
    if name == "*":
        return True
    if "/" in name:
        try:
            return ipaddress.ip_address(host) in ipaddress.ip_network(name, strict=False)
        except ValueError:
            return False
    if port is not None and name.endswith(f":{port}"):
        name = name.removesuffix(f":{port}")
    name = name.strip("[]").lstrip("*").lstrip(".")
    return bool(name) and (host == name or host.endswith(f".{name}"))
