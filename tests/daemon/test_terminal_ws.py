"""Terminals over WebSocket, at the socket of a real daemon with short times."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import random
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from websockets.asyncio.client import ClientConnection, unix_connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.conftest import Home, stop_processes, wait_until
from tundra_nb.client.sync import Client
from tundra_nb.daemon.routes.terminal_ws import MAX_VIEWERS, UNREAD_MESSAGES
from tundra_nb.errors import IpcError

pytestmark = [pytest.mark.part("doltlite"), pytest.mark.anyio]

SETTINGS = """
[pty]
capacity = 40
grace_seconds = 0.5
lab_grace_seconds = 2.0
idle_seconds = 3.0
ping_seconds = 0.4
pong_seconds = 0.6
"""
CHUNKY = "line %d: äöü € 😀\\n"
FLOOD = f"i=0; while [ $i -lt {{lines}} ]; do printf '{CHUNKY}' $i; i=$((i+1)); done; read x"


@contextlib.contextmanager
def daemon_with(folder: Path, settings: str) -> Iterator[Client]:
    """A client of a daemon of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUNDRA_DATA_DIR", str(folder / "data"))
        patch.setenv("TUNDRA_CONFIG", str(folder / "tundra.toml"))
        patch.setenv("JUPYTER_RUNTIME_DIR", str(folder / "runtime"))
        (folder / "tundra.toml").write_text(settings)
        home = Home(folder, dict(os.environ))
        made = Client(folder / "data")
        made.open()
        yield made
        made.close()
        stop_processes(home)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    with daemon_with(tmp_path_factory.mktemp("ws"), SETTINGS) as made:
        yield made


def pid_of(client: Client) -> int:
    assert client.link.paths is not None
    return int(json.loads(client.link.paths.lock.read_text())["pid"])


class Viewer:
    """One viewer's side: collects what it is shown, and knows its offset."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.shown = ""
        self.seq = 0
        self.missed = 0
        self.ended: dict[str, Any] = {}

    async def take(self) -> list[Any]:
        told: list[Any] = json.loads(await asyncio.wait_for(self.socket.recv(), 60))
        match told:
            case ["stdout", text, *_]:
                self.shown += text
            case ["seq", seq]:
                self.seq = seq
            case ["missed", {"bytes": count}]:
                self.missed += count
            case ["ended", how]:
                self.ended = how
        return told

    async def until(self, text: str) -> None:
        while text not in self.shown:
            await self.take()

    async def closed(self) -> tuple[int, str]:
        """Read to the end: the closing code and reason."""
        with contextlib.suppress(ConnectionClosed):
            while True:
                await self.take()
        return self.socket.close_code or 0, self.socket.close_reason or ""

    async def type(self, text: str) -> None:
        await self.socket.send(json.dumps(["stdin", text]))

    async def size(self, rows: int, columns: int) -> None:
        await self.socket.send(json.dumps(["set_size", rows, columns, rows * 17, columns * 9]))


@contextlib.asynccontextmanager
async def viewing(client: Client, pty_id: str, query: str = "own=1", **options: Any) -> AsyncIterator[Viewer]:
    assert client.link.place is not None
    address = f"ws://tundra/api/ptys/{pty_id}/ws?{query}"
    async with unix_connect(client.link.place.socket, address, max_size=None, compression=None, **options) as socket:
        yield Viewer(socket)


async def wait_for(condition: Callable[[], Any], seconds: float = 15.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {seconds:g} s"
        await asyncio.sleep(0.02)
    return value


def opened(client: Client, command: str, **options: Any) -> str:
    return client.ptys.open(command, **options).id


async def test_what_is_typed_reaches_the_program_and_its_output_every_viewer(client: Client) -> None:
    """terminado's messages; `end` is the offset after the text, `seq` the same for viewers that ask."""
    pty = opened(client, "cat")
    async with viewing(client, pty) as first, viewing(client, pty, "") as second:
        assert await first.take() == ["setup", {}]
        assert await first.take() == ["seq", 0]
        await first.type("grüße\r")
        await first.until("grüße\r\ngrüße\r\n")
        await second.until("grüße\r\ngrüße\r\n")
        await wait_for(lambda: client.ptys[pty].info["viewers"] == 2)
        assert first.shown == second.shown
    whole = len("grüße\r\ngrüße\r\n".encode())
    async with viewing(client, pty, f"own=1&since={whole}") as third:
        await third.take()
        assert await third.take() == ["seq", whole]


