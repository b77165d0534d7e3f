"""Commands, shells and dialogues from the cells of a real kernel, against the daemon that this kernel started."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import time
import unicodedata
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

import tundra_nb
from tests.conftest import Home, wait_until
from tests.kernel.conftest import Notebook, Ran
from tests.runtime.ptys.test_shell import BASH, ZSH, Cell, Ends, Idle
from tests.wiring.conftest import environment, open_notebook
from tundra_nb.client.sync import Client
from tundra_nb.errors import HandleNotFound
from tundra_nb.testing.scripted_provider import scripted_process

pytestmark = pytest.mark.part("doltlite")

IDLE_SECONDS = 5.0
CAPACITY = 8
COLUMNS = ["pty_id", "at", "command", "state", "pid", "exit_code", "exit_signal", "bytes_out", "seconds"]
CANARIES = {
    "CANARY_PROFILE_KEY": "profile-canary-4f2a9b7c31",
    "CANARY_API_KEY": "sk-canary-8d1e6f3052ab9c",
    "CANARY_DB": "postgres://joe:canary-pw-77193@db/x",
}
SETTINGS = f"""
[pty]
idle_seconds = {IDLE_SECONDS}
capacity = {CAPACITY}
queue_seconds = 0.3
[[profile]]
name = "local"
kind = "openai"
base_url = "{{url}}/v1"
model = "tiny"
api_key_env = "CANARY_PROFILE_KEY"
"""


@dataclasses.dataclass
class Desk:
    """A notebook, and a client of the same daemon beside it."""

    notebook: Notebook
    client: Client
    folder: Path

    def cell(self, code: str) -> Ran:
        return self.notebook.run(code)

    def error(self, code: str) -> list[str]:
        ran = self.cell(code)
        assert ran.error is not None, ran.outputs
        return ran.traceback.splitlines()

    def result(self, name: str) -> dict[str, Any]:
        """The fields of a `Run` that the kernel holds."""
        file = self.folder / "result.json"
        ran = self.cell(
            "import json, msgspec, pathlib\n"
            f"told = msgspec.structs.asdict({name})\n"
            f"written = pathlib.Path({str(file)!r}).write_text(json.dumps(told))"
        )
        assert ran.error is None, ran.traceback
        found: dict[str, Any] = json.loads(file.read_text())
        return found

    def interrupt(self, code: str, seen: str) -> Ran:
        """Run a cell, and interrupt the kernel once it shows `seen`."""
        started = self.notebook.start(code)
        self.notebook.wait_until_shown(started, seen)
        self.notebook.manager.interrupt_kernel()
        return self.notebook.finish(started)

    def open(self, command: str, **options: Any) -> str:
        return self.client.ptys.open(command, **options).id


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    folder: Path = tmp_path_factory.mktemp("desk")
    env = environment(folder) | CANARIES | {"DIALOGUE_PASSWORD": "swordfish-dialogue-5518"}
    with (
        scripted_process(pieces=2) as provider,
        open_notebook(folder, provider, SETTINGS.format(url=provider.url), env) as notebook,
    ):
        connection = folder / "runtime"
        notebook.run("%tundra status")
        with _client(folder, connection) as client:
            yield Desk(notebook, client, folder)


def _client(folder: Path, runtime: Path) -> Client:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_RUNTIME_DIR", str(runtime))
        client = Client(folder / "data", start=False)
        client.open()
    return client


# --- run -------------------------------------------------------------------------------------------------------------


def test_run_shows_output_as_it_comes_and_how_it_ended(desk: Desk) -> None:
    """Output grows in one display, at most 20 updates a second, and its last form has colours and the exit code."""
    began = time.monotonic()
    ran = desk.cell(
        "r = %tundra run for i in $(seq 200); do echo $i; sleep 0.002; done; printf '\\e[31m<b>\\e[0m'; exit 3"
    )
    took = time.monotonic() - began
    assert ran.error is None, ran.traceback
    assert len(ran.outputs) == 1
    assert 2 <= ran.updates <= 20 * took + 2
    assert "exit code 3" in ran.text
    assert re.search(r'<span style="color: #\w+">&lt;b&gt;</span>', ran.html)
    assert "\x1b" not in ran.text + ran.html
    found = desk.result("r")
    counted = "".join(f"{n}\n" for n in range(1, 201))
    assert (found["exit_code"], found["text"], found["raw"]) == (3, f"{counted}<b>", f"{counted}\x1b[31m<b>\x1b[0m")
    assert 0 < found["seconds"] < took
    assert ran.metadata["tundra"]["pty_id"] == found["pty_id"]


def test_run_is_shown_once_as_the_value_of_its_cell(desk: Desk) -> None:
    ran = desk.cell("%tundra run echo once")
    assert ran.text.count("once") == 1
    assert "once" in desk.cell("_").text


def test_run_honours_directory_environment_and_deadline(desk: Desk) -> None:
    ran = desk.cell("%tundra run --cwd /usr --env WORD='two words' --timeout 20 echo $PWD $WORD")
    assert ran.text.startswith("/usr two words")
    lines = desk.error("%tundra run --timeout 0.3 echo begun; sleep 4711")
    assert lines[0].startswith("Timeout: the command ran longer than 0.3 s")
    assert len(lines) <= 4


def test_the_python_twin_of_run_gives_the_same(desk: Desk) -> None:
    ran = desk.cell(
        "import tundra_nb\nt = tundra_nb.connect()\nseen = []\n"
        "r = t.run('echo $A; exit 5', env={'A': 'b'}, cwd='/', timeout=9, on_output=seen.append)\n"
        "print(r.exit_code, repr(r.text), ''.join(seen).strip())\n"
        "bar = t.run(r\"printf '\\e[31m10%%\\r\\e[32m99%%\\e[0m\\n'\")\n"
        "print([bar.text, bar.raw, t.ptys[bar.pty_id].text == bar.text, t.ptys[bar.pty_id].raw == bar.raw])"
    )
    first, second = ran.stdout.strip().splitlines()
    assert first == "5 'b\\n' b"
    assert second == str(["99%\n", "\x1b[31m10%\r\x1b[32m99%\x1b[0m\n", True, True])


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("run", "UsageError: there is no command"),
        ("run --cwd /no/such/folder true", "SpawnFailed: "),
        ("run --env NOVALUE true", "UsageError: --env is not of the form NAME=VALUE"),
        ("run --timeout -1 true", "UsageError: timeout -1 is not a positive number"),
        ("run --with-keys NO_SUCH true", "UsageError: NO_SUCH is not set"),
        ("run echo {{chr(0)}}", "UsageError: "),
        ("pty show nope", "HandleNotFound: no PTY nope"),
        ("pty kill nope", "HandleNotFound: no PTY nope"),
        ("pty expect nope x", "HandleNotFound: no PTY nope"),
        ("pty frob", "UsageError: no command 'pty frob'"),
        ("pty search (", "UsageError: '(' is not a regular expression"),
        ("sh", "UsageError: there is nothing to run"),
    ],
)
def test_a_mistake_is_one_line_and_its_hint(desk: Desk, line: str, told: str) -> None:
    lines = desk.error(f"%tundra {line}")
    assert lines[0].startswith(told), lines
    assert len(lines) <= 4


def test_an_unbalanced_quote_is_the_shells_business_and_does_not_hang(desk: Desk) -> None:
    ran = desk.cell("r = %tundra run echo 'x")
    assert ran.error is None, ran.traceback
    assert desk.result("r")["exit_code"] == 2
    assert "unexpected EOF" in ran.text


def test_an_interrupt_reaches_the_command_and_leaves_in_one_line(desk: Desk) -> None:
    ran = desk.interrupt(
        "%tundra run trap 'echo caught; exit 9' INT; echo arm''ed; while :; do sleep 0.05; done", "armed"
    )
    assert ran.error is not None
    assert len(ran.traceback.splitlines()) == 1
    assert ran.traceback.startswith("Interrupted: ")
    assert ran.traceback.endswith("exit code 9")
    assert "caught" in ran.text


def test_a_command_that_ignores_the_interrupt_is_ended_harder(desk: Desk) -> None:
    ran = desk.interrupt("%tundra run trap '' INT TERM HUP; echo stub''born; while :; do sleep 0.05; done", "stubborn")
    assert ran.traceback.endswith("ended by SIGKILL")


@pytest.mark.parametrize("end", ["s", "sk-ca", "p"])
def test_output_that_ends_as_a_key_begins_is_whole(desk: Desk, end: str) -> None:
    run = desk.client.run(f"printf 'all of it: {end}'")
    assert run.text == f"all of it: {end}"


def test_output_that_is_no_text_does_no_harm(desk: Desk) -> None:
    ran = desk.cell(r"r = %tundra run printf 'a\377\376b\0c\033]0;title\007d'")
    assert ran.error is None, ran.traceback
    assert ran.text.startswith("a\ufffd\ufffdbcd")


def test_a_long_output_is_cut_in_the_notebook_and_whole_in_the_result(desk: Desk) -> None:
    ran = desk.cell("r = %tundra run seq 100000")
    assert len(ran.html) < 300_000
    assert "left out" in ran.text
    assert desk.result("r")["text"].count("\n") == 100_000


@pytest.mark.parametrize(
    "command",
    [
        "setsid sleep 4711 & nohup sleep 4711 >/dev/null & exit 0",
        "(trap '' HUP TERM; sleep 4711) & exit 0",
        "for i in $(seq 50); do setsid sleep 4711 & done; exit 0",
    ],
    ids=["daemonises", "ignores HUP and TERM", "50 leave the session"],
)
def test_nothing_of_a_command_outlives_it(desk: Desk, command: str) -> None:
    before = _sleepers()
    ran = desk.cell(f"r = %tundra run {command}")
    assert ran.error is None, ran.traceback
    assert desk.result("r")["exit_code"] == 0
    wait_until(lambda: _sleepers() <= before, 8, "the children are gone")


# --- keys ------------------------------------------------------------------------------------------------------------


def test_commands_inherit_no_key_unless_it_is_named(desk: Desk) -> None:
    ran = desk.cell(
        "r = %tundra run env; tr '\\0' '\\n' </proc/self/environ; tr '\\0' '\\n' </proc/$PPID/environ | head -99"
    )
    text = desk.result("r")["text"]
    assert "PATH=" in text
    for name, value in CANARIES.items():
        assert value not in text + ran.text + ran.html
        assert f"{name}=" not in text.partition("PATH=")[0] + desk.client.ptys[desk.result("r")["pty_id"]].info.command
    ran = desk.cell("r = %tundra run --with-keys CANARY_API_KEY printf '%s' \"$CANARY_API_KEY\" | wc -c")
    assert desk.result("r")["text"].strip() == str(len(CANARIES["CANARY_API_KEY"]))


def test_known_keys_are_masked_also_across_chunk_borders(desk: Desk) -> None:
    value = CANARIES["CANARY_API_KEY"]
    head, tail = value[:9], value[9:]
    command = "printf %s $A; sleep 0.02; printf %s $B; echo; printf %s $C"
    line = f"%tundra run --env A={head} --env B={tail} --env C={value} {command}"
    ran = desk.cell(f"r = {line}")
    found = desk.result("r")
    assert found["exit_code"] == 0
    transcript = desk.folder / "data" / "ptys" / "transcripts" / f"{found['pty_id']}.out"
    for text in (found["text"], ran.text, ran.html, transcript.read_text()):
        assert value not in text
    assert found["text"].count("***") >= 2


MIXED = """
import os
ways = "%{:02x}", "{:c}", "&#{};", "\\\\u{:04x}", "\\\\{:03o}", "\\\\x{:02x}"
print("".join(ways[at % 6].format(ord(letter)) for at, letter in enumerate(os.environ["CANARY_API_KEY"])))
"""


@pytest.mark.parametrize(
    "command",
    [
        ["bash", "-c", 'while read -r -n1 c; do printf %s "$c"; sleep .01; done <<<"$CANARY_API_KEY"'],
        [
            "bash",
            "-c",
            'while read -r -n1 c; do printf %s "$c"; sleep .01; done <<<"$(printf %s "$CANARY_API_KEY" | base64)"',
        ],
        ["python3", "-c", MIXED],
        "printf 'A=%060d\\n%s' 0 \"$CANARY_API_KEY\" | base64",
        'echo "$CANARY_API_KEY" | grep --color=always d1e6',
        'printf %s "$CANARY_API_KEY" | od -An -tx1',
    ],
    ids=[
        "byte by byte",
        "base64 byte by byte",
        "each letter in another way",
        "base64 over two lines",
        "painted",
        "dump",
    ],
)
def test_a_key_is_masked_however_it_is_printed(desk: Desk, command: str) -> None:
    value = CANARIES["CANARY_API_KEY"]
    run = desk.client.run(command, with_keys=["CANARY_API_KEY"])
    assert run.exit_code == 0, run.raw
    transcript = desk.folder / "data" / "ptys" / "transcripts" / f"{run.pty_id}.out"
    wait_until(lambda: "**" in transcript.read_text(), 10, "the transcript is written")
    for text in (run.raw, run.text, transcript.read_text()):
        assert "**" in text
        bare = re.sub(r"\x1b\[[0-9;]*[mK]|\s", "", text)
        for form in (value, base64.b64encode(value.encode()).decode(), value.encode().hex()):
            assert not [form[at : at + 8] for at in range(len(form) - 8) if form[at : at + 8] in bare], text
        assert not re.search(r"(?:%|&#|\\\\[ux]?)[0-9a-f]", bare)


DUMPS = (
    "xxd",
    "xxd -u -g 1",
    "xxd -b",
    "xxd -i",
    "hexdump",
    "hexdump -C",
    "hexdump -d",
    "od",
    "od -c",
    "od -b",
    "od -t x1z",
    "od -t x4",
    "od -A n -t u1",
    "base64 -w 20",
    "base32 -w 30",
    "rev",
    "sed 's/./& /g'",
    "fold -w 1",
    *(
        f'python3 -c "import sys, base64, quopri; d = sys.stdin.read(); print({made})"'
        for made in (
            "base64.b85encode(d.encode()).decode()",
            "base64.a85encode(d.encode()).decode()",
            "quopri.encodestring(d.encode()).decode()",
            "chr(0x200b).join(d)",
            "d.upper()",
            "d.encode().hex().title()",
            "d.translate({c: c + 0xfee0 for c in range(33, 127)})",
        )
    ),
)


@pytest.mark.parametrize("tool", DUMPS)
def test_a_key_is_masked_in_what_real_tools_make_of_it(desk: Desk, tool: str) -> None:
    program, _, _ = tool.partition(" ")
    if shutil.which(program) is None:
        pytest.skip(f"no {program} here")
    value = CANARIES["CANARY_API_KEY"]
    other = "sk-another-00112233445566"[: len(value)]
    command = f"printf 'HOME=/root\\nK=%s\\nLANG=C\\n' \"$CANARY_API_KEY\" | {tool}"

    def folded(text: str) -> str:
        return "".join(re.findall("[0-9a-z]", unicodedata.normalize("NFKC", text).lower()))

    def plainly(key: str) -> str:
        env = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "CANARY_API_KEY": key}
        return folded(
            subprocess.run(["bash", "-c", command], env=env, capture_output=True, text=True, check=True).stdout
        )

    run = desk.client.run(["bash", "-c", f"{command} | cat"], with_keys=["CANARY_API_KEY"], env={"LANG": "C.UTF-8"})
    assert run.exit_code == 0, run.raw
    assert run.text.count("*") > 7
    ours, others = plainly(value), plainly(other)
    same = next(at for at in range(len(ours)) if ours[at] != others[at])
    pieces = {ours[at : at + 9] for at in range(same + 4, len(ours) - 9)} - {
        others[at : at + 9] for at in range(len(others))
    }
    end = folded(run.text)[-9:]
    leaked = [piece for piece in pieces if piece in folded(run.text) and piece not in end]
    assert len(leaked) < 6, (leaked, run.text)  # of base64 and base85 letters that hold a neighbour's bits stay


# --- shell -----------------------------------------------------------------------------------------------------------


def test_the_shell_lives_on_from_cell_to_cell(desk: Desk) -> None:
    desk.cell("%%tundra sh --fresh\ncd /usr; word=kept; f() { echo f:$1; }")
    ran = desk.cell("%%tundra sh --as s\necho $word $PWD; f x; (exit 4)")
    assert ran.error is None, ran.traceback
    assert desk.result("s") | {"seconds": 0, "pty_id": ""} == {
        "text": "kept /usr\nf:x\n",
        "raw": "kept /usr\nf:x\n",
        "exit_code": 4,
        "exit_signal": None,
        "cwd": "/usr",
        "is_shell_ended": False,
        "seconds": 0,
        "pty_id": "",
    }
    assert "exit code 4" in ran.text


@pytest.mark.parametrize("ending", ["exit 3", "exec false", "kill -9 $$"])
def test_a_cell_that_ends_the_shell_says_so_and_the_next_starts_one(desk: Desk, ending: str) -> None:
    desk.cell("%%tundra sh --fresh\nword=lost")
    assert "the shell has ended" in desk.cell(f"%%tundra sh\n{ending}").text
    assert desk.cell("%%tundra sh\necho [$word]").text.startswith("[]")


def test_an_interrupted_cell_leaves_in_one_line_and_its_shell_lives_on(desk: Desk) -> None:
    desk.cell("%%tundra sh --fresh\nword=kept")
    ran = desk.interrupt("%%tundra sh\necho in''side; sleep 4711", "inside")
    assert ran.traceback.startswith("Interrupted: ")
    assert ran.traceback.endswith("exit code 130")
    assert desk.cell("%%tundra sh\necho $word").text.startswith("kept")


def test_a_cell_beyond_its_deadline_is_interrupted(desk: Desk) -> None:
    assert desk.error("%%tundra sh --fresh --timeout 0.3\nsleep 4711")[0].startswith("Timeout: ")
    assert desk.cell("%%tundra sh\necho alive").text.startswith("alive")


def test_the_python_twin_uses_the_same_shell(desk: Desk) -> None:
    desk.cell("%%tundra sh --fresh\nword=shared")
    ran = desk.cell("import tundra_nb\nprint(tundra_nb.connect().sh('echo $word').text)")
    assert ran.stdout.strip() == "shared"


@dataclasses.dataclass
class _Keys:
    """What the acts of the shell's table need of a PTY, through the daemon's own doors."""

    desk: Desk
    pty_id: str

    async def write(self, data: bytes) -> None:
        await asyncio.to_thread(self.desk.client.ptys[self.pty_id].send, data.decode())

    def signal_job(self, number: int) -> bool:
        key = {signal.SIGINT: "\x03", signal.SIGQUIT: "\x1c", signal.SIGTSTP: "\x1a"}[signal.Signals(number)]
        self.desk.client.ptys[self.pty_id].send(key)
        return True


@dataclasses.dataclass
class _Shell:
    """The same of a shell."""

    pty: _Keys

    async def interrupt(self) -> None:
        await asyncio.to_thread(self.pty.desk.client.ptys[self.pty.pty_id].interrupt)


def _checks(program: str, table: dict[str, list[Cell | Ends | Idle]], *marks: pytest.MarkDecorator) -> list[Any]:
    return [pytest.param(program, checks, id=f"{program}: {name}", marks=marks) for name, checks in table.items()]


@pytest.mark.parametrize(("program", "checks"), [*_checks("bash", BASH), *_checks("zsh", ZSH, pytest.mark.part("zsh"))])
@pytest.mark.check
def test_a_cell_of_a_notebook_gives_exactly_its_output_and_code(
    desk: Desk, program: str, checks: list[Cell | Ends | Idle]
) -> None:
    """The table that the shell's driver passes, through a kernel."""
    zsh = " --zsh" if program == "zsh" else ""
    desk.cell(f"%%tundra sh --fresh{zsh} --cwd /tmp --as r\ntrue")
    pty_id = desk.result("r")["pty_id"]
    shell = _Shell(_Keys(desk, pty_id))
    for check in checks:
        if isinstance(check, Idle):
            _await(check.act(shell))  # type: ignore[arg-type]
            continue
        code = f"%%tundra sh{zsh} --as r\n{check.text or ' '}"  # IPython takes no empty cell
        if isinstance(check, Cell) and check.act is not None:
            ran = _acted(desk, code, check.act, check.go, pty_id, shell)
        else:
            ran = desk.cell(code)
        told = "" if ran.error is None else ran.traceback
        assert not told, told
        found = desk.result("r")
        _check_output(check.out, found["raw"])
        if isinstance(check, Ends):
            assert (found["exit_code"], found["exit_signal"], found["is_shell_ended"]) == (
                check.code,
                check.signal,
                True,
            )
        else:
            assert not found["is_shell_ended"]
            assert check.code is None or found["exit_code"] == check.code


