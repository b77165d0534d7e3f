"""Every fault of the proxy, in both wire forms, streamed and not; and its switches."""

from __future__ import annotations

import asyncio
import email.utils
import json
import re
import time
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tundra_nb.errors import UsageError
from tundra_nb.faults.fault_proxy import PASSED, FaultProcess, FaultProxy
from tundra_nb.faults.faults import ANSWERS, FAULTS, HUGE_HEADER_BYTES, Draw, Rule, go_duration
from tundra_nb.runtime.providers.transport import Transport, failure_kind
from tundra_nb.testing.scripted_provider import ScriptedProvider, ScriptedStep

CHAT, MESSAGES = "/v1/chat/completions", "/v1/messages"
ASK: dict[str, Any] = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
SECONDS = 30.0


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedProvider]:
    async with ScriptedProvider() as provider:
        yield provider


@pytest.fixture
async def proxy(upstream: ScriptedProvider) -> AsyncIterator[FaultProxy]:
    async with FaultProxy(upstream.base_url) as proxy:
        yield proxy


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=Transport(), timeout=0.4) as client:
        yield client


forms = pytest.mark.parametrize("path", [CHAT, MESSAGES], ids=["openai", "anthropic"])
ways = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])


# --- every fault ------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
@ways
@forms
@pytest.mark.parametrize("name", sorted(ANSWERS))
async def test_answer_fault_has_its_status_and_the_words_of_the_path(
    name: str, path: str, stream: bool, proxy: FaultProxy, client: httpx.AsyncClient, upstream: ScriptedProvider
) -> None:
    proxy.inject(name, seconds=SECONDS)
    answer = await client.post(proxy.url + path, json={**ASK, "stream": stream})
    if name[:3].isdigit():
        assert answer.status_code == int(name[:3])
    if name == "html":
        assert answer.status_code == 200
        assert answer.text.startswith("<!doctype html>")
    else:
        assert answer.status_code >= 400
        body = answer.json()
        assert (body.get("type") == "error") is (path == MESSAGES)
        assert isinstance(body["error"]["message"], str)
    assert proxy.counts == {name: 1}
    assert upstream.served == 0


CONNECTION = {
    "refused": httpx.ConnectError,
    "reset": httpx.ReadError,
    "closed": httpx.RemoteProtocolError,
    "hang": httpx.ReadTimeout,
}


@pytest.mark.anyio
@forms
@pytest.mark.parametrize("name", CONNECTION)
async def test_connection_fault_gives_no_answer_and_passes_when_cleared(
    name: str, path: str, proxy: FaultProxy, client: httpx.AsyncClient
) -> None:
    proxy.inject(name)
    await proxy.settled()
    with pytest.raises(CONNECTION[name]):
        await client.post(proxy.url + path, json=ASK)
    proxy.clear(name)
    await proxy.settled()
    assert (await client.post(proxy.url + path, json=ASK)).status_code == 200


@pytest.mark.anyio
@pytest.mark.parametrize("name", ["dns", "tls"])
async def test_fault_that_no_proxy_can_make_has_a_base_url(
    name: str, proxy: FaultProxy, client: httpx.AsyncClient
) -> None:
    with pytest.raises(httpx.ConnectError) as caught:
        await client.post(proxy.url_for(name) + CHAT, json=ASK, timeout=5)
    assert failure_kind(caught.value) == name
    with pytest.raises(UsageError, match=name):
        proxy.inject(name)


@pytest.mark.anyio
@forms
async def test_slow_headers_keep_the_answer_back(path: str, proxy: FaultProxy, client: httpx.AsyncClient) -> None:
    proxy.inject("slow_headers", seconds=5)
    with pytest.raises(httpx.ReadTimeout):
        await client.post(proxy.url + path, json=ASK, timeout=0.1)
    proxy.clear()
    proxy.inject("slow_headers", seconds=0.05)
    started = time.monotonic()
    assert (await client.post(proxy.url + path, json=ASK)).status_code == 200
    assert time.monotonic() - started >= 0.05


@pytest.mark.anyio
@forms
async def test_slow_stream_keeps_each_piece_back(
    path: str, proxy: FaultProxy, client: httpx.AsyncClient, upstream: ScriptedProvider
) -> None:
    upstream.script("*", ScriptedStep(gap=0.02))
    proxy.inject("slow_stream", seconds=0.02)
    started = time.monotonic()
    answer = await client.post(proxy.url + path, json={**ASK, "stream": True})
    assert "script" in answer.text
    assert time.monotonic() - started >= 0.1


