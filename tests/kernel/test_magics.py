"""The magics in a real kernel, against a real daemon and a scripted provider."""

from __future__ import annotations

import ast
import json
import re
import time
from pathlib import Path
from typing import Any

import pytest

from tundra_nb.testing.scripted_provider import ScriptedStep

from .conftest import Notebook, Ran

CHAT = "/v1/chat/completions"


def shown(ran: Ran) -> list[dict[str, Any]]:
    """What a cell displays, without the lines that tell of a daemon that is slow to start."""
    return [output for output in ran.outputs if "data" in output]


def test_status_is_a_card_in_text_and_html(notebook: Notebook) -> None:
    ran = notebook.run("%tundra")
    assert ran.error is None, ran.traceback
    assert "tundra is ready: 1 profile" in ran.text
    assert "scripted" in ran.html
    assert "<script" not in ran.html


def test_an_answer_grows_in_one_output_and_is_bound_when_assigned(notebook: Notebook) -> None:
    notebook.run("%tundra")  # a daemon that only starts now would be waited for in words
    notebook.provider.script(CHAT, ScriptedStep(text="one two three four", gap=0.4))
    ran = notebook.run("reply = %tundra ask What's up, {{1 + 1}}?")
    assert ran.error is None, ran.traceback
    assert len(shown(ran)) == 1
    assert ran.updates >= 2
    assert ran.text.startswith("one two three four")
    assert "scripted · " in ran.text
    assert notebook.value("reply") == "one two three four"
    assert ran.metadata["tundra"]["operation_id"] == notebook.value("reply.operation_id")
    assert notebook.provider.requests[-1].json["messages"][-1]["content"] == "What's up, 2?"


def test_an_answer_that_is_the_cells_value_is_shown_once(notebook: Notebook) -> None:
    notebook.provider.script(CHAT, ScriptedStep(text="only once"))
    ran = notebook.run("%tundra ask hi")
    assert ran.text.count("only once") == 1
    assert len(shown(ran)) == 1
    again = notebook.run("_")
    assert "only once" in again.text


def test_a_cell_magic_takes_the_cell_and_binds_a_name(notebook: Notebook) -> None:
    notebook.provider.script(CHAT, ScriptedStep(text="bound"))
    ran = notebook.run('%%tundra ask --as named --max-tokens 5\nCount {"a": {"b": 1}}\nplease')
    assert ran.error is None, ran.traceback
    assert notebook.value("named.text") == "bound"
    sent = notebook.provider.requests[-1].json
    assert sent["messages"][-1]["content"] == 'Count {"a": {"b": 1}}\nplease'
    assert 5 in (sent.get("max_tokens"), sent.get("max_completion_tokens"))


def test_markdown_of_an_answer_loads_nothing_and_runs_nothing(notebook: Notebook) -> None:
    text = "**bold** <script>alert(1)</script> ![x](http://evil/x.png) [j](javascript:alert(1)) \x1b[2J"
    notebook.provider.script(CHAT, ScriptedStep(text=text))
    ran = notebook.run("%tundra ask hi")
    assert "<strong>bold</strong>" in ran.html
    assert "<script" not in ran.html
    assert "<img" not in ran.html
    assert 'href="javascript' not in ran.html
    assert "\x1b" not in ran.text


def test_history_magics_give_real_dataframes_with_provenance(notebook: Notebook) -> None:
    notebook.run("%tundra ask hi")
    ran = notebook.run(
        "frame = %tundra calls --since 1h\nprint(type(frame).__name__, len(frame) > 0, frame.attrs['store'])"
    )
    assert ran.error is None, ran.traceback
    assert ran.stdout.split() == ["DataFrame", "True", "doltlite"]
    shown = notebook.run("%tundra attempts --limit 1")
    assert shown.metadata["tundra"]["store"] == "doltlite"
    assert "1 row" in shown.html
    assert notebook.run("import pandas; pandas.DataFrame({'a': [1]})").metadata == {}


def test_you_read_what_you_wrote(notebook: Notebook) -> None:
    notebook.run("r = %tundra ask hi")
    assert (
        notebook.value("int(r.operation_id) in set(get_ipython().run_line_magic('tundra', 'calls')['operation_id'])")
        == "True"
    )