def _acted(
    desk: Desk, code: str, act: Callable[[Any], Awaitable[object]], go: bytes, pty_id: str, shell: _Shell
) -> Ran:
    pty = desk.client.ptys[pty_id]
    before = pty.info.bytes_out
    started = desk.notebook.start(code)
    wait_until(lambda: go in pty.output[before:], 20, f"{go!r} is shown")
    time.sleep(0.05)  # what printed it goes on to whatever waits for the act
    _await(act(shell))
    return desk.notebook.finish(started)


def _await(act: Awaitable[object]) -> None:
    async def run() -> None:
        await act

    asyncio.run(run())


def _check_output(wanted: str | bytes | re.Pattern[str], text: str) -> None:
    if isinstance(wanted, re.Pattern):
        assert wanted.search(text), text
        return
    plain = wanted.decode(errors="replace").replace("\r\n", "\n") if isinstance(wanted, bytes) else wanted
    assert text == plain


# --- dialogues and the pool ------------------------------------------------------------------------------------------


def test_a_dialogue_waits_sends_and_keeps_its_secret(desk: Desk) -> None:
    script = (
        "printf 'user: '; read u; printf 'password: '; sleep 0.05; read -s p; echo; echo hello $u ${#p} $p; sleep 9"
    )
    desk.cell(f"p = %tundra pty open {script}")
    desk.cell("%tundra pty expect {{p.pty_id}} 'user: ' --send joe")
    ran = desk.cell("%tundra pty expect {{p.pty_id}} 'password: ' --send-env DIALOGUE_PASSWORD")
    assert ran.error is None, ran.traceback
    ran = desk.cell("m = %tundra pty expect {{p.pty_id}} 'hello (\\w+) (\\d+) (\\S+)'\nprint(m.groups)")
    assert re.fullmatch(r"\('joe', '23', '\*+\[DIALOGUE_PASSWORD\]\*+'\)", ran.stdout.strip())
    shown = desk.cell("%tundra pty show {{p.pty_id}}")
    assert "hello joe 23 **[" in shown.text
    log = (desk.folder / "data" / "logs" / "daemon.log").read_text()
    transcript = desk.client.ptys[desk.notebook.value("p.pty_id")].text
    assert "swordfish" not in shown.text + shown.html + log + transcript
    desk.cell("done = %tundra pty kill {{p.pty_id}}")


