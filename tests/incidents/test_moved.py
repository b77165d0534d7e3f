"""An incident gives the same frames after many more calls, another setting, a gc and a move to the other engine."""

from __future__ import annotations

import concurrent.futures
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import tundra_nb
from tests.conftest import Home, stop_processes
from tundra_nb.testing.scripted_provider import ScriptedStep, scripted_process

pytestmark = [pytest.mark.soak, pytest.mark.part("doltlite", "dolt"), pytest.mark.timeout(3000)]

CALLS = 100_000
CHAT = "/v1/chat/completions"


def place(folder: Path) -> Home:
    env = {key: value for key, value in os.environ.items() if not key.startswith("TUNDRA_")}
    env |= {
        "TUNDRA_DATA_DIR": str(folder / "data"),
        "TUNDRA_CONFIG": str(folder / "tundra.toml"),
        "JUPYTER_DATA_DIR": str(folder / "jupyter"),
        "IPYTHONDIR": str(folder / "ipython"),
    }
    folder.mkdir()
    return Home(folder, env)


def collect_garbage(home: Home) -> None:
    """While no daemon runs: what no commit and no branch needs goes."""
    assert home.run("daemon", "stop", timeout=100).returncode == 0
    (file,) = home.data_dir.glob("*.db")
    before = file.stat().st_size
    code = "import doltlite, sqlite3, sys; sqlite3.connect(sys.argv[1]).execute('select dolt_gc()').fetchall()"
    env = {name: value for name, value in home.env.items() if name not in ("LD_PRELOAD", "_DOLTLITE_BOOTSTRAPPED")}
    subprocess.run([sys.executable, "-c", code, str(file)], env=env, check=True, timeout=600)
    assert file.stat().st_size < before
    assert home.run("daemon", "start", timeout=100).returncode == 0


def verified(home: Home, *more: str) -> dict[str, str]:
    done = home.run("verify", "incident-bad.ipynb", "--json", *more, timeout=300)
    told: dict[str, str] = json.loads(done.stdout)
    assert done.returncode == 0, told
    return told


def test_the_frames_are_the_same_after_all_of_it_and_on_another_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    one, other = place(tmp_path / "one"), place(tmp_path / "other")
    try:
        with scripted_process(pieces=1) as provider:
            one.write_settings(
                f"[store]\nport = {port}\n[router]\nretries = 0\n[breaker]\nfailures = 50\n"
                "[limits.global]\nenabled = false\n"
                f'[[profile]]\nname = "s"\nkind = "local"\nbase_url = "{provider.url}/v1"\nmodel = "tiny"\n'
            )
            provider.script(
                CHAT,
                ScriptedStep(text="ok", repeat=3),
                ScriptedStep(status=500, repeat=5),
                ScriptedStep(text="ok", repeat=0),
            )
            for number in range(10):
                one.run("ask", f"question {number}")
            assert one.run("incident", "new", "Bad", "--since", "1h", timeout=300).returncode == 0
            for name in ("TUNDRA_DATA_DIR", "TUNDRA_CONFIG"):
                monkeypatch.setenv(name, one.env[name])
            with tundra_nb.connect() as t, concurrent.futures.ThreadPoolExecutor(8) as pool:
                assert all(pool.map(lambda number: t.ask(f"later {number}").text, range(CALLS)))
                t.set_setting("breaker.failures", 7)
            verified(one)
            collect_garbage(one)
            verified(one)
            assert one.run("dolt", "start", timeout=100).returncode == 0
            moved = one.run("migrate-store", timeout=2000)
            assert moved.returncode == 0, moved.stderr
            verified(one)
            done = one.run("incident", "export", "Bad", "--out", "bad.zip", timeout=300)
            assert done.returncode == 0, done.stderr
            done = other.run("incident", "import", str(one.folder / "bad.zip"), timeout=100)
            assert done.returncode == 0, done.stderr
            verified(other, "--trust")
    finally:
        one.run("daemon", "stop", timeout=100)
        one.run("dolt", "stop")
        for home in (one, other):
            stop_processes(home)