async def test_the_window_is_the_smallest_of_the_active_viewers(client: Client) -> None:
    pty = opened(client, "while :; do stty size; sleep 0.1; done")
    async with viewing(client, pty) as wide:
        await wide.size(20, 120)
        await wide.until("20 120")
        async with viewing(client, pty) as tall:
            await tall.size(50, 80)
            await wide.until("20 80")
        await wide.until("20 120")
        wide.shown = ""
        await wide.size(0, 0)
        await wide.size(9000, 9000)
        await wide.until("20 120")


@pytest.mark.parametrize(
    ("query", "status"),
    [("since=x", 400), ("since=-1", 400), ("since=999999", 400), ("own=yes", 400), ("reset=2", 400)],
)
async def test_a_wrong_parameter_is_refused_before_the_handshake(client: Client, query: str, status: int) -> None:
    pty = opened(client, "cat", persistent=True)
    with pytest.raises(InvalidStatus) as refused:
        async with viewing(client, pty, query):
            pass
    assert refused.value.response.status_code == status
    assert json.loads(refused.value.response.body or b"")["code"] == "UsageError"
    client.ptys[pty].close()


async def test_a_terminal_that_is_not_there_is_404_and_one_that_has_ended_410(client: Client) -> None:
    pty = opened(client, "exit 3")
    await wait_for(lambda: client.ptys[pty].info["state"] == "exited")
    for pty_id, status, code in ((pty, 410, "HandleNotFound"), ("zz0", 404, "HandleNotFound")):
        with pytest.raises(InvalidStatus) as refused:
            async with viewing(client, pty_id):
                pass
        assert refused.value.response.status_code == status
        assert json.loads(refused.value.response.body or b"")["code"] == code


async def test_one_viewer_too_many_is_503_and_is_let_in_when_another_has_gone(tmp_path: Path) -> None:
    with daemon_with(tmp_path, "") as client:  # so many viewers in one process do not answer pings within 0.6 s
        pty = opened(client, "cat", persistent=True)
        async with contextlib.AsyncExitStack() as crowd:
            for _ in range(MAX_VIEWERS - 1):
                await crowd.enter_async_context(viewing(client, pty))
            async with viewing(client, pty) as last:
                await last.take()
                await wait_for(lambda: client.ptys[pty].info["viewers"] == MAX_VIEWERS)
                with pytest.raises(InvalidStatus) as refused:
                    async with viewing(client, pty):
                        pass
            assert refused.value.response.status_code == 503
            told = json.loads(refused.value.response.body or b"")
            assert (told["code"], told["retryable"]) == ("AtCapacity", True)
            await wait_for(lambda: client.ptys[pty].info["viewers"] == MAX_VIEWERS - 1)
            async with viewing(client, pty) as later:
                assert await later.take() == ["setup", {}]


@pytest.mark.check
async def test_a_program_that_does_not_read_closes_with_1013(client: Client) -> None:
    """Half a minute after what is typed has filled every buffer; the program itself goes on."""
    pty = opened(client, "stty raw -echo; echo ready; exec sleep 600", persistent=True)
    async with viewing(client, pty) as viewer:
        await viewer.until("ready")
        for _ in range(UNREAD_MESSAGES + 8):
            await viewer.type("x" * 65536)
        assert await asyncio.wait_for(viewer.closed(), 90) == (1013, "the program does not read what is typed")
    assert client.ptys[pty].info["state"] == "running"
    client.ptys[pty].close()


async def test_the_programs_own_end_closes_with_1000_and_its_exit(client: Client) -> None:
    pty = opened(client, "read x; exit 7")
    async with viewing(client, pty) as viewer:
        await viewer.type("\r")
        assert await viewer.closed() == (1000, "exit code 7")
        assert (viewer.ended["exit_code"], viewer.ended["exit_signal"]) == (7, None)


async def test_an_end_by_somebody_closes_with_4410_and_says_who(client: Client) -> None:
    pty = opened(client, "cat")
    async with viewing(client, pty) as viewer:
        await viewer.take()
        await asyncio.to_thread(client.ptys[pty].close)
        code, reason = await viewer.closed()
    assert code == 4410
    assert "ended by" in reason


