"""Notebooks and shells without a Jupyter server: nbclient, papermill, terminal IPython."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from nbformat.v4 import new_code_cell, new_notebook

from tundra_nb.testing.scripted_provider import ScriptedProcess, ScriptedStep, scripted_process

CHAT = "/v1/chat/completions"


@pytest.fixture
def provider(home: Any) -> Iterator[ScriptedProcess]:
    with scripted_process(pieces=4) as made:
        home.write_settings(
            "[router]\nretries = 0\n"
            f'[[profile]]\nname = "scripted"\nkind = "local"\nbase_url = "{made.url}/v1"\nmodel = "tiny"\n'
        )
        yield made


def notebook_of(*cells: str) -> nbformat.NotebookNode:
    made: nbformat.NotebookNode = new_notebook(cells=[new_code_cell(cell) for cell in cells])
    made.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return made


def test_nbclient_saves_the_final_answer_once(provider: ScriptedProcess, home: Any) -> None:
    provider.script(CHAT, ScriptedStep(text="one two three four", gap=0.06))
    notebook = notebook_of("%load_ext tundra_nb", "%tundra ask hi", "%tundra calls")
    NotebookClient(notebook, timeout=60, resources={"metadata": {"path": str(home.folder)}}).execute()
    answer = [output for output in notebook.cells[1].outputs if output.output_type != "stream"]  # a start that waits
    assert len(answer) == 1
    assert answer[0].data["text/plain"].startswith("one two three four")
    assert answer[0].metadata["tundra"]["operation_id"]
    assert notebook.cells[2].outputs[0].metadata["tundra"]["store"] == "doltlite"


@pytest.mark.parametrize(
    ("cell", "shown", "state"),
    [
        ("%%tundra sh\necho begun; sleep 60", "begun", "running"),
        ("%tundra ask hi", "one", "answering"),
        ("%tundra ask hi", "", "asking scripted"),
    ],
)
@pytest.mark.check
def test_what_a_killed_kernel_leaves_says_of_when_it_is(
    provider: ScriptedProcess, home: Any, cell: str, shown: str, state: str
) -> None:
    """Nobody can mend it any more: an output that was growing must not say for ever that it still does."""
    step = ScriptedStep(text="one two three four", gap=1.5) if shown else ScriptedStep(delay=60)
    provider.script(CHAT, step)
    die = "import os, threading\nthreading.Timer(4, os.kill, (os.getpid(), 9)).start()"
    notebook = notebook_of("%load_ext tundra_nb", "%tundra daemon start", die, cell)
    with pytest.raises(DeadKernelError):
        NotebookClient(notebook, timeout=60, resources={"metadata": {"path": str(home.folder)}}).execute()
    left = notebook.cells[3].outputs[-1].data["text/plain"]
    assert shown in left
    assert re.search(rf"{state} · \d\d:\d\d:\d\d \w+", left), left


def test_nbclient_keeps_the_name_and_the_hint_of_an_error(provider: ScriptedProcess, home: Any) -> None:
    provider.script(CHAT, ScriptedStep(status=401, text="no such key"))
    notebook = notebook_of("%load_ext tundra_nb", "%tundra ask hi")
    with pytest.raises(CellExecutionError):
        NotebookClient(notebook, timeout=60, resources={"metadata": {"path": str(home.folder)}}).execute()
    error = notebook.cells[1].outputs[-1]
    assert error.ename == "AllProvidersExhausted"
    assert "recheck scripted" in "\n".join(error.traceback)


def test_papermill_parameters_are_seen_by_expressions(provider: ScriptedProcess, home: Any) -> None:
    import papermill

    source, result = home.folder / "in.ipynb", home.folder / "out.ipynb"
    notebook = notebook_of("number = 1", "%load_ext tundra_nb\n%tundra ask Count to {{number}}")
    notebook.cells[0].metadata["tags"] = ["parameters"]
    nbformat.write(notebook, source)
    papermill.execute_notebook(str(source), str(result), parameters={"number": 7}, progress_bar=False, log_output=False)
    assert provider.requests[-1].json["messages"][-1]["content"] == "Count to 7"


def test_terminal_ipython_prints_the_answer_as_it_comes(provider: ScriptedProcess, home: Any, tmp_path: Path) -> None:
    provider.script(CHAT, ScriptedStep(text="one two three four"))
    script = (
        "%load_ext tundra_nb\n%tundra ask hi\nx = %tundra calls\nprint(type(x).__name__)\n%tundra calls --sinse 1h\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "IPython", "--no-banner", "--colors=NoColor", "--simple-prompt"],
        input=script,
        env=home.env | {"IPYTHONDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=home.folder,
    )
    assert done.stdout.count("one two three four") == 1
    assert "scripted · tiny" in done.stdout
    assert "DataFrame" in done.stdout
    assert "Did you mean '--since'?" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
