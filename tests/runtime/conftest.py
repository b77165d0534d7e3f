"""The calls' part of the runtime never blocks its loop."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from blockbuster import blockbuster_ctx

from tundra_nb.runtime.providers import classify

PURE = ("test_operations.py", "test_operations_blocking.py", "test_operations_cancel.py", "resilience", "providers")
"""Where nothing but the provider's socket is waited for; PTYs and the history block in threads of their own."""


@pytest.fixture(autouse=True)
def never_blocks(request: pytest.FixtureRequest) -> Iterator[None]:
    """A blocking call on the loop is an error where it is made."""
    if not any(part in request.node.nodeid for part in PURE):
        yield
        return
    classify.phrases()  # as the runtime has it read soon after its start
    with blockbuster_ctx("tundra_nb.runtime"):
        yield
