"""Proxies: which one stands before an origin, and real calls through a real CONNECT proxy."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

from tundra_nb.runtime.providers.proxies import Proxies
from tundra_nb.runtime.providers.transport import Transport, failure_kind
from tundra_nb.testing.connect_proxy import ConnectProxy
from tundra_nb.testing.scripted_provider import ScriptedProvider

PASSWORD = "p@ss:w/ö%rd"  # every character that a URL must escape


def found(environ: dict[str, str], url: str) -> str | None:
    parsed = httpx.URL(url)
    proxy = Proxies(environ).find(parsed.scheme, parsed.host, parsed.port)
    return None if proxy is None else str(proxy.url)


@pytest.mark.parametrize(
    ("environ", "url", "proxy"),
    [
        ({}, "http://a.example/", None),
        ({"HTTP_PROXY": "http://p:1"}, "http://a.example/", "http://p:1"),
        ({"HTTP_PROXY": "http://p:1"}, "https://a.example/", None),
        ({"HTTPS_PROXY": "http://p:1"}, "https://a.example/", "http://p:1"),
        ({"https_proxy": "http://low:1", "HTTPS_PROXY": "http://up:1"}, "https://a.example/", "http://low:1"),
        ({"https_proxy": "", "HTTPS_PROXY": "http://up:1"}, "https://a.example/", None),
        ({"ALL_PROXY": "http://p:1"}, "https://a.example/", "http://p:1"),
        ({"ALL_PROXY": "http://all:1", "HTTPS_PROXY": "http://p:1"}, "https://a.example/", "http://p:1"),
        ({"HTTP_PROXY": "p:3128"}, "http://a.example/", "http://p:3128"),
        ({"HTTP_PROXY": "   "}, "http://a.example/", None),
        ({"TRAVIS_APT_PROXY": "http://p:1"}, "http://a.example/", None),
    ],
)
def test_proxy_is_the_one_of_the_scheme(environ: dict[str, str], url: str, proxy: str | None) -> None:
    assert found(environ, url) == proxy


@pytest.mark.parametrize(
    ("no_proxy", "url", "is_direct"),
    [
        ("a.example", "http://a.example/", True),
        ("a.example", "http://A.EXAMPLE/", True),
        ("a.example", "http://b.a.example/", True),
        (".a.example", "http://b.a.example/", True),
        (".a.example", "http://a.example/", True),
        ("*.a.example", "http://b.a.example/", True),
        ("a.example", "http://nota.example/", False),
        ("a.example:8080", "http://a.example:8080/", True),
        ("a.example:8080", "http://a.example:9090/", False),
        ("b.example, a.example", "http://a.example/", True),
        ("*", "http://a.example/", True),
        ("x,*", "http://a.example/", True),
        ("127.0.0.1", "http://127.0.0.1:8000/", True),
        ("10.0.0.0/8", "http://10.1.2.3/", True),
        ("10.0.0.0/8", "http://11.1.2.3/", False),
        ("10.0.0.0/8", "http://a.example/", False),
        ("::1", "http://[::1]:80/", True),
        ("[::1]", "http://[::1]/", True),
        ("", "http://a.example/", False),
        (" , ,.", "http://a.example/", False),
        ("nonsense/xx", "http://10.0.0.1/", False),
    ],
)
@pytest.mark.parametrize("variable", ["NO_PROXY", "no_proxy"])
def test_no_proxy_exempts_hosts_ports_and_networks(no_proxy: str, url: str, is_direct: bool, variable: str) -> None:
    assert (found({"ALL_PROXY": "http://p:1", variable: no_proxy}, url) is None) is is_direct


@given(
    no_proxy=st.text(max_size=40), host=st.from_regex(r"[a-z0-9.:-]{1,20}", fullmatch=True), port=st.integers(1, 65535)
)
def test_any_text_in_no_proxy_is_survived(no_proxy: str, host: str, port: int) -> None:
    Proxies({"HTTP_PROXY": "http://p:1", "NO_PROXY": no_proxy}).find("http", host, port)


@pytest.mark.parametrize("value", ["socks5://u:canary@p:1", "http://", "http://u:canary@p:notaport", "://canary"])
def test_proxy_that_cannot_be_used_is_refused_without_showing_it(value: str) -> None:
    with pytest.raises(httpx.ProxyError) as caught:
        found({"HTTP_PROXY": value}, "http://a.example/")
    assert "canary" not in str(caught.value)


# --- through a real proxy ---------------------------------------------------------------------------------------------


@pytest.fixture
async def plain() -> AsyncIterator[ScriptedProvider]:
    async with ScriptedProvider() as provider:
        yield provider


@pytest.fixture
async def secure(tmp_path: Path) -> AsyncIterator[tuple[ScriptedProvider, str]]:
    ca = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("127.0.0.1").configure_cert(context)
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    async with ScriptedProvider(tls=context) as provider:
        yield provider, str(tmp_path / "ca.pem")


async def models(transport: Transport, url: str) -> int:
    request = httpx.Request("GET", f"{url}/models", extensions={"timeout": {"connect": 5.0, "read": 5.0}})
    response = await transport.handle_async_request(request)
    await response.aread()
    return response.status_code


@pytest.mark.anyio
async def test_secure_calls_go_through_a_tunnel_to_a_server_of_a_private_authority(
    secure: tuple[ScriptedProvider, str],
) -> None:
    provider, ca = secure
    async with ConnectProxy() as proxy:
        environ = {"HTTPS_PROXY": proxy.url, "SSL_CERT_FILE": ca}
        async with Transport(environ=environ) as transport:
            assert [await models(transport, provider.base_url) for _ in range(2)] == [200, 200]
        assert proxy.tunnels == [f"127.0.0.1:{provider.port}"]  # one tunnel, kept alive
    assert provider.served == 2


@pytest.mark.anyio
@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_proxy_whose_name_nobody_knows_is_told_as_the_proxys_fault(scheme: str) -> None:
    async with Transport(environ={"ALL_PROXY": "http://proxy.invalid:3128"}) as transport:
        with pytest.raises(httpx.TransportError) as caught:
            await models(transport, f"{scheme}://127.0.0.1:9")
    assert failure_kind(caught.value) == "proxy"


@pytest.mark.anyio
async def test_plain_calls_are_forwarded_whole(plain: ScriptedProvider) -> None:
    async with ConnectProxy() as proxy, Transport(environ={"HTTP_PROXY": proxy.url}) as transport:
        assert await models(transport, plain.base_url) == 200
        assert proxy.forwarded == [f"{plain.base_url}/models"]


@pytest.mark.anyio
@pytest.mark.parametrize("is_secure", [True, False])
async def test_password_of_the_proxy_is_sent_to_the_proxy_alone(
    is_secure: bool, plain: ScriptedProvider, secure: tuple[ScriptedProvider, str]
) -> None:
    provider = secure[0] if is_secure else plain
    async with ConnectProxy(username="user", password=PASSWORD) as proxy:
        environ = {"ALL_PROXY": proxy.url_with_credentials, "SSL_CERT_FILE": secure[1]}
        async with Transport(environ=environ) as transport:
            assert [await models(transport, provider.base_url) for _ in range(2)] == [200, 200]
        expected = (1, 0, 0) if is_secure else (0, 2, 0)  # a tunnel is kept alive
        assert (len(proxy.tunnels), len(proxy.forwarded), proxy.refused) == expected
    assert "proxy-authorization" not in provider.requests[0].headers


@pytest.mark.anyio
async def test_tunnel_refused_with_407_is_a_proxy_error_that_keeps_the_password(
    secure: tuple[ScriptedProvider, str],
) -> None:
    provider, ca = secure
    async with ConnectProxy(username="user", password="right") as proxy:
        wrong = proxy.url_with_credentials.replace("right", "canary")
        async with Transport(environ={"HTTPS_PROXY": wrong}, ca_file=ca) as transport:
            with pytest.raises(httpx.ProxyError) as caught:
                await models(transport, provider.base_url)
        assert proxy.refused == 1
    assert failure_kind(caught.value) == "proxy"
    assert "407" in str(caught.value)
    assert "canary" not in str(caught.value) + repr(caught.value.__cause__)
    assert provider.served == 0


@pytest.mark.anyio
async def test_plain_call_refused_with_407_is_an_answer(plain: ScriptedProvider) -> None:
    """So it is with httpx: the proxy answers in the server's place."""
    proxy = ConnectProxy(username="user", password="right")
    async with proxy, Transport(environ={"HTTP_PROXY": proxy.url}) as transport:
        assert await models(transport, plain.base_url) == 407


@pytest.mark.anyio
async def test_absent_proxy_is_a_proxy_error(plain: ScriptedProvider) -> None:
    async with Transport(environ={"ALL_PROXY": "http://u:canary@127.0.0.1:9"}) as transport:
        with pytest.raises(httpx.ProxyError) as caught:
            await models(transport, plain.base_url)
    assert "canary" not in str(caught.value) + repr(caught.value.__cause__)


@pytest.mark.anyio
async def test_tunnel_to_nowhere_is_a_proxy_error() -> None:
    async with ConnectProxy() as proxy, Transport(environ={"HTTPS_PROXY": proxy.url}) as transport:
        with pytest.raises(httpx.ProxyError, match="502"):
            await models(transport, "https://127.0.0.1:9/v1")


@pytest.mark.anyio
async def test_no_proxy_goes_past_a_real_proxy(plain: ScriptedProvider) -> None:
    async with ConnectProxy() as proxy:
        async with Transport(environ={"ALL_PROXY": proxy.url, "NO_PROXY": "127.0.0.1"}) as transport:
            assert await models(transport, plain.base_url) == 200
        assert proxy.forwarded == proxy.tunnels == []
