"""A bad hour becomes a notebook that is still true later, and that tells where it is not."""

from __future__ import annotations

import datetime as dt
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest

from tests.commands.test_terminal import in_terminal
from tests.conftest import Home, stop_processes, wait_until
from tundra_nb.incidents.story import SLACK
from tundra_nb.testing.scripted_provider import ScriptedProcess, ScriptedStep, scripted_process

pytestmark = [pytest.mark.part("doltlite"), pytest.mark.timeout(280)]

CHAT = "/v1/chat/completions"
TITLE = "The scripted provider fell over"
FILE = "incident-the-scripted-provider-fell-over.ipynb"


@pytest.fixture(scope="module")
def outage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Home, ScriptedProcess]]:
    """A home whose provider answered, failed, and was asked with other settings before; its incident is made."""
    import os

    folder = tmp_path_factory.mktemp("home")
    env = {name: value for name, value in os.environ.items() if not name.startswith("TUNDRA_")}
    env |= {
        "TUNDRA_DATA_DIR": str(folder / "data"),
        "TUNDRA_CONFIG": str(folder / "tundra.toml"),
        "JUPYTER_DATA_DIR": str(folder / "jupyter"),
        "IPYTHONDIR": str(folder / "ipython"),
    }
    home = Home(folder, env)
    with scripted_process(pieces=1) as provider:
        home.write_settings(
            "[router]\nretries = 0\n"
            f'[[profile]]\nname = "scripted"\nkind = "local"\nbase_url = "{provider.url}/v1"\nmodel = "tiny"\n'
        )
        try:
            provider.script(CHAT, ScriptedStep(text="fine"), ScriptedStep(status=500, text="broken", repeat=3))
            assert home.run("ask", "one").returncode == 0
            assert home.run("settings", "set", "breaker.failures=3").returncode == 0
            for prompt in ("two", "three", "four"):
                assert home.run("ask", prompt).returncode == 1
            time.sleep(SLACK.total_seconds())
            assert home.run("settings", "set", "pty.capacity=11").returncode == 0
            assert home.run("note", "the provider's disk was full").returncode == 0
            made = home.run("incident", "new", TITLE, "--json", timeout=200)  # as the README has it: the last hour
            assert made.returncode == 0, made.stderr
            assert "WARNING" not in made.stderr  # of the kernel that runs the notebook
            told = json.loads(made.stdout)
            assert {"incident_id", "ref", "notebook"} <= told.keys()
            since, until = (dt.datetime.fromisoformat(told[name]) for name in ("since", "until"))
            assert abs((until - since).total_seconds() - 3600) < 60
            yield home, provider
        finally:
            stop_processes(home)


def texts(book: Any) -> str:
    return "\n".join(
        output.get("data", {}).get("text/plain", "") or output.get("text", "")
        for cell in book.cells
        if cell.cell_type == "code"
        for output in cell.outputs
    )


def verdict(home: Home, file: Path, *more: str) -> tuple[int, dict[str, str], str]:
    done = home.run("verify", str(file), "--json", *more, timeout=200)
    return done.returncode, json.loads(done.stdout or "{}"), done.stderr


def test_the_notebook_tells_what_happened_and_carries_what_it_was_computed_from(outage: Any) -> None:
    home, _ = outage
    book = nbformat.read(home.folder / FILE, as_version=4)
    told = texts(book)
    assert not [o for c in book.cells if c.cell_type == "code" for o in c.outputs if o.output_type == "error"], told
    for part in ("4, of them 3 without an answer", "scripted × 3", "breaker.failures 5 → 3", "disk was full", TITLE):
        assert part in told, told
    assert re.search(r"cost +none known", told), told
    assert "$0" not in told, "nobody knows what a local server's answer costs"
    assert book.metadata.tundra.pin.tag.startswith("incident/the-scripted-provider")
    frames = [
        o
        for c in book.cells
        if c.cell_type == "code"
        for o in c.outputs
        if "digest" in o.get("metadata", {}).get("tundra", {})
    ]
    assert len(frames) >= 6
    for output in frames:
        assert {"query", "commit", "rows", "digest", "shown", "frame_version"} <= output.metadata.tundra.keys()
    parameters = next(cell for cell in book.cells if "parameters" in cell.metadata.get("tags", []))
    assert len(parameters.source.splitlines()) == 4


