"""The command line's standard input and output: left open, closed, full."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Home, wait_until

TUNDRA = [sys.executable, "-m", "tundra_nb.cli"]


def test_text_in_the_arguments_waits_for_no_input(home: Home) -> None:
    """A script's standard input is often a pipe that nobody writes to and nobody closes."""
    reading, writing = os.pipe()
    try:
        for args in (["note", "hi"], ["run", "echo hi"], ["sql", "select 1"], ["sh", "--fresh", "echo hi"]):
            done = subprocess.run(
                [*TUNDRA, *args], stdin=reading, env=home.env, capture_output=True, text=True, timeout=60, check=False
            )
            assert done.returncode == 0, done.stderr
    finally:
        os.close(reading)
        os.close(writing)


def test_arguments_leave_the_input_to_the_loop_around_them(home: Home) -> None:
    loop = f'while read -r line; do "{sys.executable}" -m tundra_nb.cli note "$line" >/dev/null; echo "$line"; done'
    lines = "one\ntwo\n"
    done = subprocess.run(["sh", "-c", loop], input=lines, env=home.env, capture_output=True, text=True, check=False)
    assert done.stdout == lines


@pytest.mark.parametrize("args", [["guide"], ["guide", "--json"], ["--version"], ["--help"]])
def test_a_full_output_is_told_in_a_line(home: Home, args: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*TUNDRA, *args], stdout=full, stderr=subprocess.PIPE, env=home.env, text=True, timeout=60, check=False
        )
    assert done.returncode == 1
    assert done.stderr == "standard output cannot be written: No space left on device\n"


def test_a_closed_output_is_told_and_a_closed_pipe_is_not(home: Home) -> None:
    line = f'"{sys.executable}" -m tundra_nb.cli guide'
    closed = subprocess.run(f"{line} >&-", shell=True, env=home.env, capture_output=True, text=True, check=False)
    assert (closed.returncode, closed.stderr) == (1, "standard output is closed\n")
    reading, writing = os.pipe()
    os.close(reading)
    gone = subprocess.run([*TUNDRA, "guide"], stdout=writing, stderr=subprocess.PIPE, env=home.env, check=False)
    os.close(writing)
    assert (gone.returncode, gone.stderr) == (0, b"")


def test_an_interrupt_ends_the_agents_door(home: Home) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "tundra_nb", "mcp"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=home.env,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write('{"jsonrpc": "2.0", "id": 1, "method": "ping"}\n')
        process.stdin.flush()
        assert wait_until(process.stdout.readline, what="an answer")
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=60)
    assert process.returncode == 130
    assert told == "interrupted\n"


def test_the_agents_door_refuses_a_source_and_a_state_that_are_not_there(home: Home) -> None:
    for args, code in ((["--in", "nosuch"], 2), (["--at", "nosuch"], 1)):
        done = home.run("mcp", *args)
        assert done.returncode == code, done.stderr
        assert "nosuch" in done.stderr


def test_an_interrupt_before_anything_is_loaded_is_told_in_a_word(home: Home) -> None:
    """Who sees at once that the command is wrong presses Ctrl-C while it is still being imported."""
    code = (
        "import signal, sys\n"
        "class Interrupting:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'click': signal.raise_signal(signal.SIGINT)\n"
        "sys.meta_path.insert(0, Interrupting())\n"
        "from tundra_nb.__main__ import main\n"
        "main()\n"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=home.env, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")