def test_a_secret_is_not_typed_while_the_terminal_shows_it(desk: Desk) -> None:
    pty_id = desk.open("printf 'name? '; until read -t 1 x; do printf .; done")
    lines = desk.error(f"%tundra pty expect {pty_id} 'name' --send-env DIALOGUE_PASSWORD")
    assert "was not sent" in lines[0]
    assert "NO_SUCH_NAME is not set here" in desk.error(f"%tundra pty expect {pty_id} . --send-env NO_SUCH_NAME")[0]
    desk.client.ptys[pty_id].close()


def test_an_expectation_that_is_not_met_times_out(desk: Desk) -> None:
    pty_id = desk.open("echo this; sleep 9")
    assert desk.error(f"%tundra pty expect {pty_id} that --timeout 0.2")[0].startswith("Timeout: ")
    desk.client.ptys[pty_id].close()


def test_python_expects_several_patterns_and_the_end(desk: Desk) -> None:
    ran = desk.cell(
        "import re, pexpect, tundra_nb\nt = tundra_nb.connect()\np = t.ptys.open('echo One; sleep 0.1; echo two')\n"
        "a = p.expect(['two', re.compile('one', re.I)])\nb = p.expect(['never', pexpect.EOF])\n"
        "print(a.index, a.after, b.index, p.id in t.ptys.ids())"
    )
    assert ran.error is None, ran.traceback
    assert ran.stdout.split()[:3] == ["1", "One", "1"]


