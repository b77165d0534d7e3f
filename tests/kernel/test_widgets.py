"""Widgets without a browser: their messages, their thread, and what they leave in the notebook."""

from __future__ import annotations

import importlib.resources
import json
import re
import threading
import time
from typing import Any

import pytest

from tundra_nb.errors import IpcError
from tundra_nb.kernel.widgets import WIDGETS, messages
from tundra_nb.kernel.widgets.live import Latest, Watch
from tundra_nb.views import html, text
from tundra_nb.views import providers as view

from .conftest import Notebook

EVIL = "<script>alert(1)</script>\x1b[2J"
STATUS: dict[str, Any] = {
    "profiles": [
        {"profile": "first", "kind": "openai", "model": EVIL, "state": "cooling", "cooling_s": 4.04,
         "cooling_until": "2020-01-02T03:04:05.678Z", "reason": EVIL},
        {"profile": "second", "kind": "local", "model": None, "state": "ready"},
    ],
    "breakers": [{"profile": "first", "state": "open", "open_for_s": 12.34, "probe_at": "2020-01-02T03:04:15Z",
                  "failures": 5}],
    "limits": [
        {"owner": "tundra", "tier": "global", "limit_key": "global", "resource": "requests", "limit": 100.0,
         "remaining": 99.96, "per_second": 50.0, "waiting": 2, "penalised_for_s": 0.0},
        {"owner": "tundra", "tier": "user", "limit_key": "jo", "resource": "requests", "limit": 50.0, "remaining": 1.0},
        {"owner": "tundra", "tier": "profile", "limit_key": "first", "resource": "tokens", "limit": 1000.0,
         "remaining": 250.0, "per_second": 16.7, "waiting": 0, "penalised_for_s": 3.0},
        {"owner": "provider", "tier": "profile", "limit_key": "first", "resource": "requests", "limit": 60.0,
         "remaining": 0.0, "reset_after_s": 30.0, "told_s_ago": 1.0},
    ],
}  # fmt: skip


def test_a_status_becomes_a_message_with_our_buckets_beside_the_providers_own() -> None:
    told = messages.providers(STATUS)
    first, second = told.profiles
    assert (first.breaker, first.probe_s, first.failures, first.cooling_s) == ("open", 12.3, 5, 4.0)
    assert first.ours == [
        messages.ShownBucket(resource="tokens", remaining=250.0, limit=1000.0, per_second=16.7, penalised_s=3.0)
    ]
    assert first.theirs == [messages.ShownBucket(resource="requests", remaining=0.0, limit=60.0, reset_s=30.0)]
    assert (second.breaker, second.model, second.ours, second.theirs) == ("closed", "", [], [])
    assert [(tier.name, tier.buckets[0].remaining) for tier in told.shared] == [("global", 100.0), ("user jo", 1.0)]
    assert messages.providers({}) == messages.Providers(profiles=[], shared=[])


def test_the_static_picture_tells_the_same_and_escapes_what_comes_from_outside() -> None:
    blocks = view.blocks(STATUS, "12:00:00 UTC", "the daemon is gone")
    fragment = html.render(blocks)
    for told in ("12:00:00 UTC", "the daemon is gone", "cooling until 2020-01-02 ", "open, probe at 2020-01-02 ",
                 ", 5 failures",
                 "▰▰▱▱▱▱▱▱ tokens 250 of 1,000", "▱▱▱▱▱▱▱▱ requests 0 of 60, full in 30 s", "user jo"):  # fmt: skip
        assert told in fragment
    assert "user jo" in text.plain(blocks)
    assert "<script" not in fragment
    assert "\x1b" not in fragment


def test_script_and_style_of_each_widget_are_shipped_and_load_nothing() -> None:
    folder = importlib.resources.files("tundra_nb.kernel.widgets")
    for name in ("shared", "terminal", *(module for module, _ in WIDGETS.values())):
        for kind in ("js", "css"):
            told = (folder / f"{name}.{kind}").read_text()
            for word in ("http:", "https:", "@import", "import(", "innerHTML", "eval("):
                assert word not in told, (name, kind, word)


