"""One yes is for one command: what binds an answer to the question that it answers.

A client that is asked over a stateless door sends the question's state back with the answer. The state is sealed with a
key of this process and holds the command line, so that a yes to one command cannot be sent along with another, and a
yes cannot be used twice.
"""

from __future__ import annotations

import base64
import hmac
import secrets
import threading
import time

from tundra_nb.errors import UsageError

LIFETIME_SECONDS = 600.0
"""How long a question waits for its answer."""


class Approvals:
    """Questions that are open, asked and answered from any thread."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)
        self._open: dict[str, float] = {}
        self._lock = threading.Lock()

    def ask(self, command_line: str) -> str:
        """A state for a question about this command; it comes back with the answer."""
        nonce = secrets.token_urlsafe(12)
        with self._lock:
            self._open[nonce] = time.monotonic()
            for old in [known for known, since in self._open.items() if time.monotonic() - since > LIFETIME_SECONDS]:
                del self._open[old]
        return f"{nonce}.{self._seal(nonce, command_line)}"

    def redeem(self, state: str, command_line: str) -> None:
        """Take the answer to a question about this command; it counts once.

        Raises:
            UsageError: the question was about something else, was answered already, or is too old.
        """
        nonce, _, seal = state.partition(".")
        if not hmac.compare_digest(seal.encode(), self._seal(nonce, command_line).encode()):
            raise UsageError(
                problem="not run: the answer belongs to another command than this one",
                field="requestState",
                remedy="Give the command again, and answer the question that comes.",
            )
        with self._lock:
            since = self._open.pop(nonce, None)
        if since is None or time.monotonic() - since > LIFETIME_SECONDS:
            raise UsageError(
                problem="not run: that question was answered already, or is too old",
                field="requestState",
                remedy="Give the command again, and answer the question that comes.",
            )

    def _seal(self, nonce: str, command_line: str) -> str:
        digest = hmac.digest(self._key, f"{nonce}\n{command_line}".encode(), "sha256")
        return base64.urlsafe_b64encode(digest).decode()
