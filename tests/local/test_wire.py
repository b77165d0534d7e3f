"""HTTP/1.1 as the blocking client reads it."""

from __future__ import annotations

import itertools
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tundra_nb.errors import IpcError
from tundra_nb.local.place import Place
from tundra_nb.local.wire import MAX_HEAD_BYTES, BadAnswer, Response, Wire


def answered(raw: bytes, cuts: list[int] | None = None) -> tuple[Response, bytes]:
    """What the client reads when the other side sends these bytes, cut there, and closes."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        wire = Wire(Place(socket="/unused"))
        wire.sock = ours
        wire.set_timeout(5)
        edges = sorted({0, len(raw), *(cut % (len(raw) + 1) for cut in cuts or [])})

        def send() -> None:
            for a, b in itertools.pairwise(edges):
                theirs.sendall(raw[a:b])
            theirs.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send)
        sender.start()
        try:
            response = wire.exchange("GET", "/x", {})
            return response, response.read()
        finally:
            sender.join()


@given(
    body=st.binary(max_size=400),
    sizes=st.lists(st.integers(1, 90), max_size=8),
    cuts=st.lists(st.integers(0), max_size=5),
)
def test_a_body_is_whole_however_it_is_framed_and_cut(body: bytes, sizes: list[int], cuts: list[int]) -> None:
    chunks, rest = [], body
    for size in [*sizes, 401]:
        chunk, rest = rest[:size], rest[size:]
        if chunk:
            chunks.append(b"%x;ext=1\r\n%b\r\n" % (len(chunk), chunk))
    head = b"HTTP/1.1 200 OK\r\nX-Twice: a:b \r\n"
    chunked = head + b"Transfer-Encoding: chunked\r\n\r\n" + b"".join(chunks) + b"0\r\ntrailer: x\r\n\r\n"
    for raw, keeps in (
        (chunked, True),
        (head + b"Content-Length: %d\r\n\r\n" % len(body) + body, True),
        (head + b"\r\n" + body, False),
    ):
        response, found = answered(raw, cuts)
        assert (found, response.status, response.headers["x-twice"]) == (body, 200, "a:b")
        assert response.keeps_alive is keeps


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 300 + b"\r\n",
    ],
)
def test_what_is_cut_or_no_http_is_a_lost_connection(raw: bytes) -> None:
    with pytest.raises(BadAnswer):
        answered(raw)


def test_an_interim_answer_is_passed_over() -> None:
    assert answered(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n")[0].status == 204


def test_the_head_of_an_answer_may_not_go_on_for_ever() -> None:
    with pytest.raises(BadAnswer, match="no end"):
        answered(b"HTTP/1.1 200 OK\r\nx: " + b"y" * (MAX_HEAD_BYTES + 1))


def test_a_socket_of_another_user_is_refused_before_anything_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        monkeypatch.setattr("os.geteuid", lambda: os.getuid() + 1)
        with pytest.raises(IpcError, match="belongs to uid"):
            Wire(Place(socket=str(tmp_path / "s"))).exchange("GET", "/api/status", {})


@pytest.fixture
def silent() -> Iterator[Wire]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        wire = Wire(Place(socket="/unused"))
        wire.sock = ours
        yield wire


def test_silence_is_a_timeout_and_a_close_is_seen_before_the_next_use(silent: Wire) -> None:
    assert not silent.is_stale
    silent.set_timeout(0.05)
    with pytest.raises(TimeoutError):
        silent.exchange("GET", "/x", {})
    silent.close()
    assert silent.is_stale