@pytest.mark.parametrize(
    "message",
    ["hello", "[" * 5000, "[]", '["stdin"]', '["stdin", 1]', '{"stdin": "x"}', '["set_size", "a", 1]', b"\x00\x01"],
)
async def test_what_is_no_message_closes_with_1008(client: Client, message: str | bytes) -> None:
    pty = opened(client, "cat", persistent=True)
    async with viewing(client, pty) as viewer:
        await viewer.take()
        await viewer.socket.send(message)
        assert (await viewer.closed())[0] == 1008
    client.ptys[pty].close()


async def test_an_unknown_message_is_ignored_as_terminado_does(client: Client) -> None:
    pty = opened(client, "cat")
    async with viewing(client, pty) as viewer:
        await viewer.socket.send('["something_new", 1]')
        await viewer.type("on\r")
        await viewer.until("on\r\non\r\n")


async def test_a_message_of_more_than_a_mebibyte_closes_with_1009(client: Client) -> None:
    pty = opened(client, "cat", persistent=True)
    async with viewing(client, pty) as viewer:
        with contextlib.suppress(ConnectionClosed):
            await viewer.type("x" * (1 << 20))
        assert (await viewer.closed())[0] == 1009
    client.ptys[pty].close()


async def test_a_viewer_without_a_pong_is_let_go_with_1011(client: Client) -> None:
    """Whoever does not answer pings is not there; the others stay."""
    pty = opened(client, "cat")
    assert client.link.place is not None
    reader, writer = await asyncio.open_unix_connection(client.link.place.socket)
    head = f"GET /api/ptys/{pty}/ws HTTP/1.1\r\nHost: t\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    writer.write(f"{head}Sec-WebSocket-Key: {'A' * 22}==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode())
    async with viewing(client, pty) as other, asyncio.timeout(10):
        assert await reader.readuntil(b"\x88") is not None
        length = (await reader.readexactly(1))[0]
        frame = await reader.readexactly(length)
        assert int.from_bytes(frame[:2], "big") == 1011
        assert await reader.read() == b""
        await other.type("here\r")
        await other.until("here\r\nhere\r\n")
    writer.close()


async def test_a_terminal_ends_after_its_last_viewer_and_not_before(client: Client) -> None:
    """Half a second here, two for a viewer like JupyterLab's; never while somebody is there, however it went."""
    plain, lab, kept, fresh = (opened(client, "sleep 60 & wait", persistent=p) for p in (False, False, True, False))
    for pty, query in ((plain, "own=1"), (lab, "reset=1"), (kept, "own=1")):
        async with viewing(client, pty, query) as viewer:
            await viewer.take()
            viewer.socket.transport.abort()
    began = time.monotonic()
    await wait_for(lambda: client.ptys[plain].info["ending"])
    assert "no viewer came back within 0.5 s" in str(client.ptys[plain].info["ending"])
    assert client.ptys[lab].info["state"] == "running"
    await wait_for(lambda: client.ptys[lab].info["ending"])
    assert time.monotonic() - began >= 1.5
    assert "no viewer came back within 2 s" in str(client.ptys[lab].info["ending"])
    await wait_for(lambda: client.ptys[fresh].info["ending"])
    assert "idle for 3 s" in str(client.ptys[fresh].info["ending"])
    assert client.ptys[kept].info["state"] == "running"
    client.ptys[kept].close()


async def test_lab_is_told_why_on_its_screen_and_the_socket_stays(client: Client) -> None:
    """`reset=1`: ESC c, the last screen, and after an end that was not the program's own a line that says so."""
    pty = opened(client, "echo on the screen; sleep 60", persistent=True)
    async with viewing(client, pty, "reset=1") as tab:
        await tab.until("on the screen")
        assert tab.shown.startswith("\x1bc")
        await asyncio.to_thread(client.ptys[pty].close)
        await tab.until("has ended")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(tab.socket.recv(), 1.0)
    async with viewing(client, pty, "reset=1") as later:
        await later.until("has ended")
        assert "on the screen" in later.shown
    done = opened(client, "exit 0")
    await wait_for(lambda: client.ptys[done].info["state"] == "exited")
    async with viewing(client, done, "reset=1") as tab:
        assert (await tab.closed())[0] == 1000


def rows_of(client: Client, command: str) -> list[Any]:
    return [row for row in client.ptys().itertuples() if row.command == command]


