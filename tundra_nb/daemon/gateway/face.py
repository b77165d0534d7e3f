"""`/v1` as an ASGI application: one call read, carried out as an operation, answered in the caller's dialect."""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import logging
import time
from collections.abc import Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import unquote

import msgspec

from tundra_nb import errors
from tundra_nb.daemon.cut import CUT, Cut, Leaving
from tundra_nb.daemon.life import Receive, Scope, Send
from tundra_nb.daemon.traceparent import trace_of
from tundra_nb.runtime.caller import Caller
from tundra_nb.runtime.operations import LiveOperation
from tundra_nb.runtime.providers.relay import CallerBody, Refusal, fetch
from tundra_nb.runtime.relayed import Choice, Relayed
from tundra_nb.runtime.rows import CallFacts
from tundra_nb.settings.model import AUTO

from . import incoming, stays
from .choose import Choosing, Failover
from .failures import Failure, failure
from .limits import limit_headers
from .models import model_list, one_model
from .outgoing import Keeper, Outgoing
from .paths import MODELS, PATHS, Dialect, Path, below, family_of
from .stored import Made, Stored, address
from .stored import unknown as stored_unknown
from .tokens import Tokens, iso

if TYPE_CHECKING:
    from tundra_nb.runtime.runtime import Runtime


MODEL_CHARS = 255
"""Longest name of a model: as much as the history keeps."""
CALLERS_KEPT = 200
_log = logging.getLogger("tundra.daemon")


@dataclasses.dataclass
class SeenProgram:
    """What one program has done here. Times are seconds since the epoch."""

    by: Literal["token", "user"]
    """What `name` is the name of."""
    name: str
    client: str
    dialect: str
    calls: int = 0
    running: int = 0
    failed: int = 0
    last_at: float = 0.0


class Gateway:
    """What all doors share: tokens, the choice of profiles, who called."""

    def __init__(self, runtime: Runtime, tokens: Tokens, stored: Stored) -> None:
        self.runtime = runtime
        self.tokens = tokens
        self.stored = stored
        self.choosing = Choosing(runtime.profiles)
        self._callers: collections.OrderedDict[tuple[str, str, str, str], SeenProgram] = collections.OrderedDict()

    def seen(self, caller: Caller, client: str | None, dialect: str) -> SeenProgram:
        """The entry of a program, the latest last."""
        by: Literal["token", "user"] = "token" if caller.key else "user"
        key = (by, caller.name, client or "", dialect)
        entry = self._callers.get(key)
        if entry is None:
            if len(self._callers) >= CALLERS_KEPT:
                self._callers.popitem(last=False)
            entry = self._callers[key] = SeenProgram(by, *key[1:])
        self._callers.move_to_end(key)
        entry.last_at = time.time()
        return entry

    def callers(self) -> list[dict[str, Any]]:
        """Who called since the daemon's start, the latest first."""
        return [
            dataclasses.asdict(entry) | {"last_at": iso(entry.last_at)} for entry in reversed(self._callers.values())
        ]


