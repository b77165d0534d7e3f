"""Shared fixtures: the anyio backend, an empty environment, and parts that a machine may lack."""

from __future__ import annotations

import pytest


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
