"""Planted keys appear nowhere: a real Jupyter server, a real kernel, a hostile provider, and everything recorded.

Each canary is a value of its own, so that a leak names the hole. The provider echoes what it was sent in bodies and
headers, as some do. The test first shows that the canaries were in use, then searches every place that keeps or shows
text.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import sys
import threading
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from jupyter_client.blocking.client import BlockingKernelClient

from tests.kernel.conftest import Notebook
from tests.server.conftest import JupyterServer, StartServer, short_folder, start_server
from tundra_nb.testing.scripted_provider import ScriptedProcess, ScriptedStep, scripted_process
from tundra_nb.types import TABLES

__all__ = ["short_folder", "start_server"]  # fixtures

pytestmark = [pytest.mark.part("doltlite"), pytest.mark.timeout(90)]

CHAT = "/v1/chat/completions"
MARKER = "marker-9d1f-that-is-no-secret"
"""Travels beside the canaries; finding it proves that the search looks in the right places."""
SERVER = {
    "SCRIPTED_API_KEY": "canary-profile-51c0de77aa",
    "AWS_SECRET_ACCESS_KEY": "canary-aws/9+Zk2d0e1f==x",
    "HISTORY_PASSWORD": "canary-history-password-7710",
    "GITHUB_TOKEN": "canary-github-0a9b8c7d6e",
}
"""In the environment of the Jupyter server, and so in the daemon's."""
KERNEL = {"KERNEL_API_KEY": 'canary-kernel-"quoted"-33e1', "NOTEBOOK_DB_PASSWORD": "canary-notebook-db-4412"}
"""In the environment of the kernel alone; the first is handed to the daemon."""
FOREIGN = "sk-canaryforeign0123456789abcdef"
"""In no environment: somebody pasted it into a prompt. Only its form tells."""
SETTINGS = """
[store]
password_env = "HISTORY_PASSWORD"
[router]
retries = 0
[breaker]
failures = 100
[record]
content = "all"
[log]
filter = "debug"
[[profile]]
name = "scripted"
kind = "openai"
base_url = "{url}/v1"
model = "scripted-1"
api_key_env = "SCRIPTED_API_KEY"
[[profile]]
name = "kernels"
kind = "anthropic"
base_url = "{url}"
model = "scripted-1"
api_key_env = "KERNEL_API_KEY"
priority = 1
"""


@dataclasses.dataclass
class Workplace:
    """A server with canaries in its environment, a kernel with others, and what a browser saw meanwhile."""

    server: JupyterServer
    notebook: Notebook
    provider: ScriptedProcess
    events: list[str] = dataclasses.field(default_factory=list)
    shown: list[str] = dataclasses.field(default_factory=list)
    """Everything that cells put out."""

    def run(self, code: str) -> str:
        """Run a cell; the whole of what it put out, errors included."""
        ran = self.notebook.run(code)
        out = json.dumps([ran.outputs, ran.reply], ensure_ascii=False, default=str)
        self.shown.append(out)
        return out

    def api(self) -> httpx.Client:
        return self.server.client()


