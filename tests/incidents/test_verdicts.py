"""What `tundra verify` says of notebooks that were edited, cleared, moved about, renumbered or run by another tool."""

from __future__ import annotations

import copy
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest

from tests.incidents.test_incident import CHAT, FILE, outage  # noqa: F401 - a fixture
from tundra_nb.errors import UsageError
from tundra_nb.incidents.verify import sha_of, verify

pytestmark = [pytest.mark.check, pytest.mark.part("doltlite"), pytest.mark.timeout(280)]


def code(book: Any) -> list[Any]:
    return [cell for cell in book.cells if cell.cell_type == "code"]


def cell_of(book: Any, command: str) -> tuple[int, Any]:
    return next((n, cell) for n, cell in enumerate(code(book), 1) if cell.source.startswith(f"%tundra {command}"))


def replaced(book: Any, command: str, kind: str, old: str, new: str) -> int:
    """Edit what one output shows; the number of its cell."""
    number, cell = cell_of(book, command)
    for output in cell.outputs:
        text = output.get("data", {}).get(kind)
        if text is not None and old in text:
            output.data[kind] = text.replace(old, new, 1)
            return number
    raise AssertionError(f"{command} shows no {old!r} as {kind}")


def svg_edited(book: Any) -> str:
    _, cell = cell_of(book, "calls --plot")
    shown = "".join(output.get("data", {}).get("text/html", "") for output in cell.outputs)
    label = re.search(r"data:image/svg[^\"]*?(>|%3E)([^<>%]+)(<|%3C)/text", shown)
    assert label is not None
    old = "".join(label.groups())
    return f"[{replaced(book, 'calls --plot', 'text/html', old, f'{label[1]}7777{label[3]}')}] edited"


def plain_edited(book: Any) -> str:
    return f"[{replaced(book, 'calls --by code', 'text/plain', '3', '2')}] edited"


def record_taken_away(book: Any) -> str:
    number = replaced(book, "calls --by minute", "text/html", "</table>", "<tr><td>9</table>")
    for output in code(book)[number - 1].outputs:
        output.metadata.pop("tundra", None)
    return f"[{number}] edited"


def rewritten(book: Any, command: str, old: str, new: str) -> str:
    """Edit what one output shows, and its hash with it."""
    number = replaced(book, command, "text/html", old, new)
    for output in code(book)[number - 1].outputs:
        output.metadata.tundra.shown["text/html"] = sha_of(output.data["text/html"])
    return f"[{number}] edited"


def number_and_hash_edited(book: Any) -> str:
    return rewritten(book, "calls --by code", ">3<", ">2<")


def story_and_hash_edited(book: Any) -> str:
    return rewritten(book, "incident story", "3 without an answer", "0 without an answer")


def drawing_and_hash_edited(book: Any) -> str:
    shown = "".join(output.data["text/html"] for output in cell_of(book, "calls --plot")[1].outputs)
    old = re.search(r"(%3E|>)([^<>%]+)((?:%3C|<)/text)", shown)
    assert old is not None
    return rewritten(book, "calls --plot", old[0], f"{old[1]}7777{old[3]}")


def of_another_kind(book: Any) -> str:
    number, cell = cell_of(book, "calls --by minute")
    cell.outputs[0].data["text/markdown"] = "**no errors**"
    return f"[{number}] edited"


def one_hash_taken_away(book: Any) -> str:
    number = replaced(book, "errors", "text/html", "</table>", "<tr><td>9</table>")
    del code(book)[number - 1].outputs[0].metadata.tundra.shown["text/html"]
    return f"[{number}] edited"


def of_other_versions(book: Any) -> str:
    for cell in code(book):
        for output in cell.outputs:
            output.metadata.tundra["made_with"] = "tundra-nb 0.0.1"
    return ""


def with_odd_metadata(book: Any) -> str:
    book.metadata["tundra"] = ["odd"]
    return ""


def cleared(book: Any) -> str:
    for cell in code(book):
        cell.outputs, cell.execution_count = [], None
    return "nothing saved"


def renumbered(book: Any) -> str:
    for number, cell in enumerate(book.cells):
        cell["id"] = str(number)
    return ""


def without_ids(book: Any) -> str:
    for cell in book.cells:
        cell.pop("id")
    book.nbformat_minor = 4
    return ""


def of_one_id(book: Any) -> str:
    for cell in book.cells:
        cell["id"] = "same"
    return ""


def moved(book: Any) -> str:
    book.cells.append(book.cells.pop(book.cells.index(cell_of(book, "calls --by code")[1])))
    return ""


def doubled(book: Any) -> str:
    book.cells.append(copy.deepcopy(cell_of(book, "calls --by code")[1]))
    return ""


