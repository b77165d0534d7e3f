"""The gateway's own door: a TCP listener that serves `/v1` to whoever has a token, and nothing else.

It opens where `gateway.listen` or `gateway start` says so, and stays open until `gateway stop`: what is open is kept in
the data directory, so that a daemon that comes back after an abnormal end listens on the same port again. While it is
open the daemon counts as attached to. A port that is taken does not keep the daemon from running, nor takes away the
listener that there is; `status` names who holds it.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from uvicorn.config import Config
from uvicorn.server import Server

from tundra_nb.daemon.cut import Cuttable
from tundra_nb.daemon.http import bare
from tundra_nb.daemon.life import GATEWAY, Life
from tundra_nb.errors import ConfigError, TundraError, UsageError
from tundra_nb.settings import GatewaySettings, Loaded
from tundra_nb.settings.addresses import DEFAULT_LISTEN, check_reach, has_tls, is_loopback, parse_listen

from .face import DoorApp, Gateway

BACKLOG = 2048
DRAIN_SECONDS = 2
CANCEL_SECONDS = 1.0
KEEP_ALIVE_SECONDS = 60

_log = logging.getLogger("tundra.daemon")


class KeptDoor(msgspec.Struct, frozen=True):
    """What the data directory holds of the door: where it is, or that it was closed by hand."""

    listen: str
    is_open: bool


class _Server(Server):
    """uvicorn's server on TCP, beside the daemon's own: signals are that one's."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.is_up = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.is_up.set()

    async def end_tasks(self) -> None:
        """Cancel the calls that outlived the drain; each writes its row."""
        tasks = [task for task in self.server_state.tasks if not task.done()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=CANCEL_SECONDS)


