"""Dialogues match as pexpect does."""

from __future__ import annotations

import asyncio
import re
import sys
import time
from collections.abc import AsyncIterator
from typing import Any

import pexpect
import pytest

from tundra_nb.errors import HandleNotFound, Timeout, UsageError
from tundra_nb.runtime.ptys.expect import Dialogue
from tundra_nb.runtime.ptys.matchers import Matchers
from tundra_nb.runtime.ptys.pool import PtyPool

SCRIPT = "printf 'name? '; read n; echo hello $n; printf 'again [y/n] '; read a; echo bye; exit 3"
ANSWERS = ["ada\n", "", "y\n", ""]
PATTERNS: list[Any] = [r"name\?\s", r"hello (\w+)", r"\[(y)/(n)\]", pexpect.EOF]


@pytest.fixture
async def matchers() -> AsyncIterator[Matchers]:
    made = Matchers()
    yield made
    await made.aclose()


@pytest.mark.anyio
async def test_a_dialogue_gives_what_pexpect_gives(pool: PtyPool, matchers: Matchers) -> None:
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
    dialogue = Dialogue(await pool.spawn(SCRIPT), matchers)
    for answer, wanted in zip(ANSWERS, expected, strict=True):
        ours = await dialogue.expect(PATTERNS, 5)
        assert (ours.index, ours.before, ours.after, ours.groups) == wanted
        if answer:
            await dialogue.send(answer)


@pytest.mark.anyio
async def test_nothing_in_time_is_a_timeout_unless_it_is_expected(pool: PtyPool, matchers: Matchers) -> None:
    dialogue = Dialogue(await pool.spawn("echo something; sleep 4711"), matchers)
    with pytest.raises(Timeout, match=r"within 0\.1 s"):
        await dialogue.expect("nothing", 0.1)
    matched = await dialogue.expect(["nothing", pexpect.TIMEOUT], 0.05)
    assert (matched.index, matched.before) == (1, "something\r\n")
    assert (await dialogue.expect("some(thing)", 1)).groups == ("thing",)


@pytest.mark.anyio
async def test_the_end_of_the_program_is_an_error_unless_it_is_expected(pool: PtyPool, matchers: Matchers) -> None:
    with pytest.raises(HandleNotFound, match="exit code 3"):
        await Dialogue(await pool.spawn("exit 3"), matchers).expect("never", 5)
    assert (await Dialogue(await pool.spawn("echo x"), matchers).expect(["never", pexpect.EOF], 5)).before == "x\r\n"


@pytest.mark.anyio
async def test_a_pattern_in_a_flood_is_found_and_memory_stays_bounded(pool: PtyPool, matchers: Matchers) -> None:
    dialogue = Dialogue(await pool.spawn("seq 1 500000; echo the-end; sleep 4711"), matchers)
    matched = await dialogue.expect(r"the-(\w+)", 20)
    assert matched.groups == ("end",)
    assert matched.before.endswith("499999\r\n500000\r\n")
    assert len(matched.before) <= 1 << 20


@pytest.mark.anyio
async def test_a_match_on_the_border_of_two_steps_is_found(pool: PtyPool, matchers: Matchers) -> None:
    script = "import sys; sys.stdout.write('x' * 32764 + 'needle' + 'y' * 100000); sys.stdout.flush(); input()"
    dialogue = Dialogue(await pool.spawn([sys.executable, "-c", script]), matchers)
    assert len((await dialogue.expect("needle", 5)).before) == 32764


@pytest.mark.anyio
async def test_a_secret_is_sent_only_when_the_echo_is_off_and_is_masked(pool: PtyPool, matchers: Matchers) -> None:
    script = "printf 'Password: '; sleep 0.1; stty -echo; read p; stty echo; echo; echo got $p"
    pty = await pool.spawn(script)
    dialogue = Dialogue(pty, matchers)
    await dialogue.expect("Password: ", 5)
    await dialogue.send_secret("DB_PASSWORD", "hunter2-hunter2")
    await pty.wait(5)
    output = pty.read(0).data
    assert b"hunter2" not in output
    assert b"got *[DB_PASSWORD]*" in output


