"""The Tab key in real shells: values of ours are offered, described, and inserted."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pexpect
import pytest

from tundra_nb.testing.scripted_provider import scripted_process

SHELLS = {
    "bash": (["--norc", "--noprofile", "-i"], 'eval "$(tundra completion bash)"'),
    "zsh": (["-f", "-i"], 'autoload -U compinit; compinit -u -D; eval "$(tundra completion zsh)"'),
    "fish": (["--no-config", "--private"], "tundra completion fish | source"),
}


@pytest.mark.parametrize(
    "name", ["bash", *(pytest.param(name, marks=pytest.mark.part(name)) for name in ("zsh", "fish"))]
)
@pytest.mark.timeout(120)
@pytest.mark.check
def test_the_tab_key_completes_settings_and_calls(home: Any, name: str, tmp_path: Path) -> None:
    arguments, setup = SHELLS[name]
    program = tmp_path / "bin" / "tundra"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m tundra_nb.cli "$@"\n')
    program.chmod(0o755)
    with scripted_process(pieces=4) as provider:
        home.write_settings(
            f'[[profile]]\nname = "scripted"\nkind = "local"\nbase_url = "{provider.url}/v1"\nmodel = "tiny"\n'
        )
        home.run("ask", "hi")
        last = re.findall(r"call \d+(\d{5})", home.run("why").stdout)[0]
        env = home.env | {"PATH": f"{program.parent}:{home.env['PATH']}", "TERM": "xterm", "PS1": "$ "}
        shell = pexpect.spawn(
            name, arguments, env=env, dimensions=(40, 80), encoding="utf-8", timeout=60, cwd=str(home.folder)
        )
        try:
            shell.sendline(f"{setup}; echo rea''dy")
            shell.expect("ready")
            shell.send("tundra settings set breaker.fa\t")
            shell.expect("ilures")
            shell.send("\x15tundra why \t\t")
            shell.expect(last)
        finally:
            shell.close(force=True)
