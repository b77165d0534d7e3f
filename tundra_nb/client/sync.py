"""`Client`: the blocking client, for kernels, scripts and the command line. Thread-safe."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar, Unpack, overload

from tundra_nb.errors import IpcError, TundraError
from tundra_nb.local.running import hung
from tundra_nb.local.wire import GONE, Pool, Response, Wire
from tundra_nb.sse import EventTooLongError, Parser
from tundra_nb.types import Ask, Reply
from tundra_nb.types.pieces import Piece, Text
from tundra_nb.types.triage import Triage

from . import api, explain, gateway, pty_calls, run_story, times
from .above import DashboardOptions, ReplayOptions, SimulateOptions, TriageOptions, above
from .agent_runs import HeldRun
from .answer import AnswerReader, Event, died, malformed, not_yet
from .archive import Archive
from .archive import archive as run_archive
from .attach import Attachment
from .call import ATTEMPT_PAUSES, Call, HttpAnswer, Step, read, refusal, refuse_acting, seen_from
from .endpoints import blocking
from .explain import guide
from .incidents import Incidents
from .link import Link
from .live import OnOutput, Run, ShellRun
from .logs import logs as read_logs
from .logs import of_source as logs_of_source
from .owner import owner_name
from .pty_calls import Command, Cwd, Program
from .ptys import Ptys
from .sources import Sources
from .times import When
from .versions import Versions

if TYPE_CHECKING:
    import pandas as pd

    from tundra_nb.doctor.bundle import Bundle
    from tundra_nb.doctor.check import Checkup, Finding
    from tundra_nb.doctor.run import Progress

T = TypeVar("T")
OnNotice = Callable[[Mapping[str, Any]], None]


class Client:
    """A connection to the tundra daemon.

    Constructing it does no I/O; the first call connects, starts the daemon if need be, and does so again when it has
    stopped for idleness meanwhile. Close it, or use it as a context manager. May be shared by threads.
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
        self._pool = Pool(hung)
        self._attachment: Attachment | None = None
        self.versions = Versions(self)
        self.incidents = Incidents(self)
        self.sources = Sources(self)
        self.tokens = gateway.Tokens(self)
        self.gateway = gateway.Listener(self)
        self.ptys = Ptys(self)

    def __repr__(self) -> str:
        place = self._link.place
        where = "not connected" if place is None else place.socket or f"{place.host}{place.prefix}"
        return f"<tundra_nb.Client of {self._link.key}: {where}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def link(self) -> Link:
        """The way to the daemon: where it is, and the paths of its files."""
        return self._link

    def open(self) -> None:
        """Find or start the daemon now; in a kernel, also stay attached to it.

        Raises:
            IpcError: absent, cannot be started, or of another API version.
        """
        self._link.find()
        if self.caller == "kernel":
            self.attach("kernel")

    def attach(self, who: str) -> None:
        """Hold the daemon's event stream open in the background until `close`: it will not stop for idleness, and the
        persistent shell of this kernel lives on.
        """
        if self._attachment is None:
            self._attachment = Attachment.share(self._link, who, owner_name(self.caller))

    def close(self) -> None:
        """Close all connections; the daemon goes on."""
        if self._attachment is not None:
            self._attachment.release()
            self._attachment = None
        self._pool.close()

    # the table:

    status = blocking(api.status)
    providers = blocking(api.providers)
    profile_names = blocking(api.profile_names)
    models = blocking(api.models)
    limits = blocking(api.limits)
    breakers = blocking(api.breakers)
    settings = blocking(api.settings)
    keys = blocking(api.keys)
    offer_keys = blocking(api.offer_keys)
    reset_breaker = blocking(api.reset_breaker)
    add_provider = blocking(api.add_provider)
    recheck_provider = blocking(api.recheck_provider)
    test_provider = blocking(api.test_provider)
    set_provider = blocking(api.set_provider)
    remove_provider = blocking(api.remove_provider)
    reorder_providers = blocking(api.reorder_providers)
    park_provider = blocking(api.park_provider)
    faults = blocking(api.faults)
    start_faults = blocking(api.start_faults)
    set_fault = blocking(api.set_fault)
    clear_faults = blocking(api.clear_faults)
    stop_faults = blocking(api.stop_faults)
    stop_daemon = blocking(api.stop_daemon)
    descriptors = blocking(api.descriptors)
    log_level = blocking(api.log_level)
    why = blocking(api.why)
    last = blocking(api.last)
    calls = blocking(api.calls)
    attempts = blocking(api.attempts)
    errors = blocking(api.errors)
    limit_history = blocking(api.limit_history)
    breaker_history = blocking(api.breaker_history)
    connections = blocking(api.connections)
    agent_runs = blocking(api.agent_runs)
    agent_steps = blocking(api.agent_steps)
    why_run = blocking(run_story.why_run)
    history = blocking(api.history)
    sql = blocking(api.sql)
    notes = blocking(api.notes)
    note = blocking(api.note)
    set_setting = blocking(api.set_setting)
    explain = blocking(explain.explain)
    guide = staticmethod(guide)

    @overload
    def ask(
        self, prompt: api.Prompt, *, stream: Literal[False] = False, **options: Unpack[api.AskOptions]
    ) -> Reply: ...
    @overload
    def ask(self, prompt: api.Prompt, *, stream: Literal[True], **options: Unpack[api.AskOptions]) -> ReplyStream: ...
    def ask(
        self,
        prompt: api.Prompt,
        *,
        profile: str | None = None,
        model: str | None = None,
        system: str | None = None,
        max_tokens: int | None = None,
        temperature: float | None = None,
        failover: bool = True,
        stream: bool = False,
        tools: Sequence[Mapping[str, Any]] | None = None,
        tool_choice: Any = None,
        json_mode: bool = False,
        json_schema: Mapping[str, Any] | None = None,
        stop: Sequence[str] | None = None,
        top_p: float | None = None,
        parallel_tool_calls: bool | None = None,
        effort: str | None = None,
        extra: Mapping[str, Any] | None = None,
        record: bool = False,
    ) -> Reply | ReplyStream:
        """Ask a model; profiles are tried by priority until one answers.

        Args:
            prompt: text, or messages in the OpenAI chat form.
            profile: asked first; the others follow unless `failover` is False.
            model: instead of the profile's own.
            system: system prompt.
            max_tokens: longest answer.
            temperature: as the provider defines it.
            failover: whether other profiles may answer.
            stream: return the pieces of text as they come; `.reply` of the iterator is there at its end.
            tools: tools in the OpenAI form, passed through.
            tool_choice: passed through.
            json_mode: have the model answer with a JSON object.
            json_schema: the form that the answer must have: a mapping with `name` and `schema`.
            stop: texts that end the answer.
            top_p: as the provider defines it.
            parallel_tool_calls: False for at most one tool call per answer.
            effort: how much a model that reasons is to reason: low, medium, high.
            extra: further fields of the provider's own request body.
            record: keep request and answer, masked, with the time of each piece, whatever `record.content` says.

        Raises:
            TundraError: why nobody answered. An interrupt closes the connection, which cancels the call upstream.
        """
        question = api.question(
            prompt,
            profile=profile,
            model=model,
            system=system,
            max_tokens=max_tokens,
            temperature=temperature,
            failover=failover,
            tools=tools,
            tool_choice=tool_choice,
            json_mode=json_mode,
            json_schema=json_schema,
            stop=stop,
            top_p=top_p,
            parallel_tool_calls=parallel_tool_calls,
            effort=effort,
            extra=extra,
            record=record,
        )
        return self.ask_as(question, stream=stream)

    @overload
    def ask_as(self, question: Ask, *, stream: Literal[False] = False) -> Reply: ...
    @overload
    def ask_as(self, question: Ask, *, stream: Literal[True]) -> ReplyStream: ...
    @overload
    def ask_as(self, question: Ask, *, stream: bool) -> Reply | ReplyStream: ...
    def ask_as(self, question: Ask, *, stream: bool = False) -> Reply | ReplyStream:
        """Ask a question that is made already (`api.question`)."""
        question = api.by(question, self.caller, self.records)
        if stream:
            return ReplyStream(self._events(api.ask_stream(question)))
        return self._do(api.ask(question))

    def triage(self, target: str = "last", **options: Unpack[TriageOptions]) -> Triage:
        """Find out what failed, since when, whom it hits, what was changed before, and what to do.

        Args:
            target: `last`, the id of a call or its last digits, or a question in words.
            profile: asked, and no other.
            since: beginning of the window; 24 h before the newest row by default.
            at: read as of this ref; a commit made now by default.
            budget_usd: most that the model's calls may cost; None keeps no budget.
            deadline: seconds that the run may take.
            calls: of the model, at most.
            act: offer the tools that act; each use is asked for with its exact command.
            model: False: only the rules, which need no model.
            on_step: called with each step as it happens.
            approve: asks a person; without it every acting command is denied.

        Raises:
            UsageError: no such call, or a budget that cannot be kept because a model has no known price.
        """
        found: Triage = above("tundra_nb.agents.triage", "triage")(self, target, **options)
        return found

    def dashboard(self, since: When | None = None, **options: Unpack[DashboardOptions]) -> Any:
        """One hour on one page: what broke, since when, what was changed before, and what is still well.

        In a notebook it is live while its window reaches to now, and its `selection` is the frame of the calls that
        are selected in it; elsewhere it is a picture with its words, whose `frame` has the stretches that failed.

        Args:
            since: from when on: `2h`, `14:00`, `all`; one hour ago by default.
            between: two of these instead.
            at: the history as of a commit, branch, tag or time.
            incident: its window, at its pin.
            source: what was imported under this name; all of it where no window is given.
            profile: only calls of this profile.
            code: only calls that ended with this error code.
            caller: only calls of this caller: kernel, cli, python, gateway.

        Raises:
            UsageError: times that exclude each other, or something that nobody knows.
        """
        return above("tundra_nb.kernel.widgets", "dashboard")(self, since=since, **options)

    def agent_run(
        self,
        agent: str,
        question: str,
        *,
        ref: str | None = None,
        profile: str | None = None,
        budget_usd: float | None = None,
    ) -> HeldRun:
        """Begin a run of an agent, which is written into the history step by step.

        Args:
            agent: what runs.
            question: what it is to find out.
            ref: the commit that it reads at.
            profile: which it asks.
            budget_usd: what it may cost.
        """
        body = {"agent": agent, "question": question, "ref": ref, "profile": profile, "budget_usd": budget_usd}
        return HeldRun(self, body)

    def simulate(self, incident: str | None = None, **options: Unpack[SimulateOptions]) -> pd.DataFrame:
        """Run the recorded arrivals through the same limiter, breakers and router under other settings.

        Args:
            incident: its window at its pin, with the settings of then as the base.
            since: beginning of the window; one day by default, with the settings of now.
            between: instead of `since`.
            at: the history, and the settings, as of a commit, branch, tag or time.
            settings: `PATH=VALUE,VALUE…`; every combination is a variant.
            propose: write the one variant on this branch: `versions.merge` puts it into force.
            workers: run so many variants side by side by joblib (`pip install 'tundra-nb[sweeps]'`), -1: on all cores;
                in processes of this machine, or where `joblib.parallel_config` says. One by one in this process when
                left out. The result is the same.
            on_progress: told how far it is; at last an empty text.

        Returns:
            One row per variant, the first of what was recorded, the second `as it was`. `ok_least` to `ok_most` is
            the band of requests that were never sent in truth; they are never counted as successes.

        Raises:
            UsageError: no calls there, no such setting, or a value that is not allowed.
        """
        found: pd.DataFrame = above("tundra_nb.incidents.rehearsal", "simulate")(self, incident, **options)
        return found

    def archive(
        self,
        older_than: times.When | None = None,
        *,
        verify: bool = False,
        on_progress: Callable[[Mapping[str, Any]], None] | None = None,
    ) -> Archive:
        """Copy old days of the history as Parquet files, prove them, or tell what is archived. Nothing is deleted.

        Days that are archived are read from there by `calls(by=…)` and its like, and by `sql(…, archive=True)`, where
        DuckDB is installed (`pip install 'tundra-nb[archive]'`).

        Args:
            older_than: `30d`, a time: whole UTC days before it are copied, a day at least.
            verify: read every file and compare it; what is damaged is copied anew.
            on_progress: called with `doing`, `table`, `day`, `done_rows`, `rows` now and then.

        Returns:
            What the archive holds then: `folder`, `since`, `until`, `files`, `rows`, `size_bytes`, `tables`, `late`.

        Raises:
            UsageError: the days are not over.
            ConfigError: the disk is full, or cannot be written; what was archived stays, and nothing half is left.
            StoreDamaged: a file is damaged, and the history has not its rows.
        """
        return run_archive(self, older_than, verify, on_progress)

    def replay(self, incident: str | None = None, **options: Unpack[ReplayOptions]) -> pd.DataFrame:
        """Run recorded calls through today's code, offline, on a virtual clock: the same sequence each time.

        Args:
            incident: its window at its pin, with the settings of then.
            since: beginning of a window instead.
            between: instead of `since`.
            at: the history, and the settings, as of a commit, branch, tag or time.
            settings: `PATH=VALUE`, changed against the settings of then.
            speed: so many times real time; as fast as it goes when left out.
            on_progress: told what it does; at last an empty text.

        Returns:
            One row per call, then against now; `attrs["summary"]` says where they part.

        Raises:
            UsageError: no calls there, too many of them, no such setting, or a value that is not allowed.
        """
        found: pd.DataFrame = above("tundra_nb.incidents.rehearsal", "replay")(self, incident, **options)
        return found

    def logs(
        self,
        *,
        since: When | None = None,
        level: str | None = None,
        operation: str | int | None = None,
        limit: int | None = None,
        source: str | None = None,
    ) -> pd.DataFrame:
        """Lines of the daemon's log, also of rotated files and while the daemon is dead.

        Args:
            since: from when on.
            level: of this level, or graver: debug, info, warning, error, critical.
            operation: of one call, by its id or the last digits of it.
            limit: only so many, the newest.
            source: of a log that was imported under this name instead; it names no calls.

        Raises:
            UsageError: there is no log here, or no such level.
        """
        if source is not None:
            return self._do(logs_of_source(source, since, level, limit))
        return read_logs(self._link, since=since, level=level, operation=operation, limit=limit)

    def run(
        self,
        command: Command,
        *,
        timeout: float | None = None,
        cwd: Cwd = None,
        env: Mapping[str, str] | None = None,
        with_keys: Collection[str] = (),
        persistent: bool = False,
        on_output: OnOutput | None = None,
    ) -> Run:
        """Run a shell command line in a PTY and wait for its end.

        Args:
            command: as typed into a shell; a list is a program with its arguments.
            timeout: seconds it may take.
            cwd: working directory; this process's by default.
            env: variables set beside the daemon's.
            with_keys: names of variables that the command gets although they hold keys.
            persistent: it goes on when this process ends; otherwise it ends with it.
            on_output: called with each piece of output as it comes.

        Raises:
            Timeout: it took longer, and was ended.
            SpawnFailed, AtCapacity: it could not be started.
            KeyboardInterrupt: an interrupt was passed on to it (INT, then harder); says how it ended.
        """
        return self.ptys.run(
            command,
            timeout=timeout,
            cwd=cwd,
            env=env,
            with_keys=with_keys,
            persistent=persistent,
            on_output=on_output,
        )

    def sh(
        self,
        cell: str,
        *,
        program: Program = "bash",
        fresh: bool = False,
        timeout: float | None = None,
        cwd: Cwd = None,
        env: Mapping[str, str] | None = None,
        with_keys: Collection[str] = (),
        on_output: OnOutput | None = None,
    ) -> ShellRun:
        """Run a cell in this notebook's persistent shell: variables, functions and directory live on.

        Args:
            cell: shell code.
            program: bash or zsh; another one than before ends the shell of before.
            fresh: end the shell of before first.
            timeout: seconds the cell may take.
            cwd: where a new shell starts; this process's directory by default.
            env: variables for a new shell.
            with_keys: names of variables that a new shell gets although they hold keys.
            on_output: called with each piece of output as it comes.

        Raises:
            Timeout: the cell took longer, and was interrupted; the shell lives on, unless it ignores interrupts itself.
            KeyboardInterrupt: an interrupt was passed on to it.
        """
        self.attach(self.caller)  # the shell lives as long as somebody is attached for its owner
        return self.ptys.sh(
            cell,
            program=program,
            fresh=fresh,
            timeout=timeout,
            cwd=cwd,
            env=env,
            with_keys=with_keys,
            on_output=on_output,
        )

    def doctor(
        self,
        symptom: str = "everything",
        *,
        fix: bool = False,
        on_progress: Progress | None = None,
        may_fix: Callable[[Finding, str], bool] | None = None,
    ) -> Checkup:
        """Check everything that tundra stands on, also when the daemon is dead; nothing is started or changed.

        Args:
            symptom: network, database, performance, processes, authentication, configuration or everything.
            fix: carry out the remedies that are safe, and check again.
            on_progress: told of each check that is done: how many, of how many, which.
            may_fix: asked before each fix with its finding and what would be done; left out: yes to all.

        Raises:
            UsageError: no such symptom.
        """
        from tundra_nb.doctor import run

        return run.doctor(symptom, fix=fix, where=self._link.paths, on_progress=on_progress, may_fix=may_fix)

    def bundle(
        self,
        out: str | os.PathLike[str] | None = None,
        *,
        force: bool = False,
        symptom: str = "",
        cells: Sequence[str] = (),
    ) -> Bundle:
        """Write one masked zip with everything that a report of a trouble needs; works with the daemon dead.

        Args:
            out: the file; a name with the time in this folder by default.
            force: also over a file that is there.
            symptom: what the report is about.
            cells: the last cells of a notebook, for its steps.

        Raises:
            UsageError: the file is there, or a known secret would be in it: nothing was written.
            ConfigError: it cannot be written.
        """
        from tundra_nb.doctor import bundle

        return bundle.bundle(out, force=force, symptom=symptom, cells=cells, where=self._link.paths)

    # carrying calls:

    def _do(self, step: Step[T]) -> T:
        if isinstance(step, Call):
            return self._send(step)
        try:
            call = next(step)
            while True:
                try:
                    found = self._send(call)
                except TundraError as error:
                    call = step.throw(error)
                else:
                    call = step.send(found)
        except StopIteration as done:
            result: T = done.value
            return result

    def _send(self, call: Call[T]) -> T:
        call = seen_from(call, self.versions.at, self.versions.checked_out, self.versions.window, self.sources.name)
        wire, response = self._request(call)
        try:
            answer = HttpAnswer(response.status, response.headers, response.read())
        except GONE as exc:
            wire.close()
            raise self._broken(exc) from exc
        except BaseException:
            wire.close()  # an interrupt: the daemon sees the close and cancels
            raise
        if response.keeps_alive:
            self._pool.put(wire)
        else:
            wire.close()
        if (loss := self._link.take_loss()) is not None:
            with contextlib.suppress(TundraError):  # the line is back, or it is not: the call itself counts
                self._send(pty_calls.lost(self.caller, *loss))
        return read(call, answer, bridged=wire.place.is_bridged)

    def _events(self, call: Call[Any]) -> Generator[Event, None, None]:
        """The events of a stream; closing the iterator closes the connection at once."""
        wire, response = self._request(call)
        try:
            if response.status >= 400:
                answer = HttpAnswer(response.status, response.headers, response.read())
                raise refusal(answer, bridged=wire.place.is_bridged)
            parser = Parser()
            for chunk in response.pieces():
                for name, data in parser.feed(chunk):
                    yield Event(name, data)
        except EventTooLongError as exc:
            raise malformed(exc) from exc
        except GONE as exc:
            raise self._broken(exc) from exc
        finally:
            wire.close()

    def _request(self, call: Call[Any]) -> tuple[Wire, Response]:
        """Send a call; the answer's head has come when this returns.

        A call is sent twice only when it cannot have been processed: no connection was made, or it is a GET.
        """
        refuse_acting(call)
        place = self._link.place or self._link.find()
        for pause in ATTEMPT_PAUSES:
            if pause:
                time.sleep(pause)
            wire = self._pool.take(place)
            try:
                wire.connect()
            except OSError as exc:
                wire.close()
                lost = self._link.lost(exc)
                if not self._link.can_find_again:
                    raise lost from exc
                place = self._link.find()
                continue
            try:
                wire.set_timeout(call.timeout)
                return wire, wire.exchange(call.method, call.target, call.headers, call.payload)
            except GONE as exc:
                wire.close()
                lost = self._broken(exc)
                if not call.is_safe or isinstance(exc, TimeoutError):
                    raise lost from exc
            except BaseException:
                wire.close()
                raise
        raise lost

    def _broken(self, exc: Exception) -> TundraError:
        place = self._link.place
        if place is not None and place.is_bridged:
            return self._link.lost(exc)
        if isinstance(exc, TimeoutError):
            problem = "the daemon accepted the call but did not answer in time"
            return self._link.broke(IpcError(kind="silent", problem=problem))
        return self._link.broke(died())


class ReplyStream:
    """The pieces of an answer as they come; `.reply` is there at the end, `.notices` grows meanwhile.

    Set `on_notice` to be told of waits, retries and failovers at once. Closing it before its end cancels the call.
    """

    def __init__(self, events: Generator[Event, None, None]) -> None:
        self._events = events
        self._reader = AnswerReader()
        self.on_notice: OnNotice | None = None

    @property
    def reply(self) -> Reply:
        if self._reader.reply is None:
            not_yet("reply")
        return self._reader.reply

    @property
    def notices(self) -> Sequence[Mapping[str, Any]]:
        return self._reader.notices

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        while True:
            if isinstance(piece := self._next(), Text):
                return piece.text

    def pieces(self) -> Iterator[Piece]:
        """All of the answer, not only its text: `Text`, `Reasoning` and `ToolCallPiece` of `tundra_nb.types.pieces`."""
        while True:
            try:
                yield self._next()
            except StopIteration:
                return

    def _next(self) -> Piece:
        try:
            for event in self._events:
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
            self.close()
            raise
        self.close()
        raise StopIteration

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; before the end of the answer this cancels the call."""
        self._events.close()