def test_a_watch_looks_again_after_a_failure_and_ends_when_closed() -> None:
    looks = threading.Semaphore(0)
    fail = [ValueError("once")]

    def look() -> None:
        looks.release()
        if fail:
            raise fail.pop()

    watch = Watch(look, 0.001, "test-watch")
    watch.close()
    watch.start()
    watch.start()
    assert looks.acquire(timeout=5)
    assert looks.acquire(timeout=5)
    assert [thread.name for thread in threading.enumerate()].count("test-watch") == 1
    watch.close()
    watch.close()
    assert not watch.is_running
    assert "test-watch" not in [thread.name for thread in threading.enumerate()]
    watch.start()
    assert looks.acquire(timeout=5)
    watch.close()


def test_of_what_is_asked_for_meanwhile_only_the_latest_is_done_and_no_thread_is_left() -> None:
    begun, go, done = threading.Event(), threading.Event(), threading.Event()
    order: list[str] = []

    def first() -> None:
        begun.set()
        assert go.wait(5)
        order.append("first")
        raise ValueError("logged")

    def last() -> None:
        order.append("last")
        done.set()

    latest = Latest("test-latest")
    latest.close()
    latest.ask(first)
    assert begun.wait(5)
    latest.ask(lambda: order.append("stale"))
    latest.ask(last)
    go.set()
    assert done.wait(5)
    latest.close()
    assert order == ["first", "last"]
    assert "test-latest" not in [thread.name for thread in threading.enumerate()]

    begun.clear()
    go.clear()
    latest.ask(first)
    assert begun.wait(5)
    latest.ask(lambda: order.append("forgotten"))
    threading.Timer(0.05, go.set).start()
    latest.close()
    assert order == ["first", "last", "first"]


def test_a_widget_is_a_static_picture_and_a_live_view_whose_thread_ends_with_it(notebook: Notebook) -> None:
    notebook.run("%tundra status")  # a slow start of the daemon is told, too
    ran = notebook.run("%tundra providers --widget --as w")
    assert ran.error is None, ran.traceback
    assert ran.outputs == []
    shown = notebook.run("w")
    assert shown.error is None, shown.traceback
    still, live = shown.outputs
    assert "scripted" in still["data"]["text/html"]
    assert notebook.value("w.still") in still["data"]["text/html"]
    assert live["data"]["application/vnd.jupyter.widget-view+json"]["model_id"] == notebook.value("w.model_id")
    state = json.loads(notebook.value("__import__('json').dumps(w.state)"))
    assert [profile["name"] for profile in state["profiles"]] == ["scripted"]
    threads = "[t.name for t in __import__('threading').enumerate()].count('tundra-provider-widget')"
    assert notebook.value(threads) == "1"
    assert notebook.value("w.close()") == "None"
    assert notebook.value(threads) == "0"


def test_a_terminals_picture_says_of_when_it_is_and_that_the_daemon_has_gone(notebook: Notebook) -> None:
    """A notebook that is saved then shows the last screen, without an error of its own."""
    ran = notebook.run("%tundra pty open --widget --as w echo on the screen; cat")
    assert ran.error is None, ran.traceback
    assert notebook.run("w.look()").error is None
    picture = "w._picture()[0]"
    deadline = time.monotonic() + 20
    while "on the screen" not in notebook.value(f"(w.look(), {picture})"):
        assert time.monotonic() < deadline
    assert "cat · running · " in notebook.value(picture)
    assert notebook.run("%tundra daemon stop --force").error is None
    shown = notebook.value(f"(w.look(), {picture})")
    assert "on the screen" in shown
    assert "tundra daemon start" in shown
    assert notebook.value("w.close()") == "None"
    assert notebook.run("%tundra daemon start").error is None