def taken_out(book: Any) -> str:
    number, cell = cell_of(book, "calls --by code")
    book.cells.remove(cell)
    return f"[was {number}] gone"


def without_metadata(book: Any) -> str:
    book.metadata.pop("tundra")
    return ""


def own(source: str, *outputs: Any) -> Callable[[Any], str]:
    def add(book: Any) -> str:
        book.cells.append(nbformat.v4.new_code_cell(source, outputs=list(outputs)))
        return ""

    return add


def wrong(add: Callable[[Any], str], state: str) -> Callable[[Any], str]:
    def told(book: Any) -> str:
        add(book)
        return f"[{len(code(book))}] {state}"

    return told


out = nbformat.v4.new_output
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
SHOW = f"from IPython.display import Image\nimport base64\nImage(base64.b64decode({PIXEL!r}))"
TABLE = "from IPython.display import HTML\nHTML('<td class=\"a\">3</td>')"
PLAIN = {"text/plain": "<IPython.core.display.Image object>"}
HTML = {"text/plain": "<IPython.core.display.HTML object>"}
CLOCK = "import time; print(time.time_ns() and '12:00:01', '2026-01-01 10:00')"
VARIANTS: dict[str, tuple[Callable[[Any], str], ...]] = {
    "edited": (svg_edited, plain_edited, record_taken_away),
    "rewritten": (
        *(number_and_hash_edited, story_and_hash_edited, drawing_and_hash_edited),
        *(of_another_kind, one_hash_taken_away, with_odd_metadata),
    ),
    "cleared": (cleared,),
    "shorter": (taken_out,),
    "renumbered": (moved, doubled, renumbered),
    "no-ids": (without_ids,),
    "one-id": (of_one_id, without_metadata, of_other_versions),
    "added": (
        own(CLOCK, out("stream", text="11:59:59 2025-12-31 09:00\n")),
        wrong(own("print(41 + 1)", out("stream", text="41\n")), "changed"),
        own(SHOW, out("execute_result", {"image/png": PIXEL + "\n"} | PLAIN)),
        wrong(own(SHOW, out("execute_result", {"image/png": PIXEL[:-4] + "ABC="} | PLAIN)), "changed"),
        own(TABLE, out("execute_result", {"text/html": "<td class='b'>3</td>"} | HTML)),
        wrong(own(TABLE, out("execute_result", {"text/html": "<td>4</td>"} | HTML)), "changed"),
        wrong(own(TABLE, out("execute_result", {"text/html": "<td>3</td>", "text/latex": "4"} | HTML)), "changed"),
        wrong(own("1/0", out("error", ename="KeyError", evalue="'x'", traceback=[])), "changed"),
        own("1/0", out("error", ename="ZeroDivisionError", evalue="division by zero", traceback=[])),
        wrong(own("1", out("error", ename="KeyError", evalue="'x'", traceback=[])), "changed"),
        wrong(own("1/0"), "failed"),
    ),
    "death": (
        wrong(own("import os; os._exit(1)"), "failed"),
        wrong(own("print(1)", out("stream", text="1\n")), "failed"),
    ),
}
"""What is done to each copy of the notebook."""


@pytest.fixture(scope="module")
def verified(outage: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[list[str], list[str]]]:  # noqa: F811
    """For each copy what was expected, and the cells that are wrong with their state."""
    home, _ = outage
    text = (home.folder / FILE).read_text()
    folder = tmp_path_factory.mktemp("variants")
    expected: dict[str, list[str]] = {}
    for name, changes in VARIANTS.items():
        book = nbformat.reads(text, as_version=4)
        expected[name] = sorted(filter(None, [change(book) for change in changes]))
        (folder / f"{name}.ipynb").write_text(json.dumps(book))
    done = home.run("verify", "--trust", "--json", *(str(folder / f"{name}.ipynb") for name in VARIANTS), timeout=280)
    assert done.returncode == 1, done.stderr
    found: dict[str, list[str]] = {name: [] for name in VARIANTS}
    for cell, state in json.loads(done.stdout).items():
        name, _, number = cell.partition(".ipynb ")
        if number and not state.startswith(("same", "not repeated")):
            found[name].append(f"{number} {state}")
    return {name: (expected[name], sorted(found[name])) for name in VARIANTS}