class DoorApp:
    """One door's application.

    Args:
        gateway: what the doors share.
        user: whose a call is that comes without a gateway token; None: such calls are refused.
    """

    def __init__(self, gateway: Gateway, user: Callable[[Scope], str] | None) -> None:
        self._gateway = gateway
        self._runtime = gateway.runtime
        self._user = user

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        headers = incoming.headers_of(scope)
        path = below(scope["path"])
        out = Outgoing(scope, send, family_of(path, headers))
        try:
            await self._answer(scope, receive, headers, path, out)
        except errors.TundraError as error:
            await self._refuse(out, error)
        except incoming.BodyError as exc:
            await self._refuse(out, exc.error, status=exc.status)
        except incoming.ClientGoneError:
            return

    async def _answer(
        self, scope: Scope, receive: Receive, headers: dict[bytes, bytes], path: str, out: Outgoing
    ) -> None:
        caller = self._caller(scope, headers)
        method = scope["method"]
        known = PATHS.get(path)
        if known is None and (path == MODELS or path.startswith(MODELS + "/")) and method in ("GET", "HEAD"):
            slots = self._gateway.choosing.allowed(caller)
            if path == MODELS:
                await out.whole(await model_list(self._gateway.choosing, slots))
            else:
                # one encoded segment: `org%2Fm`
                name = unquote(scope["raw_path"].decode("latin-1").split(MODELS + "/", 1)[1])
                await out.whole(await one_model(self._gateway.choosing, slots, name))
            return
        if known is None and path.startswith("/responses/"):
            await self._stored(scope, method, path, caller, out)
            return
        if known is None or method != known.method:
            await self._refuse(out, _nowhere(method, scope["path"], known), status=404 if known is None else 405)
            return
        most = self._runtime.loaded.settings.gateway.max_body_mb * 1024 * 1024
        body = await incoming.read_body(receive, headers, most)
        given, bound = await incoming.read_given(known, body, headers)
        request = await self._request(known, given, bound, caller, headers)
        client = request.facts.client
        seen = self._gateway.seen(caller, client, known.dialect)
        seen.calls += 1
        seen.running += 1
        try:
            if not await self._carry_out(request, caller, scope[CUT], out):
                seen.failed += 1
        finally:
            seen.running -= 1

    def _caller(self, scope: Scope, headers: dict[bytes, bytes]) -> Caller:
        presented = incoming.credential(headers, scope.get("query_string", b""))
        if incoming.is_ours(presented) or (self._user is None and presented):
            return self._gateway.tokens.check(presented)[1]
        if self._user is None:
            raise errors.TokenRefused(kind="missing")
        return Caller(self._user(scope))

    async def _request(
        self, path: Path, given: CallerBody, bound: tuple[str, ...], caller: Caller, headers: dict[bytes, bytes]
    ) -> Relayed:
        name = _model_of(given)
        trace_id, span_id = trace_of(headers.get(b"traceparent", b""))
        facts = CallFacts(
            kind=path.form,
            requested_model=name,
            caller="gateway",
            streamed=given.is_streamed,
            dialect=path.dialect,
            client=incoming.client_of(headers),
            retry_count=incoming.retry_count(headers),
            trace_id=trace_id,
            parent_span_id=span_id,
        )
        failover = _failover(headers)
        choices = await self._gateway.choosing.choose(name, caller, failover)
        previous = stays.previous_response(given)
        if previous is not None:
            choices = await self._going_on(previous, choices, caller)
        return Relayed(
            given,
            facts,
            choices,
            failover=failover != "off",
            max_tokens=incoming.max_tokens(given),
            stays=bound,
        )

    async def _going_on(self, previous: str, choices: list[Choice], caller: Caller) -> list[Choice]:
        """Those that may go on from an earlier response: its maker; all of them where nobody here made it."""
        stored = self._gateway.stored
        if await asyncio.to_thread(stored.is_of_another, previous, caller.limit_key):
            raise stored_unknown(previous)
        made = stored.find(previous, caller.limit_key)
        if made is None:
            return choices
        if left := [choice for choice in choices if choice.profile.name == made.profile]:
            return left
        raise errors.UsageError(
            problem=f"previous_response_id: profile {made.profile!r} made that response, and may not serve this call",
            field="previous_response_id",
            remedy="Ask the model that you asked before, or send the whole conversation.",
        )

    async def _stored(self, scope: Scope, method: str, path: str, caller: Caller, out: Outgoing) -> None:
        """Ask the profile that made a response for it, or to cancel or delete it. No bucket, no budget, no row."""
        try:
            response, verb = address(method, path)
        except errors.UsageError as error:
            await self._refuse(out, error, status=404)
            return
        made = await asyncio.to_thread(self._gateway.stored.find, response, caller.limit_key)
        slot = next(
            (s for s in self._gateway.choosing.allowed(caller) if made and s.profile.name == made.profile), None
        )
        if slot is None:
            await self._refuse(out, stored_unknown(response), status=404)
            return
        tail = f"/responses/{response}" + (f"/{verb}" if verb else "")
        query = scope.get("query_string", b"").decode("latin-1")
        refusals: list[Refusal] = []
        with Leaving(scope[CUT]) as leaving:
            try:
                async with aclosing(fetch(slot.provider, method, tail, query, refusals)) as chunks:
                    async for chunk in chunks:
                        await out.chunk(chunk)
            except errors.TundraError as error:
                leaving.stop()
                told = failure(out.family, error, refusal=refusals[-1] if refusals else None, form="responses")
                await out.fail(self._masked(told))
            else:
                await out.end()

    async def _carry_out(self, request: Relayed, caller: Caller, cut: Cut, out: Outgoing) -> bool:
        """Carry a call out and answer it; whether it was answered well."""
        operation = self._runtime.operations.call(request, caller)
        request.operation_id = str(operation.operation_id)
        out.begin(operation.operation_id, request)
        out.limits = lambda: limit_headers(request, out.family)
        keeper = None
        if request.given.is_streamed:
            keeper = Keeper(out, self._runtime.loaded.settings.gateway.hold_seconds)
        with Leaving(cut) as leaving:
            try:
                await operation.carry_out(out.piece)
                if request.given.form == "responses" and request.way == "relayed":
                    await self._remember(request, caller)
                await out.finish()
            except errors.TundraError as error:
                leaving.stop()
                if keeper is not None:
                    keeper.cancel()
                await out.fail(self._told(operation, request, error, out.family))
                return False
            finally:
                if keeper is not None:
                    keeper.cancel()
            return True
        return False

    async def _remember(self, request: Relayed, caller: Caller) -> None:
        entry = request.entry
        if entry is not None and entry.answer is not None and entry.answer.request_id:
            made = Made(entry.answer.request_id, entry.profile.name, caller.limit_key)
            await asyncio.to_thread(self._gateway.stored.remember, made)

    def _told(self, operation: LiveOperation, request: Relayed, error: errors.TundraError, family: Dialect) -> Failure:
        refusal = request.refusals[-1] if request.refusals and request.way == "relayed" else None
        causes = list(operation.failures.values())
        attempts = request.entry.seq if request.entry is not None else 0
        told = failure(
            family,
            error,
            causes=causes,
            operation_id=operation.operation_id,
            has_retried=operation.retries > 0 or (attempts > 1 and len(causes) > 1),
            refusal=refusal,
            form=request.given.form,
        )
        return self._masked(told)

    async def _refuse(self, out: Outgoing, error: errors.TundraError, status: int | None = None) -> None:
        """Answer a call that never became an operation."""
        told = failure(out.family, error)
        if status is not None:
            told = msgspec.structs.replace(told, status=status)
        level = logging.WARNING if isinstance(error, errors.TokenRefused) else logging.INFO
        _log.log(level, "gateway refused a call: %s", error, extra={"code": error.code, "reason": error.reason})
        await out.fail(self._masked(told), closing=told.status in (413, 415))

    def _masked(self, told: Failure) -> Failure:
        mask = self._runtime.redactor.text
        return msgspec.structs.replace(
            told, body=mask(told.body.decode()).encode(), in_band=mask(told.in_band.decode()).encode()
        )


