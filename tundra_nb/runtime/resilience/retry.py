"""How long to pause before the same profile is tried again."""

from __future__ import annotations

from collections.abc import Callable

from tundra_nb.settings import RouterSettings

JITTER = 0.25
"""The pause is shortened by up to a quarter, at random, as both vendors' SDKs do: callers that failed together do not
come back together."""


class Backoff:
    """Exponential pauses with jitter, overruled by what the provider asks for.

    Args:
        settings: `backoff_seconds`, `backoff_cap_seconds`, `max_wait_seconds`.
        random: a number from 0 to 1, injected.
    """

    def __init__(self, settings: RouterSettings, random: Callable[[], float]) -> None:
        self._settings = settings
        self._random = random

    def delay(self, retry_number: int, retry_after: float | None = None) -> float | None:
        """Seconds to pause before retry number 1, 2, …; None when that is longer than `max_wait_seconds`.

        A `Retry-After` of the latest attempt is kept to the letter, never shortened; one of zero or less says nothing.
        """
        if retry_after is not None and retry_after > 0:
            return retry_after if retry_after <= self._settings.max_wait_seconds else None
        # The exponent is bounded so that any number of retries stays a float.
        pause: float = self._settings.backoff_seconds * 2.0 ** min(retry_number - 1, 60)
        pause = min(pause, self._settings.backoff_cap_seconds) * (1.0 - JITTER * self._random())
        return pause if pause <= self._settings.max_wait_seconds else None
