"""A shell runs cells exactly as typed, whatever a cell does to it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import NamedTuple

import pytest

from tundra_nb.errors import HandleNotFound, Timeout, UsageError
from tundra_nb.runtime.ptys.pool import PtyPool
from tundra_nb.runtime.ptys.shell import CellEnd, Program, Shell

Act = Callable[[Shell], Awaitable[object]]


class Cell(NamedTuple):
    """A cell, its exact output (or a pattern of it), its code; what to do once its output contains `go`."""

    text: str
    out: str | bytes | re.Pattern[str] = ""
    code: int | None = 0
    act: Act | None = None
    go: bytes = b"go"


class Ends(NamedTuple):
    """A cell that ends the shell."""

    text: str
    out: str = ""
    code: int | None = 0
    signal: str | None = None


class Idle(NamedTuple):
    """Something done while no cell runs."""

    act: Act


def typed(data: bytes) -> Act:
    return lambda shell: shell.pty.write(data)


def sent(number: int) -> Act:
    async def act(shell: Shell) -> None:
        assert shell.pty.signal_job(number)

    return act


async def interrupted(shell: Shell) -> None:
    await shell.interrupt()


def like(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.DOTALL)


LONG = "x" * 200_000
ALIVE = Cell("echo alive", "alive\n")
PYTHON = "python3 -c \"print('hello', input('go? '))\""

BASH: dict[str, list[Cell | Ends | Idle]] = {
    "a line": [Cell("echo hi", "hi\n")],
    "output without a line end": [Cell("printf x", "x"), ALIVE],
    "no output": [Cell("true")],
    "an empty cell": [Cell("false", code=1), Cell(""), ALIVE],
    "a comment": [Cell("# nothing")],
    "several lines": [Cell("echo 1\necho 2\n\necho 3", "1\n2\n3\n")],
    "a here-document": [Cell("v=5; cat <<END\none $v\n  two\nEND", "one 5\n  two\n")],
    "a quoted here-document": [Cell("cat <<'END'\n$HOME `date`\nEND", "$HOME `date`\n")],
    "a here-string": [Cell("cat <<< word", "word\n")],
    "a continued line": [Cell("echo a \\\n  b", "a b\n")],
    "a loop over lines": [Cell("for i in 1 2 3; do\n  echo $i\ndone", "1\n2\n3\n")],
    "an unbalanced single quote": [Cell("echo 'x", like("unexpected EOF"), 2), ALIVE],
    "an unbalanced double quote": [Cell('echo "x', like("unexpected EOF"), 2), ALIVE],
    "an unclosed parenthesis": [Cell("(echo x", like("syntax error"), 2), ALIVE],
    "an unfinished if": [Cell("if true; then", like("syntax error"), 2), ALIVE],
    "a stray done": [Cell("done", like("syntax error"), 2), ALIVE],
    "a cell of 200 kB": [Cell(f": '{LONG}'; echo done", "done\n")],
    "UTF-8": [Cell("echo grüße 漢字 🎉", "grüße 漢字 🎉\n")],
    "invalid UTF-8": [Cell(r"printf '\377\376x'", b"\xff\xfex")],
    "a megabyte without line end": [Cell("head -c 1000000 /dev/zero | tr '\\0' a", "a" * 1_000_000)],
    "20,000 lines": [Cell("seq 1 20000", "".join(f"{n}\n" for n in range(1, 20_001)))],
    "stderr in its place": [Cell("echo 1; echo 2 >&2; echo 3", "1\n2\n3\n")],
    "variables live": [Cell("a=1 b='two words'"), Cell('echo "$a $b"', "1 two words\n")],
    "exported variables reach children": [Cell("export A_B=7"), Cell("bash -c 'echo $A_B'", "7\n")],
    "arrays live": [Cell("a=(1 'b c' 3)"), Cell('echo "${a[1]} ${#a[@]}"', "b c 3\n")],
    "declare is global": [Cell("declare -A m; m[x]=1"), Cell("echo ${m[x]}", "1\n")],
    "functions live": [Cell("f() { echo f $1; return 4; }"), Cell("f 1", "f 1\n", 4)],
    "aliases live": [Cell("alias hello='echo hello'"), Cell("hello you", "hello you\n")],
    "the directory lives": [Cell("cd /usr"), Cell("pwd", "/usr\n"), Cell("cd - >/dev/null; pwd", "/tmp\n")],
    "a subshell changes nothing": [Cell("x=1; (x=2; cd /); echo $x $PWD", "1 /tmp\n")],
    "options live": [Cell("shopt -s nullglob; set -o noclobber"), Cell("echo $-", like("C"))],
    "exit codes": [Cell("false", code=1), Cell("(exit 255)", code=255), Cell("true")],
    "a command that does not exist": [Cell("no-such-command", like("not found"), 127), ALIVE],
    "a file that cannot be run": [Cell("/etc/passwd", like("denied"), 126)],
    "the code of a pipeline": [Cell("false | true"), Cell("set -o pipefail; false | true", code=1)],
    "the code of the cell before": [Cell("(exit 7)", code=7), Cell("echo $?", "7\n")],
    "cat and ^D": [Cell("echo go; cat", "go\nabc\nabc\n", act=typed(b"abc\n\x04"))],
    "a question": [Cell("echo go; read x; echo got $x", "go\nyes\ngot yes\n", act=typed(b"yes\n"))],
    "a question answered with a typing error": [
        Cell("echo go; read x; echo got $x", like("got yes\n$"), act=typed(b"yex\x7fs\n"))
    ],
    "a hidden question": [
        Cell("stty -echo; echo go; read -s x; echo got $x", "go\ngot secret\n", act=typed(b"secret\n"))
    ],
    "/dev/tty": [Cell("echo direct >/dev/tty", "direct\n")],
    "python asks": [Cell(PYTHON, "go? me\nhello me\n", act=typed(b"me\n"))],
    "it is a terminal": [Cell("test -t 0 && test -t 1 && test -t 2 && stty size", "24 80\n")],
    "set -x": [Cell("set -x"), Cell("echo 1", like(r"echo 1\n1\n$")), Cell("set +x", like("")), ALIVE],
    "set -x shows no line of ours": [
        Cell("set -x"),
        Cell("echo 1; for i in 1 2; do :; done", like(r"^(\++ (echo 1|for i in 1 2|:)\n|1\n)+$")),
        Cell("if", like("syntax error"), 2),
        Cell("echo 2", like(r"^\++ echo 2\n2\n$")),
        Cell("set +x", like("")),
        ALIVE,
    ],
    "the prompt is printed": [Cell('echo "<$PS1>"; echo rest', like(r"rest\n$")), ALIVE],
    "comments only": [Cell("false", "", 1), Cell("# nothing\n\n  # more"), ALIVE],
    "set -u": [Cell("set -u; echo $undefined", like("unbound"), 1), ALIVE],
    "set -v": [Cell("set -v; echo 1", like("1\n$")), Cell("set +v", like("")), ALIVE],
    "exec to a file and back": [
        Cell("exec >/tmp/tnb-$$; echo hidden"),
        Cell("echo hidden too"),
        Cell("exec >/dev/tty; cat /tmp/tnb-$$; rm /tmp/tnb-$$", "hidden\nhidden too\n"),
    ],
    "exec of another descriptor": [Cell("exec 3>&1"), Cell("echo ok >&3", "ok\n")],
    "break": [Cell("break"), ALIVE],
    "break out of two loops": [Cell("while true; do break 2; done"), ALIVE],
    "continue": [Cell("continue"), ALIVE],
    "return": [Cell("return 5", like("return"), None), ALIVE],
    "a background job": [Cell("sleep 0.01 & wait; echo done", like(r"done\n$"))],
    "jobs": [Cell("sleep 4711 &"), Cell("jobs", like("Running.*sleep 4711")), Cell("kill %1")],
    "^Z and fg": [
        Cell("sh -c 'echo go; sleep 0.2; echo end'", like("Stopped"), None, sent(signal.SIGTSTP)),
        Cell("fg", like("end\n$")),
    ],
    "^C ends a program": [Cell("echo go; sleep 4711", like("go\n"), 130, interrupted), ALIVE],
    "^C ends a loop of the shell": [Cell("echo go; while :; do :; done", like("go\n"), 130, interrupted), ALIVE],
    "^C typed": [Cell("echo go; sleep 4711", like("go\n"), 130, typed(b"\x03")), ALIVE],
    "^C in raw mode": [
        Cell("stty raw; echo go; sleep 4711", like("go"), 130, interrupted),
        Cell("stty -a | grep -o '.icanon'", " icanon\n"),
    ],
    "^C keeps variables": [Cell("v=1; echo go; sleep 4711", like(""), 130, interrupted), Cell("echo $v", "1\n")],
    "^\\ ends a program": [Cell("echo go; sleep 4711", like("go\n"), 131, sent(signal.SIGQUIT)), ALIVE],
    "^C while idle": [ALIVE, Idle(sent(signal.SIGINT)), ALIVE],
    "^C three times while idle": [ALIVE, *[Idle(sent(signal.SIGINT))] * 3, ALIVE],
    "^Z while idle": [ALIVE, Idle(sent(signal.SIGTSTP)), ALIVE],
    "^D while idle": [ALIVE, Idle(typed(b"\x04")), ALIVE, Cell("break"), ALIVE],
    "keys while idle": [ALIVE, Idle(typed(b"\t\x1b[A\x0c")), ALIVE],
    "a terminal left raw": [Cell("stty raw -echo"), Cell("echo 1; echo 2", "1\n2\n")],
    "a forged end mark": [Cell(r"printf '\e]133;D;0;t=00\a'; false", b"\x1b]133;D;0;t=00\x07", 1), ALIVE],
    "a forged prompt mark": [Cell(r"printf '\e]133;B;t=00\a'; echo x", b"\x1b]133;B;t=00\x07x\r\n")],
    "half a mark": [Cell(r"printf '\e]133;D'", b"\x1b]133;D"), ALIVE],
    "no history expansion": [Cell("echo 'a!!' b!c", "a!! b!c\n")],
    "another IFS": [Cell("IFS=0123456789"), Cell("false", code=1), ALIVE],
    "commands of the loop redefined": [Cell("read() { :; }; printf() { :; }; eval() { :; }"), ALIVE],
    "the cells' descriptor is hidden": [
        Cell("ls /proc/self/fd | tr '\\n' ' '", "0 1 2 3 "),
        Cell("echo x >&9", like("Bad"), 1),
    ],
    "exit": [Ends("exit 3", code=3)],
    "exit in the middle": [Ends("echo 1; exit 0; echo 2", "1\n")],
    "exit with a trap": [Ends("trap 'echo bye' EXIT; exit 4", "bye\n", 4)],
    "set -e": [Cell("set -e; true"), Ends("false", code=1)],
    "exec": [Ends("exec echo instead", "instead\n")],
    "kill -9 of itself": [Ends("kill -9 $$", code=None, signal="SIGKILL")],
    "a shell whose loop was taken out": [Cell("unset PROMPT_COMMAND"), Ends("break", code=None, signal="SIGHUP")],
}

ZSH: dict[str, list[Cell | Ends | Idle]] = {
    "a line": [Cell("echo hi", "hi\n")],
    "set -x shows no line of ours": [
        Cell("set -x"),
        Cell("echo 1", like(r"^\+\S* echo 1\n1\n$")),
        Cell("set +x", like("")),
        ALIVE,
    ],
    "the prompt is printed": [Cell('echo "<$PS1>"; echo rest', like(r"rest\n$")), ALIVE],
    "comments only": [Cell("false", "", 1), Cell("# nothing\n\n  # more"), ALIVE],
    "output without a line end": [Cell("printf x", "x"), ALIVE],
    "an empty cell": [Cell("")],
    "a here-document": [Cell("v=5; cat <<END\none $v\nEND", "one 5\n")],
    "an unbalanced quote": [Cell("echo 'x", like("unmatched"), 1), ALIVE],
    "a cell of 200 kB": [Cell(f": '{LONG}'; echo done", "done\n")],
    "UTF-8": [Cell("echo grüße 漢字 🎉", "grüße 漢字 🎉\n")],
    "variables, arrays and functions live": [
        Cell("a=(1 2 3); typeset -A m; m[x]=9; f() { echo f $1; return 4 }"),
        Cell("echo $a[2] $m[x]; f 1", "2 9\nf 1\n", 4),
    ],
    "the directory lives": [Cell("cd /usr"), Cell("pwd", "/usr\n")],
    "exit codes": [Cell("false", code=1), Cell("echo $?", "1\n"), Cell("(exit 255)", code=255)],
    "a command that does not exist": [Cell("no-such-command", like("not found"), 127), ALIVE],
    "a question": [Cell("echo go; read x; echo got $x", "go\nyes\ngot yes\n", act=typed(b"yes\n"))],
    "a question answered with a typing error": [
        Cell("echo go; read x; echo got $x", like("got yes\n$"), act=typed(b"yex\x7fs\n"))
    ],
    "cat and ^D": [Cell("echo go; cat", "go\nabc\nabc\n", act=typed(b"abc\n\x04"))],
    "break": [Cell("break"), ALIVE],
    "^C ends a program": [Cell("echo go; sleep 4711", like("go\n"), 130, interrupted), ALIVE],
    "^C ends a loop of the shell": [Cell("echo go; while :; do :; done", like("go\n"), 130, interrupted), ALIVE],
    "^C while idle": [ALIVE, Idle(sent(signal.SIGINT)), ALIVE, Cell("stty -a | grep -o '.echo '", " echo \n")],
    "^D while idle": [ALIVE, Idle(typed(b"\x04")), ALIVE, Cell("break", code=None), ALIVE],
    "a forged end mark": [Cell(r"printf '\e]133;D;0;t=00\a'; false", b"\x1b]133;D;0;t=00\x07", 1), ALIVE],
    "a nested zsh reads its own files": [Cell("zsh -c 'echo ${ZDOTDIR-none}'", "none\n")],
    "set -u": [Cell("set -u; echo $undefined", like("not set"), 1), ALIVE],
    "exit": [Ends("exit 3", code=3)],
    "exec": [Ends("exec echo instead", "instead\n")],
    "kill -9 of itself": [Ends("kill -9 $$", code=None, signal="SIGKILL")],
}

CHECKS = [pytest.param("bash", checks, id=f"bash: {name}") for name, checks in BASH.items()] + [
    pytest.param("zsh", checks, id=f"zsh: {name}", marks=pytest.mark.part("zsh")) for name, checks in ZSH.items()
]


async def run(
    shell: Shell,
    cell: str,
    act: Act | None = None,
    go: bytes = b"",
    timeout: float = 10,  # noqa: ASYNC109
) -> tuple[bytes, CellEnd]:
    """The output and the end of a cell; `act` once `go` was seen."""
    output = b""
    async for piece in shell.run(cell, timeout):
        if isinstance(piece, CellEnd):
            return output, piece
        output += piece
        if act is not None and go in output:
            # What printed it goes on to whatever waits for the act.
            await asyncio.sleep(0.05)
            acting, act = asyncio.ensure_future(act(shell)), None
            acting.add_done_callback(asyncio.Future.result)
    raise AssertionError("a cell without an end")


def check_output(wanted: str | bytes | re.Pattern[str], output: bytes) -> None:
    if isinstance(wanted, bytes):
        assert output == wanted
        return
    text = output.decode().replace("\r\n", "\n")
    if isinstance(wanted, str):
        assert text == wanted
    else:
        assert wanted.search(text), text


@pytest.mark.anyio
@pytest.mark.parametrize(("program", "checks"), CHECKS)
async def test_a_cell_gives_exactly_its_output_and_code(
    pool: PtyPool, program: Program, checks: list[Cell | Ends | Idle]
) -> None:
    if not shutil.which(program):
        pytest.skip(f"no {program} on this machine")
    shell = await Shell.start(pool, program, cwd="/tmp")
    for check in checks:
        if isinstance(check, Idle):
            await check.act(shell)
        elif isinstance(check, Ends):
            output, end = await run(shell, check.text)
            check_output(check.out, output)
            assert (end.exit_code, end.exit_signal, end.is_shell_ended) == (check.code, check.signal, True)
        else:
            output, end = await run(shell, check.text, check.act, check.go)
            check_output(check.out, output)
            assert not end.is_shell_ended
            assert check.code is None or end.exit_code == check.code
    await shell.aclose()


@pytest.fixture
async def shell(pool: PtyPool) -> AsyncIterator[Shell]:
    shell = await Shell.start(pool, cwd="/tmp")
    yield shell
    await shell.aclose()


@pytest.mark.anyio
async def test_a_cell_that_takes_too_long_is_interrupted_and_the_shell_lives_on(shell: Shell) -> None:
    await run(shell, "kept=1")
    with pytest.raises(Timeout, match=r"0\.1 s"):
        await run(shell, "sleep 4711", timeout=0.1)
    assert (await run(shell, "echo $kept"))[0] == b"1\r\n"


@pytest.mark.anyio
async def test_an_interrupt_grows_harder_until_the_program_ends(shell: Shell) -> None:
    async def act(shell: Shell) -> None:
        assert await shell.interrupt(patience=0.1) == "SIGKILL"

    asker = asyncio.create_task(run(shell, "sh -c 'trap \"\" INT TERM; echo go; while :; do sleep 1; done'"))
    while b"go" not in shell.pty.read(0).data:  # noqa: ASYNC110 - the condition is a byte count
        await asyncio.sleep(0.01)
    await act(shell)
    _, end = await asker
    assert end.exit_code == 137
    assert (await run(shell, "echo alive"))[0] == b"alive\r\n"


@pytest.mark.anyio
async def test_a_shell_that_ignores_an_interrupt_itself_is_ended(shell: Shell) -> None:
    asker = asyncio.create_task(run(shell, "trap '' INT TERM HUP; echo go; while :; do sleep 1; done"))
    while b"go" not in shell.pty.read(0).data:  # noqa: ASYNC110 - the condition is a byte count
        await asyncio.sleep(0.01)
    assert await shell.interrupt(patience=0.1) == "SIGKILL"
    async with asyncio.timeout(10):
        _, end = await asker
    assert (end.is_shell_ended, end.exit_signal) == (True, "SIGKILL")


@pytest.mark.anyio
async def test_interrupting_an_idle_shell_does_nothing(shell: Shell) -> None:
    assert await shell.interrupt() == ""
    await run(shell, "true")
    assert await shell.interrupt() == ""


@pytest.mark.anyio
async def test_a_second_cell_is_refused_while_one_runs(shell: Shell) -> None:
    first = asyncio.create_task(run(shell, "echo go; read x"))
    while b"go" not in shell.pty.read(0).data:  # noqa: ASYNC110 - the condition is a byte count
        await asyncio.sleep(0.01)
    with pytest.raises(UsageError, match="still running"):
        await run(shell, "echo no")
    await shell.pty.write(b"\n")
    await first


@pytest.mark.anyio
async def test_a_cell_with_nul_is_refused(shell: Shell) -> None:
    with pytest.raises(UsageError, match="NUL"):
        await run(shell, "echo \0")
    assert (await run(shell, "echo alive"))[0] == b"alive\r\n"


@pytest.mark.anyio
async def test_a_cell_in_an_ended_shell_says_how_it_ended(shell: Shell) -> None:
    await run(shell, "exit 3")
    with pytest.raises(HandleNotFound, match="exit code 3"):
        await run(shell, "echo no")


@pytest.mark.anyio
async def test_a_cell_whose_reader_went_away_goes_on_and_the_next_waits_for_it(shell: Shell) -> None:
    async with contextlib.aclosing(shell.run("echo go; sleep 0.1; x=late")) as pieces:
        await anext(pieces)
    assert (await run(shell, "echo $x"))[0] == b"late\r\n"


@pytest.mark.anyio
async def test_the_shell_knows_its_directory(shell: Shell) -> None:
    await run(shell, "cd /usr/lib")
    assert shell.cwd == "/usr/lib"


@pytest.mark.anyio
async def test_closing_a_shell_ends_its_background_jobs_and_its_descriptor(pool: PtyPool) -> None:
    before = len(os.listdir("/proc/self/fd"))
    shell = await Shell.start(pool)
    await run(shell, "sleep 4711 & disown")
    await shell.aclose()
    await shell.aclose()
    assert len(os.listdir("/proc/self/fd")) == before
