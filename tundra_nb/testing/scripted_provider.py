"""A provider that answers by script, in OpenAI's and in Anthropic's form, streamed or not.

Inside an event loop:

    async with ScriptedProvider() as provider:
        provider.script("/v1/chat/completions", Step(status=529), Step(text="at last"))
        …  # a profile of kind openai with base_url = provider.base_url
        assert len(provider.requests) == 2

As a process of its own, for benchmarks and for whatever runs outside this loop:

    with scripted_process() as provider:
        provider.script("*", Step(status=500))

What is not scripted gets a plausible answer at once. `python -m tundra_nb.testing.scripted_provider --port 8099` runs
one by hand.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import ssl
import urllib.request
from collections import deque
from collections.abc import Awaitable, Sequence
from functools import lru_cache
from typing import Any, Final, Literal, Self

import msgspec

from tundra_nb.faults import child, dialects
from tundra_nb.faults.http_server import LAST_CHUNK, AnswerWriter, HttpServer, ReceivedRequest, chunk, head

CONTROL: Final = "/_scripted"
"""Paths below this one control the provider; nothing else may use them."""
KEPT_REQUESTS: Final = 10_000
ANY: Final = "*"
_JSON: Final = ("content-type", "application/json")
_EVENTS: Final = ("content-type", "text/event-stream; charset=utf-8")


class ScriptedStep(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One scripted answer. The parts that are left out are what the path would answer by itself."""

    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    """Sent beside, and before, the usual ones."""
    text: str | None = None
    """What the model says; for an error status the message."""
    body: bytes | None = None
    """Sent as it is, with its length."""
    pieces: tuple[bytes, ...] | None = None
    """Sent as they are, as the pieces of a chunked body."""
    raw: bytes | None = None
    """Sent as it is instead of everything: also what is not HTTP."""
    delay: float = 0.0
    """Seconds before the first byte."""
    body_delay: float = 0.0
    """Seconds between the headers and the body."""
    gap: float = 0.0
    """Seconds between pieces."""
    cut: int | None = None
    """The body ends after this many bytes (of a chunked one: its pieces and their framing), as `end` says."""
    end: Literal["complete", "close", "reset", "hang"] = "complete"
    """How it ends. With `cut` the default is a close; without it the others leave out only the very end of the body,
    or come after `raw`."""
    repeat: int = 1
    """How many requests get it; 0 means all that follow."""


