"""Eight failures, each provoked for real: the rules name code, profile and next step, with the ids of its rows."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

import tundra_nb
from tests.agents.conftest import CHAT, TOML
from tests.conftest import Home, wait_until
from tundra_nb import errors
from tundra_nb.agents import tools
from tundra_nb.client.sync import Client
from tundra_nb.testing.scripted_provider import ScriptedProcess, ScriptedStep
from tundra_nb.types.triage import TriageFinding

pytestmark = pytest.mark.part("doltlite")


def fail(t: Client, times: int = 1) -> None:
    for _ in range(times):
        with pytest.raises(errors.TundraError):
            t.ask("hi")


def overloaded(t: Client, provider: ScriptedProcess) -> None:
    provider.script(CHAT, ScriptedStep(status=529))
    fail(t)


def wrong_key(t: Client, provider: ScriptedProcess) -> None:
    provider.script(CHAT, ScriptedStep(status=401, text="invalid key"))
    fail(t)


def quota_spent(t: Client, provider: ScriptedProcess) -> None:
    error = {"error": {"message": "You exceeded your current quota", "type": "insufficient_quota"}}
    provider.script(CHAT, ScriptedStep(status=429, body=json.dumps({**error, "code": "insufficient_quota"}).encode()))
    fail(t)


def open_breaker(t: Client, provider: ScriptedProcess) -> None:
    provider.script(CHAT, ScriptedStep(status=500, repeat=3))
    fail(t, 4)


def empty_bucket(t: Client, provider: ScriptedProcess) -> None:
    del provider
    t.set_setting("profile.main.rpm", 1)
    t.set_setting("router.max_wait_seconds", 0)
    t.ask("hi")
    fail(t)


def full_pool(t: Client, provider: ScriptedProcess) -> None:
    del provider
    t.set_setting("pty.capacity", 1)
    t.ptys.open("cat")
    with pytest.raises(errors.AtCapacity):
        t.ptys.open("cat")


def cut_stream(t: Client, provider: ScriptedProcess) -> None:
    frame = b'data: {"id":"c","choices":[{"index":0,"delta":{"content":"half"}}]}\n\n'
    provider.script(CHAT, ScriptedStep(headers=(("content-type", "text/event-stream"),), body=frame))
    fail(t)


SEEDED: list[tuple[Callable[[Client, ScriptedProcess], None], str, str]] = [
    (overloaded, "ApiError", "main"),
    (wrong_key, "KeyRejected", "main"),
    (quota_spent, "QuotaSpent", "main"),
    (open_breaker, "CircuitBreakerError::Open", "main"),
    (empty_bucket, "RateLimitError::Exceeded", "main"),
    (full_pool, "AtCapacity", ""),
    (cut_stream, "ParseError", "main"),
]


@pytest.mark.parametrize(("provoke", "kind", "profile"), SEEDED, ids=[case[0].__name__ for case in SEEDED])
@pytest.mark.check
def test_the_rules_name_what_was_provoked(
    home: Home,
    provider: ScriptedProcess,
    provoke: Callable[[Client, ScriptedProcess], None],
    kind: str,
    profile: str,
) -> None:
    home.write_settings(TOML.format(base_url=provider.base_url))
    with tundra_nb.connect() as t:
        provoke(t, provider)
        found = {finding.kind: finding for finding in t.triage(model=False).findings}
        assert kind in found, list(found)
        assert found[kind].profile == profile
        assert "tundra " in found[kind].remedy
        assert exist(t, found[kind])


def exist(t: Client, finding: TriageFinding) -> bool:
    """Whether each id of the evidence is the key of a row."""
    ids = ", ".join(finding.evidence)
    keys = [("operation", "operation_id"), ("error_event", "error_id"), ("breaker_event", "breaker_event_id")]
    rows = sum(len(t.sql(f"select {key} from {table} where {key} in ({ids})")) for table, key in keys)
    return bool(finding.evidence) and rows == len(finding.evidence)


@contextlib.contextmanager
def mysql() -> Iterator[int]:
    """What greets as MariaDB does, in the place of Dolt."""
    greeting = b"\x0a5.5.5-10.11.6-MariaDB-0+deb12u1\x00" + b"\x01\x00\x00\x00" + b"a" * 8 + b"\x00" + b"\xff\xf7" * 20
    packet = len(greeting).to_bytes(3, "little") + b"\x00" + greeting
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.1)
        stop = threading.Event()

        def serve() -> None:
            while not stop.is_set():
                with contextlib.suppress(TimeoutError):
                    connection = listener.accept()[0]
                    with connection, contextlib.suppress(OSError):
                        connection.sendall(packet)
                        connection.settimeout(0.5)
                        connection.recv(1024)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield int(listener.getsockname()[1])
        finally:
            stop.set()
            thread.join()


def test_a_port_taken_by_mysql_is_named_once_the_history_can_be_read(home: Home, provider: ScriptedProcess) -> None:
    """The errors of that time waited in the spool."""
    toml = TOML.format(base_url=provider.base_url)
    with mysql() as port:
        home.write_settings(f'[store]\nengine = "dolt"\nport = {port}\n{toml}')
        with tundra_nb.connect() as t:
            wait_until(lambda: t.status(brief=True)["store"].get("error"), timeout=20, what="the store is refused")
            with pytest.raises(errors.TundraError):
                t.calls()
            t.stop_daemon(force=True)
    home.write_settings(toml)
    home.run("daemon", "start")
    with tundra_nb.connect() as t:
        (finding,) = [one for one in t.triage(model=False).findings if "MariaDB" in one.cause or "MySQL" in one.cause]
        assert finding.remedy
        assert exist(t, finding)


@pytest.mark.check
def test_with_5000_calls_the_head_counts_all_of_them_and_the_answer_stays_short(
    home: Home, provider: ScriptedProcess
) -> None:
    """Also where the errors are among the rows that are not shown; the numbers are those of SQL."""
    import asyncio

    home.write_settings(TOML.format(base_url=provider.base_url))
    with tundra_nb.connect() as t:
        provider.script(CHAT, ScriptedStep(status=400, repeat=6))
        for _ in range(6):
            with pytest.raises(errors.TundraError):
                t.ask("hi")

        async def many() -> None:
            async with tundra_nb.connect_async() as other:
                for _ in range(100):
                    await asyncio.gather(*(other.ask("hi", max_tokens=1) for _ in range(50)))

        asyncio.run(many())
        box = tools.Toolbox(lambda: t, tools.readers())
        counted = t.sql("select outcome, count(*) as n from operation group by outcome").set_index("outcome")["n"]
        assert counted.sum() == 5006
        for name in (
            "tundra_calls",
            "tundra_attempts",
            "tundra_errors",
            "tundra_status",
            "tundra_why",
            "tundra_limits",
        ):
            assert len(box.call(name, {}).text) <= 8000, name
        text = box.call("tundra_calls", {}).text
        assert f"outcome: ok {counted['ok']:,} · error {counted['error']:,}" in text
        assert "code: RequestRejected 6" in text or "6" in text.splitlines()[2]
        assert "RequestRejected" not in "\n".join(text.splitlines()[8:])


@pytest.mark.part("dolt")
def test_the_same_pin_gives_the_same_report_on_both_engines(home: Home, provider: ScriptedProcess) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = int(probe.getsockname()[1])
    home.write_settings(f"[store]\nport = {port}\n" + TOML.format(base_url=provider.base_url))
    try:
        with tundra_nb.connect() as t:
            open_breaker(t, provider)
            found = t.triage(model=False)
            t.versions.tag("pinned", found.pin)
        assert home.run("dolt", "start").returncode == 0
        assert home.run("migrate-store").returncode == 0
        with tundra_nb.connect() as t:
            assert t.status()["engine"] == "dolt"
            assert t.triage(model=False, at="pinned").report == found.report
    finally:
        home.run("daemon", "stop", "--force")
        home.run("dolt", "stop")
