"""The fixture that watches over the other tests of calls does see a call that blocks."""

from __future__ import annotations

from typing import Any

import pytest
from blockbuster import BlockingError

import tundra_nb.runtime


@pytest.mark.anyio
async def test_code_of_the_runtime_that_blocks_its_loop_is_refused() -> None:
    code = compile("import time\ndef stall():\n    time.sleep(0.01)\n", str(tundra_nb.runtime.__file__), "exec")
    names: dict[str, Any] = {}
    exec(code, names)
    with pytest.raises(BlockingError):
        names["stall"]()
