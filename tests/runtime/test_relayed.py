"""A program's own body as a request."""

from __future__ import annotations

import json
import threading
from typing import Any

import msgspec
import pytest

from tests.runtime.calls import calls
from tundra_nb.runtime.profiles import ProfileSlot
from tundra_nb.runtime.providers import bodies
from tundra_nb.runtime.providers.check import BIG_BYTES
from tundra_nb.runtime.providers.relay import CallerBody
from tundra_nb.runtime.relayed import Choice, Relayed
from tundra_nb.runtime.rows import CallFacts

pytestmark = pytest.mark.anyio


class Watched(dict[str, msgspec.Raw]):
    """Members that know which threads have read them all."""

    threads: set[int]

    def items(self) -> Any:
        self.threads.add(threading.get_ident())
        return super().items()


def watched(text: str) -> Watched:
    found = Watched(
        bodies.members(json.dumps({"model": "m", "messages": [{"role": "user", "content": text}]}).encode())
    )
    found.threads = set()
    return found


def asking(slot: ProfileSlot, members: Watched) -> Relayed:
    given = CallerBody(form="messages", body=msgspec.json.encode(members), members=members)
    return Relayed(given, CallFacts(), [Choice(slot.profile)], failover=True)


@pytest.mark.parametrize(("size", "is_apart"), [(10, False), (BIG_BYTES, True)])
async def test_a_big_body_is_translated_in_a_thread(size: int, is_apart: bool) -> None:
    async with calls("one") as c:
        slot = c.slots["one"]
        members = watched("x" * size)
        assert await asking(slot, members).unable(slot) is None
        assert (threading.get_ident() not in members.threads) is is_apart
        assert len(members.threads) == 1


@pytest.mark.parametrize(
    "body", [b"{}", b'{"a": [], "b": [1, [2, {"c": null}], "x"], "d": {"e": []}}', b'{"n": 1e400}']
)
def test_a_body_read_item_by_item_is_what_it_is_read_at_once(body: bytes) -> None:
    def read(how: Any) -> Any:
        try:
            return how()
        except msgspec.DecodeError as exc:
            return type(exc)

    assert read(lambda: bodies.decoded(bodies.members(body))) == read(lambda: msgspec.json.decode(body))
