"""The notebooks are documentation that runs: each is executed on a real local model, in a home of its own."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat
import psutil
import pytest
from IPython.core.inputtransformer2 import TransformerManager

from tundra_nb.testing import demo
from tundra_nb.testing.local_model import LocalModel

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))
MAX_CELLS = 25
on_the_model = [pytest.mark.part("model", "doltlite"), pytest.mark.timeout(240)]
in_the_gate = [*on_the_model, pytest.mark.check]
PARAMETERS = [
    pytest.param(path, marks=on_the_model if path.stem == "quickstart" else in_the_gate, id=path.stem)
    for path in NOTEBOOKS
]


@dataclasses.dataclass
class Executed:
    """A notebook after it has run."""

    notebook: Any
    left: list[str]
    """What stands in the temporary folder afterwards, of what notebooks make there."""

    @property
    def code_cells(self) -> list[Any]:
        return [cell for cell in self.notebook.cells if cell.cell_type == "code"]

    def cell(self, *words: str) -> Any:
        """The one code cell whose source has all these words."""
        found = [cell for cell in self.code_cells if all(word in cell.source for word in words)]
        assert len(found) == 1, (words, len(found))
        return found[0]

    def after(self, cell: Any) -> Any:
        """The next code cell."""
        return self.code_cells[self.code_cells.index(cell) + 1]


def shown(cell: Any, kind: str = "text/plain") -> str:
    """What a cell shows, as text."""
    return "\n".join(
        output.text if output.output_type == "stream" else "\n".join(output.get("data", {}).get(kind, "").splitlines())
        for output in cell.outputs
        if output.output_type != "error"
    )


@pytest.fixture(scope="module")
def model() -> Iterator[LocalModel]:
    with LocalModel() as started:
        yield started


@pytest.fixture(scope="module")
def run(model: LocalModel) -> Iterator[Callable[[str], Executed]]:
    """Execute a notebook, once for all tests of it; whatever it started ends with the tests."""
    done: dict[str, Executed | None] = {}
    with contextlib.ExitStack() as stack:

        def execute(name: str) -> Executed:
            if name not in done:
                done[name] = None
                # short, because a Unix socket's path must stay under 100 bytes
                temporary = tempfile.TemporaryDirectory(prefix="tnb-", ignore_cleanup_errors=True)
                folder = Path(stack.enter_context(temporary))
                stack.callback(end_processes, folder)
                done[name] = _execute(name, folder, model.base_url)
            executed = done[name]
            assert executed is not None, f"{name} could not be executed: see the first test of it"
            return executed

        yield execute


def _execute(name: str, folder: Path, base_url: str) -> Executed:
    source = next(path for path in NOTEBOOKS if path.name == name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_RUNTIME_DIR", str(folder / "runtime"))
        patch.setenv("IPYTHONDIR", str(folder / "ipython"))
        patch.setenv("TMPDIR", str(folder))
        patch.delenv("XDG_RUNTIME_DIR", raising=False)
        environ = demo.prepare(folder, base_url)
        failed = demo.execute(source, folder / name, environ)
        demo.tundra(environ, "daemon", "stop", "--force")
    made = [found.name for found in folder.iterdir() if found.name.startswith(("tmp", "tnb-", "tundra-"))]
    left = [name for name in made if not name.startswith("tundra-nb-")]  # of sockets, of any daemon of this user
    executed = Executed(nbformat.read(folder / name, as_version=4), left)
    assert not failed, errors(executed)
    return executed


def end_processes(folder: Path) -> None:
    """End what a failed notebook has left: daemons whose data lies in its folder."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("TUNDRA_DATA_DIR", "").startswith(str(folder)) and process.pid != os.getpid():
                process.kill()


def errors(executed: Executed) -> list[tuple[str, str]]:
    return [
        (out.ename, out.evalue) for cell in executed.code_cells for out in cell.outputs if out.output_type == "error"
    ]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_short_stripped_and_uses_the_public_api(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert len(notebook.cells) <= MAX_CELLS
    assert notebook.cells[0].cell_type == "markdown"
    transform = TransformerManager().transform_cell
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        assert cell.outputs == []
        assert cell.execution_count is None
        tree = ast.parse(transform(cell.source))
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute):
                assert not re.match(r"_[^_]", node.attr), cell.source
            elif isinstance(node, ast.Import | ast.ImportFrom):
                names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [name.name for name in node.names]
                for name in names:
                    assert not re.match(r"tundra_nb\.(runtime|daemon|commands|server)", name), cell.source


@pytest.mark.parametrize("path", PARAMETERS)
def test_every_cell_does_what_it_is_marked_to_do(path: Path, run: Callable[[str], Executed]) -> None:
    for cell in run(path.name).code_cells:
        failed = any(output.output_type == "error" for output in cell.outputs)
        assert failed == ("raises-exception" in cell.metadata.get("tags", [])), cell.source
    assert run(path.name).left == [], "it leaves nothing in the temporary folder"


