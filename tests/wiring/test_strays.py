"""What leaves a terminal without a trace of it, and what then ends it: the real daemon under its guard."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest

from tests.conftest import Home, wait_until
from tundra_nb.client.sync import Client

pytestmark = pytest.mark.part("doltlite")

TRACELESS = {
    "limits set anew": "ulimit -S -R unlimited; env -i setsid /bin/sleep {n} <&- >&- 2>&- & exit 0",
    "sudo": "sudo -n -u nobody env -i setsid /bin/sleep {n} <&- >&- 2>&- & wait; exit 0",
}
"""Environment cleared, session left, and the session's number in the limits gone: `sudo` does all three."""


def sleepers(number: int) -> list[int]:
    found = []
    for pid in (int(name) for name in os.listdir("/proc") if name.isdigit()):
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if words[:2] == [b"/bin/sleep", str(number).encode()]:
            found.append(pid)
    return found


@pytest.mark.parametrize("shape", TRACELESS)
def test_it_ends_when_no_terminal_is_open_that_may_have_started_it(home: Home, shape: str) -> None:
    """One that is as old keeps it alive, for it might be its own."""
    if shape == "sudo" and (shutil.which("sudo") is None or os.getuid() != 0):
        pytest.skip("needs sudo, and to be root")
    number = 200_000 + os.getpid()
    with Client(home.data_dir) as client:
        other = client.ptys.open("cat", persistent=True)
        boundary = client.status()["ptys"]["boundary"]
        run = client.run(TRACELESS[shape].format(n=number))
        assert run.exit_code == 0, run.text
        try:
            if boundary == "subreaper":
                wait_until(lambda: sleepers(number), 10, "it sleeps")
            other.close()
            wait_until(lambda: not sleepers(number), 20, "it has been ended")
        finally:
            for pid in sleepers(number):
                os.kill(pid, signal.SIGKILL)
    told = home.run("doctor", "--for", "processes").stdout
    assert f"{boundary}: " in told
