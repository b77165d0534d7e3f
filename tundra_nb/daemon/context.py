"""What every route works with."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING
from urllib.parse import unquote

from starlette.requests import HTTPConnection

from tundra_nb.protocol.words import USER_HEADER

if TYPE_CHECKING:
    from tundra_nb.daemon.gateway.doors import Doors
    from tundra_nb.daemon.life import Life
    from tundra_nb.runtime.runtime import Runtime


@dataclasses.dataclass(frozen=True)
class Daemon:
    """What routes work with."""

    runtime: Runtime
    life: Life
    os_user: str
    doors: Doors

    def user(self, request: HTTPConnection) -> str:
        """Whose call it is: the bridge names the Jupyter user; who comes by the socket is the OS user."""
        return unquote(request.headers.get(USER_HEADER, "")) or self.os_user
