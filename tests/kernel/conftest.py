"""A real kernel, a real daemon and a scripted provider, shared by the tests of a module."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.manager import KernelManager

from tundra_nb.testing.scripted_provider import ScriptedProcess, scripted_process

DEADLINE = 30.0


@dataclasses.dataclass
class Ran:
    """What a cell gave."""

    outputs: list[dict[str, Any]]
    reply: dict[str, Any]
    updates: int = 0

    @property
    def stdout(self) -> str:
        return "".join(out["text"] for out in self.outputs if out.get("name") == "stdout")

    @property
    def error(self) -> dict[str, Any] | None:
        return self.reply if self.reply["status"] == "error" else None

    @property
    def traceback(self) -> str:
        assert self.error is not None, self.outputs
        return re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(self.error["traceback"]))

    @property
    def text(self) -> str:
        return "\n".join(out["data"]["text/plain"] for out in self.outputs if "data" in out)

    @property
    def html(self) -> str:
        return "\n".join(out["data"].get("text/html", "") for out in self.outputs if "data" in out)

    @property
    def metadata(self) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        for out in self.outputs:
            merged |= out.get("metadata") or {}
        return merged


class Notebook:
    """A kernel that cells are run in."""

    def __init__(self, manager: KernelManager, provider: ScriptedProcess, env: dict[str, str]) -> None:
        self.manager = manager
        self.client = manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=DEADLINE)
        self.provider = provider
        self.env = env
        self._seen: list[dict[str, Any]] = []

    def start(self, code: str) -> str:
        """Send a cell and come back at once."""
        message_id: str = self.client.execute(code)
        return message_id

    def start_and_wait_for_call(self, code: str) -> str:
        """Send a cell and come back once its call has reached the provider."""
        before = len(self.provider.requests)
        message_id = self.start(code)
        deadline = time.monotonic() + DEADLINE
        while len(self.provider.requests) == before:
            assert time.monotonic() < deadline, "the call did not reach the provider"
            time.sleep(0.02)
        return message_id

    def wait_until_shown(self, message_id: str, text: str) -> None:
        """Come back once the cell has put out `text`."""
        deadline = time.monotonic() + DEADLINE
        while True:
            message = self._message(deadline)
            self._seen.append(message)
            if message["parent_header"].get("msg_id") == message_id and text in str(message["content"]):
                return

    def finish(self, message_id: str) -> Ran:
        """Wait until a cell is done."""
        outputs: list[dict[str, Any]] = []
        by_id: dict[str, dict[str, Any]] = {}
        updates = 0
        deadline = time.monotonic() + DEADLINE
        while True:
            message = self._seen.pop(0) if self._seen else self._message(deadline)
            if message["parent_header"].get("msg_id") != message_id:
                continue
            kind, content = message["msg_type"], message["content"]
            if kind == "status" and content["execution_state"] == "idle":
                break
            if kind == "update_display_data":
                updates += 1
                by_id[content["transient"]["display_id"]].update(content)
            elif kind in ("stream", "display_data", "execute_result"):
                outputs.append(content)
                if display_id := (content.get("transient") or {}).get("display_id"):
                    by_id[display_id] = content
        while True:
            reply = self.client.get_shell_msg(timeout=DEADLINE)
            if reply["parent_header"].get("msg_id") == message_id:
                return Ran(outputs, reply["content"], updates)

    def run(self, code: str) -> Ran:
        return self.finish(self.start(code))

    def value(self, expression: str) -> str:
        """The text of a Python expression in the kernel."""
        ran = self.run(f"print({expression})")
        assert ran.error is None, ran.traceback
        return ran.stdout.strip()

    def complete(self, code: str, cursor: int | None = None) -> list[str]:
        message_id = self.client.complete(code, cursor)
        while True:
            reply = self.client.get_shell_msg(timeout=DEADLINE)
            if reply["parent_header"].get("msg_id") == message_id:
                matches: list[str] = reply["content"]["matches"]
                return matches

    def wait_for_output(self, message_id: str, kind: str = "display_data") -> None:
        """Wait until a running cell has shown something."""
        deadline = time.monotonic() + DEADLINE
        while True:
            message = self._message(deadline)
            self._seen.append(message)
            if message["parent_header"].get("msg_id") == message_id and message["msg_type"] == kind:
                return

    def _message(self, deadline: float) -> dict[str, Any]:
        message: dict[str, Any] = self.client.get_iopub_msg(timeout=max(0.1, deadline - time.monotonic()))
        return message


@pytest.fixture(scope="module")
def notebook(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Notebook]:
    folder: Path = tmp_path_factory.mktemp("notebook")
    env = {
        name: value
        for name, value in os.environ.items()
        if not name.upper().startswith("TUNDRA_") and not name.upper().endswith(("_API_KEY", "_PROXY"))
    }
    env |= {
        "TUNDRA_DATA_DIR": str(folder / "data"),
        "TUNDRA_CONFIG": str(folder / "tundra.toml"),
        "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
        "IPYTHONDIR": str(folder / "ipython"),
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    }
    with scripted_process(pieces=4) as provider:
        (folder / "tundra.toml").write_text(
            "[router]\nretries = 0\n"
            f'[[profile]]\nname = "scripted"\nkind = "local"\nbase_url = "{provider.url}/v1"\nmodel = "tiny"\n'
        )
        manager = KernelManager(kernel_name="python3")
        manager.start_kernel(env=env, cwd=str(folder))
        made = Notebook(manager, provider, env)
        try:
            ran = made.run("%load_ext tundra_nb")
            assert ran.error is None, ran.traceback
            yield made
        finally:
            made.client.stop_channels()
            manager.shutdown_kernel(now=True)
            command = [sys.executable, "-m", "tundra_nb.cli", "daemon", "stop", "--force"]
            subprocess.run(command, env=env, check=False, capture_output=True, timeout=DEADLINE)
