"""A proxy that stands in front of a provider and injects faults by rule; switchable while it runs.

    async with FaultProxy("http://127.0.0.1:8080") as proxy:
        …  # a profile of kind openai with base_url = proxy.base_url
        proxy.inject("529", count=2)
        proxy.inject("slow_stream", path="*/messages", probability=0.3, seed=7, seconds=0.2)
        proxy.counts["529"]

As a process of its own: `FaultProcess(url)`, or by hand
`python -m tundra_nb.faults.fault_proxy --upstream URL --port N`.
It is then switched over HTTP, on a port of its own (so that "refused" can be switched off again):
`GET /faults` lists all, `GET /rules`, `POST /rules` (a `Rule`), `DELETE /rules`, `DELETE /rules/NAME`, `GET /counts`.

What no rule matches passes through unchanged, piece by piece. All faults are in `faults.FAULTS`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final, Self

import httpx
import msgspec

from tundra_nb.errors import TundraError, UsageError, from_wire
from tundra_nb.runtime.providers.transport import Transport

from . import child, dialects, faults
from .faults import FAULTS, Draw, Fault, Rule
from .http_server import LAST_CHUNK, AnswerWriter, HttpServer, ReceivedRequest, chunk, head

PASSED: Final = "passed"
"""Under this name `counts` has the requests that no rule touched."""
DEFAULT_EVENTS: Final = 6
"""Real events before the error of `error_in_stream`: enough for some text in either dialect."""
_HOP_BY_HOP: Final = frozenset(
    {b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"upgrade", b"transfer-encoding"}
)

_NOT_FORWARDED: Final = _HOP_BY_HOP | {b"host", b"content-length", b"accept-encoding"}
"""Compressed bodies could not be damaged at a known place, so none is asked for."""


class FaultProxy:
    """The proxy inside this event loop. An async context manager.

    Args:
        upstream: Base URL that everything else goes to, with or without `/v1`; only its origin and any path before
            `/v1` are used, since the client's own path has the rest.
        dialect: Whose words errors are in when a rule does not say; None goes by the path.
        rules: What to inject from the start.
        port, control_port: 0 chooses one.

    Raises:
        UsageError: `upstream` is no URL, or a rule could never do what it says.
    """

    def __init__(
        self,
        upstream: str,
        *,
        dialect: dialects.Dialect | None = None,
        rules: Sequence[Rule] = (),
        port: int = 0,
        control_port: int = 0,
    ) -> None:
        self._upstream = upstream.rstrip("/").removesuffix("/v1")
        if not self._upstream.startswith(("http://", "https://")):
            raise UsageError(problem=f"{upstream!r} is no http:// or https:// URL", field="upstream")
        self._dialect = dialect
        self._server = HttpServer(self._handle, port=port)
        self._control = HttpServer(self._answer_control, port=control_port)
        self._transport = Transport()
        for rule in rules:
            faults.check(rule)
        self._draws = [Draw(rule) for rule in rules]
        self._is_refusing = False
        self._switch_lock = asyncio.Lock()
        self._switching: set[asyncio.Task[None]] = set()
        self.counts: Counter[str] = Counter()
        """Requests per fault, and `passed`. What was refused cannot be counted."""

    @property
    def url(self) -> str:
        """For profiles of kind anthropic."""
        return self._server.url

    @property
    def base_url(self) -> str:
        """For profiles of the OpenAI form."""
        return f"{self.url}/v1"

    @property
    def control_url(self) -> str:
        return self._control.url

    @property
    def urls(self) -> dict[str, str]:
        return {"url": self.url, "control": self.control_url}

    @property
    def rules(self) -> tuple[Rule, ...]:
        return tuple(draw.rule for draw in self._draws)

    async def start(self) -> None:
        await self._server.start()
        await self._control.start()
        await self._apply_refusal()

    async def aclose(self) -> None:
        """Stop listening and cut everything under way. May be called twice."""
        await asyncio.gather(*self._switching)
        await self._control.aclose()
        await self._server.aclose()
        await self._transport.aclose()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    def inject(self, fault: str, **options: Any) -> Rule:
        """Add a rule after those that are there; `options` are the fields of `Rule`.

        Raises:
            UsageError: no such fault or option, or one that a proxy cannot make.
        """
        try:
            rule = msgspec.convert({"fault": fault, **options}, Rule, strict=True)
        except msgspec.ValidationError as exc:
            raise UsageError(problem=f"{fault}: {exc}", field="fault") from exc
        unknown = set(options) - set(Rule.__struct_fields__)
        if unknown:
            known = ", ".join(Rule.__struct_fields__)
            raise UsageError(problem=f"a rule has no {min(unknown)!r}", remedy=f"It has: {known}.")
        self.add(rule)
        return rule

    def add(self, rule: Rule) -> None:
        """Add a rule after those that are there.

        Raises:
            UsageError: it could never do what it says.
        """
        faults.check(rule)
        self._draws.append(Draw(rule))
        self._switch()

    def clear(self, fault: str | None = None) -> None:
        """Remove the rules of one fault, or all of them. Counts stay."""
        self._draws = [draw for draw in self._draws if fault is not None and draw.rule.fault != fault]
        self._switch()

    def url_for(self, fault: str) -> str:
        """A base URL (without `/v1`) at which a fault happens that no proxy can make."""
        if fault == "dns":
            return "http://fault.invalid"  # a name that RFC 2606 promises never to exist
        if fault == "tls":
            return self.url.replace("http://", "https://")
        return self.url

    async def settled(self) -> None:
        """Wait until a switch of `refused` has taken effect."""
        await asyncio.gather(*self._switching)

    # switching

    def _switch(self) -> None:
        task = asyncio.ensure_future(self._apply_refusal())
        self._switching.add(task)
        task.add_done_callback(self._switching.discard)

    async def _apply_refusal(self) -> None:
        async with self._switch_lock:
            wanted = any(draw.rule.fault == "refused" for draw in self._draws)
            if wanted == self._is_refusing:
                return
            self._is_refusing = wanted
            if wanted:
                await self._server.aclose()
            else:
                await self._server.start()

    async def _answer_control(self, request: ReceivedRequest, wire: AnswerWriter) -> None:
        status = 200
        result: Any = None
        _, place, *rest = request.path.split("/")
        try:
            match request.method, place, rest:
                case "GET", "faults", []:
                    result = list(FAULTS.values())
                case "GET", "rules", []:
                    result = self.rules
                case "GET", "counts", []:
                    result = dict(self.counts)
                case "POST", "rules", []:
                    options = dict(request.json)
                    result = self.inject(str(options.pop("fault", "")), **options)
                case "DELETE", "rules", []:
                    self.clear()
                case "DELETE", "rules", [name]:
                    self.clear(name)
                case _:
                    raise UsageError(problem=f"no {request.method} {request.path}")
            await self.settled()
        except (TypeError, ValueError, msgspec.DecodeError) as exc:
            status, result = 400, UsageError(problem=f"not a rule: {exc}").to_wire()
        except TundraError as exc:
            status, result = exc.http_status, exc.to_wire()
        body = msgspec.json.encode(result)
        wire.write(head(status, (("content-type", "application/json"),), len(body)) + body)

    # traffic

    async def _handle(self, request: ReceivedRequest, wire: AnswerWriter) -> None:
        rule = self._choose(request)
        self.counts[rule.fault if rule else PASSED] += 1
        if rule is None:
            await self._pass(request, wire)
            return
        dialect = rule.dialect or self._dialect or dialects.dialect_of(request.path)
        match FAULTS[rule.fault].place:
            case "answer":
                answer = faults.ANSWERS[rule.fault][1](rule, dialect)
                wire.write(head(answer.status, answer.headers, len(answer.body)) + answer.body)
            case "connection":
                if rule.fault == "hang":
                    await wire.closed()
                elif rule.fault == "reset":
                    wire.reset()
                else:
                    wire.close()
            case "pace":
                if rule.fault == "slow_headers":
                    await asyncio.sleep(rule.seconds)
                await self._pass(request, wire, gap=rule.seconds if rule.fault == "slow_stream" else 0.0)
            case _:
                await self._damage(request, wire, rule, dialect)

    def _choose(self, request: ReceivedRequest) -> Rule | None:
        if not self._draws:
            return None
        try:
            model = msgspec.json.decode(request.body, type=dialects.Gist).model if request.body else ""
        except msgspec.DecodeError:
            model = ""
        return next((draw.rule for draw in self._draws if draw.applies(request.path, model)), None)

    async def _pass(self, request: ReceivedRequest, wire: AnswerWriter, *, gap: float = 0.0) -> None:
        async with self._asked(request, wire) as response:
            if response is None:
                return
            is_sized = _write_head(wire, response)
            async for piece in response.aiter_raw():
                if gap:
                    await asyncio.sleep(gap)
                wire.write(piece if is_sized else chunk(piece))
                await wire.drain()
            if not is_sized:
                wire.write(LAST_CHUNK)

    async def _damage(
        self, request: ReceivedRequest, wire: AnswerWriter, rule: Rule, dialect: dialects.Dialect
    ) -> None:
        if rule.fault == "error_in_200":
            _write_error(request, wire, dialect, rule.status)
            return
        async with self._asked(request, wire) as response:
            if response is None:
                return
            if rule.fault == "huge_headers":
                huge = (b"x-huge", b"a" * faults.HUGE_HEADER_BYTES)
                body = b"".join([piece async for piece in response.aiter_raw()])
                _write_head(wire, response, huge, length=len(body))
                wire.write(body)
                await wire.drain()
            elif rule.fault == "stream_cut":
                await _cut(wire, response, rule.cut_bytes)
            elif _is_stream(response):
                await self._damage_stream(wire, response, rule, dialect)
            else:
                body = b"".join([piece async for piece in response.aiter_raw()])
                middle = len(body) // 2
                if rule.fault == "truncated_json":
                    body = body[:middle]
                elif rule.fault == "bad_encoding":
                    body = body[:middle] + faults.BROKEN_TEXT + body[middle:]
                else:  # error_in_stream of an answer that is none
                    body = dialects.error(dialect, rule.status)
                _write_head(wire, response, length=len(body))
                wire.write(body)

    async def _damage_stream(
        self, wire: AnswerWriter, response: httpx.Response, rule: Rule, dialect: dialects.Dialect
    ) -> None:
        """Let some real events through, then the damaged one, then the end of the stream."""
        through = 1 if rule.fault != "error_in_stream" else DEFAULT_EVENTS if rule.events is None else rule.events
        _write_head(wire, response, length=None)
        async for number, event in _numbered(_events(response)):
            if number < through:
                wire.write(chunk(event))
                await wire.drain()
                continue
            if rule.fault == "truncated_json":
                wire.write(chunk(event.rstrip()[: len(event) // 2] + b"\n\n"))
            elif rule.fault == "bad_encoding":
                middle = event.find(b"{") + 2
                wire.write(chunk(event[:middle] + faults.BROKEN_TEXT + event[middle:]))
                continue
            break
        if rule.fault == "error_in_stream":
            for event in dialects.error_event(dialect, rule.status):
                wire.write(chunk(event))
        wire.write(LAST_CHUNK)

    @contextlib.asynccontextmanager
    async def _asked(self, request: ReceivedRequest, wire: AnswerWriter) -> AsyncIterator[httpx.Response | None]:
        """The upstream's answer; None when there was none, and the client has been told so."""
        kept = [(name, value) for name, value in request.raw_headers if name.lower() not in _NOT_FORWARDED]
        outgoing = httpx.Request(request.method, self._upstream + request.target, headers=kept, content=request.body)
        try:
            response = await self._transport.handle_async_request(outgoing)
        except httpx.TransportError as exc:
            body = dialects.error(dialects.dialect_of(request.path), 502, f"fault proxy: upstream: {exc}")
            wire.write(head(502, (("content-type", "application/json"),), len(body)) + body)
            yield None
            return
        async with contextlib.aclosing(response):
            try:
                yield response
            except httpx.TransportError:
                wire.close()  # what broke upstream breaks here too


