"""The blocking client against a scripted daemon."""

from __future__ import annotations

import inspect
import threading

import pytest
from starlette.responses import Response

from tundra_nb import errors
from tundra_nb.client.aio import AsyncClient
from tundra_nb.client.aio_ptys import AsyncPty, AsyncPtys
from tundra_nb.client.link import Link
from tundra_nb.client.owner import owner_name
from tundra_nb.client.ptys import Pty, Ptys
from tundra_nb.client.sync import Client
from tundra_nb.client.versions import AsyncVersions, Versions
from tundra_nb.types.pieces import Reasoning, Text, ToolCallPiece

from .conftest import REPLY, ScriptedDaemon, arrow_stream, sse, wait_for


def test_both_clients_have_the_same_methods() -> None:
    def public(cls: type) -> set[str]:
        return {name for name in vars(cls) if not name.startswith("_")}

    assert public(Client) - {"close", "attach", "agent_run", "link"} == public(AsyncClient) - {"aclose", "link"}
    assert public(Versions) == public(AsyncVersions)
    assert public(Ptys) - {"start", "start_cell"} == public(AsyncPtys)
    assert public(Pty) == public(AsyncPty)


def test_methods_keep_the_signature_and_help_of_the_table(client: Client) -> None:
    assert list(inspect.signature(client.calls).parameters)[:3] == ["since", "between", "code"]
    assert "one row each" in (client.calls.__doc__ or "")


def test_a_reply_is_typed_and_prints_as_its_text(client: Client, daemon: ScriptedDaemon) -> None:
    daemon.script["/api/operations"] = REPLY
    reply = client.ask("count", model="tiny", system="be brief")
    assert str(reply) == "one two three"
    assert (reply.profile, reply.usage.input_tokens, reply.attempts) == ("local", 5, 2)
    sent = daemon.seen[-1][2]
    assert sent["messages"] == [{"role": "system", "content": "be brief"}, {"role": "user", "content": "count"}]
    assert sent["model"] == "tiny"


def test_a_stream_gives_pieces_notices_and_then_the_reply(client: Client, daemon: ScriptedDaemon) -> None:
    daemon.script["/api/operations"] = daemon.stream(
        b": waiting\n\n",
        sse("notice", {"kind": "failover", "message": "first failed", "profile": "local"}),
        sse("text", {"text": "one "}),
        sse("text", {"text": "two"}),
        sse("reply", REPLY),
    )
    told: list[str] = []
    stream = client.ask("count", stream=True)
    stream.on_notice = lambda notice: told.append(notice["kind"])
    with pytest.raises(AttributeError, match="once the stream has been read"):
        stream.reply  # noqa: B018 - the property raises
    assert list(stream) == ["one ", "two"]
    assert stream.reply.operation_id == "123456789"
    assert told == ["failover"]


def test_a_stream_gives_reasoning_and_tool_calls_to_who_asks_for_all_pieces(
    client: Client, daemon: ScriptedDaemon
) -> None:
    daemon.script["/api/operations"] = daemon.stream(
        sse("reasoning", {"text": "let me see"}),
        sse("text", {"text": "one"}),
        sse("tool_call", {"index": 0, "id": "c1", "name": "f"}),
        sse("tool_call", {"index": 0, "arguments": "{}"}),
        sse("reply", REPLY),
    )
    assert list(client.ask("count", stream=True)) == ["one"]
    stream = client.ask("count", stream=True)
    assert list(stream.pieces()) == [
        Reasoning("let me see"),
        Text("one"),
        ToolCallPiece(0, "c1", "f"),
        ToolCallPiece(0, arguments="{}"),
    ]
    assert stream.reply.text == "one two three"


def test_closing_a_stream_cancels_the_call_in_the_daemon(client: Client, daemon: ScriptedDaemon) -> None:
    daemon.script["/api/operations"] = daemon.stream(sse("text", {"text": "one"}), then="hang")
    stream = client.ask("count", stream=True)
    assert next(stream) == "one"
    stream.close()
    assert daemon.cancelled.wait(5)