@pytest.mark.anyio
async def test_a_secret_is_not_sent_while_the_terminal_echoes(pool: PtyPool, matchers: Matchers) -> None:
    dialogue = Dialogue(await pool.spawn("cat"), matchers)
    with pytest.raises(UsageError, match="DB_PASSWORD was not sent"):
        await dialogue.send_secret("DB_PASSWORD", "hunter2-hunter2", timeout=0.05)


@pytest.mark.anyio
async def test_a_broken_pattern_is_named(pool: PtyPool, matchers: Matchers) -> None:
    with pytest.raises(UsageError, match="not a regular expression"):
        await Dialogue(await pool.spawn("true"), matchers).expect("(", 1)


@pytest.mark.anyio
async def test_two_expects_at_once_are_refused_and_cancelling_one_loses_nothing(
    pool: PtyPool, matchers: Matchers
) -> None:
    pty = await pool.spawn("read x; echo later $x")
    dialogue = Dialogue(pty, matchers)
    first = asyncio.create_task(dialogue.expect("later", 5))
    await asyncio.sleep(0.01)
    with pytest.raises(UsageError, match="waiting"):
        await dialogue.expect("later", 1)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    await pty.write(b"on\n")
    assert (await dialogue.expect("later (on)", 5)).groups == ("on",)


@pytest.mark.anyio
@pytest.mark.parametrize("pattern", ["(a+)+$x", r"(a|aa)+\Z!", "^(([a-z])+.)+[A-Z]([a-z])+$"])
async def test_a_pattern_without_end_is_ended_at_its_deadline_and_the_loop_goes_on(
    pool: PtyPool, matchers: Matchers, pattern: str
) -> None:
    """Such a pattern runs in a process of its own: this one computes little between two timers, and serves the next."""
    dialogue = Dialogue(await pool.spawn("printf 'a%.0s' $(seq 200); sleep 4711"), matchers)
    worst = 0.0

    async def watch() -> None:
        nonlocal worst
        while True:
            before = time.process_time()  # of all threads: what others have the machine do meanwhile is no fault
            await asyncio.sleep(0.005)
            worst = max(worst, time.process_time() - before)

    watching = asyncio.create_task(watch())
    with pytest.raises(Timeout, match="expect"):
        await dialogue.expect(pattern, 0.5)
    assert (await dialogue.expect([pattern, pexpect.TIMEOUT], 0.3)).index == 1
    watching.cancel()
    assert worst < 0.3
    assert (await dialogue.expect("a{200}", 5)).after == "a" * 200


@pytest.mark.anyio
async def test_flags_of_a_compiled_pattern_hold(pool: PtyPool, matchers: Matchers) -> None:
    """A compiled pattern is sent as text; its flags go with it."""
    dialogue = Dialogue(await pool.spawn("echo Hello World"), matchers)
    assert (await dialogue.expect(re.compile("hello (world)", re.IGNORECASE), 5)).groups == ("World",)


@pytest.mark.anyio
async def test_a_pattern_that_takes_for_ever_to_compile_is_ended_too(pool: PtyPool, matchers: Matchers) -> None:
    """Reading a huge pattern is part of the search: it ends at the deadline, and the next pattern works."""
    dialogue = Dialogue(await pool.spawn("echo word; sleep 4711"), matchers)
    with pytest.raises(Timeout):
        await dialogue.expect("|".join("(x{1000}){1000}" for _ in range(100_000)), 0.5)
    assert (await dialogue.expect("word", 5)).after == "word"


@pytest.mark.anyio
async def test_a_secret_that_would_be_cut_is_not_sent(pool: PtyPool, matchers: Matchers) -> None:
    """A terminal in line mode takes 4,095 bytes of a line: a longer secret is refused, as a whole."""
    pty = await pool.spawn("stty -echo; printf 'Password: '; read p; echo got ${#p}")
    dialogue = Dialogue(pty, matchers)
    await dialogue.expect("Password: ", 5)
    with pytest.raises(UsageError, match="4,096 bytes"):
        await dialogue.send_secret("LONG_TOKEN", "x" * 4096)
    await dialogue.send_secret("LONG_TOKEN", "y" * 4095)
    assert (await dialogue.expect(r"got (\d+)", 5)).groups == ("4095",)
