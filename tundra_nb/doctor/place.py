"""Where a checkup looks: what a check may read and ask."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import psutil

from tundra_nb import paths, settings
from tundra_nb.errors import ConfigError, IpcError
from tundra_nb.local import running
from tundra_nb.local.running import Connection
from tundra_nb.paths import Paths
from tundra_nb.protocol import status as routes
from tundra_nb.protocol.endpoint import Endpoint
from tundra_nb.protocol.record import DaemonRecord
from tundra_nb.settings import Loaded

ASK_SECONDS = 3.0


class Subject:
    """What is checked: one data directory, one settings file, one environment. What costs time is asked once."""

    def __init__(self, where: Paths, environ: Mapping[str, str]) -> None:
        self.paths = where
        self.environ = environ
        self.config_file = paths.config_file(environ)
        self._lock = threading.Lock()
        self._asked: dict[tuple[str, msgspec.Struct | None], _Once] = {}

    @functools.cached_property
    def config(self) -> Loaded | ConfigError:
        try:
            return settings.load(self.config_file, self.environ)
        except ConfigError as error:
            return error

    @property
    def settings(self) -> settings.Settings:
        """The settings of the file, or the defaults where it cannot be read: other checks go on."""
        return self.config.settings if isinstance(self.config, Loaded) else settings.Settings()

    @functools.cached_property
    def connection(self) -> Connection | None:
        """The daemon that answers, never started."""
        try:
            return running.find(self.paths, environ={})
        except (IpcError, ConfigError):
            return None

    @functools.cached_property
    def record(self) -> DaemonRecord | None:
        """What the lock file says."""
        return running.recorded(self.paths.lock)

    @property
    def process(self) -> psutil.Process | None:
        """The daemon's process by its record, if it lives, listening or not."""
        if self.record is None or self.record.state == "stopping" or self.record.host != os.uname().nodename:
            return None
        try:
            process = psutil.Process(self.record.pid)
            ours = "tundra_nb.daemon" in " ".join(process.cmdline()) and process.status() != psutil.STATUS_ZOMBIE
        except (OverflowError, ValueError, psutil.Error):
            return None
        return process if ours else None

    def ask(
        self, endpoint: Endpoint, query: msgspec.Struct | None = None, *, seconds: float = ASK_SECONDS
    ) -> dict[str, Any] | None:
        """What the daemon says to a GET; None when it does not answer. Asked once."""
        with self._lock:
            event = self._asked.setdefault((endpoint.path, query), _Once())
        answer: dict[str, Any] | None = event.get(lambda: self._get(endpoint, query, seconds))
        return answer

    def _get(self, endpoint: Endpoint, query: msgspec.Struct | None, seconds: float) -> dict[str, Any] | None:
        if self.connection is None:
            return None
        try:
            status, body = running.request(self.connection, endpoint, query=query, timeout=seconds)
        except (OSError, IpcError):
            return None
        return body if status == 200 else {"error": body}

    @property
    def status(self) -> dict[str, Any] | None:
        """The daemon's brief status."""
        told = self.ask(routes.STATUS, routes.StatusQuery(brief=True))
        return None if told is None or "error" in told else told

    @property
    def certificates(self) -> tuple[Mapping[str, str], str]:
        """Variables that name certificates to trust, and whose: the daemon's, which makes the calls, if it answers."""
        if self.status is not None:
            return self.status.get("certificates", {}), "the daemon's"
        return self.environ, "this shell's"


class _Once:
    """A value that is worked out by whoever comes first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_done = False
        self._value: Any = None

    def get(self, make: Callable[[], Any]) -> Any:
        with self._lock:
            if not self._is_done:
                self._value = make()
                self._is_done = True
            return self._value