def ended(client: Client, pty_id: str) -> Any:
    info = client.ptys[pty_id].info
    return info if info["ending"] else None


async def flood(client: Client, lines: int) -> tuple[str, bytes]:
    """A terminal that puts out so many lines, and what all of them are."""
    pty = opened(client, FLOOD.format(lines=lines), persistent=True)
    return pty, b"".join((CHUNKY.replace("\\n", "\r\n") % i).encode() for i in range(lines))


async def cut_often(client: Client, pty: str, whole: int, times: int) -> bytes:
    """All output of a terminal, through a connection that is cut so often at random moments, and resumed where it was.

    What was under way when it was cut is lost with it, as on a real line; so is a gap that is told of: it was so slow
    that it would have gone on near the end, and it comes back for the bytes before that.
    """
    got, seq, cuts = b"", 0, 0
    while seq < whole:
        async with viewing(client, pty, f"own=1&since={seq}") as viewer:
            until = random.randint(0, 2) if cuts < times else whole
            while seq < whole and until > 0:
                told = await viewer.take()
                if told[0] == "stdout":
                    part = told[1].encode()
                elif told[0] == "seq" and told[1] > seq:
                    got, seq = got + part, told[1]
                    until -= 1
                elif told[0] == "missed":
                    break
            if seq < whole:
                await asyncio.sleep(random.random() / 100)
                cuts += 1
            viewer.socket.transport.abort()
    assert cuts >= times, f"the flood was over after {cuts} cuts"
    return got


@pytest.mark.parametrize(
    ("viewers", "times", "lines"),
    [(10, 8, 60_000), pytest.param(100, 50, 260_000, marks=[pytest.mark.soak, pytest.mark.timeout(1800)])],
)
async def test_viewers_cut_in_a_flood_get_every_byte_once(tmp_path: Path, viewers: int, times: int, lines: int) -> None:
    """Each resumes at its offset; older bytes come from the transcript; characters are never cut."""
    with daemon_with(tmp_path, "") as client:  # so many viewers in one process do not answer pings within 0.6 s
        pty, expected = await flood(client, lines)
        results = await asyncio.gather(*(cut_often(client, pty, len(expected), times) for _ in range(viewers)))
        transcript = await asyncio.to_thread(lambda: client.ptys[pty].output)
        assert transcript == expected
        assert all(result == transcript for result in results)


@pytest.mark.check
async def test_a_viewer_that_stops_reading_costs_no_more_than_the_ring_and_is_told(tmp_path: Path) -> None:
    """300 MB pass while it sleeps: the child is not held up, memory stays, and what was shown and missed adds up."""
    with daemon_with(tmp_path, "") as client:
        await stop_reading(client)


async def stop_reading(client: Client) -> None:
    size = 300_000_000
    pty = opened(client, f"head -c {size} /dev/zero | tr '\\0' x; read x", persistent=True)
    daemon = psutil.Process(pid_of(client))
    async with viewing(client, pty, max_queue=1) as viewer:
        await viewer.take()
        before = daemon.memory_info().rss
        viewer.socket.transport.pause_reading()
        worst = 0

        async def watch() -> bool:
            nonlocal worst
            worst = max(worst, daemon.memory_info().rss - before)
            return bool((await asyncio.to_thread(lambda: client.ptys[pty].info))["bytes_out"] == size)

        deadline = time.monotonic() + 60
        while not await watch():
            assert time.monotonic() < deadline
            await asyncio.sleep(0.2)
        await asyncio.sleep(4)  # longer than a stall
        viewer.socket.transport.resume_reading()
        while viewer.seq < size:
            await viewer.take()
    assert worst < 16_000_000
    assert viewer.missed > 0
    assert viewer.missed + len(viewer.shown) == size
    client.ptys[pty].close()


