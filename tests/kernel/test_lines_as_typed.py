"""What a person types into a cell means what it says: questions, semicolons, options, braces, broken text."""

from __future__ import annotations

import json

import pytest

from tundra_nb.testing.scripted_provider import ScriptedStep

from .conftest import Notebook

CHAT = "/v1/chat/completions"


def asked(notebook: Notebook) -> str:
    return str(notebook.provider.requests[-1].json["messages"][-1]["content"])


@pytest.mark.parametrize(
    ("cell", "sent"),
    [
        ("%tundra ask why is the sky blue?", "why is the sky blue?"),
        ("%tundra ask really??", "really??"),
        ("%tundra ask what does f(x mean?", "what does f(x mean?"),
        ("%tundra ask what's up?", "what's up?"),
        ("if True:\n    %tundra ask indented?", "indented?"),
        ("1\n%tundra ask after a line?\n2", "after a line?"),
        ("%tundra ask a long \\\n  question?", "a long question?"),
        ("%%tundra ask\nwhy?", "why?"),
    ],
)
def test_a_question_is_asked(notebook: Notebook, cell: str, sent: str) -> None:
    notebook.provider.script(CHAT, ScriptedStep(text="because"))
    ran = notebook.run(cell)
    assert ran.error is None, ran.traceback
    assert " ".join(asked(notebook).split()) == sent


def test_a_question_is_bound(notebook: Notebook) -> None:
    notebook.provider.script(CHAT, ScriptedStep(text="bound"))
    ran = notebook.run("answer = %tundra ask why?")
    assert ran.error is None, ran.traceback
    assert notebook.value("answer") == "bound"


def test_other_commands_keep_their_question_mark(notebook: Notebook) -> None:
    notebook.run("%tundra note what happened here?")
    assert notebook.value("get_ipython().run_line_magic('tundra', 'notes')['body'].iloc[0]") == "what happened here?"
    ran = notebook.run("x = %tundra run echo a.t?\nprint(x.text)")
    assert "a.t?" in ran.stdout


def test_questions_about_a_command_and_the_magic_are_answered(notebook: Notebook) -> None:
    assert "--between" in notebook.run("%tundra calls?").stdout
    assert "--no-failover" in notebook.run("%tundra ask?").stdout
    about = notebook.run("%tundra?")
    assert "Give a tundra command" in json.dumps(about.reply["payload"])


def test_a_semicolon_shows_nothing_and_still_binds(notebook: Notebook) -> None:
    notebook.run("%tundra ask hi")
    assert notebook.run("%tundra calls;").outputs == []
    ran = notebook.run("rows = %tundra calls;\nprint(type(rows).__name__, len(rows) > 0)")
    assert ran.stdout.split() == ["DataFrame", "True"]


@pytest.mark.parametrize(
    ("cell", "told"),
    [
        ("%tundra ask -p scripted hi --no-failover please", "--no-failover is an option of `ask`"),
        ("%tundra ask hi --no-failvoer", "Did you mean '--no-failover'?"),
        ("%tundra run ls --json | wc", "put `--` before the text"),
        ("%%tundra sh\ndocker ps --format '{{.Names}}'", r"\{{.Names}}"),
        ("%tundra ask say {{range}}", r"\{{range}}"),
        ("%tundra ask say {{exit}}", r"\{{"),
        ("import tundra_nb\ntundra_nb.connect().calls(profile='\\udc80')", "half a surrogate pair"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_a_line_and_nothing_is_sent(
    notebook: Notebook, cell: str, told: str
) -> None:
    before = len(notebook.provider.requests)
    ran = notebook.run(cell)
    assert told in ran.traceback
    assert len(ran.traceback.splitlines()) <= 5
    assert len(notebook.provider.requests) == before


def test_options_behind_the_text_are_options(notebook: Notebook) -> None:
    notebook.provider.script(CHAT, ScriptedStep(text="hi"))
    ran = notebook.run("%tundra ask hi there --no-failover --max-tokens 5 --as named")
    assert ran.error is None, ran.traceback
    assert asked(notebook) == "hi there"
    assert notebook.value("named") == "hi"


def test_escaped_braces_are_sent_as_they_are(notebook: Notebook) -> None:
    notebook.provider.script(CHAT, ScriptedStep(text="hi"))
    notebook.run(r"%tundra ask explain \{{.Names}}")
    assert asked(notebook) == "explain {{.Names}}"


def test_a_call_that_hangs_says_whom_it_asks_and_for_how_long(notebook: Notebook) -> None:
    notebook.run("%tundra status")  # the daemon's start is told in lines of its own
    notebook.provider.script(CHAT, ScriptedStep(text="at last", delay=4.0))
    cell = notebook.start("%tundra ask -p scripted hi")
    notebook.wait_for_output(cell)
    waiting = next(m for m in notebook._seen if m["msg_type"] == "display_data")["content"]["data"]["text/plain"]
    assert "asking scripted" in waiting
    notebook.wait_until_shown(cell, "s without a word so far")
    ran = notebook.finish(cell)
    assert ran.text.startswith("at last")
    assert "asking" not in ran.text
    assert len(ran.outputs) == 1