def test_calls_are_grouped(notebook: Notebook) -> None:
    notebook.run("%tundra ask hi")
    ran = notebook.run("g = %tundra calls --by profile,hour\nprint(list(g.columns))")
    assert ast.literal_eval(ran.stdout)[:5] == ["profile", "hour", "count", "errors", "error_rate"]


def test_sql_in_a_cell_is_bound_and_json_is_printed(notebook: Notebook) -> None:
    ran = notebook.run("%%tundra sql --as rows\nselect count(*) as n\nfrom operation")
    assert ran.error is None, ran.traceback
    assert ran.outputs == []
    assert int(notebook.value("rows['n'].iloc[0]")) > 0
    printed = notebook.run("%tundra sql --json select 'it''s' as word")
    assert json.loads(printed.stdout) == [{"word": "it's"}]


def test_a_failing_call_is_one_line_the_hint_and_the_guide(notebook: Notebook) -> None:
    notebook.provider.script(CHAT, ScriptedStep(status=529, text="overloaded"))
    ran = notebook.run("%tundra ask hi")
    lines = ran.traceback.splitlines()
    assert lines[0].startswith("AllProvidersExhausted: ")
    assert len(lines) <= 4
    assert "%tundra explain" in ran.traceback
    assert ran.error is not None
    assert ran.error["ename"] == "AllProvidersExhausted"
    told = notebook.run("%tundra why last")
    assert "529" in told.text
    assert "%tundra explain" in notebook.run("%tundra last").text
    explained = notebook.run("%tundra explain last")
    assert "AllProvidersExhausted" in explained.text


def test_the_whole_traceback_is_there_when_asked_for(notebook: Notebook) -> None:
    ran = notebook.run("%tundra --traceback calls --since nonsense")
    assert "Traceback" in ran.traceback
    assert "is not a time" in ran.traceback


def test_a_named_answer_is_shown_again_in_a_later_cell(notebook: Notebook) -> None:
    assert "word3" in notebook.run("%%tundra ask --as later\nhi").text
    notebook.run("x = 3")
    assert "word3" in notebook.run("later").text


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("%tundra stats", "Did you mean 'status'?"),
        ("%tundra calls --sinse 1h", "Did you mean '--since'?"),
        ("%tundra errors --severity hihg", "Did you mean 'high'?"),
        ("%tundra calls --since yesterdy", "Did you mean 'yesterday'?"),
        ("%tundra ask -p scriptd hi", "Did you mean 'scripted'?"),
        ("%tundra explain RateLxyz", "nothing is known of 'RateLxyz'"),
        ("%tundra ask", "the prompt is empty"),
        ("%tundra ask {{nothing_here}}", "name 'nothing_here' is not defined"),
        ("%tundra calls --by 'profile", "a quote is not closed"),
        ("%tundra calls --as 1x", "is not a name for a variable"),
        ("%%tundra calls\nsome text", "takes no text in the cell"),
        ("%%tundra\nsome text", "as `%%tundra ask` does"),
        ("%tundra sql delete from operation", "QueryRefused"),
        ("%tundra why 99999999", "no call with an id ending in"),
    ],
)
def test_a_mistake_is_told_in_a_line_with_what_to_do(notebook: Notebook, line: str, told: str) -> None:
    ran = notebook.run(line)
    assert told in ran.traceback
    assert "Traceback" not in ran.traceback


def test_help_is_there_for_every_command(notebook: Notebook) -> None:
    assert "limit-history" in notebook.run("%tundra --help").stdout
    assert "--between" in notebook.run("%tundra calls -h").stdout


def test_the_answer_of_a_slow_provider_is_cancelled_by_an_interrupt(notebook: Notebook) -> None:
    notebook.provider.script(CHAT, ScriptedStep(text="one two three four", gap=20))
    before = notebook.provider.stats["abandoned"]
    cell = notebook.start_and_wait_for_call("%tundra ask hi")
    began = time.monotonic()
    notebook.manager.interrupt_kernel()
    ran = notebook.finish(cell)
    assert time.monotonic() - began < 5
    assert ran.traceback == "Interrupted: the call was cancelled"
    frame = "get_ipython().run_line_magic('tundra', 'calls --limit 1')"
    assert notebook.value(f"{frame}['outcome'].iloc[0]") == "cancelled"
    assert notebook.provider.stats["abandoned"] == before + 1


