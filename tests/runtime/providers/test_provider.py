"""One attempt over real connections: a server that answers, misbehaves, hangs and hangs up by script."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest
import trustme

from tundra_nb import errors
from tundra_nb.faults.http_server import LAST_CHUNK, AnswerWriter, HttpServer, ReceivedRequest, chunk, head
from tundra_nb.runtime.providers import exchange
from tundra_nb.runtime.providers import provider as provider_module
from tundra_nb.runtime.providers.contract import Answer, Deliver, Seen
from tundra_nb.runtime.providers.provider import Provider, normalise
from tundra_nb.runtime.providers.transport import Transport
from tundra_nb.runtime.providers.unpack import CannotUnpackError, Unpacker
from tundra_nb.settings import DeadlineSettings, ProfileSettings
from tundra_nb.types import Ask
from tundra_nb.types.pieces import Piece, Text

pytestmark = pytest.mark.anyio

KEY = "sk-canary-0123456789abcdef"
SHORT = DeadlineSettings(connect_seconds=2.0, idle_seconds=0.2, total_seconds=5.0)
KINDS = ["openai", "anthropic"]
JSON = (("content-type", "application/json"),)
EVENTS = (("content-type", "text/event-stream"),)
Handler = Callable[[ReceivedRequest, AnswerWriter], Awaitable[None] | None]


def text_event(kind: str, text: str) -> bytes:
    if kind == "anthropic":
        delta = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}
        return f"event: content_block_delta\ndata: {json.dumps(delta)}\n\n".encode()
    return f"data: {json.dumps({'id': 'c1', 'choices': [{'index': 0, 'delta': {'content': text}}]})}\n\n".encode()


def end_events(kind: str) -> bytes:
    if kind == "anthropic":
        start = {"type": "message_start", "message": {"id": "msg_1", "model": "m-1", "usage": {"input_tokens": 3}}}
        delta = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}}
        return b"".join(f"data: {json.dumps(e)}\n\n".encode() for e in (start, delta, {"type": "message_stop"}))
    last = {
        "model": "m-1",
        "choices": [{"delta": {}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2},
    }
    return f"data: {json.dumps(last)}\n\ndata: [DONE]\n\n".encode()


def whole(kind: str, text: str = "Hello") -> bytes:
    if kind == "anthropic":
        content = [{"type": "text", "text": text}]
        return json.dumps(
            {"id": "msg_1", "content": content, "stop_reason": "end_turn", "usage": {"input_tokens": 3}}
        ).encode()
    return json.dumps({"id": "c1", "choices": [{"message": {"content": text}, "finish_reason": "stop"}]}).encode()


def error_event(kind: str) -> bytes:
    if kind == "anthropic":
        return b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}\n\n'
    return b'data: {"error":{"message":"Overloaded","type":"server_error","code":529}}\n\n'


def answering(status: int, body: bytes, *headers: tuple[str, str]) -> Handler:
    return lambda _, wire: wire.write(head(status, headers or JSON, len(body)) + body)


@contextlib.asynccontextmanager
async def asking(
    handler: Handler, kind: str = "openai", deadlines: DeadlineSettings = SHORT, key: str | None = KEY, **profile: Any
) -> AsyncIterator[tuple[Provider, HttpServer]]:
    async with HttpServer(handler) as server, Transport(environ={}) as transport:
        settings = ProfileSettings(name="p", kind=kind, base_url=server.url, api_key_env="THE_KEY", **profile)  # type: ignore[arg-type]
        yield Provider(settings, transport, key=lambda: key, deadlines=deadlines), server


def ask(**more: Any) -> Ask:
    return Ask(messages=[{"role": "user", "content": "hi"}], **more)


async def collect(
    provider: Provider, asked: Ask, seen: Seen | None = None, record: bool = False
) -> tuple[list[str], Answer]:
    pieces: list[Any] = []
    answer = await provider.attempt(asked, "m", seen or Seen(), into(pieces), record=record)
    return [piece for piece in pieces if isinstance(piece, str)], answer


def into(pieces: list[Any]) -> Deliver:
    """Takes pieces, texts as such; what came before a failure is there, too."""

    async def take(piece: Piece) -> None:
        pieces.append(piece.text if isinstance(piece, Text) else piece)

    return take


async def gather(provider: Provider, pieces: list[Any]) -> None:
    """Like `collect`, for streams that fail: what came before is in `pieces`."""
    await provider.attempt(ask(stream=True), "m", Seen(), into(pieces))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(2):
        while not condition():  # noqa: ASYNC110 (the server's counters have no event)
            await asyncio.sleep(0.002)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_whole_answer_is_one_piece_and_one_answer(kind: str) -> None:
    got: list[ReceivedRequest] = []

    def handler(request: ReceivedRequest, wire: AnswerWriter) -> None:
        got.append(request)
        body = whole(kind)
        sent = (*JSON, ("x-request-id", "req_1"), ("x-ratelimit-remaining-requests", "4"))
        wire.write(head(200, sent, len(body)) + body)

    seen = Seen()
    async with asking(handler, kind) as (provider, server):
        pieces, answer = await collect(provider, ask(), seen)
        await collect(provider, ask())
        assert server.accepted == 1  # the connection is used again
    assert (pieces, answer.text, answer.stop_reason) == (["Hello"], "Hello", "stop")
    assert (seen.status, seen.request_id, seen.headers) == (200, "req_1", {"x-ratelimit-remaining-requests": "4"})
    assert seen.buckets[0].remaining == 4
    assert seen.sent_at is not None
    assert seen.first_byte_at is not None
    assert seen.request_body == b""
    assert got[0].path == ("/v1/messages" if kind == "anthropic" else "/v1/chat/completions")
    assert KEY in (got[0].headers.get("x-api-key") or got[0].headers["authorization"])


@pytest.mark.parametrize("kind", KINDS)
async def test_each_piece_of_a_stream_is_given_before_the_next_is_sent(kind: str) -> None:
    go_on = asyncio.Event()

    async def handler(_: ReceivedRequest, wire: AnswerWriter) -> None:
        wire.write(head(200, EVENTS, None))
        for text in ("a", "b", "c"):
            wire.write(chunk(text_event(kind, text)))
            await go_on.wait()
            go_on.clear()
        wire.write(chunk(end_events(kind)) + LAST_CHUNK)

    seen = Seen()
    pieces = []

    async def take(piece: Piece) -> None:
        pieces.append(piece)
        go_on.set()

    async with asking(handler, kind) as (provider, _):
        answer = await provider.attempt(ask(stream=True), "m", seen, take)
        assert pieces == [Text("a"), Text("b"), Text("c")]
        assert (answer.text, answer.model, answer.usage.input_tokens, answer.usage.output_tokens) == (
            "abc",
            "m-1",
            3,
            2,
        )


@pytest.mark.parametrize("kind", KINDS)
async def test_streams_that_ended_leave_their_connection_to_the_next_call(kind: str) -> None:
    def handler(_: ReceivedRequest, wire: AnswerWriter) -> None:
        wire.write(head(200, EVENTS, None) + chunk(text_event(kind, "a")))
        wire.write(chunk(end_events(kind)))
        wire.write(LAST_CHUNK)

    async with asking(handler, kind) as (provider, server):
        for _ in range(3):
            assert (await collect(provider, ask(stream=True)))[1].text == "a"
        assert server.accepted == 1


async def test_a_server_that_keeps_the_line_open_after_its_end_mark_holds_nobody_up() -> None:
    async def handler(_: ReceivedRequest, wire: AnswerWriter) -> None:
        wire.write(head(200, EVENTS, None) + chunk(text_event("openai", "a") + end_events("openai")))
        await wire.closed()

    deadlines = DeadlineSettings(connect_seconds=2, idle_seconds=60, total_seconds=60)
    async with asyncio.timeout(2), asking(handler, deadlines=deadlines) as (provider, server):
        assert (await collect(provider, ask(stream=True)))[1].text == "a"
        await until(lambda: server.connections == 0)


async def test_a_server_that_does_not_stream_is_read_all_the_same() -> None:
    async with asking(answering(200, whole("openai"))) as (provider, _):
        pieces, answer = await collect(provider, ask(stream=True))
    assert (pieces, answer.text) == (["Hello"], "Hello")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stream", [False, True])
async def test_an_error_status_is_raised_with_what_its_headers_say(kind: str, stream: bool) -> None:
    headers = (*JSON, ("retry-after", "7"), ("request-id", "req_9"), ("x-should-retry", "false"))
    seen = Seen()
    async with asking(answering(429, b'{"error":{"message":"slow"}}', *headers), kind) as (provider, _):
        with pytest.raises(errors.RateLimited) as failed:
            await collect(provider, ask(stream=stream), seen)
    assert failed.value.retry_after == 7.0
    assert (seen.status, seen.retry_after, seen.should_retry, seen.request_id) == (429, 7.0, False, "req_9")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", [[], ["a"], ["a", "b"]])
async def test_an_error_inside_a_stream_is_raised_after_the_text_before_it(kind: str, text: list[str]) -> None:
    async def handler(_: ReceivedRequest, wire: AnswerWriter) -> None:
        wire.write(head(200, EVENTS, None))
        for piece in text:
            wire.write(chunk(text_event(kind, piece)))
            await asyncio.sleep(0.01)
        wire.write(chunk(error_event(kind)) + LAST_CHUNK)

    pieces: list[Any] = []
    async with asking(handler, kind) as (provider, _):
        with pytest.raises(errors.ApiError) as failed:
            await gather(provider, pieces)
    assert failed.value.status == 529
    assert pieces == text


@pytest.mark.parametrize("kind", KINDS)
async def test_text_that_arrives_together_with_the_first_error_is_kept_back_so_that_the_call_may_be_repeated(
    kind: str,
) -> None:
    pieces: list[Any] = []
    async with asking(answering(200, text_event(kind, "a") + error_event(kind), *EVENTS), kind) as (provider, _):
        with pytest.raises(errors.ApiError):
            await gather(provider, pieces)
    assert pieces == []


def cut(kind: str, *, chunked: bool, reset: bool) -> Handler:
    async def handler(_: ReceivedRequest, wire: AnswerWriter) -> None:
        piece = text_event(kind, "a")
        wire.write(head(200, EVENTS, None) + chunk(piece) if chunked else head(200, EVENTS, 10_000) + piece)
        await asyncio.sleep(0.02)
        wire.reset() if reset else wire.close()

    return handler


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("chunked", [True, False])
@pytest.mark.parametrize("reset", [True, False])
async def test_a_stream_that_is_cut_is_a_parse_error_after_its_text(kind: str, chunked: bool, reset: bool) -> None:
    pieces: list[Any] = []
    async with asking(cut(kind, chunked=chunked, reset=reset), kind) as (provider, _):
        with pytest.raises(errors.ParseError, match="cut off"):
            await gather(provider, pieces)
    assert pieces == ["a"]


@pytest.mark.parametrize(
    ("handler", "expected", "match"),
    [
        (answering(200, b"<html>log in</html>", ("content-type", "text/html")), errors.ParseError, "not valid JSON"),
        (answering(200, b'{"choices": ['), errors.ParseError, "not valid JSON"),
        (answering(200, b'{"error":{"message":"no","code":503}}'), errors.ApiError, "503"),
        (answering(204, b""), errors.ParseError, "204"),
        (answering(502, b"<html></html>", ("content-type", "text/html")), errors.ApiError, "502"),
        (
            answering(307, b"", ("location", "https://evil.example/x?key=1")),
            errors.Redirected,
            "to https://evil.example/x ",
        ),
        (answering(308, b"", ("location", "/elsewhere")), errors.Redirected, "/elsewhere"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_what_is_no_answer_is_said_to_be_none(
    handler: Handler, expected: type[errors.TundraError], match: str, stream: bool
) -> None:
    async with asking(handler) as (provider, server):
        with pytest.raises(expected, match=match):
            await collect(provider, ask(stream=stream))
        assert server.accepted == 1


async def test_the_idle_deadline_is_named_before_and_between_the_bytes() -> None:
    async def silent(_: ReceivedRequest, wire: AnswerWriter) -> None:
        await wire.closed()

    async def stalls(_: ReceivedRequest, wire: AnswerWriter) -> None:
        wire.write(head(200, EVENTS, None) + chunk(text_event("openai", "a")))
        await wire.closed()

    for handler in (silent, stalls):
        seen = Seen()
        async with asking(handler) as (provider, server):
            with pytest.raises(errors.Timeout) as late:
                await collect(provider, ask(stream=True), seen)
            await until(lambda server=server: server.connections == 0)  # type: ignore[misc]
        assert (late.value.deadline, late.value.seconds) == ("idle", 0.2)
        assert seen.status == (None if handler is silent else 200)


@pytest.mark.parametrize("stream", [False, True])
async def test_the_total_deadline_is_named_also_while_bytes_keep_coming(stream: bool) -> None:
    async def dribbles(_: ReceivedRequest, wire: AnswerWriter) -> None:
        wire.write(head(200, EVENTS, None))
        while wire.is_open:
            wire.write(chunk(b": still here\n\n"))
            await asyncio.sleep(0.01)

    deadlines = DeadlineSettings(connect_seconds=2, idle_seconds=0.2, total_seconds=0.3)
    async with asking(dribbles, deadlines=deadlines) as (provider, server):
        with pytest.raises(errors.Timeout) as late:
            await collect(provider, ask(stream=stream))
        await until(lambda: server.connections == 0)
    assert (late.value.deadline, late.value.seconds) == ("total", 0.3)


@pytest.mark.parametrize(("seconds", "deadline"), [(600.0, "models"), (0.1, "total")])
async def test_a_server_that_lists_no_models_in_time_names_the_deadline_that_can_be_changed_if_one_can(
    seconds: float, deadline: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def silent(_: ReceivedRequest, wire: AnswerWriter) -> None:
        await wire.closed()

    monkeypatch.setattr(provider_module, "MODELS_SECONDS", 0.2)
    async with asking(silent, deadlines=DeadlineSettings(total_seconds=seconds)) as (provider, _):
        with pytest.raises(errors.Timeout) as late:
            await provider.choose_model()
    assert late.value.deadline == deadline
    assert ("deadlines.total_seconds" in late.value.hint) == (deadline == "total")


async def test_an_unstreamed_answer_may_take_longer_than_the_idle_deadline() -> None:
    async def slow(_: ReceivedRequest, wire: AnswerWriter) -> None:
        await asyncio.sleep(0.3)
        body = whole("openai")
        wire.write(head(200, JSON, len(body)) + body)

    async with asking(slow) as (provider, _):
        assert (await collect(provider, ask()))[0] == ["Hello"]


@pytest.mark.parametrize("said", [b"", b"\n\n", b'{"id": "c1", "cho'], ids=["nothing", "blanks", "a part"])
async def test_an_unstreamed_answer_that_stops_halfway_is_not_waited_for(said: bytes) -> None:
    async def stalls(_: ReceivedRequest, wire: AnswerWriter) -> None:
        wire.write(head(200, JSON, 1000) + said)
        await wire.closed()

    deadlines = DeadlineSettings(connect_seconds=2, idle_seconds=0.2, total_seconds=0.6)
    async with asking(stalls, deadlines=deadlines) as (provider, server):
        with pytest.raises(errors.Timeout) as late:
            await collect(provider, ask())
        await until(lambda: server.connections == 0)
    expected = ("idle", 0.2) if said.strip() else ("total", 0.6)  # blanks come while a model thinks
    assert (late.value.deadline, late.value.seconds) == expected


async def test_cancelling_ends_the_connection_at_once() -> None:
    async def endless(_: ReceivedRequest, wire: AnswerWriter) -> None:
        wire.write(head(200, EVENTS, None) + chunk(text_event("openai", "a")))
        await wire.closed()

    deadlines = DeadlineSettings(connect_seconds=2, idle_seconds=60, total_seconds=60)
    before = asyncio.all_tasks()
    async with asking(endless, deadlines=deadlines) as (provider, server):
        pieces: list[Any] = []
        task = asyncio.ensure_future(gather(provider, pieces))
        await until(lambda: pieces == ["a"])
        assert server.connections == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: server.connections == 0)
    assert asyncio.all_tasks() == before


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def provider_at(base_url: str, transport: httpx.AsyncBaseTransport) -> Provider:
    settings = ProfileSettings(name="p", kind="local", base_url=base_url)
    return Provider(settings, transport, key=lambda: None, deadlines=SHORT)


@pytest.mark.parametrize("make", [lambda: Transport(environ={}), httpx.AsyncHTTPTransport])
async def test_a_failed_connection_says_of_which_kind_it_is(make: Callable[[], Any]) -> None:
    ca = trustme.CA()  # nobody trusts it
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("localhost").configure_cert(tls)

    async with (
        make() as transport,
        HttpServer(answering(200, b""), tls=tls) as secure,
        HttpServer(lambda _, wire: wire.close()) as closing,
        HttpServer(lambda _, wire: wire.reset()) as resetting,
        HttpServer(lambda _, wire: wire.write(b"SSH-2.0-thing\r\n\r\n")) as other,
    ):
        for base_url, kind in (
            (f"http://127.0.0.1:{free_port()}", "connect"),
            ("http://no-such-host.invalid", "dns"),
            (f"https://localhost:{secure.port}", "tls"),
            (closing.url, "reset"),
            (resetting.url, "reset"),
            (other.url, "protocol"),
        ):
            seen = Seen()
            with pytest.raises(errors.HttpError) as failed:
                await collect(provider_at(base_url, transport), ask(), seen)
            # httpx does not tell a server that hangs up from one that babbles
            vague = base_url == closing.url and isinstance(transport, httpx.AsyncHTTPTransport)
            assert (base_url, failed.value.kind) == (base_url, "protocol" if vague else kind)
            assert failed.value.host in base_url
            assert seen.status is None


@pytest.mark.parametrize("name", [n for n in dir(httpx) if isinstance(getattr(httpx, n), type)])
async def test_every_error_of_httpx_becomes_one_of_ours(name: str) -> None:
    cls = getattr(httpx, name)
    if not issubclass(cls, httpx.HTTPError | httpx.StreamError) or issubclass(cls, httpx.HTTPStatusError):
        return

    def failing(_: httpx.Request) -> httpx.Response:
        raise cls() if issubclass(cls, httpx.StreamError) and cls is not httpx.StreamError else cls("x")

    with pytest.raises(errors.ProviderError):
        await collect(provider_at("http://h/v1", httpx.MockTransport(failing)), ask())


async def test_a_missing_key_is_named_by_its_variable_and_nothing_is_sent() -> None:
    async with asking(answering(200, whole("openai")), key=None) as (provider, server):
        with pytest.raises(errors.KeyMissing, match="THE_KEY"):
            await collect(provider, ask())
        assert server.accepted == 0


async def test_a_key_that_cannot_be_sent_is_rejected_without_being_shown() -> None:
    async with asking(answering(200, whole("openai")), key="sk-\u2026-kęy") as (provider, server):
        with pytest.raises(errors.KeyRejected) as failed:
            await collect(provider, ask())
        assert "kęy" not in str(failed.value)
        assert server.accepted == 0


async def test_a_key_offered_later_is_used_from_then_on() -> None:
    sent: list[str] = []
    keys = iter([None, "first\n", "first\n", "second"])

    def handler(request: ReceivedRequest, wire: AnswerWriter) -> None:
        sent.append(request.headers["authorization"])
        body = whole("openai")
        wire.write(head(200, JSON, len(body)) + body)

    async with HttpServer(handler) as server, Transport(environ={}) as transport:
        settings = ProfileSettings(name="p", kind="openai", base_url=server.url, api_key_env="THE_KEY")
        provider = Provider(settings, transport, key=lambda: next(keys), deadlines=SHORT)
        with pytest.raises(errors.KeyMissing):
            await collect(provider, ask())
        for _ in range(3):
            await collect(provider, ask())
    assert sent == ["Bearer first", "Bearer first", "Bearer second"]


async def test_recording_keeps_both_bodies_without_the_key_and_gives_parse_errors_an_excerpt() -> None:
    async with asking(answering(200, f"<html>{KEY}</html>".encode())) as (provider, _):
        seen = Seen()
        with pytest.raises(errors.ParseError) as failed:
            await collect(provider, ask(), seen, record=True)
        assert "html" in failed.value.excerpt
        assert KEY not in failed.value.excerpt
        assert seen.response_body == b"<html>[key]</html>"
        assert json.loads(seen.request_body)["model"] == "m"
        with pytest.raises(errors.ParseError) as failed:
            await collect(provider, ask())
        assert failed.value.excerpt == ""


async def test_an_ask_that_is_wrong_is_refused_before_anything_is_sent() -> None:
    async with asking(answering(200, whole("openai"))) as (provider, server):
        with pytest.raises(errors.UsageError):
            await collect(provider, Ask(messages=[]))
        assert server.accepted == 0


def listing(*entries: dict[str, Any], missing: str = "m") -> Handler:
    def handler(request: ReceivedRequest, wire: AnswerWriter) -> None:
        if request.path.endswith("/models"):
            body, status = json.dumps({"data": list(entries)}).encode(), 200
        elif request.path.endswith("/key"):
            body, status = b'{"error":{"code":401,"message":"No auth"}}', 401
        else:
            body, status = json.dumps({"error": {"message": f"model {missing} not found"}}).encode(), 404
        wire.write(head(status, JSON, len(body)) + body)

    return handler


async def test_a_model_that_is_not_found_names_the_nearest() -> None:
    async with asking(listing({"id": "mm"}, {"id": "other"})) as (provider, _):
        with pytest.raises(errors.Unsupported) as failed:
            await collect(provider, ask())
    assert (failed.value.kind, failed.value.nearest) == ("model", "mm")


async def test_a_model_is_chosen_from_the_list_once() -> None:
    async with asking(listing({"id": "gpt-9", "created": 1}, {"id": "tts-1", "created": 2})) as (provider, server):
        assert await provider.choose_model() == "gpt-9"
        assert provider.chosen_model == "gpt-9"
        await server.aclose()
        assert await provider.choose_model() == "gpt-9"
    async with asking(listing()) as (provider, _):
        with pytest.raises(errors.Unsupported, match="lists none"):
            await provider.choose_model()


async def test_whoever_asks_for_the_list_while_it_is_fetched_gets_the_same_one() -> None:
    async with asking(listing({"id": "mm"})) as (provider, server):
        first, second = await asyncio.gather(provider.models(), provider.models())
        assert first is second
        assert server.accepted == 1


async def test_a_recheck_proves_the_key_even_where_the_list_is_public() -> None:
    async with asking(listing({"id": "x/y"}), "openrouter") as (provider, _):
        assert [model.model for model in await provider.models()] == ["x/y"]
        with pytest.raises(errors.KeyRejected):
            await provider.models(refresh=True)


async def test_what_the_list_says_a_model_cannot_do_is_refused_before_the_call() -> None:
    entry = {"id": "m", "supported_parameters": [], "context_length": 5}
    async with asking(listing(entry), "openrouter") as (provider, server):
        await provider.models()
        accepted = server.accepted
        tool = {"type": "function", "function": {"name": "f"}}
        for asked, kind in (
            (ask(tools=[tool]), "tools"),
            (Ask(messages=[{"role": "user", "content": "x" * 99}]), "context"),
        ):
            with pytest.raises(errors.Unsupported) as refused:
                await collect(provider, asked)
            assert refused.value.kind == kind
        assert server.accepted == accepted


async def test_compressed_answers_are_read_although_none_is_asked_for() -> None:
    import gzip

    body = gzip.compress(whole("openai"))
    async with asking(answering(200, body, *JSON, ("content-encoding", "gzip"))) as (provider, _):
        assert (await collect(provider, ask()))[0] == ["Hello"]


@pytest.mark.parametrize("cuts", [1, 5])
@pytest.mark.parametrize("rest", [b"", b"\0\0\0\0", b"junk"])
async def test_an_answer_packed_piece_by_piece_is_read_to_its_end(cuts: int, rest: bytes) -> None:
    """RFC 1952, 2.2: members of gzip one after the other are one file; gzip passes by what else comes after them."""
    import gzip

    said = whole("openai")
    size = len(said) // cuts + 1
    body = b"".join(gzip.compress(said[at : at + size]) for at in range(0, len(said), size)) + rest
    async with asking(answering(200, body, *JSON, ("content-encoding", "gzip"))) as (provider, _):
        assert (await collect(provider, ask()))[0] == ["Hello"]


def test_members_of_gzip_are_unpacked_wherever_the_network_cuts_them() -> None:
    import gzip

    body = gzip.compress(b"one ") + gzip.compress(b"") + gzip.compress(b"two")
    for size in (1, 7, len(body)):
        unpacker = Unpacker("gzip")
        pieces = [slice_ for at in range(0, len(body), size) for slice_ in unpacker.feed(body[at : at + size])]
        unpacker.end()
        assert b"".join(pieces) == b"one two"
    cut = Unpacker("gzip")
    assert b"".join(cut.feed(body[:-3])) == b"one two"
    with pytest.raises(CannotUnpackError):
        cut.end()


async def test_an_error_whose_body_never_ends_is_judged_by_its_status(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "ERROR_BODY_SECONDS", 0.05)

    async def handler(_: ReceivedRequest, wire: AnswerWriter) -> None:
        wire.write(head(503, JSON, None) + chunk(b'{"error":'))
        await wire.closed()

    async with asking(handler, deadlines=DeadlineSettings(connect_seconds=2, idle_seconds=60)) as (provider, _):
        with pytest.raises(errors.ApiError, match="503"):
            await collect(provider, ask(stream=True))


@pytest.mark.parametrize(
    ("kind", "given", "expected"),
    [
        ("openai", "https://api.openai.com", "https://api.openai.com/v1"),
        ("openai", "https://api.openai.com/v1/", "https://api.openai.com/v1"),
        ("openrouter", "https://openrouter.ai/api", "https://openrouter.ai/api/v1"),
        ("local", "http://127.0.0.1:8080/v1/chat/completions", "http://127.0.0.1:8080/v1"),
        ("openai", "https://g.example/v1beta/openai", "https://g.example/v1beta/openai"),
        ("anthropic", "https://api.anthropic.com/v1/messages", "https://api.anthropic.com"),
        ("anthropic", "https://api.anthropic.com/v1/", "https://api.anthropic.com"),
        ("anthropic", "https://gateway.example/anthropic", "https://gateway.example/anthropic"),
    ],
)
def test_base_urls_are_taken_with_and_without_their_version(kind: str, given: str, expected: str) -> None:
    assert normalise(kind, given) == expected
