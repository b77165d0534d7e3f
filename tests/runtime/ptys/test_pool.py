"""Starting, finding, steering and refusing sessions."""

from __future__ import annotations

import asyncio
import os
import resource
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tundra_nb.errors import AtCapacity, HandleNotFound, SpawnFailed, Timeout, UsageError
from tundra_nb.runtime.ptys.pool import PtyPool
from tundra_nb.runtime.ptys.pty import Pty
from tundra_nb.runtime.ptys.spawn import Size

OutputOf = Callable[[Pty], Awaitable[bytes]]


@pytest.mark.anyio
async def test_a_command_line_runs_on_a_terminal_with_its_directory_environment_and_size(
    pool: PtyPool, output_of: OutputOf
) -> None:
    pty = await pool.spawn(
        "tty >&2; pwd; stty size; echo $X | tr a-z A-Z", cwd="/usr", env={"X": "yes"}, size=Size(132, 43)
    )
    lines = (await output_of(pty)).decode().split("\r\n")
    assert lines[0].startswith("/dev/")
    assert lines[1:] == ["/usr", "43 132", "YES", ""]
    assert (await pty.wait()).code == 0


@pytest.mark.anyio
async def test_a_program_with_arguments_is_started_as_it_is(pool: PtyPool, output_of: OutputOf) -> None:
    assert await output_of(await pool.spawn(["printf", "%s|", "a b", "$HOME"])) == b"a b|$HOME|"


@pytest.mark.anyio
async def test_the_leader_has_the_terminal_and_default_signals(pool: PtyPool, output_of: OutputOf) -> None:
    pty = await pool.spawn(
        "ps -o pid=,sid=,pgid=,tpgid= -p $$; grep -E 'Sig(Ign|Blk)' /proc/self/status; ls /proc/self/fd"
    )
    output = (await output_of(pty)).decode()
    assert set(output.splitlines()[0].split()) == {str(pty.pid)}
    masks = [int(line.split()[1], 16) for line in output.splitlines() if line.startswith("Sig")]
    assert [mask & 0x7FFFFFFF for mask in masks] == [0, 0]  # beyond are glibc's own
    assert output.split()[-4:] == ["0", "1", "2", "3"]  # 3 is the open folder of ls itself


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("command", "kind", "words"),
    [
        (["no-such-program"], "not_found", "no such program"),
        (["/no/such/program"], "not_found", "no such program"),
        (["/etc/passwd"], "not_executable", "Permission denied"),
        (["/tmp"], "not_executable", "Permission denied"),
        (["true", "x" * 3_000_000], "arguments", "too long"),
    ],
)
async def test_what_cannot_be_started_is_named_with_the_systems_reason(
    pool: PtyPool, events: list[object], command: list[str], kind: str, words: str
) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(SpawnFailed, match=words) as caught:
        await pool.spawn(command)
    assert caught.value.kind == kind
    assert len(os.listdir("/proc/self/fd")) == before
    assert [event.event for event in events] == ["refused"]  # type: ignore[attr-defined]
    assert pool.list() == []
    assert list(pool.transcripts.iterdir()) == []


@pytest.mark.anyio
async def test_a_script_whose_interpreter_is_missing_is_told_apart_from_a_missing_script(
    pool: PtyPool, tmp_path: Path
) -> None:
    script = tmp_path / "script"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    with pytest.raises(SpawnFailed, match="interpreter"):
        await pool.spawn([str(script)])
    script.write_bytes(b"\x01\x02")
    with pytest.raises(SpawnFailed, match="format"):
        await pool.spawn([str(script)])


@pytest.mark.anyio
@pytest.mark.parametrize("cwd", ["/no/such/folder", "/etc/passwd", "/etc\0/passwd"])
async def test_a_bad_working_directory_is_named(pool: PtyPool, cwd: str) -> None:
    with pytest.raises(SpawnFailed, match=cwd.partition("\0")[0]) as caught:
        await pool.spawn("true", cwd=cwd)
    assert caught.value.kind == "cwd"


@pytest.mark.anyio
async def test_running_out_of_descriptors_is_named_and_leaves_none_open(pool: PtyPool) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    before = len(os.listdir("/proc/self/fd"))
    highest = max(map(int, os.listdir("/proc/self/fd")))
    fillers = [os.dup(0) for _ in range(highest + 1 - before)]
    for room in range(4):
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1 + room, hard))
        try:
            with pytest.raises(SpawnFailed) as caught:
                await pool.spawn("true")
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert caught.value.kind == "descriptors"
    for filler in fillers:
        os.close(filler)
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.anyio
async def test_the_program_is_looked_up_in_the_childs_path(pool: PtyPool, tmp_path: Path, output_of: OutputOf) -> None:
    program = tmp_path / "only-here"
    program.write_text("#!/bin/sh\necho found\n")
    program.chmod(0o755)
    pty = await pool.spawn(["only-here"], env={"PATH": f"{tmp_path}:/usr/bin:/bin"})
    assert await output_of(pty) == b"found\r\n"


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("command", "size"),
    [
        ("a\0b", Size()),
        ([], Size()),
        ([""], Size()),
        ("true", Size(0, 0)),
        ("true", Size(80, -1)),
        ("true", Size(10**6, 24)),
    ],
)
async def test_bad_input_is_refused_before_anything_starts(pool: PtyPool, command: str | list[str], size: Size) -> None:
    with pytest.raises(UsageError):
        await pool.spawn(command, size=size)
    assert pool.list() == []


