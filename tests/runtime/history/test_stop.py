"""How a request is broken off, from the thread that watches."""

from __future__ import annotations

import threading
import time

from tundra_nb.runtime.history.contract import Stop


def test_a_hook_that_was_taken_back_is_not_running_any_more() -> None:
    """So that whoever takes it back may close what it would break off."""
    stop = Stop()
    begun = threading.Event()
    order: list[str] = []

    def hook() -> None:
        begun.set()
        time.sleep(0.2)
        order.append("the hook has ended")

    stop.set_hook(hook)
    watching = threading.Thread(target=stop.cancel)
    watching.start()
    assert begun.wait(10)
    stop.set_hook(None)
    order.append("it was taken back")
    watching.join(10)
    assert order == ["the hook has ended", "it was taken back"]