def test_an_export_tells_in_a_terminal_what_it_does(outage: Any, tmp_path: Path) -> None:
    home, _ = outage
    shown = in_terminal(home, "incident", "export", TITLE, "--out", str(tmp_path / "a.zip"))
    assert shown.index("making a page of its notebook") < shown.index("reading operation") < shown.index("size_bytes")
    assert home.run("incident", "export", TITLE, "--out", str(tmp_path / "b.zip")).stderr == ""


def test_what_was_changed_after_the_first_failure_was_not_before_it(outage: Any) -> None:
    home, _ = outage
    before = json.loads(home.run("incident", "story", "last", "--json").stdout)["changed before"]
    assert "breaker.failures 5 → 3" in before
    assert "pty.capacity" not in before


def test_what_was_changed_between_two_failures_is_not_lost(home: Home) -> None:
    """The first one may have been a stray one, and the change the cause of all others."""
    with scripted_process() as provider:
        home.write_settings(
            "[router]\nretries = 0\n"
            f'[[profile]]\nname = "scripted"\nkind = "local"\nbase_url = "{provider.url}/v1"\nmodel = "tiny"\n'
        )
        provider.script(CHAT, ScriptedStep(status=500, text="broken", repeat=0))
        assert home.run("ask", "one").returncode == 1
        time.sleep(SLACK.total_seconds())
        assert home.run("settings", "set", "breaker.failures=3").returncode == 0
        assert home.run("ask", "two").returncode == 1
        assert home.run("settings", "set", "pty.capacity=11").returncode == 0
        assert home.run("incident", "new", TITLE, "--no-run").returncode == 0
        story = json.loads(home.run("incident", "story", "last", "--json").stdout)
        assert story["changed before"] == "nothing"
        assert "breaker.failures 5 → 3" in story["changed meanwhile"]
        assert "pty.capacity" not in story["changed meanwhile"]


def test_it_is_the_same_after_more_calls_and_another_setting(outage: Any) -> None:
    home, provider = outage
    provider.script(CHAT, ScriptedStep(text="later", repeat=0))
    for _ in range(3):
        home.run("ask", "later")
    home.run("settings", "set", "breaker.failures=7")
    home.run("note", "a later note")
    code, told, _ = verdict(home, home.folder / FILE)
    assert code == 0, "\n".join(f"{name}: {state}" for name, state in told.items())
    assert told[FILE] == "the same"


def test_its_worst_calls_say_nothing_of_what_is_under_way_now(outage: Any) -> None:
    home, provider = outage
    home.run("breakers", "reset", "scripted")
    provider.reset()
    provider.script(CHAT, ScriptedStep(text="slow", delay=60))
    command = [sys.executable, "-m", "tundra_nb.cli", "ask", "slow"]
    with subprocess.Popen(command, env=home.env, cwd=home.folder) as slow:
        wait_until(lambda: json.loads(home.run("status", "--json").stdout)["under_way"], what="it is under way")
        shown = home.run("incident", "worst", "last").stdout
        slow.terminate()
    assert "broken" in shown
    assert "under way" not in shown


@pytest.mark.check
def test_it_is_the_same_when_it_is_closed_pinned_anew_recorded_and_read_in_another_zone(outage: Any) -> None:
    home, _ = outage
    assert home.run("settings", "set", "record.content=all").returncode == 0
    try:
        for number in range(3):
            assert home.run("incident", "pin", TITLE, "-m", f"again {number}").returncode == 0
        assert home.run("incident", "close", TITLE).returncode == 0
        for zone in ("Asia/Tokyo", "America/New_York"):
            elsewhere = Home(home.folder, home.env | {"TZ": zone})
            code, told, _ = verdict(elsewhere, home.folder / FILE)
            assert code == 0, "\n".join(f"{name}: {state}" for name, state in told.items())
    finally:
        home.run("settings", "unset", "record.content")


