"""`AsyncClient`: the same methods, awaited, over aiohttp. One event loop at a time."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar, Unpack, overload

import aiohttp

from tundra_nb.errors import IpcError, TundraError
from tundra_nb.local.place import Place, check_owner
from tundra_nb.local.wire import ASK_AGAIN_SECONDS, ASK_SECONDS, CONNECT_TIMEOUT, SILENT_SECONDS
from tundra_nb.sse import EventTooLongError, Parser
from tundra_nb.types import Ask, Reply
from tundra_nb.types.pieces import Piece, Text
from tundra_nb.types.triage import Triage

from . import api, explain, gateway, pty_calls, run_story
from .above import DashboardOptions, ReplayOptions, SimulateOptions, TriageOptions
from .aio_ptys import AsyncPtys
from .answer import AnswerReader, Event, died, malformed, not_yet
from .archive import Archive, archive_later
from .call import ATTEMPT_PAUSES, Call, HttpAnswer, Step, read, refusal, refuse_acting, seen_from
from .endpoints import awaited
from .explain import guide
from .incidents import AsyncIncidents
from .link import Link
from .live import OnOutput, Run, ShellRun
from .logs import logs as read_logs
from .logs import of_source as logs_of_source
from .pty_calls import CellOptions, Command, RunOptions
from .sources import AsyncSources
from .times import When
from .versions import AsyncVersions

if TYPE_CHECKING:
    import pandas as pd

    from tundra_nb.doctor.bundle import Bundle
    from tundra_nb.doctor.check import Checkup, Finding
    from tundra_nb.doctor.run import Progress

    from .sync import Client

T = TypeVar("T")
MAX_CONNECTIONS = 256
"""At once, to the daemon; more callers wait for a free one."""

_GONE = (aiohttp.ClientError, OSError, TimeoutError)


class AsyncClient:
    """A connection to the tundra daemon whose methods are awaited; the twin of `Client`.

    Constructing it does no I/O. `async with`, `await`, or the first call connects. A cancelled call closes its
    connection, which cancels it upstream.
    """

    def __init__(
        self,
        data_dir: str | os.PathLike[str] | None = None,
        *,
        start: bool = True,
        link: Link | None = None,
        caller: str | None = None,
    ) -> None:
        self.caller = caller or api.caller_name()
        """What asks, in the history: kernel, cli, python."""
        self.records = False
        """Whether all that is asked through this client is recorded, whatever `record.content` says."""
        self._link = link or Link(data_dir, start=start, started_by=self.caller)
        self._session: aiohttp.ClientSession | None = None
        self._session_place: Place | None = None
        self._finding: asyncio.Lock | None = None
        self._waiting = 0
        """Calls that wait for the daemon; …"""
        self._heard_at = 0.0
        """… when it was last heard, on the loop's clock; …"""
        self._watch: asyncio.Task[None] | None = None
        """… and the task that looks whether it is still there."""
        self._hung: TundraError | None = None
        self.versions = AsyncVersions(self)
        self.incidents = AsyncIncidents(self)
        self.sources = AsyncSources(self)
        self.tokens = gateway.AsyncTokens(self)
        self.gateway = gateway.AsyncListener(self)
        self.ptys = AsyncPtys(self)

    def __repr__(self) -> str:
        return f"<tundra_nb.AsyncClient of {self._link.key}>"

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    @property
    def link(self) -> Link:
        """The way to the daemon: where it is, and the paths of its files."""
        return self._link

    def __await__(self) -> Generator[Any, None, Self]:
        return self.__aenter__().__await__()

    async def open(self) -> None:
        """Find or start the daemon now.

        Raises:
            IpcError: absent, cannot be started, or of another API version.
        """
        await self._find()

    async def aclose(self) -> None:
        """Close all connections; the daemon goes on."""
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
        if self._session is not None:
            await self._session.close()
            self._session = None

    # the table:

    status = awaited(api.status)
    providers = awaited(api.providers)
    profile_names = awaited(api.profile_names)
    models = awaited(api.models)
    limits = awaited(api.limits)
    breakers = awaited(api.breakers)
    settings = awaited(api.settings)
    keys = awaited(api.keys)
    offer_keys = awaited(api.offer_keys)
    reset_breaker = awaited(api.reset_breaker)
    add_provider = awaited(api.add_provider)
    recheck_provider = awaited(api.recheck_provider)
    test_provider = awaited(api.test_provider)
    set_provider = awaited(api.set_provider)
    remove_provider = awaited(api.remove_provider)
    reorder_providers = awaited(api.reorder_providers)
    park_provider = awaited(api.park_provider)
    faults = awaited(api.faults)
    start_faults = awaited(api.start_faults)
    set_fault = awaited(api.set_fault)
    clear_faults = awaited(api.clear_faults)
    stop_faults = awaited(api.stop_faults)
    stop_daemon = awaited(api.stop_daemon)
    descriptors = awaited(api.descriptors)
    log_level = awaited(api.log_level)
    why = awaited(api.why)
    last = awaited(api.last)
    calls = awaited(api.calls)
    attempts = awaited(api.attempts)
    errors = awaited(api.errors)
    limit_history = awaited(api.limit_history)
    breaker_history = awaited(api.breaker_history)
    connections = awaited(api.connections)
    agent_runs = awaited(api.agent_runs)
    agent_steps = awaited(api.agent_steps)
    why_run = awaited(run_story.why_run)
    history = awaited(api.history)
    sql = awaited(api.sql)
    notes = awaited(api.notes)
    note = awaited(api.note)
    set_setting = awaited(api.set_setting)
    explain = awaited(explain.explain)
    guide = staticmethod(guide)

    @overload
    def ask(
        self, prompt: api.Prompt, *, stream: Literal[False] = False, **options: Unpack[api.AskOptions]
    ) -> Coroutine[Any, Any, Reply]: ...
    @overload
    def ask(
        self, prompt: api.Prompt, *, stream: Literal[True], **options: Unpack[api.AskOptions]
    ) -> AsyncReplyStream: ...
    def ask(
        self, prompt: api.Prompt, *, stream: bool = False, **options: Unpack[api.AskOptions]
    ) -> Coroutine[Any, Any, Reply] | AsyncReplyStream:
        """Ask a model: `await` it, or with `stream=True` iterate over it with `async for`; see `Client.ask`."""
        question = api.question(prompt, **options)
        if stream:
            return AsyncReplyStream(self._events(api.ask_stream(api.by(question, self.caller, self.records))))
        return self.ask_as(question)

    def ask_as(self, question: Ask) -> Coroutine[Any, Any, Reply]:
        """Ask a question that is made already (`api.question`)."""
        return self._do(api.ask(api.by(question, self.caller, self.records)))

    async def logs(
        self,
        *,
        since: When | None = None,
        level: str | None = None,
        operation: str | int | None = None,
        limit: int | None = None,
        source: str | None = None,
    ) -> pd.DataFrame:
        """Lines of the daemon's log; see `Client.logs`."""
        if source is not None:
            return await self._do(logs_of_source(source, since, level, limit))
        return await asyncio.to_thread(
            read_logs, self._link, since=since, level=level, operation=operation, limit=limit
        )

    async def run(self, command: Command, *, on_output: OnOutput | None = None, **options: Unpack[RunOptions]) -> Run:
        """Run a shell command line in a PTY and wait for its end; see `Client.run`."""
        return await self.ptys.run(command, on_output=on_output, **options)

    async def sh(self, cell: str, *, on_output: OnOutput | None = None, **options: Unpack[CellOptions]) -> ShellRun:
        """Run a cell in a persistent shell, which lives on for a minute after the last; see `Client.sh`."""
        return await self.ptys.sh(cell, on_output=on_output, **options)

    async def triage(self, target: str = "last", **options: Unpack[TriageOptions]) -> Triage:
        """Find out what failed, in a thread of its own; see `Client.triage` for the options."""
        return await self._in_thread(lambda client: client.triage(target, **options))

    async def dashboard(self, since: When | None = None, **options: Unpack[DashboardOptions]) -> Any:
        """One hour on one page, in a thread of its own; see `Client.dashboard` for the options."""
        from .sync import Client

        client = Client(link=self._link, caller=self.caller)  # left open: the dashboard is live
        return await asyncio.to_thread(lambda: client.dashboard(since, **options))

    async def simulate(self, incident: str | None = None, **options: Unpack[SimulateOptions]) -> pd.DataFrame:
        """Other settings on the recorded arrivals, in a thread of its own; see `Client.simulate` for the options."""
        return await self._in_thread(lambda client: client.simulate(incident, **options))

    async def archive(
        self,
        older_than: When | None = None,
        *,
        verify: bool = False,
        on_progress: Callable[[Mapping[str, Any]], None] | None = None,
    ) -> Archive:
        """Copy old days of the history as Parquet files, prove them, or tell what is archived; see `Client.archive`."""
        return await archive_later(self, older_than, verify, on_progress)

    async def replay(self, incident: str | None = None, **options: Unpack[ReplayOptions]) -> pd.DataFrame:
        """Recorded calls through today's code, in a thread of its own; see `Client.replay` for the options."""
        return await self._in_thread(lambda client: client.replay(incident, **options))

    async def _in_thread(self, work: Callable[[Client], T]) -> T:
        """Have a blocking client do what has no awaited form."""
        from .sync import Client

        def do() -> T:
            with Client(link=self._link, caller=self.caller) as client:
                return work(client)

        return await asyncio.to_thread(do)

    async def doctor(
        self,
        symptom: str = "everything",
        *,
        fix: bool = False,
        on_progress: Progress | None = None,
        may_fix: Callable[[Finding, str], bool] | None = None,
    ) -> Checkup:
        """Check everything that tundra stands on; see `Client.doctor`."""
        from tundra_nb.doctor import run

        return await asyncio.to_thread(
            run.doctor, symptom, fix=fix, where=self._link.paths, on_progress=on_progress, may_fix=may_fix
        )

    async def bundle(
        self,
        out: str | os.PathLike[str] | None = None,
        *,
        force: bool = False,
        symptom: str = "",
        cells: Sequence[str] = (),
    ) -> Bundle:
        """Write one masked zip with everything that a report needs; see `Client.bundle`."""
        from tundra_nb.doctor import bundle

        return await asyncio.to_thread(
            bundle.bundle, out, force=force, symptom=symptom, cells=cells, where=self._link.paths
        )

    # carrying calls:

    async def _do(self, step: Step[T]) -> T:
        if isinstance(step, Call):
            return await self._send(step)
        try:
            call = next(step)
            while True:
                try:
                    found = await self._send(call)
                except TundraError as error:
                    call = step.throw(error)
                else:
                    call = step.send(found)
        except StopIteration as done:
            result: T = done.value
            return result

    async def _send(self, call: Call[T]) -> T:
        refuse_acting(call)
        call = seen_from(call, self.versions.at, self.versions.checked_out, self.versions.window, self.sources.name)
        async with self._request(call) as (place, response):
            try:
                answer = HttpAnswer(response.status, _lower(response), await response.read())
            except _GONE as exc:
                raise self._broken(place, exc) from exc
        if (loss := self._link.take_loss()) is not None:
            with contextlib.suppress(TundraError):  # the line is back, or it is not: the call itself counts
                await self._send(pty_calls.lost(self.caller, *loss))
        return read(call, answer, bridged=place.is_bridged)

    async def _events(self, call: Call[Any]) -> AsyncGenerator[Event, None]:
        """The events of a stream; closing the generator closes the connection at once."""
        refuse_acting(call)
        async with self._request(call) as (place, response):
            try:
                if response.status >= 400:
                    answer = HttpAnswer(response.status, _lower(response), await response.read())
                    raise refusal(answer, bridged=place.is_bridged)
                parser = Parser()
                async for chunk in response.content.iter_any():
                    self._heard_at = asyncio.get_running_loop().time()
                    for name, data in parser.feed(chunk):
                        yield Event(name, data)
            except EventTooLongError as exc:
                raise malformed(exc) from exc
            except _GONE as exc:
                raise self._broken(place, exc) from exc
            finally:
                response.close()

    @contextlib.asynccontextmanager
    async def _request(self, call: Call[Any]) -> AsyncIterator[tuple[Place, aiohttp.ClientResponse]]:
        self._begin_to_wait()
        try:
            response, place = await self._exchange(call)
            async with response:
                yield place, response
        finally:
            self._waiting -= 1
            self._heard_at = asyncio.get_running_loop().time()

    def _begin_to_wait(self) -> None:
        """Have the daemon watched while calls wait for it."""
        loop = asyncio.get_running_loop()
        self._waiting += 1
        if self._waiting == 1:
            self._heard_at = loop.time()
        if self._watch is None or self._watch.done():
            self._hung = None
            self._watch = loop.create_task(self._watch_silence(), name="tundra client watch")

    async def _watch_silence(self) -> None:
        """When the daemon says nothing to anybody, ask it for a sign of life; without one, every call fails with that.

        Ends when nobody waits any more.
        """
        from tundra_nb.local.running import hung

        loop = asyncio.get_running_loop()
        patience = SILENT_SECONDS
        while self._waiting:
            await asyncio.sleep(max(0.05, min(self._heard_at + patience - loop.time(), patience)))
            place = self._link.place
            silent = loop.time() - self._heard_at
            if not self._waiting or silent < patience or place is None or place.socket is None:
                patience = SILENT_SECONDS if silent < patience else patience
                continue
            self._hung = await asyncio.to_thread(hung, place.socket, ASK_SECONDS)
            if self._hung is not None:
                self._watch = None  # whoever asks again is watched by another
                if self._session is not None:
                    await self._session.close()
                return
            patience = silent + ASK_AGAIN_SECONDS

    async def _exchange(self, call: Call[Any]) -> tuple[aiohttp.ClientResponse, Place]:
        """Send a call; a call is sent twice only when it cannot have been processed, as in `Client`."""
        place = self._link.place or await self._find()
        lost: TundraError | None = None
        for pause in ATTEMPT_PAUSES:
            if pause:
                await asyncio.sleep(pause)
            session = await self._session_for(place)
            url = f"{'https' if place.is_https else 'http'}://{place.authority}"
            try:
                response = await session.request(
                    call.method,
                    url + place.prefix + call.target,
                    data=call.payload,
                    headers=call.headers | place.headers,
                    timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT, sock_read=call.timeout),
                )
            except aiohttp.ClientConnectorError as exc:
                lost = self._link.lost(exc)
                if not self._link.can_find_again:
                    raise lost from exc
                place = await self._find()
            except _GONE as exc:
                lost = self._broken(place, exc)
                if self._hung or not call.is_safe or isinstance(exc, TimeoutError):
                    raise lost from exc
            else:
                self._heard_at = asyncio.get_running_loop().time()
                return response, place
        assert lost is not None
        raise lost

    async def _find(self) -> Place:
        """Find or start the daemon, once for all callers that miss it at the same time."""
        if self._finding is None:
            self._finding = asyncio.Lock()
        async with self._finding:
            return await asyncio.to_thread(self._link.find)

    async def _session_for(self, place: Place) -> aiohttp.ClientSession:
        if place.socket is not None:
            with contextlib.suppress(OSError):  # gone: connecting says so
                check_owner(place.socket)
        if self._session is None or self._session.closed or self._session_place != place:
            if self._session is not None:
                await self._session.close()
            connector: aiohttp.BaseConnector = (
                aiohttp.TCPConnector(limit=MAX_CONNECTIONS)
                if place.socket is None
                else aiohttp.UnixConnector(path=place.socket, limit=MAX_CONNECTIONS)
            )
            self._session = aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())
            self._session_place = place
        return self._session

    def _broken(self, place: Place, exc: Exception) -> TundraError:
        if place.is_bridged:
            return self._link.lost(exc)
        if self._hung is not None:
            return self._hung
        if isinstance(exc, TimeoutError):
            problem = "the daemon accepted the call but did not answer in time"
            return self._link.broke(IpcError(kind="silent", problem=problem))
        return self._link.broke(died())