async def test_a_command_ends_with_whoever_follows_it(client: Client, tmp_path: Path) -> None:
    """A killed `tundra run` takes its command along, after the grace; `--persistent` does not."""
    assert client.link.paths is not None
    for flag, lives in ((), False), (("--persistent",), True):
        marker = f"sleep 81{random.randint(100, 999)}"
        command = [sys.executable, "-m", "tundra_nb.cli", "run", *flag, marker]
        env = os.environ | {
            "TUNDRA_DATA_DIR": str(client.link.paths.data_dir),
            "TUNDRA_CONFIG": str(client.link.paths.data_dir.parent / "tundra.toml"),
            "JUPYTER_RUNTIME_DIR": str(client.link.paths.data_dir.parent / "runtime"),
        }
        process = await asyncio.create_subprocess_exec(
            *command, env=env, cwd=tmp_path, stdout=asyncio.subprocess.DEVNULL
        )
        row = await wait_for(functools.partial(rows_of, client, marker), 30)
        assert row[0].keep == ("always" if lives else "owner")
        await asyncio.sleep(0.5)  # it follows by now
        process.kill()
        await process.wait()
        if lives:
            await asyncio.sleep(1.0)
            assert client.ptys[row[0].pty_id].info["state"] == "running"
            client.ptys[row[0].pty_id].close()
        else:
            info = await wait_for(functools.partial(ended, client, row[0].pty_id))
            assert "whoever asked for it has gone" in info["ending"]


async def test_each_step_of_a_viewer_is_a_row_and_the_story_tells_it(client: Client) -> None:
    """Opened, ready, lost, resumed, goodbye: with reason and code; `why` puts them beside the terminal's own steps."""
    pty = opened(client, "cat", persistent=True)

    def rows() -> list[tuple[Any, ...]]:
        found = client.connections(pty=pty)
        assert list(found.columns[:8]) == [
            *("connection_event_id", "at", "pty_id", "peer", "old_state", "new_state", "reason", "bytes_missed")
        ]
        return [(row.viewer, row.new_state, row.reason) for row in found.sort_values("at").itertuples()]

    async with viewing(client, pty, "own=1&viewer=ada") as viewer:
        await viewer.take()
        viewer.socket.transport.abort()
    await wait_for(lambda: client.ptys[pty].info["viewers"] == 0)
    async with viewing(client, pty, "own=1&viewer=ada") as viewer:
        await viewer.take()
    await wait_for(lambda: rows()[-1][1] == "ended")
    await asyncio.to_thread(client.ptys[pty].close)
    assert rows() == [
        ("ada", "establishing", "opened"),
        ("ada", "active", "ready"),
        ("ada", "lost", "lost"),
        ("ada", "active", "resumed"),
        ("ada", "ended", "closed_by_peer"),
    ]
    story = client.ptys.why(pty)
    assert "ended by" in story.ending
    assert [step.what for step in story.steps if step.who == "ada"][2] == "was lost without a goodbye"


async def test_a_viewer_that_is_back_before_its_loss_is_known_takes_its_place(client: Client) -> None:
    """The same name on a second socket: the first is let go, and its end changes nothing."""
    pty = opened(client, "cat")
    async with viewing(client, pty, "own=1&viewer=ada") as first, viewing(client, pty, "own=1&viewer=ada") as second:
        await first.take()
        await second.take()
        await second.type("hello\r")
        await second.until("hello\r\nhello\r\n")
        assert (await first.closed())[0] == 1000
        await asyncio.sleep(0.7)
        assert client.ptys[pty].info["viewers"] == 1


async def test_a_line_that_broke_and_is_back_leaves_rows(tmp_path: Path) -> None:
    """A daemon killed in mid-call: the client gets IpcError; its next call writes down when the line was lost."""
    with daemon_with(tmp_path, "") as client:
        pty = client.ptys.open("sleep 60", persistent=True)
        waiting = asyncio.create_task(asyncio.to_thread(pty.expect, "never", 60))
        await asyncio.sleep(0.5)
        os.kill(pid_of(client), signal.SIGKILL)
        with pytest.raises(IpcError, match="in the middle of the call"):
            await waiting
        await asyncio.to_thread(client.status)
        found = await asyncio.to_thread(client.connections)
        kept = [(row.new_state, row.reason, row.code) for row in found.itertuples() if not isinstance(row.pty_id, str)]
        assert kept == [("lost", "died", "IpcError"), ("active", "resumed", "IpcError")]


async def test_the_end_of_the_daemon_closes_with_1001(client: Client) -> None:
    """Last in this module."""
    pty = opened(client, "cat", persistent=True)
    pid = pid_of(client)
    async with viewing(client, pty) as viewer:
        await viewer.take()
        os.kill(pid, signal.SIGTERM)
        assert await viewer.closed() == (1001, "the daemon stops")
    wait_until(lambda: not psutil.pid_exists(pid), 15)
