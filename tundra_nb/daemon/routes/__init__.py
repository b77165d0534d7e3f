"""HTTP routes of the daemon, one file per family. Each has a `routes(daemon)` function; no rules live here."""