def test_an_error_in_a_stream_is_raised_as_its_own_class(client: Client, daemon: ScriptedDaemon) -> None:
    error = errors.RateLimited(profile="p", retry_after=7.0)
    daemon.script["/api/operations"] = daemon.stream(sse("text", {"text": "a"}), sse("error", error.to_wire()))
    stream = client.ask("x", stream=True)
    assert next(stream) == "a"
    with pytest.raises(errors.RateLimited) as caught:
        next(stream)
    assert caught.value.retry_after == 7.0


@pytest.mark.parametrize("then", ["break", "end"])
def test_a_stream_that_breaks_off_is_an_ipc_error(client: Client, daemon: ScriptedDaemon, then: str) -> None:
    daemon.script["/api/operations"] = daemon.stream(sse("text", {"text": "a"}), then=then)
    with pytest.raises(errors.IpcError, match="went away in the middle") as caught:
        list(client.ask("x", stream=True))
    assert caught.value.kind == "died"


def test_an_error_answer_is_raised_as_its_own_class(client: Client, daemon: ScriptedDaemon) -> None:
    daemon.script["/api/operations"] = errors.AllProvidersExhausted(
        causes=[errors.BreakerOpen(profile="p", retry_after=3.0).to_wire()]
    )
    with pytest.raises(errors.AllProvidersExhausted, match="breaker open"):
        client.ask("x")


def test_an_unreadable_answer_is_an_ipc_error_with_a_remedy(client: Client, daemon: ScriptedDaemon) -> None:
    from starlette.responses import HTMLResponse

    daemon.script["/api/status"] = HTMLResponse("<html>")
    with pytest.raises(errors.IpcError, match="cannot be read") as caught:
        client.status()
    assert "restart" in caught.value.hint


@pytest.mark.parametrize("prompt", ["", "  \n", [], [{"content": "no role"}], ["text"], 7, None])
def test_a_prompt_of_the_wrong_shape_is_refused_before_sending(
    client: Client, daemon: ScriptedDaemon, prompt: object
) -> None:
    with pytest.raises(errors.UsageError):
        client.ask(prompt)  # type: ignore[call-overload]
    assert daemon.seen == []


def test_a_temperature_that_json_cannot_say_is_refused(client: Client) -> None:
    with pytest.raises(errors.UsageError, match="temperature"):
        client.ask("x", temperature=float("nan"))


def test_connections_are_kept_one_per_thread(client: Client, daemon: ScriptedDaemon) -> None:
    daemon.script["/api/status"] = {"pid": 1}
    client.status()
    first = client._pool._local.wire
    client.status()
    assert client._pool._local.wire is first
    found: list[object] = []

    def other() -> None:
        client.status()
        found.append(client._pool._local.wire)

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert found[0] is not first


def test_a_daemon_that_came_back_is_used_without_a_word(client: Client, daemon: ScriptedDaemon) -> None:
    daemon.script["/api/status"] = {"pid": 1}
    client.status()
    daemon.stop()
    daemon.start()
    daemon.script["/api/status"] = {"pid": 2}
    assert client.status().pid == 2


def test_a_daemon_that_is_gone_is_an_ipc_error(client: Client, daemon: ScriptedDaemon) -> None:
    daemon.stop()
    with pytest.raises(errors.IpcError) as caught:
        client.status()
    assert "tundra daemon start" in caught.value.hint


def test_attaching_holds_the_event_stream_until_the_last_client_closes(link: Link, daemon: ScriptedDaemon) -> None:
    daemon.script["/api/events"] = daemon.stream(sse("hello", {"pid": 1}), then="hang")
    first, second = Client(link=link), Client(link=link)
    first.attach("kernel")
    second.attach("kernel")
    assert first._attachment is not None
    assert first._attachment is second._attachment
    assert first._attachment.is_attached.wait(5)
    first.close()
    assert not daemon.cancelled.is_set()
    second.close()
    assert daemon.cancelled.wait(5)
    target = f"/api/events?attach=kernel&owner={owner_name(first.caller)}&kinds=none"
    assert [seen for _, seen, _ in daemon.seen] == [target]


