"""One profile made callable: key, wire format, transport, model list.

What does not change from call to call (URL, headers with the key) is made once per key. `exchange` does the I/O.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import re
from collections.abc import Callable, Iterator, KeysView, Sequence

import httpx
import msgspec

from tundra_nb import sse
from tundra_nb.errors import (
    KeyMissing,
    KeyRejected,
    ParseError,
    Timeout,
    TundraError,
    Unsupported,
)
from tundra_nb.runtime.apart import LONG_BYTES, apart
from tundra_nb.runtime.clock import MACHINE
from tundra_nb.settings import VENDORS, AnswerSettings, DeadlineSettings, ProfileSettings
from tundra_nb.types import Ask
from tundra_nb.types.pieces import Piece, Reasoning, Text, ToolCallPiece

from . import classify, events, listing, models, prices
from .anthropic import AnthropicFormat
from .check import BIG_BYTES, AskSize, check_ask
from .contract import ANSWERED, Answer, Deliver, ModelInfo, Seen, StreamReader, Target, WireFormat
from .direct import Address
from .exchange import ProviderLine, WireExchange
from .openai import OpenAIFormat
from .openrouter import OpenRouterFormat
from .remarks import is_tool_required
from .transport import sender

FORMATS: dict[str, Callable[[Target], WireFormat]] = {
    "openai": OpenAIFormat,
    "local": OpenAIFormat,
    "openrouter": OpenRouterFormat,
    "anthropic": AnthropicFormat,
}
"""Wire format by kind of profile."""

MODELS_SECONDS = 20.0
"""Total deadline of a model list."""
NEAREST_SECONDS = 3.0
"""How long "did you mean" may take, when the model list must be fetched for it."""
MODELS_FRESH_SECONDS = 600.0
"""How long a model list serves before it is fetched again."""
PIECE_CHARS = 64 * 1024
"""A longer text is passed on in parts: masking one takes some ms."""
BYTES_PER_TOKEN = 4
_TEXTS = (Text, Reasoning)
_VERSIONED = re.compile(r"/v\d+[a-z0-9]*(?:/|$)")
"""A path that names its own version (`/v1`, Google's `/v1beta/openai`) is taken as it is."""


def normalise(kind: str, base_url: str) -> str:
    """The base URL as wire formats want it: no slash at its end; with a version for the OpenAI form, else without."""
    url = base_url.strip().rstrip("/")
    if kind == "anthropic":
        return url.removesuffix("/messages").removesuffix("/v1")
    url = url.removesuffix("/chat/completions")
    return url if _VERSIONED.search(url) else f"{url}/v1"


class Provider:
    """One profile and the way to it.

    Args:
        profile: which.
        transport: shared by all providers; not closed here.
        key: gives the key of the profile, None when it is not there. Asked anew for each call, so that a key offered
            later serves.
        monotonic: seconds, for `Seen`.
        deadlines: connect, idle, total.
        now: seconds since the epoch, to read points of time in headers from.
        answers: how long an answer may be.
    """

    def __init__(
        self,
        profile: ProfileSettings,
        transport: httpx.AsyncBaseTransport,
        *,
        key: Callable[[], str | None],
        monotonic: Callable[[], float] = MACHINE.monotonic,
        deadlines: DeadlineSettings,
        now: Callable[[], float] = MACHINE.now,
        answers: AnswerSettings = AnswerSettings(),  # noqa: B008 (frozen)
    ) -> None:
        self.profile = profile
        self.chosen_model: str | None = profile.model or None
        """The model asked when the caller names none; None until it is chosen."""
        self._base_url = normalise(profile.kind, profile.base_url or VENDORS[profile.kind][0])
        self._key = key
        self._line = ProviderLine(sender(transport), deadlines, monotonic, now, answers)
        self._prepared: Prepared | None = None
        self._models: list[ModelInfo] | None = None
        self._known: dict[str, ModelInfo] = {}
        self._models_at = 0.0
        self._listing = asyncio.Lock()
        self.lacks: set[str] = set()
        """Forms of its family that it has turned out not to know (`responses`)."""

    def __repr__(self) -> str:
        return f"<Provider {self.profile.name} ({self.profile.kind} at {self.profile.base_url})>"

    def configure(self, profile: ProfileSettings, deadlines: DeadlineSettings, answers: AnswerSettings) -> None:
        """Take changed settings that leave the way to the provider as it is. What it has learned of it stays."""
        if profile.model != self.profile.model:
            self.chosen_model = profile.model or None
        self.profile = profile
        if (deadlines, answers) != (self._line.deadlines, self._line.answers):
            self._line = msgspec.structs.replace(self._line, deadlines=deadlines, answers=answers)

    async def attempt(
        self,
        ask: Ask,
        model: str,
        seen: Seen,
        deliver: Deliver,
        *,
        record: bool = False,
        size: AskSize | None = None,
    ) -> Answer:
        """Ask once: deliver the pieces of the answer as they arrive, and give the whole. Cancelling hangs up at once.

        Args:
            ask: what to ask; `ask.stream` decides whether the answer is streamed.
            model: which model.
            seen: filled while the attempt runs, also when it fails.
            deliver: takes the pieces.
            record: keep request and response bodies in `seen`, and an excerpt in parse errors.
            size: of an ask that has been checked already.

        Raises:
            TundraError: what went wrong, as the outcome table has it.
        """
        ready = self.prepared()
        if size is None:
            size = check_ask(ask)
        if self.profile.kind == "local" and is_tool_required(ask):
            with contextlib.suppress(TundraError, TimeoutError):
                async with asyncio.timeout(NEAREST_SECONDS):
                    await self.models()  # it may be known to ignore them
        if (known := self._known.get(model)) is not None:
            models.refuse(self.profile.name, known, ask, size)
        ask, left_out = models.sayable(self.profile, model, ask)
        seen.dropped += left_out
        is_big = size.text_bytes >= BIG_BYTES
        body = await asyncio.to_thread(ready.wire.body, ask, model) if is_big else ready.wire.body(ask, model)
        await self.learn_prices()
        kept: list[bytes] | None = None
        if record:
            seen.request_body = body
            kept = []
        exchange = self.exchange(ready.target, seen, kept, is_streamed=ask.stream)
        try:
            try:
                status = await exchange.send("POST", ready.address, ready.headers, body)
                if status not in ANSWERED:
                    body = await exchange.failure_body()
                    raise ready.wire.error(model, status, seen.retry_after, body)
                if ask.stream:
                    return await self._stream(exchange, ready.wire, model, deliver)
                answer = await self._whole(ready.wire, model, await exchange.body())
                exchange.identify(answer.request_id)
                await _hand_on(pieces_of(answer), deliver)
                return answer
            finally:
                await exchange.aclose()
        except ParseError as exc:
            if kept and not exc.excerpt:
                start = b"".join(kept)[-1000:].decode("utf-8", "replace")
                exc.excerpt = classify.clip(start, ready.target.key)
            raise
        except Unsupported as exc:
            if exc.kind == "model" and exc.nearest is None:
                exc.nearest = await self._nearest(model)
            raise
        finally:
            if kept:
                seen.keep(kept, ready.target.key)

    async def learn_prices(self) -> None:
        """Have the price table loaded: whoever reckons a cost afterwards must not hold up the loop."""
        if self.profile.kind != "local" and not prices.is_loaded():
            await asyncio.to_thread(prices.load)

    def exchange(self, target: Target, seen: Seen, kept: list[bytes] | None, *, is_streamed: bool) -> WireExchange:
        """A request to be sent; the caller closes it. The body's pieces are added to `kept`."""
        limits = self._line.deadlines
        # unstreamed, the model has thought before the first byte
        idle, pause = (limits.idle_seconds, None) if is_streamed else (limits.total_seconds, limits.idle_seconds)
        return WireExchange(self._line, target, seen, kept, idle=idle, total=limits.total_seconds, pause=pause)

    async def models(self, refresh: bool = False) -> list[ModelInfo]:
        """The models that this profile's provider lists; kept for ten minutes.

        With `refresh` the list is fetched anew, and the key is proved even where the list is public.

        Raises:
            TundraError: the list cannot be had.
        """
        if not refresh and (fresh := self._fresh_models()) is not None:
            return fresh
        async with self._listing:  # whoever asks meanwhile gets what this one fetches
            fresh = None if refresh else self._fresh_models()
            return await self._fetch_models(refresh) if fresh is None else fresh

    def _fresh_models(self) -> list[ModelInfo] | None:
        is_fresh = self._line.monotonic() - self._models_at < MODELS_FRESH_SECONDS
        return self._models if is_fresh else None

    async def _fetch_models(self, refresh: bool) -> list[ModelInfo]:
        ready = self.prepared()
        wire = ready.wire
        if refresh and wire.check_url != wire.models_url:
            await self._get(ready, wire.check_url)
        listed = await self._get(ready, wire.models_url)
        found = await apart(len(listed), lambda: wire.models(listed))
        if self.profile.kind == "local" and b'"llamacpp"' in listed and await self._ignores_tools(ready):
            found = [msgspec.structs.replace(model, ignores_tools=True) for model in found]
        if self.profile.kind != "local":
            await asyncio.to_thread(prices.load)
            found = await apart(len(listed), lambda: [self._completed(model) for model in found])
        self._models = found
        self._known = {model.model: model for model in found}
        self._models_at = self._line.monotonic()
        return found

    async def choose_model(self) -> str:
        """The model to ask when the caller names none: the profile's, or one from the provider's own list.

        Raises:
            Unsupported: the list is empty.
            TundraError: the list cannot be had.
        """
        if self.chosen_model is None:
            found = models.choose(self.profile.kind, await self.models())
            if found is None:
                detail = "the provider lists none; set `model` of the profile"
                raise Unsupported(profile=self.profile.name, kind="model", model="", detail=detail)
            self.chosen_model = found
        return self.chosen_model

    @property
    def known_models(self) -> KeysView[str]:
        """Names in the provider's list, as far as it has been read."""
        return self._known.keys()

    def listed(self, model: str) -> ModelInfo | None:
        """What the provider's list says of a model, as far as it has been read."""
        return self._known.get(model)

    def context_tokens(self, model: str | None = None) -> int | None:
        """Size of the context of a model, by default the one this profile asks; None when it is not known yet."""
        model = model or self.chosen_model or ""
        if (known := self._known.get(model)) is not None:
            return known.context_tokens
        if self.profile.kind == "local" or not prices.is_loaded():
            return None
        table = prices.listed(self.profile.kind, model, self._base_url)
        return table.context_tokens if table else None

    def prepared(self) -> Prepared:
        """Wire format, URL and headers, made once per key.

        Raises:
            KeyMissing: the key is not there.
            KeyRejected: it cannot be sent.
        """
        profile = self.profile
        key = (self._key() or "").strip()
        if not key and profile.api_key_env:
            raise KeyMissing(profile=profile.name, variable=profile.api_key_env)
        ready = self._prepared
        if ready is None or ready.target.key != key:
            if not key.isascii() or not key.isprintable():
                detail = "it holds characters that cannot be sent"
                raise KeyRejected(profile=profile.name, status=401, variable=profile.api_key_env, detail=detail)
            target = Target(
                profile=profile.name,
                kind=profile.kind,
                base_url=self._base_url,
                key=key,
                key_variable=profile.api_key_env,
                now=self._line.now,
                anthropic_version=profile.anthropic_version,
            )
            ready = self._prepared = Prepared(FORMATS[profile.kind](target), target)
        return ready

    async def _stream(self, exchange: WireExchange, wire: WireFormat, model: str, deliver: Deliver) -> Answer:
        """Read an answer that is streamed, or was to be: some servers send the whole document at once."""
        start = await exchange.start()
        if events.looks_whole(start) is not False:
            answer = await self._whole(wire, model, start + await exchange.body())
            await _hand_on(pieces_of(answer), deliver)
            return answer
        parser = sse.Parser()
        reader = wire.reader(model)
        size = 0
        chunk: bytes | None = start
        while not reader.done:
            if parser.held <= LONG_BYTES:
                pieces, failure = self._read(chunk, parser, reader)
            else:
                pieces, failure = await asyncio.to_thread(self._read, chunk, parser, reader)
            # text that came in one part with an error is given only after other text: as long as nothing has been
            # delivered, the call may still be repeated elsewhere
            if pieces and (failure is None or exchange.pieces):
                joined = _joined(pieces)
                exchange.pieces += len(joined)
                if len(joined) == 1:
                    size += _size(joined[0])
                    await deliver(joined[0])
                else:
                    size += sum(map(_size, joined))
                    await _hand_on(joined, deliver)
            if failure is not None:
                raise failure
            if size > self._line.answers.max_tokens * BYTES_PER_TOKEN:
                problem = f"the answer is longer than {self._line.answers.max_tokens:g} tokens (`answers.max_tokens`)"
                raise ParseError(profile=self.profile.name, problem=problem)
            if chunk is None or reader.done:
                break
            chunk = await exchange.next()
        await _hand_on(reader.flush(), deliver)
        answer = exchange.finish(reader)
        exchange.identify(answer.request_id)
        await exchange.drain()
        return answer

    def _read(
        self, chunk: bytes | None, parser: sse.Parser, reader: StreamReader
    ) -> tuple[list[Piece], TundraError | None]:
        """The pieces in the next part of a stream (None: its end), and what is wrong behind them."""
        pieces: list[Piece] = []
        try:
            for event, data in parser.close() if chunk is None else parser.feed(chunk):
                pieces += reader.feed(event, self._checked(data))
        except TundraError as exc:
            return pieces, exc
        except sse.EventTooLongError as exc:
            return pieces, ParseError(profile=self.profile.name, problem=str(exc))
        return pieces, None

    async def _whole(self, wire: WireFormat, model: str, body: bytes) -> Answer:
        """Read an unstreamed answer."""
        return await apart(len(body), lambda: wire.answer(model, self._checked(body)))

    def _checked(self, data: bytes) -> bytes:
        """The same bytes, if they are UTF-8 also in fields that nobody reads: damage seldom comes alone."""
        if not data.isascii():
            try:
                data.decode()
            except UnicodeDecodeError as exc:
                raise ParseError(profile=self.profile.name, problem="the answer is not UTF-8") from exc
        return data

    async def _get(self, ready: Prepared, url: str) -> bytes:
        """Read a whole answer of a GET; the key goes along.

        Raises:
            TundraError: whatever an attempt may raise.
        """
        total = min(self._line.deadlines.total_seconds, MODELS_SECONDS)
        exchange = WireExchange(self._line, ready.target, Seen(), None, idle=total, total=total)
        try:
            status = await exchange.send("GET", Address(httpx.URL(url)), ready.headers, b"")
            if status not in ANSWERED:
                body = await exchange.failure_body()
                raise ready.wire.error("", status, exchange.seen.retry_after, body)
            return await exchange.body()
        except Timeout as exc:
            if exc.deadline == "total" and total < self._line.deadlines.total_seconds:
                exc.deadline = "models"
            raise
        finally:
            await exchange.aclose()

    async def _ignores_tools(self, ready: Prepared) -> bool:
        try:
            return listing.ignores_tools(await self._get(ready, f"{self._base_url.removesuffix('/v1')}/props"))
        except TundraError:  # older servers, or one started without it
            return False

    async def _nearest(self, model: str) -> str | None:
        """The name that was meant; best effort, because an error is being told already."""
        try:
            async with asyncio.timeout(NEAREST_SECONDS):
                return models.closest(model, await self.models())
        except (TundraError, TimeoutError):
            return None

    def _completed(self, model: ModelInfo) -> ModelInfo:
        """Fill in from the price table what the provider's list does not say."""
        if model.context_tokens is not None and model.input_usd is not None:
            return model
        table = prices.listed(self.profile.kind, model.model, self._base_url)
        if table is None:
            return model
        return ModelInfo(
            model=model.model,
            context_tokens=model.context_tokens or table.context_tokens,
            input_usd=table.input_usd if model.input_usd is None else model.input_usd,
            output_usd=table.output_usd if model.output_usd is None else model.output_usd,
            created_at=model.created_at,
            vision=model.vision,
            tools=model.tools,
            deprecated=model.deprecated,
        )


class Prepared:
    """What does not change from call to call."""

    __slots__ = ("address", "headers", "target", "wire")

    def __init__(self, wire: WireFormat, target: Target) -> None:
        self.wire = wire
        self.target = target
        url = httpx.URL(wire.url)
        self.address = Address(url)
        # `identity`: a compressed stream would be held back for its compressor
        head = httpx.Headers([*wire.headers, ("accept-encoding", "identity"), ("host", url.netloc.decode())])
        self.headers = head.raw


async def _hand_on(pieces: Sequence[Piece], deliver: Deliver) -> None:
    """Deliver pieces; the loop has its turn between two."""
    for number, piece in enumerate(pieces):
        if number:
            await asyncio.sleep(0)
        await deliver(piece)


def pieces_of(answer: Answer) -> list[Piece]:
    """The pieces of an answer that came whole."""
    pieces: list[Piece] = [Reasoning(part) for part in _sliced(answer.reasoning)]
    pieces += [Text(part) for part in _sliced(answer.text)]
    for index, call in enumerate(answer.tool_calls):
        pieces += _sliced_call(ToolCallPiece(index, call.id, call.name, call.arguments))
    return pieces


def _sliced(text: str) -> Iterator[str]:
    """A text in parts that do not hold anybody up on their way."""
    for start in range(0, len(text), PIECE_CHARS):
        yield text[start : start + PIECE_CHARS]


def _sliced_call(piece: ToolCallPiece) -> Iterator[ToolCallPiece]:
    first, *rest = _sliced(piece.arguments) if piece.arguments else ("",)
    yield ToolCallPiece(piece.index, piece.id, piece.name, first)
    for part in rest:
        yield ToolCallPiece(piece.index, arguments=part)


def _size(piece: Piece) -> int:
    return len(piece.text) if isinstance(piece, _TEXTS) else 0


def _joined(pieces: list[Piece]) -> list[Piece]:
    """Neighbouring texts as one, and parts of one tool call: what came in one network read is passed on in one."""
    if len(pieces) == 1 and isinstance(first := pieces[0], _TEXTS) and len(first.text) <= PIECE_CHARS:
        return pieces
    joined: list[Piece] = []
    for _, group in itertools.groupby(pieces, _goes_with):
        run = list(group)
        first = run[0]
        if isinstance(first, Text):
            joined += map(Text, _sliced("".join(piece.text for piece in run if isinstance(piece, Text))))
        elif isinstance(first, Reasoning):
            joined += map(Reasoning, _sliced("".join(piece.text for piece in run if isinstance(piece, Reasoning))))
        elif isinstance(first, ToolCallPiece):
            arguments = "".join(piece.arguments for piece in run if isinstance(piece, ToolCallPiece))
            joined += _sliced_call(ToolCallPiece(first.index, first.id, first.name, arguments))
        else:
            joined += run
    return joined


def _goes_with(piece: Piece) -> tuple[type[Piece], int, str]:
    """Alike for neighbours that may be one; the piece that names a tool call begins it."""
    return (type(piece), piece.index, piece.name) if isinstance(piece, ToolCallPiece) else (type(piece), 0, "")
