"""The life of connections, on a clock that the test moves."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tundra_nb.runtime.ptys.heartbeat import Heartbeat
from tundra_nb.runtime.ptys.life import ALLOWED, READY_SECONDS, Peer, Rules, TerminalLife, Transition, ViewerConnection
from tundra_nb.testing.clock import VirtualClock

RULES = Rules(grace=10.0, lab_grace=45.0, idle=300.0)


def steps(moved: list[Transition]) -> list[tuple[str | None, str, str]]:
    return [(step.old, step.new, step.reason) for step in moved]


def opened(life: TerminalLife, now: float, peer: Peer = "viewer", viewer: str = "") -> ViewerConnection:
    one, _ = life.connect(now, peer, "ada", viewer)
    life.establish(now, one)
    return one


@pytest.fixture
def life() -> TerminalLife:
    return TerminalLife("viewers", lambda: RULES)


def test_a_terminal_is_not_ended_before_a_first_viewer_came(life: TerminalLife) -> None:
    """Its time runs from the end of its last viewer, so without one it only ends when it is idle."""
    assert life.tick(299.0, 299.0) == ([], "")
    assert life.tick(300.0, 300.0)[1] == "idle for 300 s"


@pytest.mark.parametrize(("peer", "grace"), [("viewer", 10.0), ("lab", 45.0)])
def test_the_grace_begins_when_the_last_viewer_goes_and_a_new_one_ends_it(
    life: TerminalLife, peer: Peer, grace: float
) -> None:
    first = opened(life, 0.0, peer)
    assert steps(life.lose(100.0, first, "lost")) == [("active", "lost", "lost")]
    assert life.tick(100.0 + grace - 0.1, 0.0) == ([], "")
    back, moved = life.connect(100.0 + grace - 0.1, peer, "ada")
    assert (back, moved) == (first, [])
    assert steps(life.establish(100.0 + grace, back)) == [("lost", "active", "resumed")]
    life.lose(200.0, back, "lost")
    moved, why = life.tick(200.0 + grace, 0.0)
    assert steps(moved) == [("lost", "ended", "grace_over")]
    assert why == f"no viewer came back within {grace:g} s"


def test_a_goodbye_starts_the_same_grace(life: TerminalLife) -> None:
    """However the last viewer went."""
    assert steps(life.leave(5.0, opened(life, 0.0), "closed_by_peer", 1000)) == [("active", "ended", "closed_by_peer")]
    assert life.tick(14.9, 0.0)[1] == ""
    assert life.tick(15.0, 0.0)[1] == "no viewer came back within 10 s"


def test_a_terminal_with_another_viewer_lives_on(life: TerminalLife) -> None:
    gone, stays = opened(life, 0.0), opened(life, 0.0)
    life.lose(1.0, gone, "lost")
    assert life.tick(500.0, 0.0)[1] == ""
    life.lose(600.0, stays, "lost")
    assert life.tick(610.0, 0.0)[1] != ""


def test_the_longer_grace_of_one_that_went_before_counts(life: TerminalLife) -> None:
    lab, other = opened(life, 0.0, "lab"), opened(life, 0.0)
    life.lose(1.0, lab, "lost")
    life.leave(2.0, other, "closed_by_peer")
    assert life.tick(45.9, 0.0)[1] == ""
    assert life.tick(46.0, 0.0)[1] != ""


@pytest.mark.parametrize("keep", ["owner", "always"])
def test_only_a_terminal_that_its_viewers_keep_ends_with_them(keep: Any) -> None:
    life = TerminalLife(keep, lambda: RULES)
    life.lose(1.0, opened(life, 0.0), "lost")
    moved, why = life.tick(5000.0, 5000.0)
    assert steps(moved) == [("lost", "ended", "grace_over")]
    assert why == ""


def test_an_idle_connection_is_active_again_when_something_happens() -> None:
    life = TerminalLife("always", lambda: RULES)
    opened(life, 0.0)
    assert steps(life.tick(300.0, 300.0)[0]) == [("active", "idle", "quiet")]
    assert life.tick(301.0, 301.0)[0] == []
    assert steps(life.tick(302.0, 0.5)[0]) == [("idle", "active", "stirred")]


def test_a_peer_that_never_gets_ready_is_let_go(life: TerminalLife) -> None:
    life.connect(0.0, "viewer", "ada")
    assert steps(life.tick(READY_SECONDS, 0.0)[0]) == [("establishing", "ended", "not_ready")]
    assert life.connections == {}


def test_a_named_viewer_takes_up_its_own_connection_only(life: TerminalLife) -> None:
    mine, other = opened(life, 0.0, viewer="mine"), opened(life, 0.0, viewer="other")
    life.lose(1.0, other, "lost")
    life.lose(2.0, mine, "lost")
    assert life.connect(3.0, "viewer", "ada", "mine")[0] is mine
    assert life.connect(3.0, "viewer", "bob")[0].viewer not in ("mine", "other")


def test_bytes_missed_stand_in_the_next_transition(life: TerminalLife) -> None:
    one = opened(life, 0.0)
    (step,) = life.miss(1.0, one, 4096)
    assert (step.old, step.new, step.reason, step.missed) == ("active", "active", "slow", 4096)
    assert life.lose(2.0, one, "lost")[0].missed == 0


def test_the_window_is_the_smallest_of_the_active_ones(life: TerminalLife) -> None:
    wide, tall = opened(life, 0.0), opened(life, 0.0)
    wide.size, tall.size = (120, 20), (80, 50)
    assert life.size == (80, 20)
    life.lose(1.0, tall, "lost")
    assert life.size == (120, 20)
    life.lose(1.0, wide, "lost")
    assert life.size is None


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["connect", "lab", "establish", "lose", "leave", "miss", "tick", "idle", "end"]),
        st.integers(0, 5),
        st.floats(0, 60),
    ),
    max_size=60,
)


@settings(max_examples=300)
@given(EVENTS, st.sampled_from(["owner", "viewers", "always"]))
def test_whatever_happens_every_step_is_allowed_and_connects_to_the_last(events: Any, keep: Any) -> None:
    """No transition outside the picture, no state skipped, nothing after the end, no verdict while somebody looks."""
    life, now, idle = TerminalLife(keep, lambda: RULES), 0.0, 0.0
    known: list[ViewerConnection] = []
    states: dict[str, str | None] = {}

    def check(moved: list[Transition]) -> None:
        for step in moved:
            assert (step.old, step.new) in ALLOWED
            assert states.get(step.viewer) == step.old
            states[step.viewer] = step.new if step.new != "ended" else None

    for what, which, pause in events:
        now += pause
        idle += pause
        here = [one for one in known if one.viewer in life.connections]
        one = here[which % len(here)] if here else None
        if what in ("connect", "lab"):
            made, moved = life.connect(now, "lab" if what == "lab" else "viewer", "ada")
            known.append(made)
            check(moved)
        elif what == "tick":
            moved, why = life.tick(now, idle)
            check(moved)
            assert not why or (keep == "viewers" and (not life.present or idle >= RULES.idle))
        elif what == "idle":
            idle = 0.0
        elif what == "end":
            check(life.end(now, "exited"))
            assert life.connections == {}
        elif one is not None:
            is_waiting = one.state == "establishing" or one.is_coming
            if what == "establish" and is_waiting:
                check(life.establish(now, one))
            elif what == "lose" and (one.state != "lost" or one.is_coming):
                check(life.lose(now, one, "lost"))
            elif what == "leave" and one.state != "lost":
                check(life.leave(now, one, "closed_by_peer"))
            elif what == "miss":
                check(life.miss(now, one, 1))
    assert set(life.connections) == {viewer for viewer, state in states.items() if state is not None}


def test_a_peer_is_pinged_after_each_rest_and_dead_without_its_pong() -> None:
    """Ping every 30 s, pong within 10 s, on the virtual clock."""
    clock = VirtualClock()
    heart = Heartbeat(30.0, 10.0, clock.monotonic())
    for _ in range(3):
        clock.advance(29.9)
        assert heart.due(clock.monotonic()) == "nothing"
        clock.advance(0.1)
        assert heart.due(clock.monotonic()) == "ping"
        clock.advance(9.9)
        assert heart.due(clock.monotonic()) == "nothing"
        heart.heard(clock.monotonic())
    clock.advance(30.0)
    assert heart.due(clock.monotonic()) == "ping"
    clock.advance(10.0)
    assert heart.due(clock.monotonic()) == "dead"


def test_a_pong_that_nobody_asked_for_changes_nothing() -> None:
    heart = Heartbeat(30.0, 10.0, 0.0)
    heart.heard(29.0)
    assert heart.due(30.0) == "ping"


def test_a_peer_that_does_not_read_gets_longer_but_not_for_ever() -> None:
    """The ping stands behind what it has not read."""
    heart = Heartbeat(30.0, 10.0, 0.0)
    assert heart.due(30.0) == "ping"
    for now in (40.0, 50.0, 60.0):
        assert heart.due(now, is_full=True) == "nothing"
    assert heart.due(70.0, is_full=True) == "dead"
    slow = Heartbeat(30.0, 10.0, 0.0)
    assert slow.due(30.0) == "ping"
    assert slow.due(40.0, is_full=True) == "nothing"
    assert slow.due(50.0) == "dead"


def test_a_peer_that_we_do_not_read_from_is_not_dead() -> None:
    """Its pong stands behind what it has typed, and the program does not take that."""
    heart = Heartbeat(30.0, 10.0, 0.0)
    assert heart.due(30.0) == "ping"
    for now in (40.0, 50.0, 60.0):
        assert heart.due(now, is_deaf=True) == "nothing"
    assert heart.due(70.0) == "dead"
