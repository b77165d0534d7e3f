"""Terminals: start, look, type, resize, interrupt, end; follow the output; run cells in a shell; expect and send."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import pexpect
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from tundra_nb import errors
from tundra_nb.daemon.answers import json_response, json_rows, read_body, sse
from tundra_nb.daemon.routes.operations import HEARTBEAT_SECONDS
from tundra_nb.runtime.ptys.expect import Pattern
from tundra_nb.runtime.ptys.pty import Pty
from tundra_nb.runtime.ptys.shell import CellEnd, Shell
from tundra_nb.runtime.ptys.spawn import Size
from tundra_nb.runtime.ptys.transcript import read_file

if TYPE_CHECKING:
    from tundra_nb.daemon.app import Daemon

COLUMNS, ROWS = 80, 24
BYTES = "application/octet-stream"
MAX_HITS = 1000
FILE_CHUNK_BYTES = 1 << 16


class SpawnBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Body of `POST /api/ptys`. Text runs by the shell, a list as it is; `timeout` in seconds."""

    command: str | list[str]
    cwd: str | None = None
    env: dict[str, str] | None = None
    rows: int = ROWS
    columns: int = COLUMNS
    timeout: float | None = None
    kind: Literal["command", "terminal"] = "command"
    with_keys: list[str] = []
    owner: str = ""
    """Who follows it (`?owner=` of the transcript); when nobody does any more, it ends. Empty: nobody has to."""
    persistent: bool = False
    """It ends by itself only, whoever goes."""
    wait: float = 0.0
    """Seconds to wait for a free terminal, at most `pty.queue_seconds`."""


class CellBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Body of `POST /api/shells/{owner}/cells`."""

    cell: str
    program: Literal["bash", "zsh"] = "bash"
    fresh: bool = False
    timeout: float | None = None
    cwd: str | None = None
    env: dict[str, str] | None = None
    rows: int = ROWS
    columns: int = COLUMNS
    with_keys: list[str] = []


class InputBody(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `POST …/input`."""

    text: str


