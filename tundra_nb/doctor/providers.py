"""Each provider, step by step: key, name, connection, TLS, proxy, answer, clock.

Asked from this process, with its own proxy and CA variables: what the daemon has may differ, and the line on the key
says where it was found. Nothing is asked but the list of models, which costs nothing.
"""

from __future__ import annotations

import base64
import email.utils
import hashlib
import http.client
import socket
import ssl
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from tundra_nb.errors import ConfigError
from tundra_nb.errors.providers import tls_remedy
from tundra_nb.protocol import profiles as profiles_routes
from tundra_nb.settings import ProfileSettings

from .check import Check, Finding, Group, State
from .place import Subject

STEP_SECONDS = 3.0
SKEW_WARNS = 30.0
"""Seconds; `Date` has whole ones, and the answer travels."""
SKEW_FAILS = 300.0
"""TLS and signed requests fail from about five minutes on."""
SLOW_SECONDS = 2.0
FIRST = (
    "`tundra providers add local --kind local --base-url http://127.0.0.1:8080/v1`, or set `ANTHROPIC_API_KEY`, "
    "`OPENROUTER_API_KEY` or `OPENAI_API_KEY` where the daemon is started, then `tundra daemon restart`."
)


class _Lines:
    """The lines of one profile as they are found."""

    def __init__(self, check: Check, name: str) -> None:
        self._check = check
        self._name = name
        self.made: list[Finding] = []

    def add(self, part: str, state: State, evidence: str, remedy: str = "", *, page: str = "", fix: str = "") -> None:
        group: Group = "authentication" if part == "key" else "network"
        self.made.append(
            self._check.found(
                state,
                evidence,
                remedy,
                page=page,
                fix=fix,
                part=f"{self._name}.{part}",
                title=f"{self._name}: {part}",
                group=group,
            )
        )


def profiles(place: Subject, check: Check) -> Sequence[Finding]:
    if isinstance(place.config, ConfigError):
        return [check.found("skipped", "the settings cannot be read", group="authentication")]
    chosen = [profile for profile in place.settings.profile if profile.enabled]
    if not chosen:
        evidence = "no profile is set up, and no vendor's key variable is set"
        return [check.found("fail", evidence, FIRST, page="NoProfile", group="authentication")]
    with ThreadPoolExecutor(max_workers=8, thread_name_prefix="tundra-doctor") as pool:
        found = pool.map(lambda profile: _profile(place, check, profile), chosen)
        return [line for lines in found for line in lines]