@pytest.mark.anyio
@ways
@forms
async def test_truncated_json_cannot_be_parsed(
    path: str, stream: bool, proxy: FaultProxy, client: httpx.AsyncClient
) -> None:
    proxy.inject("truncated_json")
    answer = await client.post(proxy.url + path, json={**ASK, "stream": stream})
    assert answer.status_code == 200
    text = answer.text.rstrip().rpartition("data: ")[2] if stream else answer.text
    with pytest.raises(json.JSONDecodeError):
        json.loads(text)


@pytest.mark.anyio
@ways
@forms
async def test_bad_encoding_is_not_utf8(path: str, stream: bool, proxy: FaultProxy, client: httpx.AsyncClient) -> None:
    proxy.inject("bad_encoding")
    answer = await client.post(proxy.url + path, json={**ASK, "stream": stream})
    with pytest.raises(UnicodeDecodeError):
        answer.content.decode()


@pytest.mark.anyio
@ways
@forms
@pytest.mark.parametrize("cut", [0, 1, 150])
async def test_cut_stream_ends_after_exactly_so_many_bytes(
    cut: int, path: str, stream: bool, proxy: FaultProxy, client: httpx.AsyncClient
) -> None:
    proxy.inject("stream_cut", cut_bytes=cut)
    got: list[bytes] = []

    async def collect() -> None:
        async with client.stream("POST", proxy.url + path, json={**ASK, "stream": stream}) as answer:
            assert answer.status_code == 200
            async for piece in answer.aiter_raw():
                got.append(piece)  # noqa: PERF401 (what came before the cut is wanted)

    with pytest.raises(httpx.RemoteProtocolError):
        await collect()
    assert len(b"".join(got)) == cut


@pytest.mark.anyio
@ways
@forms
async def test_error_in_200_is_an_error_in_spite_of_its_status(
    path: str, stream: bool, proxy: FaultProxy, client: httpx.AsyncClient
) -> None:
    proxy.inject("error_in_200")
    answer = await client.post(proxy.url + path, json={**ASK, "stream": stream})
    assert answer.status_code == 200
    body = json.loads(answer.text.partition("data: ")[2] if stream else answer.text)
    assert "message" in body["error"]


@pytest.mark.anyio
@ways
@forms
async def test_error_in_stream_comes_after_some_text(
    path: str, stream: bool, proxy: FaultProxy, client: httpx.AsyncClient
) -> None:
    proxy.inject("error_in_stream", status=500)
    answer = await client.post(proxy.url + path, json={**ASK, "stream": stream})
    assert answer.status_code == 200
    *before, last = answer.text.strip().split("\n\n")
    assert "scripted error 500" in last
    assert ("Hello" in "".join(before)) is stream


@pytest.mark.anyio
@ways
@forms
async def test_huge_headers_are_200_kilobytes(
    path: str, stream: bool, proxy: FaultProxy, client: httpx.AsyncClient
) -> None:
    proxy.inject("huge_headers")
    with pytest.raises(httpx.RemoteProtocolError):
        await client.post(proxy.url + path, json={**ASK, "stream": stream})
    reader, writer = await asyncio.open_connection("127.0.0.1", int(proxy.url.rpartition(":")[2]))
    body = json.dumps(ASK).encode()
    writer.write(b"POST %s HTTP/1.1\r\nhost: x\r\nconnection: close\r\n" % path.encode())
    writer.write(b"content-length: %d\r\n\r\n%s" % (len(body), body))
    assert len(await asyncio.wait_for(reader.read(), 5)) > HUGE_HEADER_BYTES
    writer.close()


def test_every_fault_has_a_test() -> None:
    body = {"truncated_json", "bad_encoding", "stream_cut", "error_in_200", "error_in_stream", "huge_headers"}
    assert {*ANSWERS, *CONNECTION, *body, "dns", "tls", "slow_headers", "slow_stream"} == set(FAULTS)


# --- retry hints and words of the vendors -----------------------------------------------------------------------------