def test_list_show_resize_export_and_kill(desk: Desk) -> None:
    desk.cell("p = %tundra pty open printf 'gr\\303\\274n \\033[32mok\\033[0m'; sleep 30")
    pty_id = desk.notebook.value("p.pty_id")
    wait_until(lambda: "ok" in desk.client.ptys[pty_id].text)
    assert pty_id in desk.notebook.value("set(get_ipython().run_line_magic('tundra', 'pty list')['pty_id'])")
    shot = desk.cell(f"%tundra pty show {pty_id}")
    assert "grün ok" in shot.text
    assert re.search(r'<span style="color: #\w+">ok</span>', shot.html)
    desk.cell(f"done = %tundra pty resize {pty_id} --rows 10 --columns 40")
    assert desk.client.ptys[pty_id].screen.columns == 40
    assert desk.error(f"%tundra pty resize {pty_id} --rows 0 --columns 0")[0].startswith(
        "UsageError: a terminal of 0 × 0"
    )
    desk.cell(f"%tundra pty export {pty_id} session.cast")
    cast = [json.loads(line) for line in (desk.folder / "session.cast").read_text().splitlines()]
    assert (cast[0]["version"], cast[0]["width"]) == (2, 80)
    assert list(map(int, next(event[2] for event in cast[1:] if event[1] == "r").split("x"))) == [40, 10]
    desk.cell(f"done = %tundra pty kill {pty_id}")
    assert "has ended" in desk.error(f"%tundra pty send {pty_id} x")[0]
    assert set(desk.client.ptys[pty_id].events["kind"]) == {"output", "resize"}