def test_the_gateways_widget_lists_callers_and_its_thread_ends_with_it(notebook: Notebook) -> None:
    ran = notebook.run("%tundra gateway --widget --as g\ng")
    assert ran.error is None, ran.traceback
    still, _ = (told for told in ran.outputs if "data" in told)  # a slow start is told in lines before
    assert "does not listen" in still["data"]["text/html"]
    assert notebook.run("%tundra gateway start --port 0").error is None
    code = """
import json, urllib.request
told = %tundra token new agent
call = urllib.request.Request(told["urls"]["openai"] + "/chat/completions", headers={
    "x-api-key": told["token"], "content-type": "application/json", "user-agent": "<script>alert(1)</script>"},
    data=json.dumps({"model": "auto", "messages": [{"role": "user", "content": "hi"}], "store": False}).encode())
assert urllib.request.urlopen(call).status == 200
g.look()
"""
    ran = notebook.run(code)
    assert ran.error is None, ran.traceback
    state = json.loads(notebook.value("json.dumps(g.state)"))
    assert state["url"].endswith("/v1")
    ((who, client, form, calls, *_),) = state["callers"]
    assert (who, client, form, calls) == ("token agent", "<script>alert(1)</script>", "openai-chat", "1")
    fragment = json.loads(notebook.value("json.dumps(g._picture())"))[0]
    assert "&lt;script&gt;" in fragment
    assert "<script" not in fragment
    story = notebook.run("%tundra why last").text
    for words in ("agent", "openai-chat", "relayed: the body as it came"):
        assert words in story
    threads = "[t.name for t in __import__('threading').enumerate()].count('tundra-gateway-widget')"
    assert notebook.value(threads) == "1"
    assert notebook.value("g.close()") == "None"
    assert notebook.value(threads) == "0"
    notebook.run("%tundra gateway stop")


def test_a_widget_tells_that_the_daemon_is_gone_and_starts_none(home: Any) -> None:
    from tundra_nb.client.sync import Client
    from tundra_nb.kernel.widgets.providers import ProviderWidget

    home.write_settings("")
    client = Client()
    widget = ProviderWidget(client)
    try:
        widget.look()
        assert "tundra daemon start" in widget.state["problem"]
        with pytest.raises(IpcError):
            Client(link=client.link.quiet()).status()
    finally:
        widget.close()
        client.close()
    assert home.daemon_processes() == []


def test_widgets_need_a_notebook(home: Any) -> None:
    for command in (
        ["providers", "--widget"],
        ["gateway", "--widget"],
        ["versions", "--widget"],
        ["diff", "HEAD", "--widget"],
    ):
        done = home.run(*command)
        assert done.returncode == 2
        assert "needs a notebook" in done.stderr


