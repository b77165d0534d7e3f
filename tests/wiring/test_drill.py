"""`%tundra fault`: faults switched on and off while a notebook runs."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from tests.conftest import wait_until
from tests.kernel.conftest import Notebook
from tests.wiring.conftest import environment, open_notebook
from tundra_nb.testing.scripted_provider import scripted_process

pytestmark = pytest.mark.part("doltlite")

TOML = """
[router]
retries = 0
[[profile]]
name = "first"
kind = "openai"
base_url = "{base_url}"
model = "scripted-1"
[[profile]]
name = "second"
kind = "anthropic"
base_url = "{base_url}"
model = "scripted-1"
priority = 1
"""


@pytest.fixture(scope="module")
def notebook(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Notebook]:
    folder = tmp_path_factory.mktemp("drill")
    with scripted_process(pieces=4) as provider:
        toml = TOML.format(base_url=provider.base_url)
        with open_notebook(folder, provider, toml, environment(folder)) as made:
            made.run("import tundra_nb; t = tundra_nb.connect()")
            yield made


@pytest.fixture(autouse=True)
def no_drill(notebook: Notebook) -> Iterator[None]:
    yield
    notebook.run("for name in set(t.faults()['profile']): t.stop_faults(name)\nt.reset_breaker('first')")


def run(notebook: Notebook, cell: str) -> str:
    ran = notebook.run(cell)
    assert ran.error is None, ran.traceback
    return ran.text + ran.stdout


def refused(notebook: Notebook, cell: str) -> str:
    ran = notebook.run(cell)
    assert ran.error is not None, ran.text
    return ran.traceback


def attempts(notebook: Notebook) -> list[list[Any]]:
    """Profile, outcome and reason of each attempt of the last call."""
    told: list[list[Any]] = json.loads(
        notebook.value(
            "__import__('json').dumps([[a['profile'], a['outcome'], a['reason']] for a in t.why('last')['attempts']])"
        )
    )
    return told


def proxies(notebook: Notebook) -> list[psutil.Process]:
    daemon = psutil.Process(int(notebook.value("t.status().pid")))
    return [child for child in daemon.children() if "fault_proxy" in " ".join(child.cmdline())]


def test_a_drill_makes_calls_fail_over_and_its_end_brings_the_profile_back(notebook: Notebook) -> None:
    config = notebook.env["TUNDRA_CONFIG"]
    with open(config) as file:
        before = file.read()
    run(notebook, "%tundra fault start --profile first")
    run(notebook, "%tundra ask hi")
    assert attempts(notebook) == [["first", "ok", "answered"]]  # nothing is set yet
    run(notebook, "%tundra fault set 529 --count 2")
    run(notebook, "%tundra ask hi")
    assert attempts(notebook) == [["first", "error", "api_error"], ["second", "ok", "answered"]]
    run(notebook, "%tundra ask hi")
    run(notebook, "%tundra ask hi")
    assert attempts(notebook) == [["first", "ok", "answered"]]  # twice, no more
    row = json.loads(notebook.value("t.faults().to_json(orient='records')"))[0]
    assert (row["profile"], row["fault"], row["happened"], row["count"], row["passed"]) == ("first", "529", 2, 2, 2)
    assert "A drill is on" in run(notebook, "%tundra status")
    run(notebook, "%tundra fault stop")
    assert proxies(notebook) == []
    assert "A drill is on" not in run(notebook, "%tundra status")
    run(notebook, "%tundra ask hi")
    assert attempts(notebook) == [["first", "ok", "answered"]]
    with open(config) as file:
        assert file.read() == before


@pytest.mark.parametrize(
    ("kind", "reason"), [("dns", "dns"), ("tls", "tls"), ("refused", "connect"), ("html", "parse_error")]
)
def test_faults_of_the_address_and_of_the_connection_can_be_set_and_cleared(
    notebook: Notebook, kind: str, reason: str
) -> None:
    run(notebook, "%tundra fault start -p first")
    run(notebook, f"%tundra fault set {kind}")
    run(notebook, "%tundra ask hi")
    assert attempts(notebook)[0] == ["first", "error", reason]
    run(notebook, "%tundra fault clear")
    run(notebook, "%tundra ask hi")
    assert attempts(notebook) == [["first", "ok", "answered"]]


def test_errors_are_in_the_words_of_the_profiles_own_vendor(notebook: Notebook) -> None:
    run(notebook, "%tundra fault start -p second")
    run(notebook, "%tundra fault set quota")
    refused(notebook, "%tundra ask -p second --no-failover hi")
    assert attempts(notebook) == [["second", "error", "quota_spent"]]


def test_a_profile_that_a_drill_parked_is_taken_back_in_at_its_end(notebook: Notebook) -> None:
    run(notebook, "%tundra fault start -p first")
    run(notebook, "%tundra fault set 401")
    run(notebook, "%tundra ask hi")
    assert notebook.value("dict(zip(t.providers()['profile'], t.providers()['state']))['first']") == "parked"
    run(notebook, "%tundra fault stop")
    assert notebook.value("dict(zip(t.providers()['profile'], t.providers()['state']))['first']") == "ready"


def test_chance_is_drawn_by_the_seed(notebook: Notebook) -> None:
    run(notebook, "%tundra fault start -p first")
    drawn = []
    for _ in range(2):
        run(notebook, "%tundra fault clear")
        run(notebook, "%tundra fault set 413 --probability 0.5 --seed 11")
        code = "print([bool(_ask()) for _ in range(12)])"
        define = (
            "def _ask():\n    try:\n        return t.ask('hi', profile='first', failover=False).text\n"
            "    except tundra_nb.errors.TundraError:\n        return ''"
        )
        run(notebook, define)
        drawn.append(run(notebook, code))
    assert drawn[0] == drawn[1]
    assert "True" in drawn[0]
    assert "False" in drawn[0]


@pytest.mark.parametrize(
    ("cell", "told"),
    [
        ("%tundra fault set 529", "no profile has a fault proxy"),
        ("%tundra fault stop", "no profile has a fault proxy"),
        ("%tundra fault clear -p first", "no faults are injected into 'first'"),
        ("%tundra fault start -p frist", "Did you mean 'first'?"),
    ],
)
def test_wrong_use_is_told_with_the_next_step(notebook: Notebook, cell: str, told: str) -> None:
    assert told in refused(notebook, cell)


def test_an_unknown_fault_is_told_with_the_nearest(notebook: Notebook) -> None:
    run(notebook, "%tundra fault start -p first")
    assert "Did you mean 'stream_cut'?" in refused(notebook, "%tundra fault set steam_cut")
    assert "takes no 'count'" in refused(notebook, "%tundra fault set dns --count 1")


def test_every_kind_is_listed_and_completed(notebook: Notebook) -> None:
    assert "stream_cut" in run(notebook, "%tundra fault kinds --json")
    code = "%tundra fault set stre"
    assert any("stream_cut" in match for match in notebook.complete(code))


def test_a_proxy_that_died_is_told_and_can_be_stopped(notebook: Notebook) -> None:
    run(notebook, "%tundra fault start -p first")
    (proxy,) = proxies(notebook)
    proxy.kill()
    assert "is gone" in refused(notebook, "%tundra fault set 529 -p first")
    run(notebook, "%tundra fault stop -p first")
    run(notebook, "%tundra ask hi")
    assert attempts(notebook) == [["first", "ok", "answered"]]


def test_a_killed_daemon_leaves_no_proxy_and_no_drill(notebook: Notebook) -> None:
    run(notebook, "%tundra fault start -p first")
    (proxy,) = proxies(notebook)
    os.kill(int(notebook.value("t.status().pid")), signal.SIGKILL)
    wait_until(lambda: not proxy.is_running() or proxy.status() == psutil.STATUS_ZOMBIE, what="the proxy has ended")
    assert notebook.value("len(t.faults())") == "0"