class FaultControl:
    """Switches a running proxy over HTTP."""

    def __init__(self, control_url: str) -> None:
        self._url = control_url

    def inject(self, fault: str, **options: Any) -> Rule:
        """Add a rule, as `FaultProxy.inject`."""
        body = msgspec.json.encode({"fault": fault, **options})
        return msgspec.json.decode(self._call("POST", "/rules", body), type=Rule)

    def clear(self, fault: str | None = None) -> None:
        """Remove the rules of one fault, or all of them."""
        self._call("DELETE", f"/rules/{fault}" if fault else "/rules")

    @property
    def rules(self) -> list[Rule]:
        return msgspec.json.decode(self._call("GET", "/rules"), type=list[Rule])

    @property
    def counts(self) -> Counter[str]:
        return Counter(msgspec.json.decode(self._call("GET", "/counts"), type=dict[str, int]))

    @property
    def faults(self) -> list[Fault]:
        return msgspec.json.decode(self._call("GET", "/faults"), type=list[Fault])

    def _call(self, method: str, path: str, body: bytes | None = None) -> bytes:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(urllib.request.Request(self._url + path, data=body, method=method), timeout=10) as answer:
                return bytes(answer.read())
        except urllib.error.HTTPError as exc:
            with exc:
                raise from_wire(msgspec.json.decode(exc.read())) from exc


