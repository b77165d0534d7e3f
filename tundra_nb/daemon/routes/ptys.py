"""Terminals: start, look, type, resize, interrupt, end; follow the output; run cells in a shell; expect and send."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pexpect
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute

from tundra_nb import errors
from tundra_nb.daemon.answers import json_response, json_rows, sse
from tundra_nb.daemon.routing import read_body, read_params, route
from tundra_nb.protocol import ptys as api
from tundra_nb.protocol.words import BYTES, EVENTS, HEARTBEAT_SECONDS
from tundra_nb.runtime.ptys.expect import Pattern
from tundra_nb.runtime.ptys.pty import Pty
from tundra_nb.runtime.ptys.shell import CellEnd, Shell
from tundra_nb.runtime.ptys.spawn import Size
from tundra_nb.runtime.ptys.transcript import read_file

if TYPE_CHECKING:
    from tundra_nb.daemon.context import Daemon

FILE_CHUNK_BYTES = 1 << 16


def routes(daemon: Daemon) -> list[BaseRoute]:
    terminals = daemon.runtime.terminals
    pool = terminals.pool

    def found(request: Request) -> Pty:
        return pool.find(request.path_params["id"])

    def ended_by_others() -> list[Pty]:
        """Those that did not end by themselves, until somebody deletes them: their viewers are to learn why."""
        return [pty for pty in pool.ended if pty.state != "exited" and not pty.is_dismissed]

    async def listing(request: Request) -> Response:
        shown = [*(ended_by_others() if read_params(request, api.ListingQuery).ended else ()), *pool.list()]
        used = {"used_bytes": pool.budget.used_bytes, "limit_bytes": pool.budget.limit_bytes}
        return json_response({"rows": [row(daemon, pty) for pty in shown], "transcripts": used})

    async def spawn(request: Request) -> Response:
        body = await read_body(request, api.SpawnBody)
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
            # Its tabs say so until they are closed, unless it was ended from the very list that they stand in.
            pty.is_dismissed = read_params(request, api.EndQuery).dismiss
        else:
            pty.is_dismissed = True
        return json_response(row(daemon, pty))

    async def lost(request: Request) -> Response:
        body = await read_body(request, api.LostBody)
        daemon.runtime.record_lost(body.peer, body.code, body.reason, body.message, body.at)
        return json_response({})

    async def interrupt(request: Request) -> Response:
        sent = await terminals.interrupt(request.path_params["id"])
        return json_response({"signal": sent} | row(daemon, found(request)))

    async def type_text(request: Request) -> Response:
        body = await read_body(request, api.InputBody)
        warning = await pool.get(request.path_params["id"]).write(body.text.encode())
        return json_response({"warning": warning})

    async def resize(request: Request) -> Response:
        body = await read_body(request, api.SizeBody)
        pool.resize(request.path_params["id"], Size(body.columns, body.rows))
        return json_response(row(daemon, found(request)))

    async def expect(request: Request) -> Response:
        body = await read_body(request, api.ExpectBody)
        special: dict[str, Pattern] = {"EOF": pexpect.EOF, "TIMEOUT": pexpect.TIMEOUT}
        dialogue = terminals.dialogue(request.path_params["id"])
        matched = await dialogue.expect([special.get(pattern, pattern) for pattern in body.patterns], body.timeout)
        return json_response(matched)

    async def secret(request: Request) -> Response:
        body = await read_body(request, api.SecretBody)
        dialogue = terminals.dialogue(request.path_params["id"])
        daemon.runtime.redactor.register(body.name, body.value)
        await dialogue.send_secret(body.name, body.value)
        return json_response({})

    async def transcript(request: Request) -> Response:
        asked = read_params(request, api.TranscriptQuery)
        try:
            pty = found(request)
        except errors.HandleNotFound:
            return StreamingResponse(
                _file(terminals.transcript_of(request.path_params["id"]), asked.since), media_type=BYTES
            )
        if EVENTS in request.headers.get("accept", ""):
            return _stream(_follow(daemon, pty, asked.since, asked.owner))
        return StreamingResponse(_bytes(pty, asked.since), media_type=BYTES)

    async def timing(request: Request) -> Response:
        try:
            head, entries = await asyncio.to_thread(found(request).events)
        except errors.HandleNotFound:
            head, entries = await asyncio.to_thread(terminals.events_of, request.path_params["id"])
        return json_response({"head": msgspec.to_builtins(head), "events": entries})

    async def search(request: Request) -> Response:
        asked = read_params(request, api.SearchQuery)
        hits = await terminals.search(asked.pattern, asked.limit)
        return json_response({"rows": json_rows(hits.rows), "truncated": hits.is_cut})

    async def clean(request: Request) -> Response:
        body = await read_body(request, api.CleanBody)
        left = await terminals.clean(daemon.runtime.paths.socket.parent, is_dry=body.dry)
        rows = [{"kind": one.kind, "name": one.name, "detail": one.detail} for one in left]
        return json_response({"rows": rows, "removed": not body.dry})

    async def cell(request: Request) -> Response:
        body = await read_body(request, api.CellBody)
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
        route(api.LISTING, listing),
        route(api.SPAWN, spawn),
        route(api.SEARCH, search),
        route(api.CLEAN, clean),
        route(api.INFO, info),
        route(api.END, end),
        route(api.LOST, lost),
        route(api.INTERRUPT, interrupt),
        route(api.INPUT, type_text),
        route(api.SIZE, resize),
        route(api.EXPECT, expect),
        route(api.SECRET, secret),
        route(api.TRANSCRIPT, transcript),
        route(api.TIMING, timing),
        route(api.CELL, cell),
    ]


def row(daemon: Daemon, pty: Pty) -> dict[str, Any]:
    """A PTY as JSON: its columns of the frame `ptys`, and more."""
    told = json_rows([msgspec.structs.asdict(pty.info())])[0]
    return told | {"timed_out": daemon.runtime.terminals.is_timed_out(pty)}


def _stream(body: AsyncIterator[bytes]) -> Response:
    return StreamingResponse(body, media_type=EVENTS, headers={"Cache-Control": "no-store"})


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
                yield sse("missed", {"bytes": missed, "reason": pty.output.problem})
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