def _model_of(given: CallerBody) -> str:
    raw = given.members.get("model")
    if raw is None:
        return AUTO
    try:
        name = msgspec.json.decode(raw, type=str)
    except msgspec.DecodeError:
        raise errors.UsageError(problem="model is no text", field="model", remedy="The name of a model.") from None
    if len(name) > MODEL_CHARS:
        problem = f"model has {len(name):,} characters; {MODEL_CHARS} at most name one"
        raise errors.UsageError(problem=problem, field="model", remedy="The name of a model.")
    return name


def _failover(headers: dict[bytes, bytes]) -> Failover:
    told = headers.get(incoming.FAILOVER)
    if told is None:
        return "any"
    known: dict[bytes, Failover] = {b"any": "any", b"same-vendor": "same-vendor", b"off": "off"}
    told = told.strip().lower()
    if told not in known:
        raise errors.UsageError(
            problem=f"x-tundra-failover is {told.decode('latin-1')!r}",
            field="x-tundra-failover",
            remedy="One of any, same-vendor, off.",
        )
    return known[told]


def _nowhere(method: str, path: str, known: Path | None) -> errors.UsageError:
    if known is not None:
        return errors.UsageError(problem=f"{path} takes {known.method}, not {method}")
    paths = ", ".join(f"POST /v1{name}" for name in PATHS)
    return errors.UsageError(
        problem=f"there is no {method} {path} here",
        remedy=f"There are {paths}, GET /v1/models. An OpenAI SDK's base URL ends in /v1, an Anthropic SDK's does not.",
    )