def test_a_full_pool_says_who_holds_it(desk: Desk) -> None:
    held = [desk.open("sleep 4711") for _ in range(CAPACITY - len(desk.client.ptys.ids()))]
    lines = desk.error("%tundra run true")
    assert lines[0].startswith(f"AtCapacity: all {CAPACITY} PTYs are in use")
    assert held[0] in lines[0]
    for pty_id in held:
        desk.client.ptys[pty_id].close()
    assert "refused" in set(desk.client.ptys.history()["event"])


def test_ten_megabytes_of_input_arrive_and_a_long_line_is_warned_of(desk: Desk) -> None:
    pty_id = desk.open("stty raw -echo; echo go; head -c 10000000 | cksum; sleep 9")
    pty = desk.client.ptys[pty_id]
    pty.expect("go")
    pty.send("x" * 10_000_000)
    size = int(pty.expect(r"\d+ (\d+)", timeout=30).groups[0] or 0)
    assert size == 10_000_000
    pty.close()
    pty_id = desk.open("cat >/dev/null")
    assert "drops all beyond 4,095" in desk.client.ptys[pty_id].send("x" * 5000)
    desk.client.ptys[pty_id].close()


def test_transcripts_are_searched_and_a_hopeless_pattern_ends(desk: Desk) -> None:
    desk.cell("%tundra run echo -e 'needle-\\e[31m41\\e[0m' needle-42; printf 'a%.0s' $(seq 40); echo '!'")
    ran = desk.cell("hits = %tundra pty search needle-\\d+$\nprint(list(hits.columns), list(hits['line'])[:1])")
    assert ran.stdout.strip() == "['pty_id', 'at', 'line', 'offset', 'command'] ['needle-41 needle-42']"
    began = time.monotonic()
    assert desk.cell("%tundra pty search (a+)+$").text == "no rows yet: it was broken off before the end"
    assert time.monotonic() - began < 15