class CapturedRequest(msgspec.Struct, frozen=True):
    """A captured request, as the control path tells it."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body) if self.body else None


class ScriptedProvider(HttpServer):
    """The provider inside this event loop. An async context manager.

    Args:
        pieces: The pieces of every answer's text.
        models: What `/v1/models` lists.
        headers: Sent with every unscripted answer.
        delay: Seconds before every unscripted answer.
        gap: Seconds between the events of every unscripted stream.
        port: 0 chooses one.
        tls: With it the provider speaks https.
    """

    def __init__(
        self,
        *,
        pieces: Sequence[str] = ("Hello", " from", " the", " script", "."),
        models: Sequence[str] = ("scripted-1", "scripted-2"),
        headers: tuple[tuple[str, str], ...] = (),
        delay: float = 0.0,
        gap: float = 0.0,
        port: int = 0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        super().__init__(self._handle, port=port, tls=tls)
        self._pieces = tuple(pieces)
        self._models = tuple(models)
        self._headers = headers
        self._default = ScriptedStep(delay=delay, gap=gap)
        self._is_instant = not delay and not gap
        self._scripts: dict[str, deque[ScriptedStep]] = {}
        self._numbers = itertools.count(1)
        self.requests: deque[ReceivedRequest] = deque(maxlen=KEPT_REQUESTS)
        """The latest requests, oldest first; control requests are not among them."""
        self.served = 0
        """Requests so far."""

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    @property
    def base_url(self) -> str:
        """For profiles of the OpenAI form; for kind anthropic it is `url`."""
        return f"{self.url}/v1"

    def script(self, path: str, *steps: ScriptedStep) -> None:
        """Queue answers for a path (`"*"`: any). A queue for the path itself goes first."""
        self._scripts.setdefault(path, deque()).extend(steps)

    def reset(self) -> None:
        """Forget scripts and captured requests."""
        self._scripts.clear()
        self.requests.clear()
        self.served = 0

    def _handle(self, request: ReceivedRequest, wire: AnswerWriter) -> Awaitable[None] | None:
        if request.target.startswith(CONTROL):
            self._control(request, wire)
            return None
        self.requests.append(request)
        self.served += 1
        step = self._next_step(request.path) if self._scripts else None
        if step is None and self._is_instant:
            answer = self._answer(request, self._default)
            if len(answer) == 2:
                wire.write(answer[0] + answer[1])
            else:
                for piece in answer:
                    wire.write(piece)
            return None
        return self._play(request, step or self._default, wire)

    def _next_step(self, path: str) -> ScriptedStep | None:
        for name in (path, ANY):
            queue = self._scripts.get(name)
            if queue:
                step = queue[0]
                if step.repeat:
                    queue.popleft()
                    if step.repeat > 1:
                        queue.appendleft(msgspec.structs.replace(step, repeat=step.repeat - 1))
                return step
        return None

    def _answer(self, request: ReceivedRequest, step: ScriptedStep) -> Sequence[bytes]:
        """The head and then each piece to be written."""
        if step.pieces is not None:
            return [head(step.status, step.headers, None), *map(chunk, step.pieces), LAST_CHUNK]
        if step.body is not None:
            headers = (
                step.headers if any(n.lower() == "content-type" for n, _ in step.headers) else (*step.headers, _JSON)
            )
            return [head(step.status, headers, len(step.body)), step.body]
        path = request.path
        dialect = dialects.dialect_of(path)
        marks = self._marks(dialect)
        if step.status >= 400:
            return _whole(step.status, (*step.headers, *marks), dialects.error(dialect, step.status, step.text or ""))
        if path.endswith("/models"):
            names = dialects.models(_models_dialect(request), self._models)
            return _whole(step.status, (*step.headers, *marks), names)
        if not path.endswith(("/chat/completions", "/messages")):
            return _whole(404, marks, dialects.error(dialect, 404, f"no {request.method} {path}"))
        try:
            asked = msgspec.json.decode(request.body, type=dialects.Gist)
        except msgspec.DecodeError as exc:
            return _whole(400, marks, dialects.error(dialect, 400, f"not the JSON of a request: {exc}"))
        pieces = self._pieces if step.text is None else tuple(step.text.split(" "))
        if step.text is not None:
            pieces = (pieces[0], *(f" {word}" for word in pieces[1:]))
        told = bool((asked.stream_options or {}).get("include_usage"))
        headers = (*step.headers, *self._headers, *marks)
        if asked.stream:
            return [head(step.status, (*headers, _EVENTS), None), *_streamed(dialect, asked.model, pieces, told)]
        return _whole(step.status, headers, _answered(dialect, asked.model, pieces))

    def _marks(self, dialect: dialects.Dialect) -> tuple[tuple[str, str], ...]:
        return (("request-id" if dialect == "anthropic" else "x-request-id", f"req_{next(self._numbers)}"),)

    async def _play(self, request: ReceivedRequest, step: ScriptedStep, wire: AnswerWriter) -> None:
        if step.delay:
            await asyncio.sleep(step.delay)
        end = step.end
        if step.raw is not None:
            wire.write(step.raw)
        else:
            start, *pieces = self._answer(request, step)
            wire.write(start)
            if step.body_delay:
                await asyncio.sleep(step.body_delay)
            left = step.cut
            if left is None and end != "complete":
                left = sum(map(len, pieces)) - 1
            for number, piece in enumerate(pieces):
                if number and step.gap:
                    await asyncio.sleep(step.gap)
                if left is not None and left < len(piece):
                    wire.write(piece[:left])
                    end = "close" if end == "complete" else end
                    break
                left = None if left is None else left - len(piece)
                wire.write(piece)
                await wire.drain()
        if end == "close":
            wire.close()
        elif end == "reset":
            wire.reset()
        elif end == "hang":
            await wire.closed()

    def _control(self, request: ReceivedRequest, wire: AnswerWriter) -> None:
        verb = request.path.removeprefix(CONTROL)
        result: Any = {}
        if verb == "/script":
            told = msgspec.json.decode(request.body, type=dict[str, tuple[ScriptedStep, ...]])
            for path, steps in told.items():
                self.script(path, *steps)
        elif verb == "/reset":
            self.reset()
        elif verb == "/requests":
            result = [
                CapturedRequest(
                    r.method,
                    r.target,
                    tuple((n.decode("latin-1"), v.decode("latin-1")) for n, v in r.raw_headers),
                    r.body,
                )
                for r in self.requests
            ]
        elif verb == "/stats":
            # The connection that asks is one of ours too.
            result = {"served": self.served, "abandoned": self.abandoned, "connections": self.connections - 1}
        for piece in _whole(200, (), msgspec.json.encode(result)):
            wire.write(piece)


class ScriptedProcess(child.Child):
    """The provider as a child process, controlled over HTTP."""

    @property
    def base_url(self) -> str:
        """For profiles of the OpenAI form; for kind anthropic it is `url`."""
        return f"{self.url}/v1"

    def script(self, path: str, *steps: ScriptedStep) -> None:
        self._call("/script", msgspec.json.encode({path: steps}))

    def reset(self) -> None:
        self._call("/reset", b"{}")

    @property
    def requests(self) -> list[CapturedRequest]:
        return msgspec.json.decode(self._call("/requests"), type=list[CapturedRequest])

    @property
    def stats(self) -> dict[str, int]:
        """`served`, `abandoned` (answers the client did not wait for), `connections`."""
        return msgspec.json.decode(self._call("/stats"), type=dict[str, int])

    def _call(self, verb: str, body: bytes | None = None) -> bytes:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(urllib.request.Request(self.url + CONTROL + verb, data=body), timeout=10) as answer:
            return bytes(answer.read())


def scripted_process(*, delay: float = 0.0, gap: float = 0.0, pieces: int = 5) -> ScriptedProcess:
    """Start a provider in a process of its own; `pieces` is the number of pieces of each unscripted answer's text."""
    arguments = ["--delay", str(delay), "--gap", str(gap), "--pieces", str(pieces)]
    return ScriptedProcess("tundra_nb.testing.scripted_provider", arguments)