class FaultProcess(child.Child):
    """The proxy as a child process; `control` switches it."""

    def __init__(self, upstream: str, *, dialect: dialects.Dialect | None = None, port: int = 0) -> None:
        arguments = ["--upstream", upstream, "--port", str(port)]
        super().__init__("tundra_nb.faults.fault_proxy", arguments + (["--dialect", dialect] if dialect else []))
        self.control = FaultControl(self.announced["control"])

    @property
    def base_url(self) -> str:
        """For profiles of the OpenAI form; for kind anthropic it is `url`."""
        return f"{self.url}/v1"


def _is_stream(response: httpx.Response) -> bool:
    return str(response.headers.get("content-type", "")).startswith("text/event-stream")


def _write_head(
    wire: AnswerWriter, response: httpx.Response, *more: tuple[bytes, bytes], length: int | None = -1
) -> bool:
    """Write the upstream's head; return whether the body has a known length (else it goes out in chunks).

    `length` -1 keeps what upstream said.
    """
    kept = [item for item in (*response.headers.raw, *more) if item[0].lower() not in _HOP_BY_HOP | {b"content-length"}]
    if length == -1:
        told = response.headers.get("content-length")
        length = int(told) if told is not None else 0 if response.status_code == 204 else None
    wire.write(head(response.status_code, tuple((n.decode("latin-1"), v.decode("latin-1")) for n, v in kept), length))
    return length is not None