def test_an_idle_terminal_is_ended_but_no_command_and_no_shell(desk: Desk) -> None:
    desk.cell("%%tundra sh --fresh\nword=kept")
    terminal = desk.open("sleep 4711")
    busy = desk.open("while :; do :; done")
    ran = desk.cell(f"%tundra run sleep {IDLE_SECONDS + 1.5}; echo done")
    assert ran.text.startswith("done")
    assert desk.cell("%%tundra sh\necho $word").text.startswith("kept")
    with pytest.raises(HandleNotFound, match="idle for"):
        desk.client.ptys[terminal].send("x")
    assert busy in desk.client.ptys.ids()
    desk.client.ptys[busy].close()


def test_the_history_tells_each_step(desk: Desk) -> None:
    desk.cell("r = %tundra run exit 6")
    pty_id = desk.result("r")["pty_id"]
    ran = desk.cell("h = %tundra pty-history --since 1h\nprint(list(h.columns)[:11])")
    assert ran.error is None, ran.traceback
    columns = [*COLUMNS, "event_id", "event"]
    assert ran.stdout.strip() == str(columns)
    frame = desk.client.ptys.history()
    assert list(frame[frame["pty_id"] == pty_id].sort_values("event_id")["event"]) == ["started", "exited"]


def test_clean_shows_what_it_would_remove_and_never_our_own(desk: Desk) -> None:
    pty_id = desk.open("sleep 4711")
    dead = desk.folder / "data" / "ptys" / "transcripts" / "aaa.out"
    dead.write_text("old")
    os.utime(dead, (0, 0))
    shown = desk.client.ptys.clean()
    assert "process" not in set(shown["kind"])
    assert str(dead) in set(shown["name"])
    assert dead.exists()
    assert "Nothing was removed yet" in desk.cell("%tundra clean").stdout
    assert pty_id in desk.client.ptys.ids()
    desk.client.ptys[pty_id].close()


