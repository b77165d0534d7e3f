"""Many streams, slow readers, big bodies, TLS: what the gateway holds, and that nobody gets another's words."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import psutil
import pytest
import trustme

from tests.conftest import wait_until
from tests.gateway.conftest import Opened, opened
from tests.gateway.echo import Echo, echoing

pytestmark = pytest.mark.part("doltlite")

TOML = """
[gateway]
listen = "127.0.0.1:0"
[limits.global]
rate = 1e6
burst = 1e6
[limits.user]
rate = 1e6
burst = 1e6
[[profile]]
name = "echo"
kind = "local"
base_url = "{echo}"
model = "m"
"""
MB = 1 << 20


@pytest.fixture(scope="module")
def echo() -> Iterator[Echo]:
    with echoing() as provider:
        yield provider


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory, echo: Echo) -> Iterator[Opened]:
    with opened(tmp_path_factory.mktemp("load"), TOML.replace("{echo}", echo.base_url)) as made:
        yield made


def asked(own: Opened, question: str, **fields: Any) -> bytes:
    """A streamed question as it goes over the wire."""
    body = {"model": "echo", "stream": True, "messages": [{"role": "user", "content": question}], **fields}
    encoded = json.dumps(body).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nx-api-key: {own.token}\r\n"
    return f"{head}content-type: application/json\r\ncontent-length: {len(encoded)}\r\n\r\n".encode() + encoded


def port_of(own: Opened) -> int:
    return int(own.url.rpartition(":")[2].removesuffix("/v1"))


async def whole(reader: asyncio.StreamReader) -> bytes:
    """One chunked answer."""
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200"), head
    parts = []
    while size := int(await reader.readline(), 16):
        parts.append(await reader.readexactly(size + 2))
    await reader.readline()
    return b"".join(part[:-2] for part in parts)


def test_a_hundred_streams_at_once_keep_their_words_apart(own: Opened) -> None:
    async def stream(client: openai.AsyncOpenAI, number: int) -> str:
        messages: Any = [{"role": "user", "content": f"caller-{number}"}]
        answer: Any = await client.chat.completions.create(
            model="echo", messages=messages, stream=True, extra_body={"chunks": 10, "gap": 0.01}
        )
        return "".join([chunk.choices[0].delta.content or "" async for chunk in answer])

    async def all_of_them() -> list[str]:
        async with openai.AsyncOpenAI(api_key=own.token, base_url=own.url, timeout=60) as client:
            return await asyncio.gather(*(stream(client, number) for number in range(100)))

    told = asyncio.run(all_of_them())
    assert told == ["".join(f"caller-{number} {chunk} " for chunk in range(10)) for number in range(100)]
    rows = own.t.calls()
    assert (rows["outcome"] == "ok").sum() == 100


def test_a_slow_reader_slows_the_provider_down_and_nothing_piles_up(own: Opened, echo: Echo) -> None:
    daemon = psutil.Process(own.t.status()["pid"])
    total, size = 64 * MB, 32 * 1024
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
        slow.settimeout(60)
        slow.connect(("127.0.0.1", port_of(own)))
        before, held = echo.sent, daemon.memory_info().rss
        slow.sendall(asked(own, "slow", chunks=total // size, bytes=size))
        assert slow.recv(1)
        stood = [-1]

        def stands() -> bool:
            """The provider has sent nothing since the last look, and it had something to send."""
            still = stood[-1] == echo.sent and echo.sent > before
            stood.append(echo.sent)
            return still and len(stood) > 20 and len(set(stood[-20:])) == 1

        wait_until(stands, timeout=60, what="the provider waits for the reader")
        sent, grown = echo.sent - before, daemon.memory_info().rss - held
        assert sent < total / 2, "the rest waits for the reader; what is under way lies in the sockets"
        assert grown < 16 * MB, "and not in the daemon"
        read = 1
        end = b""
        while not end.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n"):
            part = slow.recv(MB)
            assert part, "the stream was cut"
            read += len(part)
            end = (end + part)[-64:]
        assert read > total


def test_a_big_body_goes_through_while_others_are_answered(own: Opened, echo: Echo) -> None:
    image = "data:image/png;base64," + "A" * (20 * MB)

    async def ask(client: httpx.AsyncClient, content: str) -> str:
        messages = [{"role": "user", "content": content}]
        body = {"model": "echo", "stream": True, "messages": messages, "chunks": 1}
        answer = await client.post(f"{own.url}/chat/completions", headers={"x-api-key": own.token}, json=body)
        assert answer.status_code == 200, answer.text
        return answer.text

    async def both() -> list[str]:
        async with httpx.AsyncClient(timeout=60) as client:
            return await asyncio.gather(ask(client, "\u20ac " + image), *(ask(client, f"n{n}") for n in range(20)))

    big, *small = asyncio.run(both())
    assert "data:image/png;base64,AAAA" in big
    assert echo.longest > 20 * MB
    assert all(f"n{number} 0" in told for number, told in enumerate(small))


def test_the_door_speaks_tls_to_the_sdk(tmp_path: Path, echo: Echo) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1", "localhost")
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    for blob in certificate.cert_chain_pems:
        blob.write_to_path(chain, append=True)
    certificate.private_key_pem.write_to_path(key)
    folder = tmp_path / "tls"
    folder.mkdir()
    toml = TOML.replace("{echo}", echo.base_url).replace(
        'listen = "127.0.0.1:0"', f'listen = "0.0.0.0:0"\ntls_cert = "{chain}"\ntls_key = "{key}"'
    )
    with opened(folder, toml) as made:
        status = made.t.gateway.status()
        assert (status["insecure"], str(status["url"]).partition(":")[0]) == (False, "https")
        trusted = ssl.create_default_context()
        authority.configure_trust(trusted)
        url = f"https://127.0.0.1:{port_of(made)}/v1"
        with openai.OpenAI(
            api_key=made.token, base_url=url, http_client=openai.DefaultHttpxClient(verify=trusted)
        ) as client:
            messages: Any = [{"role": "user", "content": "hi"}]
            answer: Any = client.chat.completions.create(model="echo", messages=messages, stream=True)
            assert "".join(chunk.choices[0].delta.content or "" for chunk in answer) == "hi 0 hi 1 hi 2 "
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{url}/models", headers={"x-api-key": made.token})
        with pytest.raises(httpx.RemoteProtocolError):
            httpx.get(url.replace("https", "http") + "/models", headers={"x-api-key": made.token})


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_ten_thousand_streams_leave_the_daemon_no_larger(own: Opened) -> None:
    daemon = psutil.Process(own.t.status()["pid"])

    async def streams(count: int) -> None:
        left = iter(range(count))

        async def caller() -> None:
            reader, writer = await asyncio.open_connection("127.0.0.1", port_of(own))
            for number in left:
                writer.write(asked(own, f"caller-{number}", chunks=20))
                assert f"caller-{number} 19".encode() in await whole(reader)
            writer.close()

        await asyncio.gather(*(caller() for _ in range(50)))

    asyncio.run(streams(2000))
    before = daemon.memory_info().rss
    asyncio.run(streams(10_000))
    grown = (daemon.memory_info().rss - before) / MB
    assert grown < 12, f"{grown:.1f} MB more"
    assert daemon.num_fds() < 200
