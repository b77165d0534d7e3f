"""The one call of IPython that both still and growing outputs make."""

from __future__ import annotations

from typing import Any


def display_data(data: dict[str, Any], **options: Any) -> Any:
    """IPython's `display`; with `display_id=True` what it returns can be updated."""
    from IPython.display import display

    return display(data, **options)  # type: ignore[no-untyped-call]