def _profile(place: Subject, check: Check, profile: ProfileSettings) -> list[Finding]:
    lines = _Lines(check, profile.name)
    key = _key(place, profile, lines)
    url = urllib.parse.urlsplit(profile.base_url)
    host, port = url.hostname or "", url.port or (443 if url.scheme == "https" else 80)
    proxy = _proxy(url.scheme, host, port, place)
    to = (proxy.hostname or "", proxy.port or 80) if proxy is not None else (host, port)
    address = f"`tundra settings set profile.{profile.name}.base_url=URL`"
    began = time.monotonic()
    try:
        found = socket.getaddrinfo(*to, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as exc:
        whose = "the proxy's name" if proxy is not None else "the name"
        remedy = f"Correct it ({address}), or the network's resolver." if proxy is None else PROXY
        lines.add("resolve", "fail", f"{whose} {to[0]} cannot be resolved: {_words(exc)}", remedy, page="HttpError")
        return _rest(lines, "connect", "tls", "proxy", "answer", "clock")
    where = str(found[0][4][0])
    lines.add("resolve", "ok", f"{to[0]} is {where}, {_ms(began)}")
    began = time.monotonic()
    try:
        sock = socket.create_connection(to, STEP_SECONDS)
    except OSError as exc:
        what = "refused: nobody listens there" if isinstance(exc, ConnectionRefusedError) else _words(exc)
        remedy = f"Start the server, or correct the address: {address}." if proxy is None else PROXY
        lines.add("connect", "fail", f"{to[0]}:{to[1]} {what}", remedy, page="connection-refused")
        return _rest(lines, "tls", "proxy", "answer", "clock")
    lines.add("connect", "ok", f"{to[0]}:{to[1]}, {_ms(began)}")
    with sock:
        sock.settimeout(STEP_SECONDS)
        return _connected(place, profile, lines, sock, key, proxy)


PROXY = "Correct `HTTPS_PROXY`/`HTTP_PROXY`, or add the host to `NO_PROXY`; then `tundra daemon restart`."


def _connected(
    place: Subject,
    profile: ProfileSettings,
    lines: _Lines,
    sock: socket.socket,
    key: str | None,
    proxy: urllib.parse.SplitResult | None,
) -> list[Finding]:
    url = urllib.parse.urlsplit(profile.base_url)
    host, port = url.hostname or "", url.port or (443 if url.scheme == "https" else 80)
    proxied = ""
    if proxy is None:
        lines.add("proxy", "ok", "none stands between")
    elif url.scheme == "https":
        told = _tunnel(sock, host, port, proxy)
        if told != 200:
            evidence = f"{proxy.hostname}:{proxy.port} refused the way to {host} ({told or 'no answer'})"
            lines.add("proxy", "fail", evidence, PROXY, page="HttpError")
            return _rest(lines, "tls", "answer", "clock")
        proxied = f"through {proxy.hostname}:{proxy.port}"
        lines.add("proxy", "ok", proxied)
    if url.scheme == "https":
        began = time.monotonic()
        named, whose = place.certificates
        file = named.get("SSL_CERT_FILE") or None
        folder = None if file else named.get("SSL_CERT_DIR") or None
        trusted = f"; trusted is {file or folder}, by {whose} environment" if file or folder else ""
        try:
            sock = _trusting(file, folder).wrap_socket(sock, server_hostname=host)
        except OSError as exc:  # an SSLError too, and a CA file that is not there
            lines.add("tls", "fail", _words(exc) + trusted, tls_remedy(str(exc)), page="HttpError")
            return _rest(lines, "answer", "clock")
        lines.add("tls", "ok", f"{sock.version()}, {_ms(began)}{trusted}")
    else:
        lines.add("tls", "ok", "none: the address is http")
    path = "/v1/models" if profile.kind == "anthropic" else "/models"
    target = (url.path.rstrip("/").removesuffix("/v1") if profile.kind == "anthropic" else url.path.rstrip("/")) + path
    if profile.kind != "anthropic" and not url.path.rstrip("/").endswith("/v1"):
        target = url.path.rstrip("/") + "/v1/models"
    if proxy is not None and url.scheme == "http":
        target = f"http://{url.netloc}{target}"
    _answer(lines, profile, sock, target, url.netloc, key, proxy, place)
    return lines.made


def _trusting(file: str | None, folder: str | None) -> ssl.SSLContext:
    """As calls have it."""
    if file is None and folder is None:
        import httpx  # only where a provider is asked over TLS

        return httpx.create_ssl_context(trust_env=False)
    return ssl.create_default_context(cafile=file, capath=folder)


def _answer(
    lines: _Lines,
    profile: ProfileSettings,
    sock: socket.socket,
    target: str,
    netloc: str,
    key: str | None,
    proxy: urllib.parse.SplitResult | None,
    place: Subject,
) -> None:
    headers = {"Host": netloc, "Accept": "application/json", "Connection": "close", "User-Agent": "tundra-doctor"}
    if key and profile.kind == "anthropic":
        headers |= {"x-api-key": key, "anthropic-version": "2023-06-01"}
    elif key:
        headers["Authorization"] = f"Bearer {key}"
    is_plain_proxy = proxy is not None and target.startswith("http://")
    if is_plain_proxy and proxy is not None and proxy.username:
        headers["Proxy-Authorization"] = _login(proxy)
    began = time.monotonic()
    try:
        connection = http.client.HTTPConnection(netloc)
        connection.sock = sock
        connection.request("GET", target, headers=headers)
        answer = connection.getresponse()
        body = answer.read(65536)
    except (OSError, http.client.HTTPException, UnicodeError) as exc:
        remedy = "Is it the server that the profile means? `tundra providers` shows kind and address."
        lines.add("answer", "fail", f"no HTTP answer: {_words(exc)}", remedy, page="HttpError")
        _rest(lines, "clock")
        return
    seconds = time.monotonic() - began
    if is_plain_proxy:
        if answer.status == 407:
            lines.add("proxy", "fail", f"{proxy.hostname} wants a login (407)", PROXY, page="HttpError")  # type: ignore[union-attr]
            _rest(lines, "answer", "clock")
            return
        lines.add("proxy", "ok", f"through {proxy.hostname}:{proxy.port}")  # type: ignore[union-attr]
    _status(lines, profile, answer, body, seconds)
    _accepted(lines, profile, answer.status, key, place)
    _clock(lines, answer.headers.get("Date"))


def _status(
    lines: _Lines, profile: ProfileSettings, answer: http.client.HTTPResponse, body: bytes, seconds: float
) -> None:
    told = f"status {answer.status} in {seconds * 1000:.0f} ms"
    address = f"`tundra settings set profile.{profile.name}.base_url=URL`"
    if 300 <= answer.status < 400:
        where = answer.headers.get("Location", "elsewhere")
        lines.add(
            "answer",
            "fail",
            f"{told}: it redirects to {where[:120]}",
            f"Correct the address: {address}.",
            page="Redirected",
        )
    elif answer.status >= 500 or answer.status == 408:
        remedy = f"Wait, or `tundra providers park {profile.name}` meanwhile."
        lines.add("answer", "fail", f"{told}: the provider fails", remedy, page="ApiError")
    elif answer.status == 200 and body.lstrip()[:1] not in (b"{", b"["):
        lines.add("answer", "fail", f"{told}: it is no JSON", f"Correct the address: {address}.", page="ParseError")
    elif answer.status == 404:
        remedy = f"If calls fail too, correct the address: {address}."
        lines.add("answer", "warn", f"{told}: it lists no models", remedy, page="Unsupported")
    elif answer.status == 429:
        remedy = f"Wait; `tundra settings set profile.{profile.name}.rpm=50` spaces calls."
        lines.add("answer", "warn", f"{told}: rate limited", remedy, page="RateLimited")
    elif seconds > SLOW_SECONDS:
        lines.add(
            "answer", "warn", f"{told}: slow", "`tundra calls --by profile,hour` shows since when.", page="Timeout"
        )
    else:
        lines.add("answer", "ok", told)


def _accepted(lines: _Lines, profile: ProfileSettings, status: int, key: str | None, place: Subject) -> None:
    if key is None:
        return
    variable = profile.api_key_env
    mark = _fingerprint(key, place)
    lines.made = [line for line in lines.made if not line.id.endswith(f"{profile.name}.key")]
    if status in (401, 403):
        evidence = f"the provider rejects {variable} <{mark}> ({status})"
        remedy = (
            f"Set `{variable}` to the right key, `tundra keys offer`, then `tundra providers recheck {profile.name}`."
        )
        lines.add("key", "fail", evidence, remedy, page="KeyRejected")
    elif status == 402:
        remedy = f"Pay or raise the limit at the vendor, then `tundra providers recheck {profile.name}`."
        lines.add("key", "fail", f"the quota of {variable} <{mark}> is spent", remedy, page="QuotaSpent")
    else:
        lines.add("key", "ok", f"{variable} <{mark}> is {'accepted' if status < 400 else 'not refused'}")


def _clock(lines: _Lines, date: str | None) -> None:
    try:
        theirs = email.utils.parsedate_to_datetime(date or "").timestamp()
    except ValueError:
        lines.add("clock", "skipped", "the answer has no date")
        return
    skew = time.time() - theirs
    told = f"this clock is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} the provider's"
    remedy = "Set the clock: `timedatectl set-ntp true`."
    if abs(skew) >= SKEW_FAILS:
        lines.add("clock", "fail", told, remedy, page="clock-set-back")
    elif abs(skew) >= SKEW_WARNS:
        lines.add("clock", "warn", told, remedy, page="clock-set-back")
    else:
        lines.add("clock", "ok", f"within {max(1.0, abs(skew)):.0f} s of the provider's")


def _key(place: Subject, profile: ProfileSettings, lines: _Lines) -> str | None:
    """The key as this process has it; the line on it says who has it, by fingerprint."""
    variable = profile.api_key_env
    if not variable:
        lines.add("key", "ok", "none needed")
        return None
    mine = (place.environ.get(variable) or "").strip() or None
    told = place.ask(profiles_routes.KEYS)
    rows = (told or {}).get("rows") or ()
    theirs = next((row for row in rows if row.get("variable") == variable), None)
    offer = f"`tundra keys offer`, then `tundra providers recheck {profile.name}`."
    if mine is None and not (theirs and theirs.get("present")):
        where = "neither here nor in the daemon" if told is not None else "not set here"
        remedy = (
            f"Set `{variable}`, then {offer}" if told is not None else f"Set `{variable}`, then `tundra daemon start`."
        )
        lines.add("key", "fail", f"{variable} is {where}", remedy, page="KeyMissing")
    elif mine is None:
        lines.add("key", "ok", f"{variable} <{theirs.get('fingerprint')}> is in the daemon, not here")  # type: ignore[union-attr]
        _ask_daemon(place, profile, lines)
    elif theirs is not None and not theirs.get("present"):
        evidence = f"{variable} <{_fingerprint(mine, place)}> is set here, and the daemon lacks it"
        lines.add("key", "fail", evidence, offer, page="KeyMissing", fix="offer_keys")
        return None
    elif theirs is not None and theirs.get("fingerprint") != _fingerprint(mine, place):
        evidence = f"{variable} is <{_fingerprint(mine, place)}> here and <{theirs.get('fingerprint')}> in the daemon"
        lines.add("key", "warn", evidence, offer, page="KeyRejected", fix="offer_keys")
        return None
    else:
        lines.add("key", "ok", f"{variable} <{_fingerprint(mine, place)}> is set")
    return mine


def _ask_daemon(place: Subject, profile: ProfileSettings, lines: _Lines) -> None:
    """Whether the provider takes the key that only the daemon has."""
    told = place.ask(profiles_routes.MODELS, profiles_routes.ModelsQuery(profile=profile.name), seconds=STEP_SECONDS)
    rows = (told or {}).get("rows") or ()
    problem = next((str(row["problem"]) for row in rows if row.get("problem")), "")
    if "rejected" in problem:
        lines.made.clear()
        recheck = f"`tundra providers recheck {profile.name}`"
        remedy = f"Set `{profile.api_key_env}` to the right key, `tundra keys offer`, then {recheck}."
        lines.add("key", "fail", problem, remedy, page="KeyRejected")


def _fingerprint(value: str, place: Subject) -> str:
    """As the daemon makes it, with its salt, so that both can be compared; without a salt one of this moment."""
    told = place.ask(profiles_routes.KEYS) or {}
    try:
        salt = bytes.fromhex(told["salt"]) if "salt" in told else place.paths.salt.read_bytes()
    except (OSError, ValueError):
        return "set"
    return hashlib.blake2b(value.strip().encode(), key=salt[:64], digest_size=4).hexdigest()


def _proxy(scheme: str, host: str, port: int, place: Subject) -> urllib.parse.SplitResult | None:
    """The proxy before an address, by the variables that curl and urllib read."""
    found = {
        k.lower().removesuffix("_proxy"): v for k, v in place.environ.items() if k.lower().endswith("_proxy") and v
    }
    value = found.get(scheme) or found.get("all")
    exempt = {"no": found.get("no", "")}
    if not value or urllib.request.proxy_bypass_environment(f"{host}:{port}", exempt):  # type: ignore[attr-defined]
        return None
    return urllib.parse.urlsplit(value if "://" in value else f"http://{value}")


def _tunnel(sock: socket.socket, host: str, port: int, proxy: urllib.parse.SplitResult) -> int:
    """Ask a proxy for a way through; the status that it answers, 0 for no answer."""
    login = f"Proxy-Authorization: {_login(proxy)}\r\n" if proxy.username else ""
    try:
        sock.sendall(f"CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n{login}\r\n".encode())
        told = b""
        while b"\r\n\r\n" not in told and len(told) < 65536:
            more = sock.recv(1)  # not a byte more than the head: what follows is TLS
            if not more:
                return 0
            told += more
        return int(told.split(None, 2)[1])
    except (OSError, ValueError, IndexError):
        return 0


def _login(proxy: urllib.parse.SplitResult) -> str:
    user, password = (urllib.parse.unquote(part or "") for part in (proxy.username, proxy.password))
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def _rest(lines: _Lines, *parts: str) -> list[Finding]:
    for part in parts:
        lines.add(part, "skipped", "not reached")
    return lines.made


def _words(exc: BaseException) -> str:
    if isinstance(exc, TimeoutError):
        return f"no answer within {STEP_SECONDS:g} s"
    return str(getattr(exc, "strerror", None) or exc or type(exc).__name__)


def _ms(began: float) -> str:
    return f"{(time.monotonic() - began) * 1000:.0f} ms"


Look = Callable[[Subject, Check], Sequence[Finding]]
CHECKS = (
    Check(
        id="provider",
        group="network",
        title="providers",
        look=profiles,
        also=("authentication", "configuration"),
        deadline=9.0,
    ),
)
