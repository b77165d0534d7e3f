"""Drills: a fault proxy in front of a profile, so that failures can be watched while a notebook runs.

A drill belongs to this daemon alone: it is in no settings file, and ends with the daemon. Its proxy is a child process
(`tundra_nb.faults.fault_proxy`) that forwards what it does not damage; only the provider's address changes, so that
limiter, breaker, router and history go on as if the faults were the provider's own.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import httpx
import msgspec

from tundra_nb import errors
from tundra_nb.nearest import nearest
from tundra_nb.runtime.providers.transport import Transport
from tundra_nb.settings import VENDORS, ProfileSettings

PROXY = "tundra_nb.faults.fault_proxy"
START_SECONDS = 15.0
STOP_SECONDS = 3.0
CONTROL_SECONDS = 5.0
DIALECTS = {"local": "openai"}
"""Whose words a kind of profile understands, where it is not its own."""
BY_ADDRESS = ("dns", "tls")
"""Faults that no proxy can make: they are a different address."""


class Drill:
    """One profile behind its proxy."""

    def __init__(self, profile: ProfileSettings, process: asyncio.subprocess.Process, urls: Mapping[str, str]) -> None:
        self.profile = profile
        self.process = process
        self.url = urls["url"]
        self.control = urls["control"]
        self.address_fault: str | None = None
        self.was_parked = False
        """Already before its drill: then the end of the drill does not take it back in."""

    @property
    def base_url(self) -> str:
        """Where the profile is reached meanwhile."""
        path = urlsplit(_upstream(self.profile)).path
        if self.address_fault == "dns":
            return f"http://fault.invalid{path}"  # a name that RFC 2606 promises never to exist
        if self.address_fault == "tls":
            return self.url.replace("http://", "https://", 1) + path
        return self.url + path


class Drills:
    """All drills of a daemon.

    Args:
        environ: for the proxies' own use; keys and other secrets are left out by the caller.
        changed: called with the profile's name whenever its address has changed.
    """

    def __init__(self, environ: Mapping[str, str], changed: Callable[[str], None]) -> None:
        self._environ = environ
        self._changed = changed
        self._drills: dict[str, Drill] = {}
        self._starting = asyncio.Lock()
        self.transport = Transport()
        """Straight to the proxies, past any HTTP_PROXY; of this daemon's loop."""

    def redirected(self, profile: ProfileSettings) -> ProfileSettings | None:
        """The profile as it is to be reached during its drill; None when it has none, or has moved since."""
        drill = self._drills.get(profile.name)
        if drill is None or _upstream(drill.profile) != _upstream(profile):
            return None
        return msgspec.structs.replace(profile, base_url=drill.base_url)

    async def start(self, profile: ProfileSettings, *, is_parked: bool = False) -> dict[str, Any]:
        """Put a proxy in front of a profile; one that has its drill already keeps it.

        Raises:
            ConfigError: the proxy does not start.
        """
        async with self._starting:
            if profile.name not in self._drills:
                drill = self._drills[profile.name] = await self._launch(profile)
                drill.was_parked = is_parked
                self._changed(profile.name)
        return await self._row(self._drills[profile.name])

    async def set(self, name: str, rule: dict[str, Any]) -> dict[str, Any]:
        """Have a fault happen from now on. `rule` is a `Rule` of the proxy.

        Raises:
            UsageError: no drill, no such fault, or a rule that could never do what it says.
        """
        drill = self._drill(name)
        if rule.get("fault") in BY_ADDRESS:
            if more := sorted(set(rule) - {"fault"}):
                problem = f"{rule['fault']!r} is a matter of the address: it takes no {more[0]!r}"
                raise errors.UsageError(problem=problem, field=more[0])
            self._readdress(drill, rule["fault"])
        else:
            await self._ask(drill, "POST", "/rules", rule)
        return await self._row(drill)

    async def clear(self, name: str, fault: str | None = None) -> dict[str, Any]:
        """Have one fault, or all, happen no longer; the proxy stays."""
        drill = self._drill(name)
        if fault is None or fault == drill.address_fault:
            self._readdress(drill, None)
        await self._ask(drill, "DELETE", f"/rules/{fault}" if fault else "/rules")
        return await self._row(drill)

    async def stop(self, name: str) -> Drill:
        """Take the proxy away: the profile is reached directly again."""
        drill = self._drill(name)
        del self._drills[name]
        self._changed(name)
        await _end(drill.process)
        return drill

    async def rows(self) -> list[dict[str, Any]]:
        """One row per drill: profile, proxy, rules, and requests by fault."""
        return [await self._row(drill) for drill in list(self._drills.values())]

    def brief(self) -> list[dict[str, Any]]:
        """The drills without what must be asked of the proxies."""
        return [{"profile": name, "url": drill.url} for name, drill in self._drills.items()]

    async def aclose(self) -> None:
        drills, self._drills = self._drills, {}
        await asyncio.gather(*(_end(drill.process) for drill in drills.values()))
        await self.transport.aclose()

    def _drill(self, name: str) -> Drill:
        if name not in self._drills:
            raise errors.UsageError(
                problem=f"no faults are injected into {name!r}",
                field="profile",
                nearest=nearest(name, self._drills),
                remedy=f"`%tundra fault start --profile {name}` puts a fault proxy in front of it.",
            )
        return self._drills[name]

    def _readdress(self, drill: Drill, fault: str | None) -> None:
        if drill.address_fault != fault:
            drill.address_fault = fault
            self._changed(drill.profile.name)

    async def _launch(self, profile: ProfileSettings) -> Drill:
        upstream = urlsplit(_upstream(profile))
        origin = urlunsplit((upstream.scheme, upstream.netloc, "", "", ""))
        dialect = DIALECTS.get(profile.kind, profile.kind)
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", PROXY, "--upstream", origin, "--dialect", dialect, "--until-stdin-closes",
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
            env=dict(self._environ),
        )  # fmt: skip
        assert process.stdout is not None
        try:
            async with asyncio.timeout(START_SECONDS):
                line = await process.stdout.readline()
            return Drill(profile, process, json.loads(line))
        except (TimeoutError, ValueError) as exc:
            await _end(process)
            remedy = f"`{sys.executable} -m {PROXY} --upstream {origin}` by hand shows why."
            raise errors.ConfigError(problem="the fault proxy does not start", remedy=remedy) from exc
        except BaseException:
            await _end(process)
            raise

    async def _row(self, drill: Drill) -> dict[str, Any]:
        rules = await self._ask(drill, "GET", "/rules")
        if drill.address_fault:
            rules = [{"fault": drill.address_fault}, *rules]
        return {
            "profile": drill.profile.name,
            "url": drill.url,
            "rules": rules,
            "requests": await self._ask(drill, "GET", "/counts"),
        }

    async def _ask(self, drill: Drill, method: str, path: str, body: Any = None) -> Any:
        content = msgspec.json.encode(body) if body is not None else b""
        request = httpx.Request(method, drill.control + path, content=content)
        try:
            async with asyncio.timeout(CONTROL_SECONDS), _answer(self.transport, request) as response:
                answer = msgspec.json.decode(await response.aread())
        except (TimeoutError, httpx.TransportError, msgspec.DecodeError) as exc:
            raise errors.ConfigError(
                problem=f"the fault proxy of {drill.profile.name} is gone",
                remedy=f"`%tundra fault stop --profile {drill.profile.name}` brings the profile back.",
            ) from exc
        if response.status_code >= 400:
            raise errors.from_wire(answer)
        return answer


@contextlib.asynccontextmanager
async def _answer(transport: Transport, request: httpx.Request) -> AsyncIterator[httpx.Response]:
    response = await transport.handle_async_request(request)
    try:
        yield response
    finally:
        await response.aclose()


async def _end(process: asyncio.subprocess.Process) -> None:
    """End a proxy: it stops when its standard input does."""
    if process.stdin is not None:
        process.stdin.close()
    try:
        async with asyncio.timeout(STOP_SECONDS):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


def _upstream(profile: ProfileSettings) -> str:
    return profile.base_url or VENDORS[profile.kind][0]