def _whole(status: int, headers: tuple[tuple[str, str], ...], body: bytes) -> tuple[bytes, ...]:
    return head(status, (*headers, _JSON), len(body)), body


@lru_cache(maxsize=256)
def _answered(dialect: dialects.Dialect, model: str, pieces: tuple[str, ...]) -> bytes:
    return dialects.answer(dialect, model, pieces)


@lru_cache(maxsize=256)
def _streamed(dialect: dialects.Dialect, model: str, pieces: tuple[str, ...], usage: bool) -> tuple[bytes, ...]:
    return (*map(chunk, dialects.stream(dialect, model, pieces, usage=usage)), LAST_CHUNK)


def _models_dialect(request: ReceivedRequest) -> dialects.Dialect:
    return "anthropic" if "anthropic-version" in request.headers else "openai"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tundra_nb.testing.scripted_provider", description="A scripted provider."
    )
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--delay", type=float, default=0.0, help="seconds before each answer")
    parser.add_argument("--gap", type=float, default=0.0, help="seconds between the events of a stream")
    parser.add_argument("--pieces", type=int, default=5, help="pieces of each answer's text")
    parser.add_argument(child.CHILD_FLAG, action="store_true", dest="is_child", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    child.require_port(given.port)
    pieces = [f"word{number} " for number in range(given.pieces)]
    provider = ScriptedProvider(port=given.port, delay=given.delay, gap=given.gap, pieces=pieces)
    child.serve(provider, until_stdin_closes=given.is_child)


if __name__ == "__main__":
    main()
