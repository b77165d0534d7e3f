"""Media types, headers and marks that more than one process must know."""

from __future__ import annotations

JSON = "application/json"
ARROW = "application/vnd.apache.arrow.stream"
EVENTS = "text/event-stream"
BYTES = "application/octet-stream"
TEXT = "text/plain"

USER_HEADER = "X-Tundra-User"
"""Set by the Jupyter server: whose call it is, percent-encoded."""
META_HEADER = "X-Tundra-Meta"
"""What an Arrow stream is: what was asked and of which commit it is; JSON in ASCII."""

HEARTBEAT_SECONDS = 15.0
"""A comment line in a silent stream, so that proxies between do not take it for dead."""

START_ERROR = "TUNDRA-START-ERROR "
"""Begins the line in the log with the error for which a daemon could not start, in its wire form."""