class SizeBody(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `POST …/size`."""

    rows: int
    columns: int


class SecretBody(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `POST …/secret`: a variable's name and its value, typed only while the terminal does not echo."""

    name: str
    value: str


class CleanBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Body of `POST /api/clean`."""

    dry: bool = True


class ExpectBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Body of `POST …/expect`: wait for one of `patterns`. `EOF` and `TIMEOUT` among them stand for pexpect's."""

    patterns: list[str]
    timeout: float | None = 30.0


def routes(daemon: Daemon) -> list[BaseRoute]:
    terminals = daemon.runtime.terminals
    pool = terminals.pool

    def found(request: Request) -> Pty:
        return pool.find(request.path_params["id"])

    def ended_by_others() -> list[Pty]:
        """Those that did not end by themselves, until somebody deletes them: their viewers are to learn why."""
        return [pty for pty in pool.ended if pty.state != "exited" and not pty.is_dismissed]

    async def listing(request: Request) -> Response:
        shown = [*(ended_by_others() if request.query_params.get("ended") == "1" else ()), *pool.list()]
        used = {"used_bytes": pool.budget.used_bytes, "limit_bytes": pool.budget.limit_bytes}
        return json_response({"rows": [row(daemon, pty) for pty in shown], "transcripts": used})

    async def spawn(request: Request) -> Response:
        body = await read_body(request, SpawnBody)
        pty = await terminals.spawn(
            body.command,
            cwd=body.cwd,
            env=body.env,
            size=Size(body.columns, body.rows),
            user=daemon.user(request),
            kind=body.kind,
            timeout=body.timeout,
            with_keys=body.with_keys,
            owner=body.owner,
            persistent=body.persistent,
            wait=body.wait,
        )
        return json_response(row(daemon, pty), status=201)

    async def info(request: Request) -> Response:
        return json_response(row(daemon, found(request)))

    async def end(request: Request) -> Response:
        pty = found(request)
        if not pty.released.is_set():
            await pool.release(pty.id, f"ended by {daemon.user(request)}")
        pty.is_dismissed = True
        return json_response(row(daemon, pty))

    async def interrupt(request: Request) -> Response:
        sent = await terminals.interrupt(request.path_params["id"])
        return json_response({"signal": sent} | row(daemon, found(request)))

    async def type_text(request: Request) -> Response:
        body = await read_body(request, InputBody)
        warning = await pool.get(request.path_params["id"]).write(body.text.encode())
        return json_response({"warning": warning})

    async def resize(request: Request) -> Response:
        body = await read_body(request, SizeBody)
        pool.resize(request.path_params["id"], Size(body.columns, body.rows))
        return json_response(row(daemon, found(request)))

    async def expect(request: Request) -> Response:
        body = await read_body(request, ExpectBody)
        special: dict[str, Pattern] = {"EOF": pexpect.EOF, "TIMEOUT": pexpect.TIMEOUT}
        dialogue = terminals.dialogue(request.path_params["id"])
        matched = await dialogue.expect([special.get(pattern, pattern) for pattern in body.patterns], body.timeout)
        return json_response(msgspec.structs.asdict(matched))

    async def secret(request: Request) -> Response:
        body = await read_body(request, SecretBody)
        dialogue = terminals.dialogue(request.path_params["id"])
        daemon.runtime.redactor.register(body.name, body.value)
        await dialogue.send_secret(body.name, body.value)
        return json_response({})

    async def transcript(request: Request) -> Response:
        since = _offset(request)
        try:
            pty = found(request)
        except errors.HandleNotFound:
            return StreamingResponse(_file(terminals.transcript_of(request.path_params["id"]), since), media_type=BYTES)
        if "text/event-stream" in request.headers.get("accept", ""):
            return _stream(_follow(daemon, pty, since, request.query_params.get("owner", "")))
        return StreamingResponse(_bytes(pty, since), media_type=BYTES)

    async def timing(request: Request) -> Response:
        try:
            head, entries = await asyncio.to_thread(found(request).events)
        except errors.HandleNotFound:
            head, entries = await asyncio.to_thread(terminals.events_of, request.path_params["id"])
        return json_response({"head": msgspec.to_builtins(head), "events": entries})

    async def search(request: Request) -> Response:
        limit = request.query_params.get("limit", str(MAX_HITS))
        if not limit.isdigit() or not 1 <= int(limit) <= MAX_HITS:
            raise errors.UsageError(problem=f"limit {limit!r} is not a number from 1 to {MAX_HITS:,}", field="limit")
        hits = await terminals.search(request.query_params.get("pattern", ""), int(limit))
        return json_response({"rows": json_rows(hits.rows), "truncated": hits.is_cut})

    async def clean(request: Request) -> Response:
        body = await read_body(request, CleanBody)
        left = await terminals.clean(daemon.runtime.paths.socket.parent, is_dry=body.dry)
        rows = [{"kind": one.kind, "name": one.name, "detail": one.detail} for one in left]
        return json_response({"rows": rows, "removed": not body.dry})

    async def cell(request: Request) -> Response:
        body = await read_body(request, CellBody)
        pieces = terminals.run_cell(
            request.path_params["owner"],
            body.cell,
            program=body.program,
            fresh=body.fresh,
            timeout=body.timeout,
            cwd=body.cwd,
            env=body.env,
            size=Size(body.columns, body.rows),
            user=daemon.user(request),
            with_keys=body.with_keys,
        )
        return _stream(_cell_events(daemon, pieces))

    return [
        Route("/api/ptys", listing, methods=["GET"]),
        Route("/api/ptys", spawn, methods=["POST"]),
        Route("/api/ptys/search", search, methods=["GET"]),
        Route("/api/clean", clean, methods=["POST"]),
        Route("/api/ptys/{id}", info, methods=["GET"]),
        Route("/api/ptys/{id}", end, methods=["DELETE"]),
        Route("/api/ptys/{id}/interrupt", interrupt, methods=["POST"]),
        Route("/api/ptys/{id}/input", type_text, methods=["POST"]),
        Route("/api/ptys/{id}/size", resize, methods=["POST"]),
        Route("/api/ptys/{id}/expect", expect, methods=["POST"]),
        Route("/api/ptys/{id}/secret", secret, methods=["POST"]),
        Route("/api/ptys/{id}/transcript", transcript, methods=["GET"]),
        Route("/api/ptys/{id}/events", timing, methods=["GET"]),
        Route("/api/shells/{owner}/cells", cell, methods=["POST"]),
    ]


def row(daemon: Daemon, pty: Pty) -> dict[str, Any]:
    """A PTY as JSON: its columns of the frame `ptys`, and more."""
    told = json_rows([msgspec.structs.asdict(pty.info())])[0]
    return told | {"timed_out": daemon.runtime.terminals.is_timed_out(pty)}


def _offset(request: Request) -> int:
    text = request.query_params.get("since", "0")
    if not text.isdigit():
        raise errors.UsageError(problem=f"since {text!r} is not an offset in bytes", field="since")
    return int(text)


def _stream(body: AsyncIterator[bytes]) -> Response:
    return StreamingResponse(body, media_type="text/event-stream", headers={"Cache-Control": "no-store"})


async def _bytes(pty: Pty, since: int) -> AsyncIterator[bytes]:
    """The output so far, exactly as it was recorded."""
    end = pty.end
    while since < end:
        chunk = pty.read(since)
        if not chunk.data:
            return
        yield chunk.data[: end - chunk.start]
        since = chunk.next
        await asyncio.sleep(0)


async def _file(path: Path, since: int) -> AsyncIterator[bytes]:
    """The same of a session that only its transcript is left of."""
    while data := await asyncio.to_thread(read_file, path, since, FILE_CHUNK_BYTES):
        yield data
        since += len(data)


async def _follow(daemon: Daemon, pty: Pty, since: int, owner: str) -> AsyncIterator[bytes]:
    """`output` events until the leader has ended, then `exit` with the row of the PTY."""
    viewer = pty.viewer(since, to_exit=True)
    with daemon.runtime.terminals.followed(pty) if owner else contextlib.nullcontext():
        while True:
            try:
                got = await asyncio.wait_for(viewer.read_text(), HEARTBEAT_SECONDS)
            except TimeoutError:
                yield b": alive\n\n"
                continue
            if got is None:
                break
            text, seq, missed = got
            if missed:
                yield sse("missed", {"bytes": missed})
            if text:
                yield sse("output", {"seq": seq, "text": text})
        await pty.exited.wait()
        yield sse("exit", row(daemon, pty))


async def _cell_events(daemon: Daemon, pieces: Any) -> AsyncIterator[bytes]:
    """`shell`, `output` …, `end`; or `error`. Closing the stream interrupts the cell."""
    decode = _decoder()
    shell: Shell | None = None
    async with contextlib.aclosing(pieces):
        try:
            async for piece in pieces:
                if isinstance(piece, Shell):
                    shell = piece
                    yield sse("shell", row(daemon, shell.pty))
                elif isinstance(piece, CellEnd):
                    if rest := decode(b"", final=True):
                        yield sse("output", {"text": rest})
                    cwd = shell.cwd if shell is not None else ""
                    yield sse("end", piece._asdict() | {"cwd": cwd})
                elif text := decode(piece):
                    yield sse("output", {"text": text})
        except errors.TundraError as error:
            yield daemon.runtime.redactor.text(sse("error", error.to_wire()).decode()).encode()


def _decoder() -> Any:
    import codecs

    return codecs.getincrementaldecoder("utf-8")("replace").decode