@pytest.fixture(scope="module")
def workplace(short_folder: Callable[[], Path], start_server: StartServer) -> Iterator[Workplace]:
    folder = short_folder()
    spec = folder / "data" / "kernels" / "canary"
    spec.mkdir(parents=True)
    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}", "--ext=tundra_nb"]
    (spec / "kernel.json").write_text(json.dumps({"argv": argv, "display_name": "c", "language": "python"}))
    with scripted_process() as provider:
        (folder / "tundra.toml").write_text(SETTINGS.format(url=provider.url))
        env = SERVER | {"IPYTHONDIR": str(folder / "ipython"), "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
        server = start_server(folder, env=env)
        kernel = plant_and_start(server, spec)
        client = BlockingKernelClient(connection_file=str(folder / "runtime" / f"kernel-{kernel}.json"))
        client.load_connection_file()
        manager: Any = types.SimpleNamespace(client=lambda: client)
        made = Workplace(server, Notebook(manager, provider, server.env), provider)
        listening = threading.Thread(target=listen, args=(made,), daemon=True)
        listening.start()
        yield made
        client.stop_channels()
        server.stop()
        listening.join(10)


def plant_and_start(server: JupyterServer, spec: Path) -> str:
    """Start a kernel whose environment has canaries that neither server nor daemon know; its id."""
    file = spec / "kernel.json"
    told = json.loads(file.read_text())
    file.write_text(json.dumps(told | {"env": KERNEL}))
    with httpx.Client(base_url=server.url, headers={"Authorization": f"token {server.token}"}) as jupyter:
        started = jupyter.post("api/kernels", json={"name": "canary"}, timeout=30)
    file.write_text(json.dumps(told))
    assert started.status_code == 201, started.text
    return str(started.json()["id"])


def listen(workplace: Workplace) -> None:
    """Keep all that `/api/events` says, until the server goes."""
    try:
        with workplace.api() as api, api.stream("GET", "/api/events", timeout=120) as stream:
            for line in stream.iter_lines():
                workplace.events.append(line)
    except httpx.HTTPError:
        pass


def echoing(status: int, key: str) -> ScriptedStep:
    """An answer that gives away what was sent, in every form that has been seen."""
    basic = base64.b64encode(b":" + key.encode()).decode()
    said = {
        "message": f"Incorrect API key provided: {key}. {MARKER} Authorization: Bearer {key}; basic {basic}",
        "request": {"headers": {"authorization": f"Bearer {key}", "x-api-key": key}},
    }
    return ScriptedStep(
        status=status,
        headers=(("x-request-id", f"req-{key}"), ("x-ratelimit-limit-requests", key), ("retry-after", key)),
        body=json.dumps({"type": "error", "error": said}).encode(),
    )


def unpark(workplace: Workplace, profile: str) -> None:
    """Have the profile asked again until its key is taken: a parked one sends nothing, so nothing could leak of it."""
    with workplace.api() as api:
        for _ in range(8):
            workplace.run(f"%tundra providers recheck {profile}")
            rows = api.get("/api/providers").json()["rows"]
            if any(row["profile"] == profile and row["state"] != "parked" for row in rows):
                return
    pytest.fail(f"{profile} stays parked")


def streamed(text: str, at: int) -> ScriptedStep:
    """An answer as a stream of two pieces, cut at a character."""
    chunks = [{"choices": [{"index": 0, "delta": {"content": piece}}]} for piece in (text[:at], text[at:])]
    end = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    events = [*(json.dumps(chunk) for chunk in [*chunks, end]), "[DONE]"]
    pieces = tuple(f"data: {event}\n\n".encode() for event in events)
    return ScriptedStep(pieces=pieces, headers=(("content-type", "text/event-stream"),))


def everything_at_once(workplace: Workplace) -> None:
    """Use every way on which a key could get out."""
    provider, run = workplace.provider, workplace.run
    run("import os, tundra_nb; t = tundra_nb.connect()")
    assert "word0" in run("%tundra ask -p scripted hello")
    for status in (400, 401, 403, 429, 500):
        provider.script(CHAT, echoing(status, SERVER["SCRIPTED_API_KEY"]))
        run(f"%tundra ask -p scripted --no-failover say {MARKER}")
        provider.script("/v1/models", echoing(status, SERVER["SCRIPTED_API_KEY"]))
        run("%tundra models")
        run("%tundra providers recheck scripted")
        unpark(workplace, "scripted")
    run("%tundra ask -p kernels --no-failover without a key")
    run("%tundra keys offer")
    run("%tundra keys")
    for status in (401, 500):
        provider.script("/v1/messages", echoing(status, KERNEL["KERNEL_API_KEY"]))
        run("%tundra ask -p kernels --no-failover hello")
        run("%tundra providers recheck kernels")
    unpark(workplace, "kernels")
    broken = f"<html>{SERVER['SCRIPTED_API_KEY']} {MARKER}</html>".encode()
    provider.script(
        CHAT, ScriptedStep(body=broken), ScriptedStep(raw=b"HTTP/1.1 200 OK\r\nx: " + broken + b"\r\n\r\n", end="close")
    )
    run("%tundra ask -p scripted --no-failover broken")
    run("%tundra ask -p scripted --no-failover broken")
    # prompts that quote keys, and answers that fail over them
    run("aws, foreign = os.environ['AWS_SECRET_ACCESS_KEY'], 'sk-' + 'canaryforeign0123456789abcdef'")
    provider.script(CHAT, ScriptedStep(status=400, text=f"bad prompt: {SERVER['AWS_SECRET_ACCESS_KEY']} {FOREIGN}"))
    run("%tundra ask -p scripted --no-failover my keys are {{aws}} and {{foreign}} " + MARKER)
    # … and answers that repeat a key: masked where they are kept and shown, also where pieces of a stream split it
    with workplace.api() as api:
        ask = {"messages": [{"role": "user", "content": f"tell {SERVER['GITHUB_TOKEN']}"}], "profile": "scripted"}
        for key in (SERVER["SCRIPTED_API_KEY"], SERVER["AWS_SECRET_ACCESS_KEY"], KERNEL["KERNEL_API_KEY"]):
            provider.script(CHAT, ScriptedStep(text=f"it is {key} {MARKER}"))
            told = api.post("/api/operations", json=ask)
            assert told.status_code == 200
            workplace.shown.append(told.text)
            provider.script(CHAT, streamed(f"it is {key} {MARKER}", at=len("it is ") + 9))
            told = api.post("/api/operations", json=ask | {"stream": True})
            assert "event: reply" in told.text
            workplace.shown.append(told.text)
            provider.script(CHAT, streamed(f"it is {key} {MARKER}", at=len("it is ") + 4))
            assert MARKER in run("%tundra ask -p scripted what is my key")
    # names and statements that quote keys
    run("%tundra ask -p {{aws}} hello")
    run("%tundra sql select * from {{foreign}}")
    run("t.sql('select \"' + aws + '\" from nowhere where')")
    run("%tundra errors")
    run("%tundra calls")
    run("%tundra attempts")
    run("%tundra status")
    run("%tundra settings")
    run("%tundra providers")
    run("%tundra models")
    run("%tundra limits")
    run("%tundra last")
    run("%tundra why last")
    run("%tundra logs -n 500")
    # terminals: what they inherit, and what they print
    run("r = t.run('env; cat /proc/self/environ'); print(r.text)")
    run("print(t.run('env', env={'MY_PASSWORD': aws}).text)")


def canaries() -> dict[str, list[bytes]]:
    """The forms of each canary to search for."""
    found = {}
    for name, value in (SERVER | KERNEL | {"foreign": FOREIGN}).items():
        plain = value.encode()
        forms = {plain, json.dumps(value)[1:-1].encode(), base64.b64encode(plain).rstrip(b"=")}
        found[name] = sorted(forms)
    return found


def leaks(where: str, content: bytes | str) -> list[str]:
    """Which canaries are in a text."""
    data = content.encode() if isinstance(content, str) else content
    return [f"{name} in {where}" for name, forms in canaries().items() if any(form in data for form in forms)]


@pytest.fixture(scope="module")
def used(workplace: Workplace) -> Workplace:
    """The workplace, after everything has been done in it."""
    everything_at_once(workplace)
    return workplace


def test_the_canaries_were_in_use(used: Workplace) -> None:
    sent = [dict(request.headers) for request in used.provider.requests]
    bearers = {headers.get("authorization") or headers.get("Authorization") for headers in sent}
    keys = {headers.get("x-api-key") for headers in sent}
    assert f"Bearer {SERVER['SCRIPTED_API_KEY']}" in bearers
    assert KERNEL["KERNEL_API_KEY"] in keys


def test_no_cell_shows_a_canary(used: Workplace) -> None:
    assert any(MARKER in out for out in used.shown), "errors of the provider are shown"
    assert [leak for number, out in enumerate(used.shown) for leak in leaks(f"cell {number}: {out[:300]}", out)] == []


def test_no_row_of_any_table_holds_a_canary(used: Workplace) -> None:
    found, text = [], ""
    with used.api() as api:
        for table in TABLES:
            told = api.get(f"/api/history/{table}", params={"since": "all"}, headers={"Accept": "application/json"})
            assert told.status_code == 200, told.text
            text += told.text
            found += leaks(f"table {table}", told.text)
            arrow = api.post("/api/sql", json={"sql": f"select * from {table}"})
            assert arrow.status_code == 200, arrow.text
            found += leaks(f"sql {table}", arrow.content)
    assert found == []
    assert text.count(MARKER) > 5, "errors and exchanges are kept"
    assert "SCRIPTED_API_KEY:" in text, "a masked key says which one it was"


def test_no_answer_of_the_api_shows_a_canary(used: Workplace) -> None:
    found = []
    with used.api() as api:
        operation = api.get("/api/operations/last").json()["operation"]["operation_id"]
        for path in (
            *("status", "providers", "models", "limits", "breakers", "settings", "keys", "commits", "branches", "tags"),
            *("ptys", "operations/last", f"operations/{operation}", "history/errors", "history/calls", "nothing-here"),
        ):
            told = api.get(f"/api/{path}")
            found += leaks(path, told.content + repr(told.headers).encode())
        for body in ({"messages": SERVER["SCRIPTED_API_KEY"]}, {SERVER["SCRIPTED_API_KEY"]: 1}, {"profile": FOREIGN}):
            told = api.post("/api/operations", json={"messages": []} | body)
            assert told.status_code >= 400
            found += leaks("a refused question", told.content)
    # by the socket: a Jupyter server logs the addresses that it refuses, whatever is in them
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(used.server.paths.socket)), base_url="http://d") as api:
        for path in (
            f"history/{SERVER['AWS_SECRET_ACCESS_KEY']}",
            f"operations/{SERVER['SCRIPTED_API_KEY']}",
            f"history/calls?{SERVER['SCRIPTED_API_KEY']}.eq=1",
        ):
            told = api.get(f"/api/{path}")
            assert told.status_code >= 400
            found += leaks(path, told.content)
    assert found == []