@dataclasses.dataclass(frozen=True)
class _Listener:
    """One that is open."""

    stack: contextlib.AsyncExitStack
    config: Config
    listen: str
    """As it was asked for; its port may be 0."""
    host: str
    port: int

    @property
    def scheme(self) -> str:
        return "https" if self.config.is_ssl else "http"

    @property
    def is_insecure(self) -> bool:
        return not is_loopback(self.host) and not self.config.is_ssl

    @property
    def shown(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def is_at(self, listen: str) -> bool:
        return listen in (self.listen, self.shown)


class Doors:
    """The listener of a daemon."""

    def __init__(self, gateway: Gateway, life: Life, file: Path) -> None:
        self.gateway = gateway
        self._life = life
        self._file = file
        self._face = DoorApp(gateway, None)
        self._lock = asyncio.Lock()
        self._open: _Listener | None = None
        self.problem: TundraError | None = None
        """Why it is not open where it should be."""
        self._followed = self._settings
        """Settings that were tried: another change of settings does not try them again."""
        self._task: asyncio.Task[None] | None = None

    @property
    def _settings(self) -> GatewaySettings:
        return self.gateway.runtime.loaded.settings.gateway

    async def open(self) -> None:
        """Open the door where settings or an earlier `start` say so; a failure is told by `status` only."""
        kept = self._kept()
        listen = self._wanted(kept)
        if listen:
            with contextlib.suppress(TundraError):
                async with self._lock:
                    await self._listen_at(listen)
                    self._keep(KeptDoor(self._shown(), is_open=True))

    def follow(self, loaded: Loaded) -> None:
        """Settings have changed: part of `InForce`."""
        before, self._followed = self._followed, loaded.settings.gateway
        if self._followed == before:
            return
        kept = self._kept()
        is_moved = bool(self._followed.listen) and self._followed.listen != before.listen
        listen = self._chosen(kept) if is_moved else self._wanted(kept)
        if not listen or (self._open is not None and self._open.is_at(listen)):
            self._solved()  # it is where it should be: also where what was refused has been undone
        else:
            self._task = asyncio.get_running_loop().create_task(self._reopen(listen), name="gateway-listener")

    async def followed(self) -> TundraError | None:
        """Why it is not open with the settings in force, once they have been tried."""
        if self._task is not None:
            await asyncio.wait((self._task,))
        return self.problem

    async def _reopen(self, listen: str) -> None:
        with contextlib.suppress(TundraError):
            await self.start(listen)

    async def start(self, listen: str | None = None) -> dict[str, Any]:
        """Open the door, until `stop`.

        Raises:
            UsageError: no such address.
            ConfigError: the port is taken, or the address needs TLS.
        """
        async with self._lock:
            kept = self._kept()
            wanted = listen or self._chosen(kept) or DEFAULT_LISTEN
            if self._open is None or not self._open.is_at(wanted):
                await self._listen_at(wanted)
            self._solved()
            self._keep(KeptDoor(self._shown(), is_open=True))
            return self.status()

    async def stop(self) -> dict[str, Any]:
        """Close the door, and leave it closed after a restart."""
        async with self._lock:
            shown = self._shown() or self._chosen(self._kept())
            await self._close()
            self._solved()
            self._keep(KeptDoor(shown, is_open=False))
            return self.status()

    async def aclose(self) -> None:
        """Close the door with the daemon; it is opened again by the next."""
        async with self._lock:
            await self._close()

    def status(self) -> dict[str, Any]:
        """Whether it listens and where, what stands in the way, and who called."""
        return {
            "listening": self._open is not None,
            "url": self.url,
            "listen": self._shown(),
            "insecure": self._open is not None and self._open.is_insecure,
            "problem": str(self.problem) if self.problem else None,
            "hint": self.problem.hint if self.problem else None,
            "socket": self._life.info.socket,
            "urls": self.urls(),
            "callers": self.gateway.callers(),
        }

    @property
    def url(self) -> str | None:
        """The base URL for OpenAI's SDKs."""
        return f"{self._open.scheme}://{self._open.shown}/v1" if self._open is not None else None

    @property
    def trouble(self) -> str:
        """The problem and what it means; empty without one."""
        if self.problem is None:
            return ""
        return f"the gateway {f'still listens at {self._shown()}' if self._open else 'does not listen'}: {self.problem}"

    def urls(self) -> dict[str, str]:
        """Base URL by vendor's SDK; nothing while it is closed."""
        url = self.url
        return {"openai": url, "anthropic": url.removesuffix("/v1")} if url else {}

    # --- opening and closing; the caller holds the lock

    async def _listen_at(self, listen: str) -> None:
        """Listen there, and no longer elsewhere; where that fails, what is open stays."""
        before = self._open
        try:
            config = self._config(listen)
            if before is not None and before.port == parse_listen(listen)[1]:
                await self._close()  # the port is our own
            self._open = await self._opened(listen, config)
        except TundraError as error:
            if before is not None and self._open is None:
                with contextlib.suppress(TundraError):
                    self._open = await self._opened(before.shown, before.config)
            if self._open is None or listen == self._chosen(self._kept()):  # else only who asked for it is told
                self.problem = error
                self._life.problems.tell("gateway", self.trouble, error.hint)
                _log.error("%s", self.trouble)
            raise
        if before is not None:
            await before.stack.aclose()
        self._solved()
        (_log.warning if self._open.is_insecure else _log.info)("the gateway listens at %s", self.url)

    def _solved(self) -> None:
        self.problem = None
        self._life.problems.end("gateway")

    def _config(self, listen: str) -> Config:
        chosen = self._settings
        check_reach(listen, chosen)
        is_tls = has_tls(chosen)
        config = bare(
            self._face,
            drain=DRAIN_SECONDS,
            keep_alive=KEEP_ALIVE_SECONDS,
            http=Cuttable,
            ws="none",
            backlog=BACKLOG,
            ssl_certfile=chosen.tls_cert or None if is_tls else None,
            ssl_keyfile=chosen.tls_key or None if is_tls else None,
        )
        try:
            config.load()
        except (OSError, ValueError) as exc:
            raise ConfigError(where="gateway.tls_cert", problem=f"cannot be used: {exc}") from exc
        return config

    async def _opened(self, listen: str, config: Config) -> _Listener:
        host, port = parse_listen(listen)
        listener = await self._bound(host, port)
        async with contextlib.AsyncExitStack() as stack:
            stack.callback(listener.close)
            server = _Server(config)
            serving = asyncio.create_task(server.serve(sockets=[listener]), name="gateway")

            async def end() -> None:
                server.should_exit = True
                await asyncio.wait((serving,), timeout=DRAIN_SECONDS + 1)
                await server.end_tasks()
                serving.cancel()
                await asyncio.gather(serving, return_exceptions=True)

            stack.push_async_callback(end)
            await server.is_up.wait()
            stack.enter_context(self._life.attached(GATEWAY))
            return _Listener(stack.pop_all(), config, listen, host, listener.getsockname()[1])

    async def _bound(self, host: str, port: int) -> socket.socket:
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as exc:
            raise UsageError(problem=f"{host!r} is no address of this machine: {exc}", field="listen") from exc
        family, kind, protocol, _, address = found[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(BACKLOG)
            listener.setblocking(False)
        except OSError as exc:
            listener.close()
            holder = await asyncio.to_thread(_holder, port)
            problem = f"{host}:{port} is taken{holder}" if holder else f"{host}:{port}: {exc.strerror or exc}"
            remedy = "Stop that program, or choose another port: `tundra gateway start --port 0`."
            raise ConfigError(where="gateway.listen", problem=problem, remedy=remedy) from exc
        return listener

    async def _close(self) -> None:
        before, self._open = self._open, None
        if before is not None:
            await before.stack.aclose()
            _log.info("the gateway listens no longer")

    def _shown(self) -> str:
        return self._open.shown if self._open is not None else ""

    # --- what is kept

    def _wanted(self, kept: KeptDoor | None) -> str:
        return "" if kept is not None and not kept.is_open else self._chosen(kept)

    def _chosen(self, kept: KeptDoor | None) -> str:
        """Where it listens once it is opened."""
        listen = self._settings.listen
        if kept is None:
            return listen
        host, _, port = listen.rpartition(":")
        # port 0 chose one, and keeps it
        return kept.listen if not listen or (port == "0" and kept.listen.rpartition(":")[0] == host) else listen

    def _kept(self) -> KeptDoor | None:
        try:
            return msgspec.json.decode(self._file.read_bytes(), type=KeptDoor)
        except (OSError, msgspec.DecodeError, UnicodeDecodeError):
            return None

    def _keep(self, kept: KeptDoor) -> None:
        try:
            self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle, draft = tempfile.mkstemp(prefix=f".{self._file.name}-", dir=self._file.parent)
            with os.fdopen(handle, "wb") as stream:
                stream.write(msgspec.json.encode(kept))
            os.replace(draft, self._file)
        except OSError as exc:
            _log.error("whether the gateway listens cannot be kept: %s", exc)


def _holder(port: int) -> str:
    """Who listens on a port, as words that follow "taken"."""
    import psutil  # a fiftieth of all that a start would load

    try:
        connections = psutil.net_connections(kind="tcp")
    except (psutil.Error, OSError):
        return ""
    for connection in connections:
        if connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port:
            if connection.pid is None:
                return " by a program of another user"
            with contextlib.suppress(psutil.Error):
                return f" by {psutil.Process(connection.pid).name()} (pid {connection.pid})"
            return f" by pid {connection.pid}"
    return ""
