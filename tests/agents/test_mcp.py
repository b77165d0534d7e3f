"""`tundra mcp` through its outermost door: the process that a host starts, and its HTTP form."""

from __future__ import annotations

import contextlib
import json
import re
import select
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.agents.conftest import Standing, opened, text_of
from tests.conftest import Home, wait_until
from tests.runtime.sources.test_importing import TEXT
from tundra_nb.agents import answers, rpc, tools
from tundra_nb.agents.stdio import MAX_LINE_BYTES
from tundra_nb.client.sync import Client
from tundra_nb.errors import UsageError
from tundra_nb.testing.scripted_provider import ScriptedProcess

doltlite = pytest.mark.part("doltlite")
MODERN = "2026-07-28"
SECOND = """
[[profile]]
name = "second"
kind = "local"
base_url = "{base_url}"
model = "scripted-1"
priority = 2
"""


def meta(**capabilities: Any) -> dict[str, Any]:
    return {rpc.VERSION_KEY: MODERN, rpc.CAPABILITIES_KEY: capabilities}


@doltlite
def test_a_host_lists_the_tools_and_reads_the_story_of_a_failed_call(standing: Standing) -> None:
    """The text is the one that a person sees."""
    with opened(standing.home) as host:
        told = host.initialize()
        assert told["protocolVersion"] == "2025-11-25"
        listed = host.request("tools/list")["result"]["tools"]
        assert {"tundra_status", "tundra_calls", "tundra_why", "tundra_sql"} <= {tool["name"] for tool in listed}
        assert len(listed) <= 12
        story = host.call("tundra_why")
        assert not story["isError"]
        assert "529" in text_of(story)
        assert standing.t.why("last").operation_id[-5:] in text_of(story)


@doltlite
def test_the_head_counts_all_rows_also_those_that_are_not_shown(standing: Standing) -> None:
    """The errors are among the rows that are shown least."""
    with opened(standing.home) as host:
        host.initialize()
        text = text_of(host.call("tundra_calls", limit=1))
    assert "5 rows" in text
    assert "outcome: error 3 · ok 2" in text
    assert "1 of 5 rows follow, newest first" in text


@doltlite
def test_a_value_never_becomes_an_option(standing: Standing) -> None:
    with opened(standing.home) as host:
        host.initialize()
        for profile in ("main --as x", "--help", "--limit=1"):
            given = host.call("tundra_calls", profile=profile)
            assert "usage" not in text_of(given).lower() or given["isError"]
            assert "--help" not in text_of(given) or profile == "--help"
        given = host.call("tundra_sql", text="--at main\nselect 1 as one")
        assert given["isError"] or "one" in text_of(given)


@doltlite
def test_what_is_wrong_is_an_answer_that_a_model_can_mend(standing: Standing) -> None:
    with opened(standing.home) as host:
        host.initialize()
        refused = host.call("tundra_sql", text="delete from operation")
        assert refused["isError"]
        assert "QueryRefused" in text_of(refused)
        unknown = host.call("tundra_calls", profil="main")
        assert unknown["isError"]
        assert "profile" in text_of(unknown)
        wrong_type = host.call("tundra_calls", limit="many")
        assert wrong_type["isError"]
        answer = host.request("tools/call", {"name": "tundra_run", "arguments": {}})
        assert answer["error"]["code"] == rpc.INVALID_PARAMS


def test_a_line_that_is_too_long_is_answered_once_and_its_tail_is_no_message(home: Home) -> None:
    with opened(home) as host:
        host.send("x" * MAX_LINE_BYTES * 2 + '{"jsonrpc": "2.0", "id": 7, "method": "ping"}')
        host.send({"jsonrpc": "2.0", "id": 8, "method": "ping"})
        first, second = host.receive(), host.receive()
    assert (first["id"], first["error"]["code"]) == (None, rpc.PARSE_ERROR)
    assert "at most" in first["error"]["message"]
    assert second == {"jsonrpc": "2.0", "id": 8, "result": {}}


@doltlite
def test_an_acting_tool_does_not_exist_unless_it_is_allowed(standing: Standing) -> None:
    with opened(standing.home) as host:
        host.initialize(elicitation={})
        names = {tool["name"] for tool in host.request("tools/list")["result"]["tools"]}
        assert "tundra_breakers_reset" not in names
        answer = host.request("tools/call", {"name": "tundra_breakers_reset", "arguments": {"name": "main"}})
        assert "error" in answer
    assert breaker(standing.t) == "open"