@pytest.mark.anyio
async def test_a_full_pool_says_who_holds_the_slots(make_pool: Callable[..., PtyPool], events: list[object]) -> None:
    async with make_pool(capacity=2) as pool:
        first = await pool.spawn("sleep 4711")
        await pool.spawn("sleep 4712")
        with pytest.raises(AtCapacity, match=rf"{first.id} 'sleep 4711' for .*'sleep 4712'"):
            await pool.spawn("true")
        assert events[-1].event == "refused"  # type: ignore[attr-defined]
        await pool.release(first.id)
        await pool.spawn("true")


@pytest.mark.anyio
async def test_many_at_once_never_exceed_the_capacity(make_pool: Callable[..., PtyPool]) -> None:
    async with make_pool(capacity=3) as pool:
        results = await asyncio.gather(*(pool.spawn("sleep 4711") for _ in range(10)), return_exceptions=True)
        assert sum(isinstance(result, Pty) for result in results) == 3
        assert sum(isinstance(result, AtCapacity) for result in results) == 7


@pytest.mark.anyio
async def test_an_unknown_id_names_the_nearest_and_an_ended_one_its_end(pool: PtyPool) -> None:
    pty = await pool.spawn("exit 3")
    await pty.released.wait()
    with pytest.raises(HandleNotFound, match="exit code 3"):
        pool.get(pty.id)
    with pytest.raises(HandleNotFound) as caught:
        await pool.release(pty.id[:-1] + "_")
    assert caught.value.nearest == pty.id
    for act in (lambda: pty.write(b"x"), lambda: pool.release(pty.id)):
        with pytest.raises(HandleNotFound, match="exit code 3"):
            await act()
    with pytest.raises(HandleNotFound):
        pty.resize(Size(10, 10))
    assert pty.signal_job(2) is False


@pytest.mark.anyio
async def test_each_step_of_a_session_is_an_event(pool: PtyPool, events: list[object]) -> None:
    pty = await pool.spawn("sleep 4711", user="ada", cwd="/tmp")
    pool.resize(pty.id, Size(100, 30))
    pool.resize(pty.id, Size(100, 30))
    await pool.release(pty.id, "no longer wanted")
    other = await pool.spawn("exit 3")
    await other.released.wait()
    told = [(e.event, e.state, e.exit_code, e.exit_signal, e.message) for e in events]  # type: ignore[attr-defined]
    assert told == [
        ("started", "running", None, None, None),
        ("resized", "running", None, None, "100 × 30"),
        ("killed", "killed", None, "SIGHUP", "no longer wanted"),
        ("started", "running", None, None, None),
        ("exited", "exited", 3, None, None),
    ]
    assert {(e.user_name, e.cwd) for e in events[:3]} == {("ada", "/tmp")}  # type: ignore[attr-defined]
    ids = [event.event_id for event in events]  # type: ignore[attr-defined]
    assert ids == sorted(set(ids))


@pytest.mark.anyio
async def test_a_resize_reaches_the_program_and_the_index(pool: PtyPool) -> None:
    pty = await pool.spawn("trap 'stty size; exit' WINCH; echo up; while :; do sleep 0.01; done", size=Size(80, 24))
    viewer = pty.viewer()
    await viewer.read()
    pty.resize(Size(100, 30))
    await pty.wait(5)
    await pty.released.wait()
    assert pty.read(0).data == b"up\r\n30 100\r\n"
    head, marks = pty.events()
    assert (head.columns, head.rows, head.id) == (80, 24, pty.id)
    assert [(m["columns"], m["rows"]) for m in marks if "columns" in m] == [(100, 30)]
    assert [m["end"] for m in marks if "end" in m][-1] == pty.end


@pytest.mark.anyio
async def test_all_output_is_there_when_the_exit_is_reported(pool: PtyPool) -> None:
    for size in (1, 100, 4096, 60_000):
        pty = await pool.spawn(f"head -c {size} /dev/zero | tr '\\0' x")
        await pty.wait(5)
        assert pty.end == size


