"""The dashboard in a real kernel over a real daemon, without a browser; and on the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tundra_nb.testing.scripted_provider import ScriptedStep

from .conftest import Notebook

CHAT = "/v1/chat/completions"
SAID = (
    "said = []\n"
    "d.send = lambda header, buffers=None: said.append((header, buffers or []))\n"
    "hear = lambda **told: d._heard(None, told, [])\n"
    "import time\n"
    "def wait(kind):\n"
    "    deadline = time.monotonic() + 30\n"
    "    while not any(h['type'] == kind for h, _ in said):\n"
    "        assert time.monotonic() < deadline, said\n"
    "        time.sleep(0.01)\n"
    "    return [(h, b) for h, b in said if h['type'] == kind][-1]\n"
)


@pytest.fixture
def asked(notebook: Notebook) -> Notebook:
    """Two calls that were answered and one that was not."""
    notebook.run("from tundra_nb import connect\nt = connect()\nfor _ in range(2): t.ask('hi')")
    notebook.provider.script(CHAT, ScriptedStep(status=400, text="no such thing"))
    notebook.run("try: t.ask('hi')\nexcept Exception: pass")
    return notebook


def test_it_is_a_picture_with_a_headline_and_a_small_view_and_its_data_are_no_traits(asked: Notebook) -> None:
    shown = asked.run("d = t.dashboard()\nd")
    assert shown.error is None, shown.traceback
    still, live = shown.outputs
    assert "not answered" in still["data"]["text/html"]
    assert "<script" not in still["data"]["text/html"]
    assert "application/vnd.jupyter.widget-view+json" in live["data"]
    state = json.loads(
        asked.value("__import__('json').dumps({k: v for k, v in d.get_state().items() if k != 'layout'})")
    )
    assert len(json.dumps(state)) < 2_600
    assert len(json.dumps(shown.outputs)) + len(json.dumps(state)) < 20_000
    assert asked.value("d.close()") == "None"


def test_script_data_selection_and_why_are_answered_as_messages(asked: Notebook) -> None:
    ran = asked.run(
        "d = t.dashboard()\nd.look()\n" + SAID + "hear(type='module')\n"
        "import gzip, hashlib\n"
        "text = gzip.decompress(wait('module')[1][0])\n"
        "assert hashlib.sha256(text).hexdigest()[:12] == d.module\n"
        "hear(type='opened', view='v')\n"
        "header, buffers = wait('data')\n"
        "calls = header['story']['calls']\n"
        "assert len(buffers) == 12 and len(buffers[0]) == 4 * calls >= 12, buffers\n"
        "hear(type='picked', since=header['since'], until=header['until'], profiles=['scripted'])\n"
        "rows = wait('rows')[0]\n"
        "assert rows['count'] == len(d.selection) == calls and rows['unanswered'] >= 1, rows\n"
        "hear(type='why', id=rows['rows'][0]['id'])\n"
        "why = wait('why')[0]\n"
        "assert why['picture'].startswith('data:image/svg+xml,') and 'no such thing' in why['words']\n"
        "hear(type='picked', since=None, until=None, profiles=['nobody'])\n"
        "assert len(d.selection) == 0 and 'operation_id' in d.selection\n"
        "t.ask('again')\n"
        "more, buffers = wait('more')\n"
        "while more['story']['calls'] < calls + 1: time.sleep(0.05); more, buffers = wait('more')\n"
        "hear(type='closed', view='v')\n"
        "import threading\n"
        "print([n.name for n in threading.enumerate() if n.name.startswith(('tundra-dash', 'tundra-feed'))])"
    )
    assert ran.error is None, ran.traceback
    assert ran.stdout.strip().endswith("[]")
    assert asked.value("d.close()") == "None"


def test_the_window_is_read_again_for_the_live_feed_only_where_something_came_meanwhile(asked: Notebook) -> None:
    """Reading some hundred thousand calls takes seconds, just while the page draws them."""
    ran = asked.run(
        "d = t.dashboard()\nd.look()\n" + SAID + "hear(type='opened', view='v')\n"
        "wait('more')\n"  # the feed has begun, and what stands beside the calls was read again
        "data = [h for h, _ in said if h['type'] == 'data']\n"
        "assert len(data) == 1, said\n"
        "hear(type='closed', view='v')\n"
        "t.ask('meanwhile')\n"
        "said.clear()\n"
        "hear(type='opened', view='w')\n"
        "deadline = time.monotonic() + 30\n"
        "while len([h for h, _ in said if h['type'] == 'data']) < 2:\n"
        "    assert time.monotonic() < deadline, said\n"
        "    time.sleep(0.01)\n"
        "calls = [h['story']['calls'] for h, _ in said if h['type'] == 'data']\n"
        "assert calls[1] == calls[0] + 1, calls\n"
        "d.close()"
    )
    assert ran.error is None, ran.traceback


def test_a_pin_shows_what_was_and_is_not_live(asked: Notebook) -> None:
    ran = asked.run(
        "pin = t.versions.commit('before')\nt.ask('later')\n"
        "d = t.dashboard(at=pin)\nd.look()\n" + SAID + "hear(type='opened', view='v')\n"
        "header, buffers = wait('data')\n"
        "assert header['live'] is False and header['where'].startswith('as of'), header\n"
        "assert header['story']['calls'] == len(d.selection) == len(t.calls('all', at=pin)) >= 3\n"
        "assert len(t.calls('all')) == len(d.selection) + 1\n"
        "d.close()"
    )
    assert ran.error is None, ran.traceback


def test_an_incident_is_shown_in_its_window_at_its_pin(asked: Notebook, tmp_path: Path) -> None:
    ran = asked.run(
        f"t.incidents.new('a bad minute', '10m', run=False, out={str(tmp_path / 'i.ipynb')!r})\nt.ask('later')\n"
        "d = t.dashboard(incident='a bad minute')\nd.look()\n" + SAID + "hear(type='opened', view='v')\n"
        "header, _ = wait('data')\n"
        "assert header['live'] is False and header['where'] == \"incident 'a bad minute'\", header\n"
        "assert abs(header['until'] - header['since'] - 600) < 5\n"
        "assert header['story']['calls'] == len(d.selection) >= 3\n"
        "d.close()"
    )
    assert ran.error is None, ran.traceback


def test_the_command_line_says_the_same_in_words_and_as_json(home: Any) -> None:
    home.write_settings("")
    done = home.run("dash")
    assert done.returncode == 0, done.stderr
    assert "no call in this window" in done.stdout
    assert json.loads(home.run("dash", "2h", "--json").stdout) == []
    wrong = home.run("dash", "1h", "--between", "2h", "1h")
    assert wrong.returncode == 2
    assert "exclude each other" in wrong.stderr


def test_an_imported_incident_shows_what_was_changed_also_what_was_changed_back(
    asked: Notebook, tmp_path: Path
) -> None:
    """Its rows are those of the pin, where the change that was at fault no longer stands: the log tells of it."""
    zipped, copy = str(tmp_path / "i.zip"), str(tmp_path / "copy.ipynb")
    steps = [
        "for failures in (9, 5): t.set_setting('breaker.failures', failures)",
        f"t.incidents.new('changed and back', '10m', run=False, out={str(tmp_path / 'i.ipynb')!r})",
        f"t.incidents.export('changed and back', {zipped!r})",
        f"name = t.incidents.import_({zipped!r}, out={copy!r})['source']",
        "d = t.dashboard(source=name)\nd.look()\n" + SAID + "hear(type='opened', view='v')\n"
        "header, _ = wait('data')\n"
        "words = [one['words'] for one in header['changes']]\n"
        "assert words == ['breaker.failures 5 → 9', 'breaker.failures 9 → 5'], words\n"
        "assert header['knows_changes'] and header['story']['calls'] >= 3\n"
        "d.close()",
    ]
    for step in steps:
        ran = asked.run(step)
        assert ran.error is None, ran.traceback