def seconds_until(text: str, form: str) -> float:
    match form:
        case "429_seconds":
            return float(text)
        case "429_ms":
            return float(text) / 1000
        case "429_date":
            return email.utils.parsedate_to_datetime(text).timestamp() - time.time()
        case "429_rfc3339":
            return datetime.fromisoformat(text).timestamp() - time.time()
        case "429_epoch":
            return float(text) - time.time()
        case "429_epoch_ms":
            return float(text) / 1000 - time.time()
        case _:
            return float(text.removesuffix("s"))


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("name", "header"),
    [
        ("429_seconds", "retry-after"),
        ("429_ms", "retry-after-ms"),
        ("429_date", "retry-after"),
        ("429_rfc3339", "anthropic-ratelimit-requests-reset"),
        ("429_epoch", "anthropic-ratelimit-unified-reset"),
        ("429_epoch_ms", "x-ratelimit-reset"),
        ("429_duration", "x-ratelimit-reset-requests"),
    ],
)
async def test_each_form_of_a_retry_hint_means_the_same_moment(
    name: str, header: str, proxy: FaultProxy, client: httpx.AsyncClient
) -> None:
    proxy.inject(name, seconds=SECONDS)
    answer = await client.post(proxy.url + CHAT, json=ASK)
    assert seconds_until(answer.headers[header], name) == pytest.approx(SECONDS, abs=1.5)


@given(seconds=st.floats(0.001, 100_000).map(lambda value: round(value, 3)))
def test_go_duration_can_be_read_back(seconds: float) -> None:
    units = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
    parts = re.findall(r"([0-9.]+)(ms|h|m|s)", go_duration(seconds))
    assert "".join(number + unit for number, unit in parts) == go_duration(seconds)
    assert sum(float(number) * units[unit] for number, unit in parts) == pytest.approx(seconds, rel=1e-4)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("dialect", "path", "status", "word"),
    [
        ("openai", CHAT, 429, "insufficient_quota"),
        ("anthropic", MESSAGES, 429, "enforced_spend_limit_reached"),
        ("openrouter", CHAT, 402, "payment_required"),
    ],
)
async def test_spent_quota_is_said_in_the_words_of_each_vendor(
    dialect: str, path: str, status: int, word: str, proxy: FaultProxy, client: httpx.AsyncClient
) -> None:
    proxy.inject("quota", dialect=dialect)
    answer = await client.post(proxy.url + path, json=ASK)
    assert (answer.status_code, word in answer.text) == (status, True)
    assert "retry-after" not in answer.headers


@pytest.mark.anyio
async def test_openrouter_moderates_with_status_403_and_metadata(
    upstream: ScriptedProvider, client: httpx.AsyncClient
) -> None:
    async with FaultProxy(upstream.url, dialect="openrouter", rules=[Rule(fault="moderation")]) as proxy:
        answer = await client.post(proxy.base_url + "/chat/completions", json=ASK)
    assert answer.status_code == 403
    assert answer.json()["error"]["metadata"]["reasons"] == ["violence"]


# --- rules ------------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
@ways
@forms
async def test_what_no_rule_matches_passes_unchanged(
    path: str, stream: bool, proxy: FaultProxy, upstream: ScriptedProvider, client: httpx.AsyncClient
) -> None:
    ask = {**ASK, "stream": stream}
    direct = await client.post(upstream.url + path, json=ask, headers={"authorization": "Bearer k"})
    passed = await client.post(proxy.url + path + "?q=1", json=ask, headers={"authorization": "Bearer k"})
    assert (passed.status_code, passed.content) == (200, direct.content)
    own = {"x-request-id", "request-id"}
    assert [h for h in passed.headers.raw if h[0].decode() not in own] == [
        h for h in direct.headers.raw if h[0].decode() not in own
    ]
    first, second = upstream.requests
    assert second.target == first.target + "?q=1"
    assert (first.body, first.headers["authorization"]) == (second.body, second.headers["authorization"])
    assert proxy.counts == {PASSED: 1}


@pytest.mark.anyio
async def test_pieces_pass_as_they_come(
    proxy: FaultProxy, upstream: ScriptedProvider, client: httpx.AsyncClient
) -> None:
    upstream.script("*", ScriptedStep(pieces=(b"one", b"two"), gap=30))
    async with client.stream("POST", proxy.url + CHAT, json=ASK, timeout=5) as answer:
        async for piece in answer.aiter_raw():
            assert piece == b"one"
            break
    async with asyncio.timeout(5):
        while upstream.abandoned != 1:  # noqa: ASYNC110 (leaving closes upstream through the proxy)
            await asyncio.sleep(0.005)