@pytest.mark.anyio
async def test_output_of_a_command_whose_child_keeps_the_terminal_is_whole_at_its_exit(pool: PtyPool) -> None:
    pty = await pool.spawn("(trap '' HUP; sleep 0.3) & echo done; exit 7")
    assert (await pty.wait(5)).code == 7
    assert pty.read(0).data == b"done\r\n"


@pytest.mark.anyio
async def test_waiting_has_a_deadline_and_the_command_goes_on(pool: PtyPool) -> None:
    pty = await pool.spawn("sleep 4711")
    with pytest.raises(Timeout, match=r"longer than 0\.05 s"):
        await pty.wait(0.05)
    assert pty.state == "running"


@pytest.mark.anyio
async def test_an_interrupt_reaches_the_command_and_grows_harder(pool: PtyPool) -> None:
    soft = await pool.spawn("sleep 4711")
    assert await soft.interrupt() == "SIGINT"
    assert soft.exit_signal == "SIGINT"
    hard = await pool.spawn("trap '' INT TERM; echo up; while :; do sleep 1; done")
    await hard.viewer().read()
    assert await hard.interrupt(patience=0.1) == "SIGKILL"
    assert hard.exit_signal == "SIGKILL"


@pytest.mark.anyio
async def test_ten_megabytes_of_input_arrive_whole(pool: PtyPool, output_of: OutputOf) -> None:
    data = bytes(range(32, 127)) * 110_377
    pty = await pool.spawn(f"stty raw -echo; echo up; head -c {len(data)} | sha256sum")
    await pty.viewer().read()
    assert await pty.write(data) == ""
    import hashlib

    assert hashlib.sha256(data).hexdigest().encode() in await output_of(pty)


@pytest.mark.anyio
async def test_a_line_that_the_kernel_will_cut_is_warned_about(pool: PtyPool) -> None:
    pty = await pool.spawn("stty -echo; echo up; sleep 4711")
    await pty.viewer().read()
    assert await pty.write(b"x" * 4000 + b"\n") == ""
    assert await pty.write(b"x" * 3000) == ""
    assert "4,100 bytes" in await pty.write(b"x" * 1100 + b"\n")
    assert await pty.write(b"short\n") == ""


@pytest.mark.anyio
async def test_writing_to_a_program_that_does_not_read_waits_and_ends_with_the_session(pool: PtyPool) -> None:
    pty = await pool.spawn("stty raw -echo; echo up; sleep 4711")
    await pty.viewer().read()
    writing = asyncio.create_task(pty.write(b"x" * 1_000_000))
    await asyncio.sleep(0.05)
    assert not writing.done()
    await pool.release(pty.id)
    with pytest.raises(HandleNotFound):
        await writing


@pytest.mark.anyio
async def test_a_leader_that_closes_and_reopens_its_terminal_is_heard_again(pool: PtyPool, output_of: OutputOf) -> None:
    pty = await pool.spawn(
        "exec </dev/null >/dev/null 2>&1; sleep 0.1; echo back >/dev/tty; sleep 1.2; echo end >/dev/tty"
    )
    assert await output_of(pty) == b"back\r\nend\r\n"


@pytest.mark.anyio
async def test_ids_are_short_and_not_used_again_after_a_restart(make_pool: Callable[..., PtyPool]) -> None:
    seen = set()
    for _ in range(2):
        async with make_pool() as pool:
            for _ in range(5):
                pty = await pool.spawn("true")
                seen.add(pty.id)
                await pty.released.wait()
    assert len(seen) == 10
    assert all(len(pty_id) <= 7 for pty_id in seen)


@pytest.mark.anyio
async def test_transcripts_are_private_and_deleted_after_their_time(make_pool: Callable[..., PtyPool]) -> None:
    async with make_pool() as pool:
        old, new = await pool.spawn("echo old"), await pool.spawn("echo new")
        await asyncio.gather(old.released.wait(), new.released.wait())
        assert {path.stat().st_mode & 0o777 for path in pool.transcripts.iterdir()} == {0o600}
        assert pool.transcripts.stat().st_mode & 0o777 == 0o700
    os.utime(old.transcript, (0, 0))
    async with make_pool() as pool:
        left = {path.name for path in pool.transcripts.iterdir()}
    assert left == {f"{new.id}.out", f"{new.id}.jsonl"}


@pytest.mark.anyio
async def test_a_closed_pool_takes_no_session(make_pool: Callable[..., PtyPool]) -> None:
    pool = make_pool()
    with pytest.raises(UsageError, match="closed"):
        await pool.spawn("true")
    async with pool:
        pass
    with pytest.raises(UsageError, match="closed"):
        await pool.spawn("true")


@pytest.mark.anyio
async def test_cpu_time_counts_as_work_for_the_idle_time(pool: PtyPool) -> None:
    pty = await pool.spawn("while :; do :; done")
    await asyncio.sleep(0.15)
    before = pty.idle_seconds
    await pool._sweep(is_work_looked_at=True)
    assert pty.idle_seconds < before
