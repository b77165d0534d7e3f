"""Keys of providers: looked up by the name of their variable, never stored, never shown.

The daemon's environment is that of whoever started it. A client may offer a key that the environment lacks; it is
held in memory only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tundra_nb.runtime.telemetry.redact import Redactor


class KeyRing:
    """Key values by variable name. Every value it ever held is registered with the redactor."""

    def __init__(self, environ: Mapping[str, str], redactor: Redactor) -> None:
        self._environ = environ
        self._offered: dict[str, str] = {}
        self._redactor = redactor

    def expect(self, variables: Iterable[str]) -> None:
        """Have the values of these variables masked from now on."""
        for variable in variables:
            if value := self.get(variable):
                self._redactor.register(variable, value)

    def get(self, variable: str) -> str | None:
        return self._offered.get(variable) or self._environ.get(variable) or None

    def offer(self, variable: str, value: str) -> bool:
        """Take a key into memory; True when it differs from the one known before."""
        changed = self.get(variable) != value
        self._redactor.register(variable, value)
        self._offered[variable] = value
        return changed

    def fingerprint(self, variable: str) -> str | None:
        """Salted hash of the value, so that two sides can compare without showing it; None when it is not set."""
        value = self.get(variable)
        return self._redactor.fingerprint(value) if value else None

    def values(self, variables: Iterable[str]) -> dict[str, str]:
        """Value by variable, of those that are set: for masking terminal output."""
        return {variable: value for variable in variables if (value := self.get(variable))}
