"""Local model servers that answer on their usual ports. They are suggested, never used unasked."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from tundra_nb import errors
from tundra_nb.runtime.clock import Clock
from tundra_nb.runtime.providers.provider import Provider
from tundra_nb.runtime.providers.transport import Transport
from tundra_nb.settings import DeadlineSettings, ProfileSettings

LOCAL_SERVERS = {8000: "vLLM", 8080: "llama.cpp", 11434: "Ollama"}
"""What usually listens on these ports of 127.0.0.1."""
PROBE_DEADLINES = DeadlineSettings(connect_seconds=0.3, idle_seconds=0.5, total_seconds=0.5)


async def suggestions(transport: Transport, clock: Clock, known: Collection[str]) -> list[dict[str, str]]:
    """The servers that answer now, without those whose base URL is in `known`."""
    found = await asyncio.gather(*(_local_server(transport, clock, port, what) for port, what in LOCAL_SERVERS.items()))
    return [server for server in found if server is not None and server["base_url"] not in known]


async def _local_server(transport: Transport, clock: Clock, port: int, what: str) -> dict[str, str] | None:
    base_url = f"http://127.0.0.1:{port}/v1"
    profile = ProfileSettings(name="probe", kind="local", base_url=base_url)
    probe = Provider(profile, transport, key=lambda: None, monotonic=clock.monotonic, deadlines=PROBE_DEADLINES)
    try:
        await probe.models()
    except errors.TundraError:
        return None
    return {"what": what, "base_url": base_url}
