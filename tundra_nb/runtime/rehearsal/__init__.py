"""Rehearsals: recorded calls run again through today's parts, on a clock of their own.

- `trace.py`: recorded calls as plain data, and what each provider was seen to do.
- `simulate.py`: their arrivals through the same limiter, breaker and router, by the million.
- `replay.py`: the calls themselves through today's operations, with recorded providers behind them.
- `clock.py`: the virtual clock.

It is apart because it takes time and memory: it runs in the process of whoever asks, never in a daemon, over plain data
and with no network. So the rooms above the client may import it, which they may of nothing else in the runtime.
"""