def test_nothing_is_compared_with_the_present_where_the_incident_cannot_be_opened(
    outage: Any,  # noqa: F811
    tmp_path: Path,
) -> None:
    """Each cell after it says that it was not run, and `--update` writes nothing of the present into the notebook."""
    home, _ = outage
    book = nbformat.reads((home.folder / FILE).read_text(), as_version=4)
    parameters, opening, *rest = code(book)
    parameters.source = re.sub(r"incident = .*", "incident = '987654321987654321'", parameters.source)
    file = tmp_path / "elsewhere.ipynb"
    file.write_text(json.dumps(book))
    done = home.run("verify", "--trust", "--update", "--json", str(file), timeout=100)
    assert done.returncode == 1
    states = [state for cell, state in json.loads(done.stdout).items() if cell.endswith("]")]
    assert opening.source.startswith("%load_ext")
    assert states[1].startswith("failed: UsageError: there is no incident")
    assert len(states) == 2 + len(rest)
    assert all("would have read the present" in state for state in states[2:])
    assert json.loads(file.read_text())["cells"] == json.loads(json.dumps(book))["cells"]


@pytest.mark.parametrize("name", [name for name in VARIANTS if name != "cleared"])
def test_exactly_the_cells_that_differ_are_named(verified: Any, name: str) -> None:
    expected, found = verified[name]
    assert len(found) == len(expected), found
    for cell, start in zip(found, expected, strict=True):
        assert cell.startswith(start)


def test_a_notebook_without_outputs_has_nothing_to_compare(verified: Any) -> None:
    _, found = verified["cleared"]
    assert len(found) >= 10
    assert all("nothing saved" in cell for cell in found)


def test_a_notebook_without_code_is_told_and_no_kernel_is_started(outage: Any, tmp_path: Path) -> None:  # noqa: F811
    """One that an incident was made with says what is missing."""
    home, _ = outage
    book = nbformat.reads((home.folder / FILE).read_text(), as_version=4)
    book.cells = [cell for cell in book.cells if cell.cell_type != "code"]
    book.metadata.kernelspec.name = "none-of-this-name"
    file = tmp_path / "short.ipynb"
    file.write_text(json.dumps(book))
    done = home.run("verify", "--trust", str(file))
    assert done.returncode == 1
    assert "gone: somebody took it out" in " ".join(done.stdout.split())
    assert home.run("verify", "--trust", "--update", str(file)).returncode == 1
    done = home.run("verify", "--trust", str(file))
    assert done.returncode == 0
    assert "nothing was compared" in " ".join(done.stdout.split())


BOOK: dict[str, Any] = {"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
CELL: dict[str, Any] = {
    "cell_type": "code",
    "id": "a",
    "metadata": {},
    "source": "",
    "execution_count": None,
    "outputs": [],
}
OTHER = {"name": "no", "display_name": "No"}
NO_NOTEBOOKS: dict[str, tuple[str, str]] = {
    "empty": ("", "it is no JSON"),
    "deep": ("[" * 100_000, "it is no JSON"),
    "list": ("[]", "it has not the form of one"),
    "cells": (json.dumps(BOOK | {"cells": 5}), "it has not the form of one"),
    "outputs": (json.dumps(BOOK | {"cells": [CELL | {"outputs": 5}]}), "it has not the form of one"),
    "output": (json.dumps(BOOK | {"cells": [CELL | {"outputs": [{"output_type": "stream", "text": 5}]}]}), "cells/0/"),
    "kernel": (
        json.dumps(
            BOOK | {"cells": [CELL | {"source": "1"}], "metadata": {"kernelspec": {"name": "no", "display_name": "No"}}}
        ),
        "'no'",
    ),
}


@pytest.mark.parametrize("name", NO_NOTEBOOKS)
def test_what_is_no_notebook_and_one_without_its_kernel_is_told_in_a_line(name: str, tmp_path: Path) -> None:
    text, problem = NO_NOTEBOOKS[name]
    file = tmp_path / f"{name}.ipynb"
    file.write_text(text)
    with pytest.raises(UsageError) as told:
        verify(file, is_trusted=True)
    assert problem in str(told.value)
    assert "object" not in str(told.value)


WINDOW = ("-p", "until", "2020-01-01T00:00:00+00:00", "-p", "since", "2019-01-01T00:00:00+00:00")


def test_papermill_runs_it_with_another_pin_and_window_and_says_so(outage: Any, tmp_path: Path) -> None:  # noqa: F811
    home, _ = outage
    home.run("tag", "later")
    made = tmp_path / "made.ipynb"
    command = [sys.executable, "-m", "papermill", str(home.folder / FILE), str(made), "-p", "ref", "later"]
    done = subprocess.run(
        [*command, *WINDOW, "--cwd", str(home.folder)],
        env=home.env,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    book = nbformat.read(made, as_version=4)
    banner = "\n".join(str(o.get("data", {}).get("text/plain", "")) for o in code(book)[2].outputs)
    assert "later" in banner
    _, by_code = cell_of(book, "calls --by code")
    shown = "".join(o.data.get("text/plain", "") for o in by_code.outputs)
    assert "AllProvidersExhausted" not in shown
    done = home.run("verify", "--trust", "--json", str(made), timeout=200)
    assert done.returncode == 0, done.stdout