def _write_error(request: ReceivedRequest, wire: AnswerWriter, dialect: dialects.Dialect, status: int) -> None:
    asked = msgspec.json.decode(request.body, type=dialects.Gist) if request.body else dialects.Gist()
    if asked.stream:
        events = dialects.error_event(dialect, status, model=asked.model)
        wire.write(head(200, (("content-type", "text/event-stream"),), None))
        wire.write(b"".join(map(chunk, events)) + LAST_CHUNK)
        return
    body = dialects.error(dialect, status)
    wire.write(head(200, (("content-type", "application/json"),), len(body)) + body)


async def _cut(wire: AnswerWriter, response: httpx.Response, left: int) -> None:
    is_sized = _write_head(wire, response)
    async for piece in response.aiter_raw():
        some = piece[:left]
        left -= len(some)
        if some:
            wire.write(some if is_sized else chunk(some))
            await wire.drain()
        if not left:
            break
    wire.close()


async def _events(response: httpx.Response) -> AsyncIterator[bytes]:
    """The stream's events, each whole, whatever pieces they came in."""
    rest = b""
    async for piece in response.aiter_bytes():
        rest += piece.replace(b"\r\n", b"\n")
        *whole, rest = rest.split(b"\n\n")
        for event in whole:
            yield event + b"\n\n"


async def _numbered(events: AsyncIterator[bytes]) -> AsyncIterator[tuple[int, bytes]]:
    number = 0
    async for event in events:
        yield number, event
        number += 1


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tundra_nb.faults.fault_proxy",
        description="A proxy in front of a provider that injects faults.",
        epilog="Faults: " + "; ".join(f"{fault.name}: {fault.summary}" for fault in FAULTS.values()),
    )
    parser.add_argument("--upstream", required=True, help="base URL of the provider")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--control-port", type=int, default=0)
    parser.add_argument("--dialect", choices=["openai", "anthropic", "openrouter"], help="whose words errors are in")
    parser.add_argument("--fault", action="append", default=[], metavar="NAME", help="inject it from the start")
    parser.add_argument(child.CHILD_FLAG, action="store_true", dest="is_child", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    child.require_port(given.port)
    child.require_port(given.control_port, "--control-port")
    try:
        proxy = FaultProxy(
            given.upstream,
            dialect=given.dialect,
            rules=[Rule(fault=name) for name in given.fault],
            port=given.port,
            control_port=given.control_port,
        )
    except UsageError as exc:
        parser.exit(2, f"{exc.message}. {exc.hint}\n")
    child.serve(proxy, until_stdin_closes=given.is_child)


if __name__ == "__main__":
    main()