@doltlite
def test_a_client_that_cannot_ask_is_given_the_line_and_nothing_runs(standing: Standing) -> None:
    with opened(standing.home, "--allow", "breakers-reset") as host:
        host.initialize()
        given = host.call("tundra_breakers_reset", name="main")
    assert given["isError"]
    assert "not run" in text_of(given)
    assert "tundra breakers reset main" in text_of(given)
    assert breaker(standing.t) == "open"


APPROVALS: list[tuple[dict[str, Any], str]] = [
    ({"action": "accept", "content": {"approve": False}}, "the person said no"),
    ({"action": "decline"}, "the person said no"),
    ({"action": "cancel"}, "closed the question"),
    ({"error": {"code": -32603, "message": "no\u202e window"}}, "could not ask its person (no window)"),
    ({"error": None}, "could not ask its person (without a word)"),
    ({"action": "accept", "content": {"approve": "yes"}}, "neither a yes nor a no"),
    ({"action": "accept"}, "neither a yes nor a no"),
    ({}, "neither a yes nor a no"),
    ({"action": "accept", "content": {"approve": True}}, ""),
]
"""What a client answers to the question, and what its agent is told of it; empty where the command is run."""


@doltlite
def test_an_acting_tool_runs_only_after_a_yes_and_only_a_no_is_told_as_one(home: Home, outage: Client) -> None:
    """The question holds the exact command."""
    with opened(home, "--allow", "all") as host:
        host.initialize(elicitation={})
        for host.answers, problem in APPROVALS:
            given = host.call("tundra_breakers_reset", name="main")
            assert "tundra breakers reset main" in host.questions[-1]["message"]
            assert given["isError"] is bool(problem)
            assert problem in text_of(given)
            assert ("said no" in text_of(given)) is ("said no" in problem)
            assert breaker(outage) == ("open" if problem else "closed"), host.answers
        assert len(host.questions) == len(APPROVALS)


@doltlite
def test_a_wrong_command_is_refused_before_anybody_is_asked(standing: Standing) -> None:
    with opened(standing.home, "--allow", "all", answers={"action": "accept", "content": {"approve": True}}) as host:
        host.initialize(elicitation={})
        given = host.call("tundra_breakers_reset", name="nope")
        assert given["isError"]
        assert "main" in text_of(given)
        assert host.questions == []


@doltlite
def test_a_yes_to_one_command_is_not_a_yes_to_another(home: Home, outage: Client) -> None:
    """Stateless: the question's state comes back with the answer, sealed to its command, and counts once."""
    yes = {"approve": {"action": "accept", "content": {"approve": True}}}
    with opened(home, "--allow", "all") as host:

        def call(tool: str, **more: Any) -> dict[str, Any]:
            params = {"name": tool, "arguments": {"name": "main"}, "_meta": meta(elicitation={}), **more}
            return host.request("tools/call", params)["result"]  # type: ignore[no-any-return]

        asked = call("tundra_breakers_reset")
        assert asked["resultType"] == "input_required"
        state = asked["requestState"]
        other = call("tundra_providers_park", requestState=state, inputResponses=yes)
        assert other["isError"]
        assert "another command" in text_of(other)
        assert outage.providers()["state"].iloc[0] != "parked"
        done = call("tundra_breakers_reset", requestState=state, inputResponses=yes)
        assert not done["isError"]
        again = call("tundra_breakers_reset", requestState=state, inputResponses=yes)
        assert again["isError"]
        state = call("tundra_breakers_reset")["requestState"]
        cancelled = {"approve": {"action": "cancel"}}
        closed = call("tundra_breakers_reset", requestState=state, inputResponses=cancelled)
        assert "closed the question" in text_of(closed)
        forged = call("tundra_breakers_reset", requestState="x.y", inputResponses=yes)
        assert forged["isError"]
    assert breaker(outage) == "closed"