def test_what_had_come_before_an_interrupt_stays(notebook: Notebook) -> None:
    notebook.provider.script(CHAT, ScriptedStep(text="one two three four", gap=0.5))
    cell = notebook.start("%tundra ask hi")
    notebook.wait_for_output(cell)
    notebook.manager.interrupt_kernel()
    assert notebook.finish(cell).text.endswith("interrupted")


def test_a_followed_log_is_one_output_that_grows_until_an_interrupt(notebook: Notebook) -> None:
    notebook.run("%tundra ask hi")
    cell = notebook.start("%tundra logs --follow -n 3")
    notebook.wait_for_output(cell)
    log = Path(notebook.env["TUNDRA_DATA_DIR"]) / "logs" / "daemon.log"
    line = "2026-11-24T12:00:00Z error    tundra.daemon  canary-followed"
    with log.open("a") as stream:
        stream.write(line[:40])
        stream.flush()
        time.sleep(0.5)  # half a line is none yet
        stream.write(f"{line[40:]}\n")
    notebook.wait_for_output(cell, "update_display_data")
    notebook.manager.interrupt_kernel()
    ran = notebook.finish(cell)
    assert ran.error is None, ran.traceback
    assert len(ran.outputs) == 1
    assert line in ran.text
    assert ran.text.endswith("no longer followed")


def test_an_interrupt_works_in_a_cell_with_a_top_level_await(notebook: Notebook) -> None:
    notebook.provider.script(CHAT, ScriptedStep(text="one two three four", gap=20))
    cell = notebook.start_and_wait_for_call(
        "import asyncio\nawait asyncio.sleep(0)\nget_ipython().run_line_magic('tundra', 'ask hi')"
    )
    notebook.manager.interrupt_kernel()
    assert "Interrupted: the call was cancelled" in notebook.finish(cell).traceback
    assert notebook.run("1 + 1").text == "2"


def test_the_kernel_is_attached_while_it_lives(notebook: Notebook) -> None:
    notebook.run("%tundra status")
    ran = notebook.run(
        "import time\nfor _ in range(100):\n"
        "    s = get_ipython().run_line_magic('tundra', 'status')\n"
        "    if s.attached: break\n    time.sleep(0.05)\nprint(s.attached)"
    )
    assert "kernel" in ran.stdout


def test_the_python_twin_gives_the_same_objects(notebook: Notebook) -> None:
    notebook.provider.script(CHAT, ScriptedStep(text="twin"))
    ran = notebook.run(
        "import tundra_nb\nt = tundra_nb.connect()\nr = t.ask('hi')\n"
        "print(r, '|', t.why(r.operation_id).operation_id == r.operation_id)\nt.close()"
    )
    assert ran.error is None, ran.traceback
    assert ran.stdout.strip() == "twin | True"


def test_a_status_of_the_python_twin_looks_like_the_magics(notebook: Notebook) -> None:
    ran = notebook.run("import tundra_nb\ntundra_nb.connect().status()")
    assert "tundra is ready" in ran.text


def test_loading_twice_is_once_and_unloading_takes_all_away(notebook: Notebook) -> None:
    notebook.run("%load_ext tundra_nb\n%reload_ext tundra_nb")
    assert notebook.complete("%tundra statu") == ["status"]
    notebook.run("%unload_ext tundra_nb")
    assert "UsageError" in str(notebook.run("%tundra status").outputs) or notebook.run("%tundra status").error
    notebook.run("%load_ext tundra_nb")
    assert notebook.run("%tundra status").error is None


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("%tundra statu", ["status"]),
        ("x = %tundra statu", ["status"]),
        ("  x = %tundra brea", ["breakers", "breaker-history"]),
        ("%%tundra as", ["ask"]),
        ("%tundra calls --si", ["--since"]),
        ("x = %tundra calls --since yes", ["yesterday"]),
        ("%tundra ask -p scr", ["scripted"]),
        ("%%tundra ask --profile ", ["scripted"]),
        ("%tundra breakers reset ", ["scripted"]),
        ("%tundra calls --by profile,ho", ["profile,hour"]),
        ("%tundra explain CircuitBreakerError::O", ["CircuitBreakerError::Open"]),
        ("%tundra errors --severity cr", ["critical"]),
        ("%tundra providers rech", ["recheck"]),
    ],
)
def test_completion_in_line_assignment_and_cell(notebook: Notebook, code: str, expected: list[str]) -> None:
    notebook.run("%tundra status")
    found = notebook.complete(code)
    assert sorted(found) == sorted(expected)