def test_an_edited_number_is_found_in_exactly_its_cell(outage: Any) -> None:
    home, _ = outage
    text = (home.folder / FILE).read_text()
    book = nbformat.reads(text, as_version=4)
    code_cells = [cell for cell in book.cells if cell.cell_type == "code"]
    number, cell = next((n, c) for n, c in enumerate(code_cells, 1) if c.source.startswith("%tundra calls --by code"))
    html = cell.outputs[0].data["text/html"]
    assert ">3<" in html
    cell.outputs[0].data["text/html"] = html.replace(">3<", ">2<", 1)
    acting = nbformat.v4.new_code_cell("%tundra ask hi")
    book.cells.append(acting)
    edited = home.folder / "edited.ipynb"
    edited.write_text(nbformat.writes(book))
    code, _, problem = verdict(home, edited)
    assert code == 2
    assert "not trusted" in problem
    before = len(json.loads(home.run("calls", "--json", "--since", "all").stdout))
    code, told, _ = verdict(home, edited, "--trust")
    assert code == 1
    wrong = {name: state for name, state in told.items() if not state.startswith(("same", "not"))}
    assert list(wrong) == [f"edited.ipynb [{number}]"]
    assert "edited" in wrong[f"edited.ipynb [{number}]"]
    assert told[f"edited.ipynb [{len(code_cells) + 1}]"].startswith("not repeated")
    assert len(json.loads(home.run("calls", "--json", "--since", "all").stdout)) == before


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (("incident", "new", TITLE, "--since", "1h"), "already"),
        (
            ("incident", "new", "Nothing", "--since", "2020-01-01", "--until", "2020-01-02", "--no-run"),
            "nothing happened",
        ),
        (("incident", "new", "", "--since", "1h"), "title"),
        (("incident", "show", "The scripted provider fel over"), "no incident"),
        (("incident", "new", "Other", "--since", "1h", "--out", "tundra.toml"), "exists already"),
    ],
)
def test_bad_input_is_told_and_nothing_is_made(outage: Any, given: tuple[str, ...], problem: str) -> None:
    home, _ = outage
    before = home.run("tag", "--json").stdout, sorted(home.folder.glob("*.ipynb"))
    done = home.run(*given)
    assert done.returncode == 2, done.stdout + done.stderr
    assert problem in done.stderr, done.stderr
    assert (home.run("tag", "--json").stdout, sorted(home.folder.glob("*.ipynb"))) == before


def test_the_pin_of_an_incident_is_not_deleted(outage: Any) -> None:
    home, _ = outage
    ref = json.loads(home.run("incident", "show", "last", "--json").stdout)["ref"]
    done = home.run("tag", "--delete", ref)
    assert done.returncode == 2
    assert f"the pin of the incident {TITLE!r}" in done.stderr
    assert home.run("tag", "passing").returncode == 0
    assert home.run("tag", "--delete", "passing").returncode == 0


def test_an_incident_is_listed_pinned_anew_and_closed(outage: Any) -> None:
    home, _ = outage
    assert home.run("incident", "note", "last", "it was the disk").returncode == 0
    first = json.loads(home.run("incident", "show", "last", "--json").stdout)
    again = json.loads(home.run("incident", "pin", TITLE, "-m", "with the note", "--json").stdout)
    assert again["ref"] != first["ref"]
    assert again["digests"] == first["digests"], "the window is what it was"
    closed = json.loads(home.run("incident", "close", first["incident_id"][-5:], "-m", "disk", "--json").stdout)
    assert closed["state"] == "closed"
    listed = json.loads(home.run("incident", "list", "--json").stdout)
    assert [(row["title"], row["state"], row["author"]) for row in listed] == [(TITLE, "closed", first["author"])]
    history = json.loads(home.run("history", "incident", "--json").stdout)
    assert history[0]["diff_type"] == "added"
    assert len(history) >= 4


