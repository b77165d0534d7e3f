"""Front ends that know no updates of an output still end up with the whole answer."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook

from tundra_nb.testing.scripted_provider import ScriptedProcess, ScriptedStep, scripted_process

CHAT = "/v1/chat/completions"
CAPTURED = """\
import ipywidgets
out = ipywidgets.Output()
with out:
    get_ipython().run_line_magic("tundra", "ask hi")
    get_ipython().run_line_magic("tundra", "run 'echo first; sleep 0.3; echo last'")
out"""


@pytest.fixture
def provider(home: Any) -> Iterator[ScriptedProcess]:
    with scripted_process(pieces=4) as made:
        home.write_settings(
            "[router]\nretries = 0\n"
            f'[[profile]]\nname = "scripted"\nkind = "local"\nbase_url = "{made.url}/v1"\nmodel = "tiny"\n'
        )
        yield made


def test_an_output_widget_holds_the_whole_answer(provider: ScriptedProcess, home: Any) -> None:
    provider.script(CHAT, ScriptedStep(text="one two three four", gap=0.2))
    notebook: nbformat.NotebookNode = new_notebook(
        cells=[new_code_cell(cell) for cell in ("%load_ext tundra_nb", CAPTURED)]
    )
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    NotebookClient(notebook, timeout=60, resources={"metadata": {"path": str(home.folder)}}).execute()
    states = notebook.metadata["widgets"]["application/vnd.jupyter.widget-state+json"]["state"].values()
    shown = [
        output["data"]["text/plain"]
        for state in states
        if state["model_name"] == "OutputModel"
        for output in state["state"]["outputs"]
        if "data" in output
    ]
    assert any(text.startswith("one two three four") for text in shown), shown
    assert any("first\nlast" in text and "exit code 0" in text for text in shown), shown


@pytest.mark.check
def test_jupyter_console_prints_the_whole_answer(provider: ScriptedProcess, home: Any) -> None:
    provider.script(CHAT, ScriptedStep(text="one two three four", gap=0.2))
    script = (
        "%load_ext tundra_nb\n%tundra ask hi\n%tundra run echo first; sleep 0.3; echo last\nprint('done' + '!')\nexit\n"
    )
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "jupyter_console",
            "--simple-prompt",
            "--ZMQTerminalInteractiveShell.confirm_exit=False",
        ],
        input=script,
        env=home.env,
        cwd=home.folder,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert "one two three four" in done.stdout, done.stdout + done.stderr
    assert "first\nlast" in done.stdout.replace("\r", "")
    assert "done!" in done.stdout