class TestOutage:
    """What `outage.ipynb` promises, from the real model through real proxies."""

    pytestmark = in_the_gate

    @pytest.fixture
    def outage(self, run: Callable[[str], Executed]) -> Executed:
        return run("outage.ipynb")

    def test_a_retry_after_is_obeyed_on_the_same_profile(self, outage: Executed) -> None:
        cell = outage.cell("fault set 429_seconds")
        assert "2 attempts, waited 1.0 s" in shown(cell)
        story = shown(outage.after(cell))
        assert "error: rate_limited" in story
        assert "retry of the same profile" in story
        assert "ok by primary" in story

    def test_the_backup_answers_when_the_primary_fails(self, outage: Executed) -> None:
        cell = outage.cell("fault set 503")
        assert "answered by backup after ['primary: api_error']" in shown(cell)
        story = shown(outage.after(cell))
        assert "failover" in story
        assert "from primary" in story

    def test_the_breaker_opens_refuses_probes_and_closes(self, outage: Executed) -> None:
        opened = outage.cell("def breaker")
        assert "open: answered by backup, ['primary: breaker_open']" in shown(opened)
        assert "refused: breaker_open" in shown(outage.after(opened))
        closed = outage.cell("breaker-history")
        assert "closed → open → half_open → closed" in shown(closed)
        moves = re.findall(r"primary\s+(\w+)\s+(\w+)\s+\w+", shown(closed))
        assert moves == [("closed", "open"), ("open", "half_open"), ("half_open", "closed")]

    def test_a_refused_key_parks_the_profile_until_it_is_rechecked(self, outage: Executed) -> None:
        cell = outage.cell("fault set 401")
        assert re.search(r"primary\s+parked\s+primary: the key was rejected", shown(cell))
        assert "after primary: key_rejected" in shown(cell)
        assert re.search(r"available\s+yes", shown(outage.after(cell)))

    def test_when_nobody_answers_the_error_names_every_cause(self, outage: Executed) -> None:
        cell = outage.cell("fault set 529")
        error = cell.outputs[-1]
        assert error.ename == "AllProvidersExhausted"
        assert "primary: the provider failed (529)" in error.evalue
        assert "backup: the answer is a web page, not valid JSON" in error.evalue
        assert "AllProvidersExhausted" in shown(outage.after(cell))

    def test_each_story_is_a_picture_too(self, outage: Executed) -> None:
        stories = [cell for cell in outage.code_cells if cell.source == "%tundra why last"]
        assert len(stories) == 4
        for cell in stories:
            assert '<img alt="Call ' in shown(cell, "text/html")

    def test_the_live_table_leaves_a_static_picture(self, outage: Executed) -> None:
        cell = outage.cell("--widget")
        still = shown(cell, "text/html")
        assert "primary" in still
        assert "<script" not in still
        assert any("application/vnd.jupyter.widget-view+json" in output.get("data", {}) for output in cell.outputs)

    def test_nothing_of_it_reaches_the_settings_of_the_person_who_runs_it(self, outage: Executed) -> None:
        assert "folder.cleanup()" in outage.code_cells[-1].source
        settings = shown(outage.cell("settings --changed"))
        assert "profile.backup" in settings
        assert "profile.local" not in settings


class TestTerminals:
    """What `terminals.ipynb` promises."""

    pytestmark = in_the_gate

    @pytest.fixture
    def terminals(self, run: Callable[[str], Executed]) -> Executed:
        return run("terminals.ipynb")

    def test_a_viewer_that_comes_back_gets_the_rest_and_every_byte_once(self, terminals: Executed) -> None:
        assert shown(terminals.cell("job.output[:seq]")) == "True"
        told = shown(terminals.cell("connections --pty"))
        assert all(word in told for word in ("opened", "ready", "went_away", "resumed"))

    def test_it_is_told_why_the_terminal_ended(self, terminals: Executed) -> None:
        assert "no viewer came back within 2 s" in shown(terminals.cell("job.info.ending"))
        assert "no viewer came back within 2 s" in shown(terminals.cell("pty why"))
        assert "('running', 'always')" in shown(terminals.cell("kept.info.keep"))
        assert terminals.cell("run --check").outputs[-1].ename == "CommandFailed"


class TestTroubleshooting:
    """What `troubleshooting.ipynb` promises: one real failure of each family, from its symptom to its fix."""

    pytestmark = in_the_gate

    @pytest.fixture
    def trouble(self, run: Callable[[str], Executed]) -> Executed:
        return run("troubleshooting.ipynb")

    def test_each_failure_shows_its_code(self, trouble: Executed) -> None:
        assert [name for name, _ in errors(trouble)] == ["KeyRejected", "AtCapacity", "StoreDamaged", "IpcError"]
        assert "CircuitBreakerError::Open" in shown(trouble.cell("for _ in range(2)"))

    def test_explain_joins_the_page_with_what_happened_here(self, trouble: Executed) -> None:
        told = shown(trouble.cell("explain last"))
        assert "the key was rejected" in told
        assert "1 within 24 h" in told
        assert "Remedies" in told

    def test_doctor_names_each_trouble_and_what_to_do(self, trouble: Executed) -> None:
        for cell, words in (
            ("doctor --for performance", "%tundra breakers reset primary"),
            ("doctor --for processes", "1 of 1 in use"),
            ("doctor --for database", "is damaged"),
            ("doctor --for configuration", "not valid TOML"),
            ("doctor --fix", "done: start"),
        ):
            assert words in shown(trouble.cell(cell), "text/html"), cell

    def test_the_report_is_written(self, trouble: Executed) -> None:
        assert "ISSUE.md" in shown(trouble.code_cells[-1])