# --- the command line ------------------------------------------------------------------------------------------------


def test_the_command_line_runs_expects_and_searches(home: Home) -> None:
    done = home.run("run", "echo hello; exit 3")
    assert (done.returncode, done.stdout) == (1, "hello\n")
    assert "exit code 3" in done.stderr
    opened = home.run("pty", "open", "--json", "printf 'who? '; read x; echo hi $x; sleep 30")
    pty_id = json.loads(opened.stdout)["pty_id"]
    assert home.run("pty", "expect", pty_id, "who", "--send", "me").returncode == 0
    assert home.run("pty", "expect", pty_id, "hi me").returncode == 0
    assert "hi me" in home.run("pty", "show", pty_id, "--text").stdout
    assert home.run("pty", "kill", pty_id).returncode == 0
    assert home.run("pty", "kill", "nope").returncode == 1
    assert "hi me" in home.run("pty", "search", "hi m.").stdout


# --- kill -9 ---------------------------------------------------------------------------------------------------------


def test_nothing_of_a_killed_daemon_outlives_it_and_its_sessions_have_an_end(home: Home) -> None:
    """Within 3 s and without a restart; a foreign process that resembles them lives."""
    program = shutil.which("sleep")
    assert program is not None
    foreign = subprocess.Popen([program, "4712"], start_new_session=True)
    try:
        with tundra_nb.connect() as t:
            t.sh("sleep 4712 & disown; (trap '' HUP; sleep 4712) & true")
            ids = [
                t.ptys.open(command).id
                for command in (
                    "sleep 4712",
                    "nohup sleep 4712 >/dev/null 2>&1 & echo started; wait",
                    "setsid sleep 4712 & echo started; wait",
                    "trap '' HUP TERM; echo started; while :; do sleep 4712; done",
                )
            ]
            ids += [pty_id for pty_id in t.ptys.ids() if pty_id not in ids]
            wait_until(lambda: len(_sleepers("4712")) >= 7)
            transcript = home.folder / "data" / "ptys" / "transcripts" / f"{ids[1]}.out"
            wait_until(lambda: transcript.read_bytes().startswith(b"started"))
            daemon = t.status().pid
        os.kill(daemon, signal.SIGKILL)
        wait_until(lambda: _sleepers("4712") == {foreign.pid}, 3.5, "all children are gone")
        with tundra_nb.connect() as t:
            events = t.ptys.history()
            for pty_id in ids:
                told = set(events[events["pty_id"] == pty_id]["event"])
                assert told & {"lost", "orphan_ended"}, (pty_id, told)
            assert t.ptys[ids[1]].text.startswith("started")
        assert foreign.poll() is None
    finally:
        foreign.kill()
        foreign.wait()


def _sleepers(seconds: str = "4711") -> set[int]:
    found = set()
    for process in psutil.process_iter():
        try:
            if process.cmdline()[-2:] == ["sleep", seconds] or process.cmdline()[1:] == [seconds]:
                found.add(process.pid)
        except psutil.Error:
            continue
    return found