class AsyncReplyStream:
    """The pieces of an answer as they come; `.reply` is there at the end. The twin of `ReplyStream`."""

    def __init__(self, events: AsyncGenerator[Event, None]) -> None:
        self._events = events
        self._reader = AnswerReader()
        self.on_notice: Callable[[Mapping[str, Any]], None] | None = None

    @property
    def reply(self) -> Reply:
        if self._reader.reply is None:
            not_yet("reply")
        return self._reader.reply

    @property
    def notices(self) -> Sequence[Mapping[str, Any]]:
        return self._reader.notices

    def __aiter__(self) -> AsyncIterator[str]:
        return self

    async def __anext__(self) -> str:
        while True:
            if isinstance(piece := await self._next(), Text):
                return piece.text

    async def pieces(self) -> AsyncIterator[Piece]:
        """All of the answer, not only its text; see `ReplyStream.pieces`."""
        while True:
            try:
                yield await self._next()
            except StopAsyncIteration:
                return

    async def _next(self) -> Piece:
        try:
            async for event in self._events:
                told = len(self._reader.notices)
                piece = self._reader.take(event)
                if self.on_notice is not None and len(self._reader.notices) > told:
                    self.on_notice(self._reader.notices[-1])
                if piece is not None:
                    return piece
                if self._reader.is_done:
                    break
            self._reader.ended()
        except BaseException:
            await self.aclose()
            raise
        await self.aclose()
        raise StopAsyncIteration

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connection; before the end of the answer this cancels the call."""
        await self._events.aclose()


def _lower(response: aiohttp.ClientResponse) -> dict[str, str]:
    return {name.lower(): value for name, value in response.headers.items()}