@pytest.mark.anyio
async def test_rules_match_by_path_model_and_count_and_the_first_wins(
    proxy: FaultProxy, client: httpx.AsyncClient
) -> None:
    proxy.inject("503", path="*/messages", count=1)
    proxy.inject("404", model="gpt-*")
    proxy.inject("529", count=1)

    async def status(path: str, model: str) -> int:
        return (await client.post(proxy.url + path, json={**ASK, "model": model})).status_code

    assert [await status(MESSAGES, "m") for _ in range(3)] == [503, 529, 200]
    assert [await status(CHAT, "gpt-5"), await status(CHAT, "m")] == [404, 200]
    assert proxy.counts == {"503": 1, "404": 1, "529": 1, PASSED: 2}
    proxy.clear("404")
    assert [rule.fault for rule in proxy.rules] == ["503", "529"]
    assert await status(CHAT, "gpt-5") == 200


@given(seed=st.integers(0, 1000), probability=st.floats(0, 1))
def test_same_seed_chooses_the_same_requests(seed: int, probability: float) -> None:
    rule = Rule(fault="529", seed=seed, probability=probability)
    one, other = Draw(rule), Draw(rule)
    assert [one.applies("/", "") for _ in range(50)] == [other.applies("/", "") for _ in range(50)]


def test_probability_is_kept_over_many_requests() -> None:
    draw = Draw(Rule(fault="529", probability=0.25, seed=1))
    assert sum(draw.applies("/", "") for _ in range(4000)) == pytest.approx(1000, rel=0.1)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"fault": "52"}, "no fault"),
        ({"fault": "529", "probability": 1.5}, "probability"),
        ({"fault": "529", "probability": float("nan")}, "probability"),
        ({"fault": "529", "count": -1}, "count"),
        ({"fault": "529", "seconds": float("inf")}, "seconds"),
        ({"fault": "529", "cut_bytes": -1}, "cut_bytes"),
        ({"fault": "529", "status": 200}, "status"),
        ({"fault": "529", "events": -1}, "events"),
        ({"fault": "529", "dialect": "klingon"}, "dialect"),
        ({"fault": "529", "often": 3}, "often"),
    ],
)
async def test_rule_that_makes_no_sense_is_refused(options: dict[str, Any], word: str, proxy: FaultProxy) -> None:
    with pytest.raises(UsageError, match=word):
        proxy.inject(**options)
    assert proxy.rules == ()


@pytest.mark.anyio
async def test_misspelt_fault_names_the_nearest(proxy: FaultProxy) -> None:
    with pytest.raises(UsageError) as caught:
        proxy.inject("slow_header")
    assert caught.value.nearest == "slow_headers"


@pytest.mark.anyio
async def test_upstream_that_is_down_is_a_502_that_says_so(client: httpx.AsyncClient) -> None:
    async with FaultProxy("http://127.0.0.1:9") as proxy:
        answer = await client.post(proxy.url + MESSAGES, json=ASK)
    assert answer.status_code == 502
    assert "upstream" in answer.json()["error"]["message"]


@pytest.mark.anyio
async def test_upstream_that_breaks_off_breaks_off_here_too(
    proxy: FaultProxy, upstream: ScriptedProvider, client: httpx.AsyncClient
) -> None:
    upstream.script("*", ScriptedStep(cut=20))
    with pytest.raises(httpx.RemoteProtocolError):
        await client.post(proxy.url + CHAT, json=ASK)


def test_upstream_must_be_a_url() -> None:
    with pytest.raises(UsageError, match="URL"):
        FaultProxy("localhost:8080")


# --- switched from outside --------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_child_is_switched_over_http_also_back_from_refused(upstream: ScriptedProvider) -> None:
    def drive() -> None:
        with FaultProcess(upstream.url) as proxy, httpx.Client(timeout=5) as client:
            control = proxy.control

            def status() -> int:
                return client.post(proxy.base_url + "/chat/completions", json=ASK).status_code

            assert status() == 200
            assert control.inject("529", count=1) == Rule(fault="529", count=1)
            assert control.rules == [Rule(fault="529", count=1)]
            assert [status(), status()] == [529, 200]
            control.inject("refused")
            with pytest.raises(httpx.ConnectError):
                status()
            control.clear("refused")
            assert status() == 200
            control.clear()
            assert control.rules == []
            assert control.counts == {"529": 1, PASSED: 3}
            assert {fault.name for fault in control.faults} == set(FAULTS)
            with pytest.raises(UsageError) as caught:
                control.inject("slow_header")
            assert caught.value.nearest == "slow_headers"
            assert httpx.get(proxy.announced["control"] + "/nothing").status_code == 400
            assert httpx.post(proxy.announced["control"] + "/rules", content=b"[1").status_code == 400

    await asyncio.to_thread(drive)