class TestVersions:
    """The versions widget, in a real kernel over a real history."""

    PICK = "w._heard(None, dict(type='asked', id='x', a={a}, b={b}, table='', at='', limit={limit}), [])"

    @pytest.fixture
    def picked(self, notebook: Notebook) -> Notebook:
        ran = notebook.run(
            "from tundra_nb import connect\n"
            "t = connect()\n"
            f"good = t.versions.commit({EVIL!r})\n"
            "t.set_setting('deadlines.total_seconds', 7, reason='fail faster')\n"
            "t.set_setting('deadlines.total_seconds', 8, reason='not so fast')\n"
            "%tundra diff {{good}} --widget --as w"
        )
        assert ran.error is None, ran.traceback
        return notebook

    def state(self, notebook: Notebook) -> dict[str, Any]:
        told: dict[str, Any] = json.loads(notebook.value("__import__('json').dumps(w.state)"))
        return told

    def pick(self, notebook: Notebook, a: str, b: str, limit: int = 30) -> dict[str, Any]:
        """What the widget tells when this is picked."""
        ran = notebook.run(
            f"{self.PICK.format(a=a, b=b, limit=limit)}\nimport time\nwhile w.state['is_busy']:\n    time.sleep(0.01)"
        )
        assert ran.error is None, ran.traceback
        return self.state(notebook)

    def test_it_lists_the_commits_and_tells_what_differs(self, picked: Notebook) -> None:
        shown = picked.run("w")
        assert shown.error is None, shown.traceback
        still, live = shown.outputs
        assert "application/vnd.jupyter.widget-view+json" in live["data"]
        assert "value 600.0 → 8.0 · not so fast" in still["data"]["text/html"]
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in still["data"]["text/html"]
        assert "<script" not in still["data"]["text/html"]
        state = self.state(picked)
        good = picked.value("good")
        assert state["commits"][0]["names"] == ["main"]
        assert state["commits"][2]["commit"] == good
        assert (state["a"]["commit"], state["b"]["commit"]) == (good, state["commits"][0]["commit"])
        assert state["tables"] == [{"table": "setting", "added": 0, "removed": 0, "modified": 1}]
        assert state["rows"][0][0] == ["~", "warn"]
        assert state["command"] == f"%tundra diff {good} {state['commits'][0]['commit']} setting"
        frame = picked.run(state["command"])
        assert "600.0 → 8.0" in frame.text

    def test_what_is_picked_is_answered_and_an_error_ends_with_the_next_choice(self, picked: Notebook) -> None:
        same = self.pick(picked, "good", "good")
        assert (same["tables"], same["problem"]) == ([], "")
        lost = self.pick(picked, "'0123abcdef'", "good")
        assert lost["problem"].startswith("no commit, branch, tag or time '0123abcdef'")
        assert lost["command"] == ""
        now = self.pick(picked, "'HEAD~1'", "'now'", limit=2)
        assert now["problem"] == ""
        assert now["rows"][0][2][0].startswith("value 7.0 → 8.0")
        assert (len(now["commits"]), now["has_older"]) == (2, True)
        assert now["command"].endswith(" now setting")
        threads = "[t.name for t in __import__('threading').enumerate()].count('tundra-versions-widget')"
        assert picked.value("w.close()") == "None"
        assert picked.value(threads) == "0"

    def test_of_many_rows_the_first_are_fetched_and_the_others_counted(self, picked: Notebook) -> None:
        ran = picked.run(
            "from tundra_nb.kernel.widgets import versions\n"
            "versions.MAX_ROWS = 2\n"
            "before = t.versions.commit('before the notes')\n"
            "for n in range(5): t.note(f'note {n}')\n"
            "after = t.versions.commit('after the notes')\n"
            "cut, whole = (t.versions.diff(before, after, 'note', limit=n) for n in (2, 5))"
        )
        assert ran.error is None, ran.traceback
        state = self.pick(picked, "before", "after")
        assert state["tables"] == [{"table": "note", "added": 5, "removed": 0, "modified": 0}]
        assert ([row[0][0] for row in state["rows"]], state["more"]) == (["+", "+"], 3)
        assert picked.value("len(cut), cut.attrs['truncated']") == "2 True"
        assert picked.value("len(whole), whole.attrs['truncated']") == "5 False"
        assert picked.value("w.close()") == "None"

    def test_it_tells_that_the_daemon_is_gone_and_starts_none(self, home: Any) -> None:
        from tundra_nb.client.sync import Client
        from tundra_nb.kernel.widgets.versions import VersionsWidget

        home.write_settings("")
        client = Client()
        widget = VersionsWidget(client)
        try:
            widget.look()
            assert "tundra daemon start" in widget.state["problem"]
            assert widget.state["is_busy"] is False
        finally:
            widget.close()
            client.close()
        assert home.daemon_processes() == []


def test_the_style_of_one_view_does_not_reach_into_another() -> None:
    """All sheets lie in one page: with a dashboard in it, messages of `versions --widget` no longer wrapped."""
    folder = importlib.resources.files("tundra_nb.kernel.widgets")
    sheets = {file.name[:-4]: file.read_text() for file in folder.iterdir() if file.name.endswith(".css")}
    scripts = {file.name[:-3]: file.read_text() for file in folder.iterdir() if file.name.endswith(".js")}
    told = {"tundra-stale"}  # of two views, which say the same of it
    leaks = []
    for view_, sheet in sheets.items():
        if view_ == "shared":
            continue
        for selectors in re.findall(r"([^{}@;]+)\{", re.sub(r"/\*.*?\*/", "", sheet, flags=re.DOTALL)):
            for selector in re.split(r",(?![^(]*\))", selectors):
                classes = set(re.findall(r"\.(tundra-[\w-]+)", selector)) - told
                if not classes or f"tundra-{view_}" in classes:
                    continue
                leaks += [
                    f"{view_}.css: {selector.strip()} → {name}.js"
                    for name, script in scripts.items()
                    if not name.startswith((view_, "shared", "loader"))
                    and all(re.search(rf"{one}(?![\w-])", script) for one in classes)
                ]
    assert {"dash", "versions", "providers", "gateway"} <= set(sheets)
    assert leaks == []
