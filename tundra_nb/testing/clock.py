"""A clock that stands still until it is told to advance: the one that replays run on."""

from tundra_nb.runtime.rehearsal.clock import ROUNDING, SETTLING_ROUNDS, VirtualClock, VirtualDeadline, VirtualTimer

__all__ = ["ROUNDING", "SETTLING_ROUNDS", "VirtualClock", "VirtualDeadline", "VirtualTimer"]
