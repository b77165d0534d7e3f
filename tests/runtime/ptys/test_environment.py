"""Children get the daemon's environment without its keys."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tundra_nb.errors import UsageError
from tundra_nb.runtime.ptys.environment import build
from tundra_nb.runtime.ptys.pool import PtyPool
from tundra_nb.runtime.ptys.pty import Pty
from tundra_nb.runtime.telemetry.redact import looks_like_key

OutputOf = Callable[[Pty], Awaitable[bytes]]
CANARY = "canary-4f1d2c3b5a69"
KEYS = {
    "ANTHROPIC_API_KEY": "sk-ant-" + CANARY,
    "MY_PROFILE": "custom-" + CANARY,
    "GITHUB_TOKEN": "ghp_" + CANARY,
    "DATABASE_URL": "postgres://me:" + CANARY + "@db/x",
    "MYSQL_PWD": "pw-" + CANARY,
    "AWS_SECRET_ACCESS_KEY": "aws/" + CANARY,
    "SOMETHING": "sk-proj-" + CANARY.replace("-", ""),
}


@pytest.mark.anyio
async def test_no_key_is_inherited_nor_readable_in_proc(make_pool: Callable[..., PtyPool], output_of: OutputOf) -> None:
    async with make_pool(environ={**KEYS, "PLAIN": "yes"}, key_variables=("MY_PROFILE",)) as pool:
        pty = await pool.spawn("env; tr '\\0' '\\n' </proc/self/environ; tr '\\0' '\\n' </proc/$$/environ")
        output = await output_of(pty)
        assert CANARY.encode() not in output
        assert b"MY_PROFILE" not in output
        assert output.count(b"PLAIN=yes") >= 2
        assert set(pty.withheld) == set(KEYS)


@pytest.mark.anyio
async def test_a_key_let_through_by_name_is_usable_but_masked(
    make_pool: Callable[..., PtyPool], output_of: OutputOf
) -> None:
    async with make_pool(environ=KEYS, key_variables=("MY_PROFILE",)) as pool:
        pty = await pool.spawn("test ${#MY_PROFILE} = 26 && echo $MY_PROFILE; env", with_keys=["MY_PROFILE"])
        output = await output_of(pty)
        assert pty.exit_code == 0
        assert b"[MY_PROFILE]" in output
        assert CANARY.encode() not in output
        assert CANARY.encode() not in pty.transcript.read_bytes()


@pytest.mark.anyio
async def test_a_secret_that_comes_in_pieces_is_masked_in_ring_and_transcript(
    make_pool: Callable[..., PtyPool], output_of: OutputOf
) -> None:
    async with make_pool(secrets={"KEY": "sk-" + CANARY}) as pool:
        pty = await pool.spawn(f"printf sk-; sleep 0.12; printf {CANARY[:9]}; sleep 0.12; echo {CANARY[9:]}; echo end")
        output = await output_of(pty)
        assert output.startswith((b"sk-*", b"***"))  # on a busy machine the pieces come as one
        assert output.endswith(b"\r\nend\r\n")
        assert CANARY[9:].encode() not in output
        assert pty.transcript.read_bytes() == output


@pytest.mark.anyio
async def test_a_secret_in_the_command_is_masked_in_events_and_lists(
    make_pool: Callable[..., PtyPool], events: list[object]
) -> None:
    async with make_pool(secrets={"KEY": "sk-" + CANARY}) as pool:
        pty = await pool.spawn(f"true sk-{CANARY}")
        await pty.released.wait()
    assert CANARY not in repr(events) + repr(pty) + repr(pty.info())
    assert all(CANARY not in path.read_text() for path in pool.transcripts.iterdir())


@pytest.mark.anyio
async def test_keys_that_appear_later_are_masked_in_open_sessions(make_pool: Callable[..., PtyPool]) -> None:
    secrets: dict[str, str] = {"OLD": "old-secret"}
    async with make_pool(secrets=secrets) as pool:
        pty = await pool.spawn("stty -echo; echo up; cat")
        viewer = pty.viewer()
        await viewer.read()
        secrets["NEW"] = "new-" + CANARY
        pool.refresh_secrets()
        await pty.write(f"new-{CANARY} old-secret\n".encode())
        chunk = await viewer.read()
        assert chunk is not None
        assert b"[NEW]" in chunk.data
        assert CANARY.encode() not in chunk.data


def test_an_unknown_name_in_with_keys_is_refused() -> None:
    with pytest.raises(UsageError, match="NOT_SET"):
        build({}, {}, mark="m", key_variables=(), with_keys=["NOT_SET"], offered={})


@given(st.dictionaries(st.text("ABCKEYTOKN_", min_size=1, max_size=12), st.text(max_size=20), max_size=8))
def test_no_value_of_a_withheld_variable_is_passed(inherited: dict[str, str]) -> None:
    child = build(inherited, {}, mark="m", key_variables=("A",), offered={})
    assert "A" not in child.variables
    for name, value in inherited.items():
        if name in child.variables and name != "TERM":
            assert not looks_like_key(name, value)
