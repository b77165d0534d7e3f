"""Uses the whole public face, and says which type each part has. Never run: type checkers read it."""

from __future__ import annotations

from typing import assert_type

import pandas as pd

import tundra_nb
from tundra_nb import AsyncClient, Client, Document, Last, Matched, Merged, Pty, Reply, ReplyStream, Run, Screen, Why


def blocking() -> None:
    with tundra_nb.connect() as t:
        assert_type(t, Client)
        assert_type(t.ask("hi"), Reply)
        assert_type(t.ask("hi", stream=True), ReplyStream)
        for piece in t.ask([{"role": "user", "content": "hi"}], stream=True, profile="p", temperature=0.5):
            assert_type(piece, str)
        assert_type(t.ask("hi").text, str)
        assert_type(t.ask("hi").cost_usd, float | None)
        assert_type(t.ask("hi").usage.input_tokens, int | None)
        assert_type(t.status(brief=True), tundra_nb.Status)
        assert_type(t.why("last"), Why)
        assert_type(t.last(), Last)
        assert_type(t.why().steps, list[tundra_nb.Step])
        assert_type(t.calls(since="1h", by="profile,hour"), pd.DataFrame)
        assert_type(t.errors(between=("10:00", "11:00"), severity="high"), pd.DataFrame)
        assert_type(t.sql("select 1", at="HEAD~1", limit=5), pd.DataFrame)
        assert_type(t.providers(), pd.DataFrame)
        assert_type(t.reset_breaker("p"), Document)
        assert_type(t.run("true", timeout=5), Run)
        assert_type(t.run("true").exit_code, int | None)
        assert_type(t.sh("cd /", program="zsh"), tundra_nb.ShellRun)
        terminal = t.ptys.open("python3 -i", rows=24, with_keys=["A_KEY"])
        assert_type(terminal, Pty)
        assert_type(t.ptys(), pd.DataFrame)
        assert_type(t.ptys["1"].text, str)
        assert_type(terminal.screen, Screen)
        assert_type(terminal.expect(["a", "b"], timeout=1), Matched)
        assert_type(t.versions.commit("before the change"), str)
        assert_type(t.versions.diff("a", "b", "error_event"), pd.DataFrame)
        assert_type(t.versions.merge("b", resolve="ours"), Merged)
        assert_type(t.versions.merge("b").conflicts, pd.DataFrame)


async def awaited() -> None:
    async with tundra_nb.connect_async() as t:
        assert_type(t, AsyncClient)
        assert_type(await t.ask("hi"), Reply)
        async for piece in t.ask("hi", stream=True):
            assert_type(piece, str)
        assert_type(await t.calls(since="1h"), pd.DataFrame)
        assert_type(await t.run("true"), Run)
        assert_type(await t.run("true", timeout=5, with_keys=["A_KEY"]), Run)
        assert_type(await t.sh("cd /", program="zsh", fresh=True), tundra_nb.ShellRun)
        assert_type(await t.simulate(since="1h", settings=["breaker.failures=3"]), pd.DataFrame)
        assert_type(await t.replay("last", speed=2.0), pd.DataFrame)
        assert_type(await t.versions.tag("y", at="HEAD"), Document)
        terminal = await t.ptys.open("cat")
        assert_type(terminal, tundra_nb.AsyncPty)
        assert_type(await terminal.expect("x"), Matched)


def failing(t: Client) -> str | None:
    try:
        t.ask("hi")
    except tundra_nb.errors.RateLimited as error:
        assert_type(error.retry_after, float | None)
        return error.hint
    except tundra_nb.TundraError as error:
        return error.code
    return None