@doltlite
def test_a_yes_to_a_call_that_was_cancelled_runs_nothing(home: Home, outage: Client) -> None:
    """Its question is taken back, the call is not answered, and a late yes is dropped without a word."""
    with opened(home, "--allow", "all") as host:
        host.initialize(elicitation={})
        arguments = {"name": "tundra_breakers_reset", "arguments": {"name": "main"}}
        host.send({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": arguments})
        question = host.receive()
        host.send({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": [7]}})
        host.send({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 7}})
        taken_back = host.receive()
        assert taken_back["method"] == "notifications/cancelled"
        assert taken_back["params"]["requestId"] == question["id"]
        yes = {"action": "accept", "content": {"approve": True}}
        host.send({"jsonrpc": "2.0", "id": question["id"], "result": yes})
        assert host.request("ping")["result"] == {}
    assert breaker(outage) == "open"


def test_both_eras_and_broken_lines_are_answered(home: Home) -> None:
    with opened(home) as host:
        host.send("{")
        assert host.receive()["error"]["code"] == rpc.PARSE_ERROR
        host.send("[" * 5000)
        assert host.receive()["error"]["code"] == rpc.PARSE_ERROR
        for line in ('{"jsonrpc": "2.0", "id": NaN}', "[1e999]", '["\\ud800"]'):
            host.send(line)
            assert host.receive()["error"]["code"] == rpc.PARSE_ERROR
        host.send("null")
        assert host.receive()["error"]["code"] == rpc.INVALID_REQUEST
        odd: object
        for odd in (None, True, [1], {}):
            host.send({"jsonrpc": "2.0", "id": odd, "method": "ping"})
            assert host.receive()["error"]["code"] == rpc.INVALID_REQUEST
        host.send({"jsonrpc": "2.0", "id": 9})
        assert host.receive()["error"]["code"] == rpc.INVALID_REQUEST
        discovered = host.request("server/discover", {"_meta": meta()})["result"]
        assert MODERN in discovered["supportedVersions"]
        assert discovered["resultType"] == "complete"
        listed = host.request("tools/list", {"_meta": meta()})["result"]
        assert listed["ttlMs"] > 0
        wrong = host.request("tools/list", {"_meta": {rpc.VERSION_KEY: "2199-01-01", rpc.CAPABILITIES_KEY: {}}})
        assert wrong["error"]["code"] == rpc.UNSUPPORTED_VERSION
        assert wrong["error"]["data"]["supported"] == [MODERN]
        assert host.request("resources/list")["error"]["code"] == rpc.METHOD_NOT_FOUND
        assert host.request("ping")["result"] == {}
        assert host.request("initialize", {"protocolVersion": "1999"})["result"]["protocolVersion"] == "2025-11-25"


SHAKE = [
    {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": "2025-11-25"}},
    {"jsonrpc": "2.0", "id": 2, "method": "tools/list"},
]


@pytest.mark.parametrize("args", [[], ["--allow", "all"]], ids=["mcp", "mcp --allow all"])
def test_the_tools_are_listed_before_what_takes_long_is_imported(home: Home, args: list[str]) -> None:
    """A host starts one per session and waits: nothing but the standard library's light parts and the door's own."""
    command = [sys.executable, "-X", "importtime", "-m", "tundra_nb", "mcp", *args]
    lines = [*map(json.dumps, SHAKE), ""]
    done = subprocess.run(
        command, env=home.env, input="\n".join(lines), capture_output=True, text=True, timeout=60, check=True
    )
    assert len(json.loads(done.stdout.splitlines()[-1])["result"]["tools"]) > 10
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "tundra_nb.agents.door" in loaded
    ours = {name for name in loaded if name.startswith("tundra_nb.")}
    assert ours <= {
        "tundra_nb._version",
        "tundra_nb.agents",
        *(f"tundra_nb.agents.{m}" for m in ("door", "rpc", "stdio")),
    }
    assert not loaded & {"asyncio", "click", "dataclasses", "importlib.resources", "logging", "msgspec", "pathlib"}


@pytest.mark.check
def test_a_host_has_the_list_within_a_quarter_of_a_second(home: Home) -> None:
    """From the start of the process on; the best of five, for the machine may be at work."""
    assert min(seconds_to_list(home) for _ in range(5)) < 0.25


def seconds_to_list(home: Home) -> float:
    began = time.perf_counter()
    with opened(home) as host:
        for message in SHAKE:
            host.send(message)
            assert "result" in host.receive()
        return time.perf_counter() - began


@pytest.mark.parametrize("more", [[], ["--max-chars", "8000"]], ids=["by the door", "by the command"])
def test_both_ways_to_start_list_the_same_tools_and_allow_the_same(home: Home, more: list[str]) -> None:
    with opened(home, "--allow", "providers-park", *more) as host:
        host.initialize()
        listed = host.request("tools/list")["result"]["tools"]
        answer = host.request("tools/call", {"name": "tundra_breakers_reset", "arguments": {"name": "main"}})
    expected = [*tools.readers().values(), *tools.actors(["providers-park"]).values()]
    assert listed == [tools.described(tool) for tool in expected]
    assert answer["error"]["code"] == rpc.INVALID_PARAMS


def test_a_name_that_cannot_be_allowed_is_refused_before_a_host_is_answered(home: Home) -> None:
    done = home.run("mcp", "--allow", "breaker-reset")
    assert done.returncode == 2
    assert "breakers-reset" in done.stderr


@doltlite
def test_a_host_that_goes_while_its_person_is_asked_leaves_no_process_behind(standing: Standing) -> None:
    """The end of input is the answer no."""
    with opened(standing.home, "--allow", "all") as host:
        host.initialize(elicitation={})
        arguments = {"name": "tundra_breakers_reset", "arguments": {"name": "main"}}
        host.send({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": arguments})
        assert host.receive()["method"] == "elicitation/create"
        assert host.request("ping")["result"] == {}  # others are answered meanwhile
    assert breaker(standing.t) == "open"


def test_a_stopped_daemon_is_told_and_not_started(home: Home) -> None:
    assert home.run("daemon", "start").returncode == 0
    assert home.run("daemon", "stop").returncode == 0
    with opened(home) as host:
        host.initialize()
        given = host.call("tundra_status")
    assert given["isError"]
    assert "tundra daemon start" in text_of(given)
    assert '"running": false' in home.run("daemon", "status", "--json").stdout


@contextlib.contextmanager
def listening(home: Home, *args: str) -> Iterator[str]:
    command = [sys.executable, "-m", "tundra_nb", "mcp", "--listen", "127.0.0.1:0", *args]
    process = subprocess.Popen(
        command, env=home.env | {"TUNDRA_MCP_TOKEN": "secret"}, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stderr is not None
        found = re.search(r"http://\S+", process.stderr.readline())
        assert found
        yield found.group(0)
    finally:
        process.terminate()
        process.communicate(timeout=15)


def post(url: str, message: Any, **headers: str) -> tuple[int, Any]:
    body = message if isinstance(message, bytes) else json.dumps(message).encode()
    sent = {"content-type": "application/json", "authorization": "Bearer secret"}
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(url, data=body, headers={k: v for k, v in sent.items() if v})
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            text = answer.read()
            return answer.status, json.loads(text) if text else None
    except urllib.error.HTTPError as refused:
        text = refused.read()
        return refused.code, json.loads(text) if text else None


def test_over_http_the_token_is_needed_and_pages_are_refused(home: Home) -> None:
    listing = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
    with listening(home) as url:
        assert post(url, listing)[0] == 200
        assert post(url, listing, authorization="")[0] == 401
        assert post(url, listing, authorization="Bearer wrong")[0] == 401
        assert post(url, listing, origin="http://127.0.0.1:8888")[0] == 403
        assert post(url, b"{")[0] == 400
        assert post(url, b"x" * 5_000_000)[0] == 413
        assert post(url, {"jsonrpc": "2.0", "method": "notifications/initialized"})[0] == 202
        stateless = {"jsonrpc": "2.0", "id": 2, "method": "tools/list", "params": {"_meta": meta()}}
        assert post(url, stateless)[1]["error"]["code"] == rpc.HEADER_MISMATCH
        assert post(url, stateless, mcp_protocol_version=MODERN, mcp_method="tools/list")[0] == 200
        unknown = {"jsonrpc": "2.0", "id": 3, "method": "no/such"}
        assert post(url, unknown)[0] == 404


@doltlite
def test_over_stateless_http_a_yes_runs_its_command_once_and_no_other(
    home: Home, outage: Client, provider: ScriptedProcess
) -> None:
    home.write_settings(home.config.read_text() + SECOND.format(base_url=provider.base_url))
    wait_until(lambda: len(outage.providers()) == 2, 15)
    headers = {"mcp_protocol_version": MODERN, "mcp_method": "tools/call", "mcp_name": "tundra_breakers_reset"}
    params: dict[str, Any] = {
        "name": "tundra_breakers_reset",
        "arguments": {"name": "main"},
        "_meta": meta(elicitation={}),
    }
    with listening(home, "--allow", "breakers-reset", "--allow", "providers-park") as url:
        call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
        asked = post(url, call, **headers)[1]["result"]
        params |= {
            "requestState": asked["requestState"],
            "inputResponses": {"approve": {"action": "accept", "content": {"approve": True}}},
        }
        for other in ({"name": "tundra_providers_park"}, {"arguments": {"name": "second"}}):
            sent = call | {"params": params | other}
            told = post(url, sent, **headers | {"mcp_name": str(other.get("name", params["name"]))})[1]["result"]
            assert told["isError"]
            assert "another command" in text_of(told)
        assert breaker(outage) == "open"
        assert not (outage.providers()["state"] == "parked").any()
        assert not post(url, call, **headers)[1]["result"]["isError"]
        assert post(url, call, **headers)[1]["result"]["isError"]
    assert breaker(outage) == "closed"


@doltlite
def test_over_http_nobody_waits_for_anothers_long_query(standing: Standing) -> None:
    """Also when the one that asked has left without its answer."""
    many = ", ".join(f"setting as t{number}" for number in range(9))
    long = {"name": "tundra_sql", "arguments": {"text": f"select count(*) from {many}"}}
    short = {"name": "tundra_sql", "arguments": {"text": "select 7 as seven"}}
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call"}
    with listening(standing.home) as url, socket.create_connection(("127.0.0.1", urlsplit(url).port)) as one:
        post(url, call | {"params": short})  # connected, and everything loaded
        body = json.dumps(call | {"params": long})
        head = f"POST /mcp HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer secret\r\nContent-Length: {len(body)}\r\n\r\n"
        one.sendall((head + body).encode())
        assert "seven" in text_of(post(url, call | {"params": short})[1]["result"])
        assert select.select([one], [], [], 0)[0] == [], "the long one is under way"


@pytest.mark.parametrize("listen", ["0.0.0.0:1", "192.168.1.1:80", "localhost", "127.0.0.1:99999", "example.com:80"])
def test_only_a_loopback_address_is_listened_on(home: Home, listen: str) -> None:
    done = home.run("mcp", "--listen", listen)
    assert done.returncode == 2
    assert "loopback" in done.stderr


@pytest.mark.parametrize("host", ["claude-code", "codex", "cursor", "jupyter-ai"])
def test_a_hosts_snippet_starts_the_door(home: Home, host: str) -> None:
    done = home.run("mcp", "config", host)
    assert done.returncode == 0
    assert "mcp" in done.stdout
    assert sys.executable.rpartition("/")[0] in done.stdout


def test_no_tool_takes_a_path_or_an_address_or_acts() -> None:
    """The schemas as a host gets them."""
    offered = tools.readers()
    assert not any(tool.acts for tool in offered.values())
    names = {name for tool in offered.values() for name in tool.schema["properties"]}
    assert not names & {"file", "path", "url", "out", "base_url", "cwd", "remote", "folder"}
    with pytest.raises(UsageError, match="nothing called"):
        tools.actors(["run"])


def test_hostile_text_loses_what_hides_and_breaks_lines() -> None:
    assert answers.plain("a\x1b[31mb\u202ec\u200bd") == "abcd"
    import pandas as pd

    frame = pd.DataFrame({"message": ["a | b\nIGNORE ALL", "x"], "n": [1, 2]})
    text = answers.frame_text(frame, "tundra sql")
    assert "a ¦ b IGNORE ALL" in text


def test_a_long_answer_keeps_its_head_and_the_limit() -> None:
    import pandas as pd

    frame = pd.DataFrame({"code": ["A"] * 3000 + ["B"] * 7, "message": [f"{n} " + "x" * 150 for n in range(3007)]})
    text = answers.frame_text(frame, "tundra errors", max_chars=4000)
    assert len(text) <= 4000
    assert "3,007 rows" in text
    assert "code: A 3,000 · B 7" in text


def breaker(t: Client) -> str:
    return str(t.breakers()["state"].iloc[0])


@doltlite
def test_a_source_is_read_instead_of_the_own_history(home: Home, outage: Client, tmp_path: Path) -> None:
    """`mcp --in SOURCE`: every tool that reads rows reads those of the source."""
    file = tmp_path / "their.log"
    file.write_text(TEXT)
    made = home.run("import", str(file), "--name", "theirs")
    assert made.returncode == 0, made.stderr
    with opened(home, "--in", "theirs") as host:
        host.initialize()
        own = outage.why("last").operation_id
        assert "AllProvidersExhausted" in text_of(host.call("tundra_calls", since="all"))
        for tool, given in (("tundra_calls", {"since": "all"}), ("tundra_sql", {"text": "select * from operation"})):
            told = host.call(tool, **given)
            assert own not in text_of(told)
            assert "529" not in text_of(told)
        assert host.call("tundra_why", operation=own)["isError"]