def test_attaching_reconnects_by_itself(link: Link, daemon: ScriptedDaemon) -> None:
    daemon.script["/api/events"] = daemon.stream(sse("hello", {"pid": 1}))
    with Client(link=link) as client:
        client.attach("kernel")
        wait_for(lambda: len(daemon.seen) >= 2)


def test_calls_is_a_frame_with_provenance(client: Client, daemon: ScriptedDaemon) -> None:

    rows = [{"operation_id": 2**60 + 1, "at": 1_700_000_000_000_000, "kind": "chat", "outcome": "ok", "attempts": 1}]
    daemon.script["/api/history/calls"] = Response(
        arrow_stream("operation", rows),
        media_type="application/vnd.apache.arrow.stream",
        headers={"X-Tundra-Meta": '{"store": "doltlite", "commit": "abc"}'},
    )
    frame = client.calls(since="1h", profile="a b")
    assert frame["operation_id"].iloc[0] == 2**60 + 1
    assert (frame.attrs["store"], frame.attrs["commit"], frame.attrs["truncated"]) == ("doltlite", "abc", False)
    assert "profile.eq=a b" in frame.attrs["query"]
    assert daemon.seen[-1][1].endswith("&profile.eq=a+b")


def test_a_limit_keeps_the_newest_rows_and_says_that_it_cut(client: Client, daemon: ScriptedDaemon) -> None:

    newest_first = [{"operation_id": i, "at": i, "kind": "chat", "outcome": "ok"} for i in (9, 8, 7)]
    daemon.script["/api/history/calls"] = Response(arrow_stream("operation", newest_first))
    frame = client.calls(since="all", limit=2)
    assert list(frame["operation_id"]) == [8, 9]
    assert frame.attrs["truncated"] is True
    assert "limit=3" in daemon.seen[-1][1]
    assert "newest=true" in daemon.seen[-1][1]


@pytest.mark.parametrize("limit", [0, -1, 10**20 - 1])
def test_a_limit_that_is_no_number_of_rows_is_refused_as_it_was_given(client: Client, limit: int) -> None:
    with pytest.raises(errors.UsageError, match=f"limit {limit} is"):
        client.calls(limit=limit)


def test_since_and_between_exclude_each_other(client: Client) -> None:
    with pytest.raises(errors.UsageError, match="exclude"):
        client.calls(since="1h", between=("2h", "1h"))
    with pytest.raises(errors.UsageError, match="not after"):
        client.calls(between=("1h", "2h"))


def test_a_command_runs_to_its_end_with_its_output(client: Client, daemon: ScriptedDaemon) -> None:
    daemon.script["/api/ptys"] = {"pty_id": "7"}
    end = {"pty_id": "7", "exit_code": 3, "exit_signal": None, "seconds": 0.5}
    daemon.script["/api/ptys/7/transcript"] = daemon.stream(
        sse("output", {"seq": 0, "text": "hel"}), sse("output", {"seq": 3, "text": "lo"}), sse("exit", end)
    )
    seen: list[str] = []
    run = client.run("echo hello", on_output=seen.append)
    assert (run.exit_code, run.text, run.seconds, run.pty_id) == (3, "hello", 0.5, "7")
    assert "".join(seen) == "hello"


def test_a_command_that_takes_too_long_is_a_timeout(client: Client, daemon: ScriptedDaemon) -> None:
    daemon.script["/api/ptys"] = {"pty_id": "7"}
    daemon.script["/api/ptys/7"] = {}
    end = {"pty_id": "7", "exit_code": None, "seconds": 2.0, "timed_out": True}
    daemon.script["/api/ptys/7/transcript"] = daemon.stream(sse("exit", end))
    with pytest.raises(errors.Timeout, match="2 s"):
        client.run("sleep 9", timeout=2.0)


def test_version_calls_speak_the_daemons_routes(client: Client, daemon: ScriptedDaemon) -> None:
    daemon.script["/api/commits"] = {"commit": "abc"}
    daemon.script["/api/tags"] = {"rows": [{"name": "v1", "commit": "abc"}]}
    assert client.versions.commit("before") == "abc"
    frame = client.versions.tags()
    assert (list(frame["name"]), list(frame["commit"])) == (["v1"], ["abc"])
    assert daemon.seen[-1][1] == "/api/tags"