def test_no_live_event_shows_a_canary(used: Workplace) -> None:
    feed = "\n".join(used.events)
    assert MARKER in feed
    assert leaks("events", feed) == []


def test_no_file_holds_a_canary(used: Workplace) -> None:
    places = used.server.paths
    folder = used.server.folder
    files = [file for root in (folder, places.socket.parent) for file in root.rglob("*") if file.is_file()]
    names = {file.name for file in files}
    assert {"history.db", "daemon.log", "daemon.lock", "server.log", places.connection_file.name} <= names
    assert any(MARKER.encode() in file.read_bytes() for file in places.spool.iterdir()), "rows are in plain sight"
    # the kernel's own files hold what was typed and shown there; ours are all the others
    ours = [file for file in files if not file.is_relative_to(folder / "ipython")]
    assert [leak for file in ours for leak in leaks(str(file), file.read_bytes())] == []


def test_no_process_listing_shows_a_canary(used: Workplace) -> None:
    with used.api() as api:
        pty = api.post("/api/ptys", json={"command": "sleep 60"}).json()
        found = []
        for process in psutil.process_iter():
            try:
                found += leaks(f"cmdline of {process.pid}", "\0".join(process.cmdline()))
            except psutil.Error:
                continue
        family = psutil.Process(used.server.daemon_record()["pid"]).children(recursive=True)
        worker = next(p for p in family if "tundra_nb.runtime.history.worker" in p.cmdline())
        sleeper = psutil.Process(pty["pid"])
        for process in (worker, sleeper):
            assert process.environ()
            found += leaks(f"environ of {process.cmdline()}", json.dumps(process.environ(), ensure_ascii=False))
        api.delete(f"/api/ptys/{pty['pty_id']}")
    assert found == []