def test_completion_offers_values_in_a_notebook(notebook: Notebook) -> None:
    """Settings, tables and columns, ids of calls, states of the history."""
    notebook.run("%tundra ask hi")
    assert "breaker.failures=" in notebook.complete("%tundra settings set breaker.fa")
    assert "operation" in notebook.complete("%tundra sql select * from oper")
    assert "latency_ms" in notebook.complete("%%tundra sql\nselect latency")
    assert "HEAD" in notebook.complete("%tundra diff ")
    assert any(match.isdigit() for match in notebook.complete("%tundra why "))


def test_python_completion_is_left_alone(notebook: Notebook) -> None:
    notebook.run("some_long_name = 1")
    assert "some_long_name" in notebook.complete("some_lo")


def test_an_answer_broke_off_only_if_some_of_it_had_come(notebook: Notebook) -> None:
    notebook.provider.script(CHAT, ScriptedStep(status=529, text="overloaded"))
    failed = notebook.run("%tundra ask hi")
    assert failed.error is not None
    assert "broke off" not in failed.text + failed.html
    notebook.provider.script(CHAT, ScriptedStep(text="these words came", cut=400, end="reset"))
    cut = notebook.run("%tundra ask hi")
    assert cut.error is not None
    assert "these" in cut.text
    assert "the answer broke off here" in cut.text


def test_a_frame_without_rows_says_what_would_fill_it_and_shows_the_command_as_one(notebook: Notebook) -> None:
    shown = notebook.run("%tundra pty-history --since 1s")
    assert "<code>%tundra run date</code>" in shown.html
    assert "`" not in shown.html


def test_pictures_have_a_headline_and_tell_in_words_what_they_show(notebook: Notebook) -> None:
    notebook.provider.script(CHAT, ScriptedStep(text="hi"), ScriptedStep(status=503, text="down", repeat=99))
    for _ in range(7):
        notebook.run("%tundra ask --no-failover hi")
    notebook.provider.reset()
    headlines = {
        "calls": r"[\d,]+ calls, [\d,]+ not answered · ",
        "errors": r"\S+ × [\d,]+",
        "limits": "scripted requests: theirs not told · ",
        "breaker-history": r"scripted open from [\d:]+ for .*api_error \(still\) · ",
        "calls --by minute": r"[\d,]+ calls, [\d,]+ not answered · ",
    }
    for command, headline in headlines.items():
        ran = notebook.run(f"%tundra {command} --plot")
        assert ran.error is None, ran.traceback
        assert re.match(headline, " ".join(ran.text.split())), (command, ran.text)
        assert "data:image/svg+xml," in ran.html, command
        assert ">in words<" in ran.html, command
        assert len(ran.text.splitlines()) >= 2, command
    assert notebook.run("%tundra breakers reset scripted").error is None


def test_of_a_hundred_thousand_rows_only_those_that_are_shown_are_made_into_text(notebook: Notebook) -> None:
    notebook.run("%tundra ask hi")
    frame = notebook.run("%tundra calls --limit 1")
    assert "1 row" in frame.text
    ran = notebook.run(
        "from tundra_nb.views import columns\n"
        "one = get_ipython().run_line_magic('tundra', 'calls --limit 1')\n"
        "cells, plain = [], columns.cell\n"
        "columns.cell = lambda *a, **more: cells.append(1) or plain(*a, **more)\n"
        "def many(rows):\n"
        "    return one.loc[one.index.repeat(rows)].reset_index(drop=True)\n"
    )
    assert ran.error is None, ran.traceback
    shown = {}
    for rows in (1_000, 100_000):
        ran = notebook.run(f"cells.clear(); many({rows})")
        assert f"{rows:,} rows" in ran.html
        shown[rows] = int(notebook.value("len(cells)")), ran.html.count("<tr"), len(ran.html) // 1000
    notebook.run("columns.cell = plain")
    assert shown[1_000] == shown[100_000]
    assert shown[100_000][1] < 100


def test_the_text_of_a_command_is_what_a_person_reads_and_raw_is_what_was_written(notebook: Notebook) -> None:
    ran = notebook.run(r"r = %tundra run printf '10%%\r99%%\r\033[32mdone\033[0m\n'")
    assert ran.error is None, ran.traceback
    assert notebook.value("r.text.strip()") == "done"
    assert "\\x1b[32mdone" in notebook.value("repr(r.raw)")
    assert "10%" in notebook.value("r.raw")
