"""Dialogues match as pexpect does."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import pexpect
import pytest

from tundra_nb.errors import HandleNotFound, Timeout, UsageError
from tundra_nb.runtime.ptys.expect import Dialogue
from tundra_nb.runtime.ptys.pool import PtyPool

SCRIPT = "printf 'name? '; read n; echo hello $n; printf 'again [y/n] '; read a; echo bye; exit 3"
ANSWERS = ["ada\n", "", "y\n", ""]
PATTERNS: list[Any] = [r"name\?\s", r"hello (\w+)", r"\[(y)/(n)\]", pexpect.EOF]


@pytest.mark.anyio
async def test_a_dialogue_gives_what_pexpect_gives(pool: PtyPool) -> None:
    # pexpect first and without a break: the pool's sweep would reap its child.
    theirs: Any = pexpect.spawn("bash", ["-c", SCRIPT], encoding="utf-8", timeout=5)
    expected = []
    for answer in ANSWERS:
        index = theirs.expect(PATTERNS)
        after = theirs.after if isinstance(theirs.after, str) else ""
        expected.append((index, theirs.before, after, theirs.match.groups() if after else ()))
        if answer:
            theirs.send(answer)
    theirs.close()
    dialogue = Dialogue(await pool.spawn(SCRIPT))
    for answer, wanted in zip(ANSWERS, expected, strict=True):
        ours = await dialogue.expect(PATTERNS, 5)
        assert (ours.index, ours.before, ours.after, ours.groups) == wanted
        if answer:
            await dialogue.send(answer)


@pytest.mark.anyio
async def test_nothing_in_time_is_a_timeout_unless_it_is_expected(pool: PtyPool) -> None:
    dialogue = Dialogue(await pool.spawn("echo something; sleep 4711"))
    with pytest.raises(Timeout, match=r"within 0\.1 s"):
        await dialogue.expect("nothing", 0.1)
    matched = await dialogue.expect(["nothing", pexpect.TIMEOUT], 0.05)
    assert (matched.index, matched.before) == (1, "something\r\n")
    assert (await dialogue.expect("some(thing)", 1)).groups == ("thing",)


@pytest.mark.anyio
async def test_the_end_of_the_program_is_an_error_unless_it_is_expected(pool: PtyPool) -> None:
    with pytest.raises(HandleNotFound, match="exit code 3"):
        await Dialogue(await pool.spawn("exit 3")).expect("never", 5)
    assert (await Dialogue(await pool.spawn("echo x")).expect(["never", pexpect.EOF], 5)).before == "x\r\n"


@pytest.mark.anyio
async def test_a_pattern_in_a_flood_is_found_and_memory_stays_bounded(pool: PtyPool) -> None:
    dialogue = Dialogue(await pool.spawn("seq 1 500000; echo the-end; sleep 4711"))
    matched = await dialogue.expect(r"the-(\w+)", 20)
    assert matched.groups == ("end",)
    assert matched.before.endswith("499999\r\n500000\r\n")
    assert len(matched.before) <= 1 << 20


@pytest.mark.anyio
async def test_a_match_on_the_border_of_two_steps_is_found(pool: PtyPool) -> None:
    script = "import sys; sys.stdout.write('x' * 32764 + 'needle' + 'y' * 100000); sys.stdout.flush(); input()"
    dialogue = Dialogue(await pool.spawn([sys.executable, "-c", script]))
    assert len((await dialogue.expect("needle", 5)).before) == 32764


@pytest.mark.anyio
async def test_a_secret_is_sent_only_when_the_echo_is_off_and_is_masked(pool: PtyPool) -> None:
    script = "printf 'Password: '; sleep 0.1; stty -echo; read p; stty echo; echo; echo got $p"
    pty = await pool.spawn(script)
    dialogue = Dialogue(pty)
    await dialogue.expect("Password: ", 5)
    await dialogue.send_secret("DB_PASSWORD", "hunter2-hunter2")
    await pty.wait(5)
    output = pty.read(0).data
    assert b"hunter2" not in output
    assert b"got *[DB_PASSWORD]*" in output


@pytest.mark.anyio
async def test_a_secret_is_not_sent_while_the_terminal_echoes(pool: PtyPool) -> None:
    dialogue = Dialogue(await pool.spawn("cat"))
    with pytest.raises(UsageError, match="DB_PASSWORD was not sent"):
        await dialogue.send_secret("DB_PASSWORD", "hunter2-hunter2", timeout=0.05)


@pytest.mark.anyio
async def test_a_broken_pattern_is_named(pool: PtyPool) -> None:
    with pytest.raises(UsageError, match="not a regular expression"):
        await Dialogue(await pool.spawn("true")).expect("(", 1)


@pytest.mark.anyio
async def test_two_expects_at_once_are_refused_and_cancelling_one_loses_nothing(pool: PtyPool) -> None:
    pty = await pool.spawn("read x; echo later $x")
    dialogue = Dialogue(pty)
    first = asyncio.create_task(dialogue.expect("later", 5))
    await asyncio.sleep(0.01)
    with pytest.raises(UsageError, match="waiting"):
        await dialogue.expect("later", 1)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    await pty.write(b"on\n")
    assert (await dialogue.expect("later (on)", 5)).groups == ("on",)
