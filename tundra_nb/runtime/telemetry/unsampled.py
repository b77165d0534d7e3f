"""How a row says that the caller does not sample its trace."""

from __future__ import annotations

UNSAMPLED = "-00"
"""Behind the caller's span in `parent_span_id`."""