class TestTriage:
    """What `triage.ipynb` promises."""

    pytestmark = in_the_gate

    @pytest.fixture
    def triage(self, run: Callable[[str], Executed]) -> Executed:
        return run("triage.ipynb")

    def test_the_rules_name_profile_code_change_and_rows(self, triage: Executed) -> None:
        report = shown(triage.cell("report = %tundra triage"))
        assert "ApiError of profile primary" in report
        assert re.search(r"router\.retries \d+ → 1", report)
        assert "529" in report
        assert re.search(r"\d attempts failed.*; all 3 calls were answered all the same", report)
        assert "failover" in shown(triage.cell("why {{report"))

    def test_a_small_model_is_told_to_have_used_no_tool(self, triage: Executed) -> None:
        told = shown(triage.cell("--deadline 1m"))
        assert re.search(r"^(done|calls|deadline|error) · \w", told, re.MULTILINE)
        assert "used the tools" not in told

    def test_the_runs_and_their_steps_are_rows(self, triage: Executed) -> None:
        assert shown(triage.cell("agent-runs")).count("triage") == 2
        assert "model" in shown(triage.cell("agent-steps"))


class TestAgent:
    """What `agent.ipynb` promises: an agent that knows nothing of tundra, and all that it met."""

    pytestmark = in_the_gate

    @pytest.fixture
    def agent(self, run: Callable[[str], Executed]) -> Executed:
        return run("agent.ipynb")

    def test_the_agent_chooses_a_tool_and_goes_on_through_the_faults(self, agent: Executed) -> None:
        for fault in ("How much disk", "429_seconds", "set 529"):
            assert re.search(r"tool (disk|python): .+\n+.*\w", shown(agent.cell(fault, "agent("))), fault
        assert "APIError: ApiError" in shown(agent.cell("error_in_stream"))

    def test_the_history_tells_who_called_and_how_it_went_on(self, agent: Executed) -> None:
        story = shown(agent.cell("reviewer("))
        assert "anthropic-python/" in story
        assert "translated into the form" in story
        calls = shown(agent.cell("calls[["))
        assert len(re.findall(r"openai-python/\S+\s+openai-chat\s+relayed", calls)) == 7
        assert re.search(r"ok\s+primary\s+2\s", calls), "the pause was obeyed"
        assert re.search(r"ok\s+backup\s+\d", calls), "the backup took over"
        assert len(re.findall(r"^ *error\s", calls, re.MULTILINE)) == 1
        assert "from primary" in shown(agent.cell("hard ="))
        assert "openai-chat, streamed" in shown(agent.cell("failed ="))
        assert "of profile primary" in shown(agent.cell("triage"))
        assert re.search(r"agent\s+8\s+1", shown(agent.cell("user_name")))

    def test_the_callers_are_listed_and_no_token_is_in_the_notebook(self, agent: Executed) -> None:
        callers = shown(agent.code_cells[-2])
        assert re.search(r"agent\s+openai-python/\S+\s+openai-chat\s+7", callers)
        assert not re.search(r"tnd-[A-Za-z0-9_-]{20,}", nbformat.writes(agent.notebook))


class TestIncident:
    """What `incident.ipynb` promises, from a real outage to the zip."""

    pytestmark = in_the_gate

    @pytest.fixture
    def done(self, run: Callable[[str], Executed]) -> Executed:
        return run("incident.ipynb")

    def test_every_cell_of_its_notebook_is_verified_as_the_same(self, done: Executed) -> None:
        told = shown(done.cell("%tundra verify"))
        assert "the same" in told
        assert "not the same" not in told
        assert "edited" not in told

    def test_a_replay_gives_what_happened_and_parts_with_another_breaker(self, done: Executed) -> None:
        table = shown(done.cell("then = %tundra replay"), "text/html")
        assert table.count("error") >= 12
        parting = shown(done.cell("--parting"))
        # by hand: two failures open it, so of the eleven calls the last four failures and the three answers are refused
        assert "they part      in 7 calls" in parting
        assert "breakers now   main open" in parting

    def test_variants_have_a_row_each_and_a_picture(self, done: Executed) -> None:
        assert "breaker.failures=5, breaker.open_seconds=30" in shown(done.cell("variants = "))
        assert "data:image/svg+xml" in shown(done.cell("simulate", "--plot"), "text/html")
        assert "fell-over.zip" in shown(done.cell("export"))