def test_two_runs_of_the_same_cells_have_the_same_digests_in_a_process_of_their_own(outage: Any) -> None:
    home, _ = outage
    program = (
        "import tundra_nb\nwith tundra_nb.connect() as t:\n"
        " t.incidents.open('last'); a = t.calls(); b = t.calls()\n"
        " print(a.attrs['digest'] == b.attrs['digest'], len(a), a.attrs['frame_version'])\n"
        " t.incidents.leave(); print('digest' in t.calls().attrs)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], env=home.env, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["True", "4", "2", "False"], done.stderr


def test_a_replay_of_the_outage_is_the_same_twice_and_parts_where_worked_out_by_hand(outage: Any) -> None:
    home, _ = outage
    one, two = (home.run("replay", TITLE, "--json").stdout for _ in range(2))
    assert one == two
    rows = json.loads(one)
    assert [row["parts"] for row in rows] == [False] * 4
    assert [row["outcome_now"] for row in rows] == ["ok", "error", "error", "error"]
    # by hand: with one failure allowed the breaker is open after the second call, and the other two are refused
    rows = json.loads(home.run("replay", TITLE, "--set", "breaker.failures=1", "--json").stdout)
    assert [row["outcome_now"] for row in rows] == ["ok", "error", "refused", "refused"]
    assert [row["parts"] for row in rows] == [False, False, True, True]
    told = home.run("replay", TITLE, "--set", "breaker.failures=1", "--parting").stdout
    assert "they part      in 2 calls" in told
    assert "breakers now   scripted open" in told


REPLAYING = """
import os, signal, sys, threading, time, tundra_nb
def interrupt():
    while not any(thread.name.startswith("replay") for thread in threading.enumerate()):
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=interrupt, daemon=True).start()
with tundra_nb.connect() as t:
    try:
        t.replay(sys.argv[1], speed=1e-6)
    except KeyboardInterrupt:
        print("interrupted")
"""


def test_the_first_interrupt_ends_a_replay(outage: Any) -> None:
    home, _ = outage
    command = [sys.executable, "-c", REPLAYING, TITLE]
    done = subprocess.run(command, env=home.env, capture_output=True, text=True, check=False, timeout=30)
    assert done.stdout == "interrupted\n", done.stderr


def test_a_simulation_has_one_row_per_variant_and_proposes_one_on_a_branch(outage: Any) -> None:
    home, _ = outage
    done = home.run("simulate", TITLE, "--set", "breaker.failures=1,3", "--set", "router.retries=0", "--json")
    rows = json.loads(done.stdout)
    assert [row["variant"].partition(",")[0] for row in rows] == [
        "recorded",
        "as it was",
        "breaker.failures=1",
        "breaker.failures=3",
    ]
    assert [(row["ok"], row["failed"], row["refused"], row["unknown"]) for row in rows] == [
        (1, 3, 0, 0),
        (1, 3, 0, 0),
        (1, 1, 2, 0),
        (1, 3, 0, 0),
    ]
    # a retry was never sent in truth: nobody knows, and it is no success
    (*_, more) = json.loads(home.run("simulate", TITLE, "--set", "router.retries=1", "--json").stdout)
    assert (more["ok"], more["ok_least"], more["ok_most"]) == (1, 1, 4)
    assert home.run("simulate", TITLE, "--set", "breaker.failures=4", "--propose", "careful").returncode == 0
    assert "careful" in home.run("branch").stdout
    for given, problem in (
        (("simulate", TITLE, "--set", "breaker.failurs=3"), "breaker.failures"),
        (("simulate", TITLE, "--set", "breaker.failures=none"), "breaker.failures=none"),
        (("simulate", "--between", "2020-01-01", "2020-01-02"), "no call in this window"),
        (("replay", TITLE, "--set", "breaker.failures=1,2"), "one value"),
        (("replay",), "nothing is named"),
    ):
        done = home.run(*given)
        assert done.returncode == 2
        assert problem in done.stderr
